"""Asks a question about every picture of a folder, four at a time; run again, it goes on where it was stopped."""

import tempfile
from pathlib import Path

import vlinstruct as vli

pictures = sorted((Path(__file__).parent / "pictures").glob("*.png"))
items = [vli.BatchItem(id=path.name, source=path, image=path.name, texts=("what do you see?",)) for path in pictures]
output = Path(tempfile.mkdtemp()) / "answers.jsonl"
settings = vli.RunSettings(model=vli.ModelSettings(backbone="mini", device="cpu"), batch_size=4)
summary = vli.run_batch(vli.Ask(optimize=True), items, output=output, settings=settings)
print(f"{summary.num_done} answered, {summary.num_failed} failed:")
print(output.read_text())
