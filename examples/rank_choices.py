"""Ranks offered answers by the model's own likelihood, normalised by their length."""

from pathlib import Path

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"

model = vli.load("mini")
answer = model.ask(PICTURES / "star.png", "what colour is the star?", choices=["red", "yellow", "blue"])

for choice in sorted(answer.choices, key=lambda choice: -choice.probability):
    print(f"{choice.probability:6.1%}  {choice.text}")
