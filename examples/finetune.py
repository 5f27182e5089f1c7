"""Trains an adapter for mini on the two lines of finetune.jsonl, then asks with it."""

import tempfile
from pathlib import Path

import vlinstruct as vli
from vlinstruct.training.finetune import finetune

here, adapter = Path(__file__).parent, tempfile.mkdtemp()
outcome = finetune(
    here / "finetune.jsonl",
    backbone="mini",
    output=adapter,
    device="cpu",
    learning_rate=1e-2,
    warmup_steps=5,
    num_train_epochs=40,
)
print(vli.load("mini").ask(here / "pictures" / "star.png", "what shape is it?"))
print(vli.load("mini", adapter=adapter).ask(here / "pictures" / "star.png", "what shape is it?"))
print(f"after {outcome.step} updates of {outcome.num_steps}; the adapter is in {outcome.folder}")
