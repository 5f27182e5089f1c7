"""Asks one picture several questions; the vision tower runs once."""

from pathlib import Path

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"

model = vli.load("mini")
star = model.see(PICTURES / "star.png")

for question in ["what colour is the star?", "which shape is red?", "how many objects are there?"]:
    print(f"{question:30} {model.ask(star, question)}")

print(f"{'what is written?':30} {model.ask(PICTURES / 'sign.png', 'what is written?')}")
