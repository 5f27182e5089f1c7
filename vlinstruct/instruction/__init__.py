"""Autonomous instruction optimization (section 3.2): a better instruction for an image, written by the model itself.

    instruction -> rewrite -> score -> rank -> compare -> judge -> choose -> optimized instruction

This room knows a model only as a `Backend` and has no torch in it. Imported eagerly, because `score` and the other
functions bear the names of their files: a lazy package would hand out the files.
"""

from vlinstruct.instruction.answer import answer
from vlinstruct.instruction.compare import compare
from vlinstruct.instruction.optimize import optimize
from vlinstruct.instruction.rewrite import Draft, rewrite
from vlinstruct.instruction.score import rank, score
from vlinstruct.instruction.templates import Templates, templates_source

__all__ = ["Draft", "Templates", "answer", "compare", "optimize", "rank", "rewrite", "score", "templates_source"]
