"""vlinstruct: a vision-language model improves the instruction that it is given, where poor words make it unsure.

    import vlinstruct as vli
    print(vli.load("mini").ask("sign.png", "what is written?").text)

Every verb of the command line is a function here, or a method of what `load` returns. Nothing heavy is imported before
it is used: `import vlinstruct` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlinstruct.backends.memory import plan_memory
    from vlinstruct.batch import MapBatches, optimize_shared, run_batch, run_one
    from vlinstruct.chat import Chat, ChatSettings
    from vlinstruct.conversion.convert import convert
    from vlinstruct.doctor.diagnosis import diagnose
    from vlinstruct.errors import VlinstructError
    from vlinstruct.evaluation.evaluate import Evaluation, evaluate
    from vlinstruct.evaluation.report.comparison import compare_evaluations
    from vlinstruct.evaluation.selection import EvaluationSettings
    from vlinstruct.instruction.templates import Templates
    from vlinstruct.media.images import ImageLimits
    from vlinstruct.model import Model, load
    from vlinstruct.operations import Ask, BatchItem, Optimize, Score
    from vlinstruct.settings import (
        ClipSettings,
        GenerationSettings,
        ModelSettings,
        OptimizationSettings,
        RunSettings,
        ServerSettings,
        Thresholds,
    )
    from vlinstruct.training.finetune import finetune, plan_finetuning
    from vlinstruct.training.settings import TrainingSettings
    from vlinstruct.tuning.settings import TuneSettings
    from vlinstruct.tuning.tune import tune
    from vlinstruct.values import Answer, Choice, Clip, Failed, Optimization, ScoredInstruction, Sound

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "BatchItem",
    "Chat",
    "ChatSettings",
    "Choice",
    "Clip",
    "ClipSettings",
    "Evaluation",
    "EvaluationSettings",
    "Failed",
    "GenerationSettings",
    "ImageLimits",
    "MapBatches",
    "Model",
    "ModelSettings",
    "Optimization",
    "OptimizationSettings",
    "Optimize",
    "RunSettings",
    "Score",
    "ScoredInstruction",
    "ServerSettings",
    "Sound",
    "Templates",
    "Thresholds",
    "TrainingSettings",
    "TuneSettings",
    "VlinstructError",
    "__version__",
    "compare_evaluations",
    "convert",
    "diagnose",
    "evaluate",
    "finetune",
    "load",
    "optimize_shared",
    "plan_finetuning",
    "plan_memory",
    "run_batch",
    "run_one",
    "tune",
]

# No room or module here has a verb's name: importing the room would bind it over the function.
_HOMES = {
    "Answer": "values",
    "Ask": "operations",
    "BatchItem": "operations",
    "Chat": "chat",
    "ChatSettings": "chat",
    "Choice": "values",
    "Clip": "values",
    "ClipSettings": "settings",
    "Evaluation": "evaluation.evaluate",
    "EvaluationSettings": "evaluation.selection",
    "Failed": "values",
    "GenerationSettings": "settings",
    "ImageLimits": "media.images",
    "MapBatches": "batch",
    "Model": "model",
    "ModelSettings": "settings",
    "Optimization": "values",
    "OptimizationSettings": "settings",
    "Optimize": "operations",
    "RunSettings": "settings",
    "Score": "operations",
    "ScoredInstruction": "values",
    "ServerSettings": "settings",
    "Sound": "values",
    "Templates": "instruction.templates",
    "Thresholds": "settings",
    "TrainingSettings": "training.settings",
    "TuneSettings": "tuning.settings",
    "VlinstructError": "errors",
    "compare_evaluations": "evaluation.report.comparison",
    "convert": "conversion.convert",
    "diagnose": "doctor.diagnosis",
    "evaluate": "evaluation.evaluate",
    "finetune": "training.finetune",
    "load": "model",
    "optimize_shared": "batch",
    "plan_finetuning": "training.finetune",
    "plan_memory": "backends.memory",
    "run_batch": "batch",
    "run_one": "batch",
    "tune": "tuning.tune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlinstruct' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vlinstruct.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The verbs, and what they take and return: what has no other way to be seen before it is imported."""
    return __all__
