"""A set to try `vlinstruct finetune` on: pictures of mini's world with questions and answers.

python -m vlinstruct.mini.example_data FOLDER --pictures 200
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from vlinstruct.errors import ResourceError
from vlinstruct.files import written_atomically
from vlinstruct.mini import Split
from vlinstruct.mini.draw import draw
from vlinstruct.mini.questions import ask, facts
from vlinstruct.mini.world import sample_scene

_MAX_QUESTIONS_PER_PICTURE = 4
_POOR_SHARE = 0.5


def write_example_data(folder: Path, part: Split, *, pictures: int, seed: int) -> Path:
    """Draws pictures of a part of mini's world and writes a line per question; what is there already stays.

    Args:
        folder: where to.
        part: train, dev or test; also the file's name.
        pictures: how many; each is asked about four times, half of the time poorly.
        seed: of the pictures and the questions.

    Returns:
        The file of lines.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    path = folder / f"{part}.jsonl"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line for number in range(pictures) for line in _picture_lines(folder, part, seed, number)]
    except OSError as error:  # Pillow's names no file
        why = error.strerror or type(error).__name__
        advice = "Free some space, or name another folder"
        raise ResourceError.at("cannot write the example set", folder, why, advice) from error
    with written_atomically(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path


def _picture_lines(folder: Path, part: Split, seed: int, number: int) -> list[str]:
    rng = random.Random(f"example/{part}/{seed}/{number}")
    # In Pillow's own font: the training fonts are packages that whoever tries `finetune` need not have.
    scene = sample_scene(rng.randrange(2**32), split=part, fonts=("pillow",))
    name = f"{part}-{number:04}.png"
    draw(scene).save(folder / name)
    fitting = [fact for fact in facts(scene, rng) if fact.is_fitting]
    records = [
        {
            "id": f"{part}-{number:04}-{turn}",
            "image": name,
            "instruction": ask(fact, rng, part, _POOR_SHARE).instruction,
            "answer": fact.answer,
        }
        for turn, fact in enumerate(rng.sample(fitting, min(_MAX_QUESTIONS_PER_PICTURE, len(fitting))))
    ]
    return [json.dumps(record) + "\n" for record in records]


def main() -> None:
    """Writes a larger set, and one to validate on."""
    parser = argparse.ArgumentParser(description="Draw pictures of mini's world with questions and answers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200, help="of the train part; a tenth of it of the dev part")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write_example_data(options.folder, "train", pictures=options.pictures, seed=options.seed))
    print(write_example_data(options.folder, "dev", pictures=max(1, options.pictures // 10), seed=options.seed))


if __name__ == "__main__":
    main()
