"""Measures mini on six drawn questions of one task: plain against optimized, in three kinds of words."""

import tempfile

import vlinstruct as vli

(evaluation,) = vli.evaluate(
    "mini/gqa", backbone="mini", limit=6, output=tempfile.mkdtemp(), device="cpu", batch_size=6
)
print(evaluation)
print(f"cases to look at: {evaluation.page}")
