"""Runs algorithm 2 on a clumsy instruction: rewriting, two scores, comparison, choice; then answers both versions."""

from pathlib import Path

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"
CLUMSY = "hi there could you please maybe tell me wich colour is the star thanks"

model = vli.load("mini")
star = model.see(PICTURES / "star.png")
result = model.optimize(CLUMSY, star)

for role in ("initial", "rewritten", "optimized"):
    version = getattr(result, role)
    print(f"{role:9}  IAS {version.ias:.3f}  {version.text}")
print(f"chosen     {result.chosen}: {result.reason}")
print(f"answers    {model.ask(star, CLUMSY)} -> {model.ask(star, result.instruction)}")
