"""Trains an adapter for mini on two lines of your own, then asks with it."""

import json
import tempfile
from pathlib import Path

import vlinstruct as vli
from vlinstruct.training.data.conversations import read_conversations
from vlinstruct.training.devices import Devices
from vlinstruct.training.finetune import finetune
from vlinstruct.training.job import Job
from vlinstruct.training.recipe import FinetuneConfig

folder, pictures = Path(tempfile.mkdtemp()), Path(__file__).parent / "pictures"
lines = [
    {"image": "star.png", "instruction": "what shape is it?", "answer": "a yellow star"},
    {"image": "sign.png", "instruction": "is there a star?", "answer": "no star"},
]
(folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

job = Job(
    model=vli.load("mini", device="cpu").backend,
    samples=read_conversations(folder / "data.jsonl", image_root=pictures),
    folder=folder,
    config=FinetuneConfig(learning_rate=1e-2, warmup_steps=5, num_train_epochs=40),
    backbone="mini",
    weights="mini",
)
outcome = finetune(job, devices=Devices(cpu=True))
for adapter in (None, folder):
    print(vli.load("mini", adapter=adapter).ask(pictures / "star.png", "what shape is it?"))
print(f"after {outcome.step} updates; the adapter is in {folder}")
