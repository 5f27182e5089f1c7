"""vlinstruct: multi-modal language models answer better, without better prompts from the user.

    import vlinstruct as vli
    print(vli.load("mini").ask("sign.png", "what is written?").text)

Nothing heavy is imported before it is used: `import vlinstruct` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlinstruct.config import GenerationConfig, OptimizationConfig
    from vlinstruct.errors import VlinstructError
    from vlinstruct.pipeline import Pipeline, load

__version__ = "0.1.0"

__all__ = ["GenerationConfig", "OptimizationConfig", "Pipeline", "VlinstructError", "__version__", "load"]

_HOMES = {
    "GenerationConfig": "vlinstruct.config",
    "OptimizationConfig": "vlinstruct.config",
    "Pipeline": "vlinstruct.pipeline",
    "VlinstructError": "vlinstruct.errors",
    "load": "vlinstruct.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlinstruct' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
