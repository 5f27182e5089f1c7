"""vlinstruct: multi-modal language models answer better, without better prompts from the user.

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
    from vlinstruct.evaluation.evaluate import evaluate
    from vlinstruct.evaluation.report.comparison import compare_evaluations
    from vlinstruct.evaluation.selection import EvaluationSettings
    from vlinstruct.model import Model, load
    from vlinstruct.operations import Ask, BatchItem, Optimize, Score
    from vlinstruct.settings import ClipSettings, GenerationSettings, ModelSettings, OptimizationSettings, RunSettings
    from vlinstruct.training.finetune import finetune, plan_finetuning
    from vlinstruct.training.settings import TrainingSettings
    from vlinstruct.tuning.settings import TuneSettings
    from vlinstruct.tuning.tune import tune
    from vlinstruct.values import Clip, Failed, Sound

__version__ = "0.1.0"

__all__ = [
    "Ask",
    "BatchItem",
    "Chat",
    "ChatSettings",
    "Clip",
    "ClipSettings",
    "EvaluationSettings",
    "Failed",
    "GenerationSettings",
    "MapBatches",
    "Model",
    "ModelSettings",
    "OptimizationSettings",
    "Optimize",
    "RunSettings",
    "Score",
    "ServerSettings",
    "Sound",
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
    "Ask": "operations",
    "BatchItem": "operations",
    "Chat": "chat",
    "ChatSettings": "chat",
    "Clip": "values",
    "ClipSettings": "settings",
    "EvaluationSettings": "evaluation.selection",
    "Failed": "values",
    "GenerationSettings": "settings",
    "MapBatches": "batch",
    "Model": "model",
    "ModelSettings": "settings",
    "OptimizationSettings": "settings",
    "Optimize": "operations",
    "RunSettings": "settings",
    "Score": "operations",
    "ServerSettings": "settings",
    "Sound": "values",
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
