"""Asks one picture several questions; the vision tower runs once."""

from pathlib import Path

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"

model = vli.load("mini")
shapes = model.see(PICTURES / "shapes.png")

for question in ["what colour is the circle?", "how many shapes are there?", "what shape is yellow?"]:
    print(f"{question:30} {model.ask(shapes, question)}")

print(f"{'what is written?':30} {model.ask(PICTURES / 'sign.png', 'what is written?')}")
