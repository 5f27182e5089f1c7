"""Optimizes an instruction on the vision-language model that you have: its hub id or folder in $VLINSTRUCT_BACKBONE.

    VLINSTRUCT_BACKBONE=Qwen/Qwen2.5-VL-3B-Instruct python examples/any_model.py

Without the variable it is mini. `pip install 'vlinstruct[vlm]'` has what the processors of other models need.
"""

from pathlib import Path

import vlinstruct as vli

model = vli.load()
picture = model.see(Path(__file__).parent / "pictures" / "star.png")
print(f"{model.backend.identity.name} takes: {', '.join(sorted(model.backend.abilities.media))}")
optimization = model.optimize("star color plz", picture)
print(f"{optimization.instruction}  ({optimization.reason})")
print(model.ask(picture, "star color plz", optimize=True))
