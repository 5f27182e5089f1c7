"""Scores instructions for a picture (IAS, eq. 3): one that fits should score lower than one that does not."""

from pathlib import Path

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"

model = vli.load("mini")
fitting, misfitting = model.score(PICTURES / "star.png", "What colour is the star?", "What number is in the picture?")

for scored in (fitting, misfitting):
    print(f"{scored.ias:.3f} nats per token  {scored.text}")
