"""Writes a few records of every official benchmark as its authors would, with pictures drawn here.

Each benchmark's example is one of the records, so that what `--list` shows is what its reader reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vlinstruct.evaluation.benchmarks import BENCHMARKS

Files = Mapping[str, Any]


def example(name: str) -> Any:
    return json.loads(BENCHMARKS[name].example)


def draw(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), colour).save(path)


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def dump_lines(path: Path, values: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def flickr30k(folder: Path) -> None:
    images = [
        {"filename": "30.jpg", "split": "train", "sentences": [{"raw": "Not read."}]},
        example("flickr30k"),
        {"filename": "32.jpg", "split": "test", "sentences": [{"raw": "Two dogs run."}, {"raw": "Two dogs run."}]},
    ]
    dump(folder / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})
    for name in ("31", "32"):
        draw(folder / "flickr30k-images" / f"{name}.jpg")


def flickr30k_of_lavis(folder: Path) -> None:
    """The same two test pictures in LAVIS' form."""
    captions = [one["raw"] for one in example("flickr30k")["sentences"]]
    dump(
        folder / "flickr30k_test.json",
        [
            {"image": "flickr30k-images/31.jpg", "caption": captions},
            {"image": "flickr30k-images/32.jpg", "caption": ["Two dogs run.", "Two dogs run."]},
        ],
    )
    for name in ("31", "32"):
        draw(folder / "flickr30k-images" / f"{name}.jpg")


def nocaps(folder: Path) -> None:
    file = example("nocaps")
    file["images"].append({"id": 8, "file_name": "0c1d.jpg"})
    file["annotations"].append({"id": 80, "image_id": 8, "caption": "A red lamp."})
    dump(folder / "nocaps_val_4500_captions.json", file)
    for name in ("0a1b", "0c1d"):
        draw(folder / "val" / f"{name}.jpg")


def vsr(folder: Path) -> None:
    other = {"image": "000000000002.jpg", "caption": "The dog is on the bed.", "label": 0, "relation": "on"}
    dump_lines(folder / "test.jsonl", [example("vsr"), other])
    for number in (1, 2):
        draw(folder / "images" / f"{number:012}.jpg")


def gqa(folder: Path) -> None:
    questions = {**example("gqa"), "202": {"question": "Is it red?", "answer": "yes", "imageId": "n15"}}
    dump(folder / "testdev_balanced_questions.json", questions)
    draw(folder / "images" / "n15.jpg")


def iconqa_problems() -> dict[str, Any]:
    other = {"question": "How many are there?", "choices": ["5", "8", "2"], "answer": 2, "ques_type": "choose_txt"}
    return {"9": other, "12": example("iconqa")}


def iconqa(folder: Path) -> None:
    dump(folder / "problems.json", {**iconqa_problems(), "13": {"ques_type": "choose_img"}})
    dump(folder / "pid_splits.json", {"choose_txt_test": ["9", "12"], "choose_img_test": ["13"]})
    for name in iconqa_problems():
        draw(folder / "iconqa" / "test" / "choose_txt" / name / "image.png")


def iconqa_of_folders(folder: Path) -> None:
    """The same two problems in a folder each, with what systems leave there."""
    parent = folder / "iconqa" / "test" / "choose_txt"
    for name, problem in iconqa_problems().items():
        dump(parent / name / "data.json", problem)
        draw(parent / name / "image.png")
    (parent / ".DS_Store").write_bytes(b"\0")


def vizwiz(folder: Path) -> None:
    answers = ["unanswerable"] * 9 + [""]
    other = {"image": "VizWiz_val_00000008.jpg", "question": "And this?"}
    dump(folder / "val.json", [example("vizwiz"), {**other, "answers": [{"answer": one} for one in answers]}])
    for number in (7, 8):
        draw(folder / "val" / f"VizWiz_val_{number:08}.jpg")


def textvqa(folder: Path) -> None:
    other = {"question_id": 34603, "image_id": "00ac", "question": "What number?", "answers": ["81"] * 10}
    dump(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [example("textvqa"), other]})
    tokens = {"00ab": ["STOP", "{tokens}"], "00ac": [str(number) for number in range(31)]}
    ocr = [{"image_id": name, "ocr_tokens": texts, "ocr_info": []} for name, texts in tokens.items()]
    dump(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": ocr})
    for name in tokens:
        draw(folder / "train_images" / f"{name}.jpg")


def visdial(folder: Path) -> None:
    file = example("visdial")
    last = {"question": 0, "answer": 2, "answer_options": [1, 2], "gt_index": 1}
    file["data"]["dialogs"].append({"image_id": 186, "caption": "a car", "dialog": [last]})
    dump(folder / "visdial_1.0_val.json", file)
    for number in (185, 186):
        draw(folder / "VisualDialog_val2018" / f"VisualDialog_val2018_{number:012}.jpg")


def scienceqa(folder: Path) -> None:
    problems = {
        "3": {"question": "Which is a solid?", "choices": ["a rock", "air", "tea"], "answer": 0, "image": "image.png"},
        "4": {"question": "No picture?", "choices": ["yes", "no"], "answer": 0, "image": None},
        "5": example("scienceqa"),
        "6": {"question": "Trained on?", "choices": ["yes", "no"], "answer": 0, "image": "image.png"},
    }
    dump(folder / "problems.json", problems)
    dump(folder / "pid_splits.json", {"train": ["6"], "test": ["3", "4", "5"]})
    for name in ("3", "5"):
        draw(folder / "images" / "test" / name / "image.png")


def hatefulmemes(folder: Path) -> None:
    seen = example("hatefulmemes")
    other = {"id": 54, "img": "img/00054.png", "label": 1, "text": ""}
    dump_lines(folder / "dev_seen.jsonl", [seen, other])
    dump_lines(folder / "dev_unseen.jsonl", [seen])
    for number in (53, 54):
        draw(folder / "img" / f"{number:05}.png")


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "flickr30k": flickr30k,
    "nocaps": nocaps,
    "vsr": vsr,
    "gqa": gqa,
    "iconqa": iconqa,
    "vizwiz": vizwiz,
    "textvqa": textvqa,
    "visdial": visdial,
    "scienceqa": scienceqa,
    "hatefulmemes": hatefulmemes,
}


def write(data: Path, *names: str) -> Path:
    """Writes the named benchmarks' files, or all, and returns the folder that holds their folders."""
    for name in names or WRITERS:
        WRITERS[name](data / name)
    return data
