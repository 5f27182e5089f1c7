"""vlinstruct: multi-modal language models answer better, without better prompts from the user.

    import vlinstruct as vli
    print(vli.load("mini").ask("sign.png", "what is written?").text)

Nothing heavy is imported before it is used: `import vlinstruct` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlinstruct.backends.instructblip.memory import plan_memory
    from vlinstruct.conversion.convert import convert
    from vlinstruct.errors import VlinstructError
    from vlinstruct.model import Model, load
    from vlinstruct.settings import GenerationSettings, OptimizationSettings

__version__ = "0.1.0"

__all__ = [
    "GenerationSettings",
    "Model",
    "OptimizationSettings",
    "VlinstructError",
    "__version__",
    "convert",
    "load",
    "plan_memory",
]

_HOMES = {
    "GenerationSettings": "vlinstruct.settings",
    "OptimizationSettings": "vlinstruct.settings",
    "Model": "vlinstruct.model",
    "VlinstructError": "vlinstruct.errors",
    "convert": "vlinstruct.conversion.convert",
    "load": "vlinstruct.model",
    "plan_memory": "vlinstruct.backends.instructblip.memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlinstruct' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
