"""Finds better words for a task with 24 labelled pictures, which mini's own world draws, and writes them to a file."""

import json
import random
import tempfile
from pathlib import Path

import vlinstruct as vli
from vlinstruct.mini.draw import draw
from vlinstruct.mini.scene import COLOURS, Scene, Thing

CLUMSY = "so what is {question} there?"  # {question} is each item's own: here a colour
chance = random.Random(0)


def thing(colour: str, shape: str, x: float) -> Thing:
    return Thing(shape=shape, colour=colour, rgb=COLOURS[colour], x=x, y=0.5, size=0.4)


with tempfile.TemporaryDirectory() as folder:
    lines = []
    for number in range(24):
        colours = chance.sample(("red", "blue", "green", "yellow"), 2)
        shapes = chance.sample(("star", "circle", "square", "triangle", "heart"), 2)
        things = (thing(colours[0], shapes[0], 0.25), thing(colours[1], shapes[1], 0.75))
        draw(Scene(background="white", background_rgb=COLOURS["white"], things=things, prints=())).save(
            f"{folder}/{number}.png"
        )
        lines.append(json.dumps({"image": f"{number}.png", "question": colours[0], "answer": shapes[0]}))
    Path(folder, "labelled.jsonl").write_text("\n".join(lines))
    record = vli.tune(CLUMSY, f"{folder}/labelled.jsonl", output=f"{folder}/best.txt")

for row in record["candidates"]:
    figures = row.get("held_out", row["race"])
    print(f"{figures['score']:.2f} [{figures['low']:.2f}, {figures['high']:.2f}]  {row['instruction']}")
print(f"best: {record['instruction']} ({record['reason']})")
