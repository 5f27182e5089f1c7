"""What `survive` damages: sound files of every kind that we read, and how each is read.

A subject is a folder with one file in it that gets damaged. Reading it may succeed, or end in one of our errors.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lavis_files
import tiny_models
import torch
from command_line import vli as run_vli
from media.test_image_fuzz import run_length_bmp
from picture_fixtures import encode_picture, make_picture
from training.training_set import write_data

import vlinstruct as vli
from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.lora import read_lora
from vlinstruct.conversion.lavis import gathered
from vlinstruct.instruction.templates import Templates, templates_source
from vlinstruct.media.images import ImageLimits, load_image
from vlinstruct.records.items import read_items
from vlinstruct.records.output import open_records
from vlinstruct.records.tables import holds_pictures, open_table
from vlinstruct.settings import GenerationSettings
from vlinstruct.settings_file import read_settings
from vlinstruct.training.data.checking import check_data
from vlinstruct.training.data.conversations import read_conversations
from vlinstruct.training.experiment import Experiment
from vlinstruct.training.state import newest_state, read_log

from .mutants import (
    Mutator,
    damaged_bytes,
    damaged_json,
    damaged_lines,
    damaged_png,
    damaged_safetensors,
    damaged_table,
    damaged_zip,
)

LIMITS = ImageLimits(max_pixels=1_000_000)
NUM_ROWS = 22
TRAINING = ["--learning-rate", "0.01", "--max-steps", 4, "--per-device-train-batch-size", 1, "--save-steps", 2]
TRAINING += ["--lora", "--lora-r", 2, "--device", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file that gets damaged.

    Args:
        name: what it is called.
        folder: everything that is read with it; a copy of it is worked on.
        file: its place there.
        mutate: how it is damaged.
        read: reads the folder.
    """

    name: str
    folder: Path
    file: str
    mutate: Mutator
    read: Callable[[Path], None]


def pictures(root: Path) -> Iterator[Subject]:
    """Pictures of the six formats, in several codings each."""
    small, second = make_picture(24, 18), make_picture(24, 18, 1)
    seeds: Mapping[str, bytes] = {
        "baseline.jpg": encode_picture(
            small, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
        ),
        "progressive.jpg": encode_picture(small, "JPEG", progressive=True),
        "plain.png": encode_picture(small, "PNG"),
        "palette.png": encode_picture(small.quantize(16), "PNG", transparency=b"\0\x33"),
        "animated.png": encode_picture(small, "PNG", save_all=True, append_images=[second]),
        "grey16.png": encode_picture(small.convert("I;16"), "PNG"),
        "lossy.webp": encode_picture(small, "WEBP"),
        "alpha.webp": encode_picture(small.convert("RGBA"), "WEBP", lossless=True),
        "animated.webp": encode_picture(small, "WEBP", save_all=True, append_images=[second]),
        "animated.gif": encode_picture(small, "GIF", save_all=True, append_images=[second]),
        "plain.bmp": encode_picture(small, "BMP"),
        "palette.bmp": encode_picture(small.quantize(16), "BMP"),
        "run-length.bmp": run_length_bmp(),
        "plain.tiff": encode_picture(small, "TIFF"),
        "lzw.tiff": encode_picture(small, "TIFF", compression="tiff_lzw", save_all=True, append_images=[second]),
        "jpeg.tiff": encode_picture(small, "TIFF", compression="jpeg"),
    }
    for name, content in seeds.items():
        folder = _written(root / name, {name: content})
        mutate = damaged_png if name.endswith(".png") else damaged_bytes
        yield Subject(name=name, folder=folder, file=name, mutate=mutate, read=lambda at, name=name: _look(at / name))


def _look(path: Path) -> None:
    assert load_image(path, limits=LIMITS).image.mode == "RGB"


def folders(root: Path) -> Iterator[Subject]:
    """Every file of a model's folder, for both kinds of language model; what loads is asked something."""
    for kind in ("t5", "llama"):
        folder = model_folder(kind, root / kind)
        for file in sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()):
            if not file.endswith(".png"):
                mutate = damaged_json if file.endswith(".json") else damaged_safetensors
                yield Subject(name=f"{kind} {file}", folder=folder, file=file, mutate=mutate, read=_ask)


def model_folder(kind: str, folder: Path) -> Path:
    """Writes a model with all files that folders of the hub have, its weights in two files, and a picture."""
    from safetensors.torch import load_file, save_file

    tiny_models.write_folder(kind, folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    text = tiny_models.tiny_config(kind)["text_config"]
    others: Mapping[str, object] = {
        "model.safetensors.index.json": {"metadata": {"total_size": 1}, "weight_map": index},
        "generation_config.json": {name: value for name, value in text.items() if name.endswith("_token_id")},
        "processor_config.json": {"processor_class": "InstructBlipProcessor", "num_query_tokens": 4},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special},
        "special_tokens_map.json": special,
    }
    for name, value in others.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    make_picture(20, 20).save(folder / "picture.png")
    return folder


def _ask(folder: Path) -> None:
    model = vli.load(folder, device="cpu", offline=True)
    answer = model.ask(folder / "picture.png", "what is it?", generation=GenerationSettings(max_new_tokens=3))
    assert isinstance(answer.text, str)


ITEMS = [
    {"image": "0.png", "question": "how many 'cats'?", "id": "q1"},
    {"image": "1.png", "instruction": "say \u00e9 \U0001f600", "id": 2},
    {"image": "2.png", "question": "x", "choices": ["7", "8"]},
]
CONVERSATIONS = [
    {"image": "0.png", "instruction": "a?", "answer": "b"},
    {
        "id": "1",
        "image": "1.png",
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}],
    },
    {
        "image": "2.png",
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ],
    },
    {"images": ["0.png"], "messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]},
    {"image": "1.png", "question": "q", "answers": ["a", "b"]},
    {"image": "2.png", "caption": "a red square"},
]
RECORDS = [
    {"schema": "vlinstruct.ask/1", "id": f"p{n}", "status": "ok", "answer": "x" * n, "key": f"k{n}"} for n in range(4)
]


def data(root: Path) -> Iterator[Subject]:
    """Data, settings, templates, tables and records."""
    rows = _csv(
        [["image", "instruction", "answer"], ["0.png", 'what, is "it"?', "a"], ["1.png", "two\nlines", "\u00e9"]]
    )
    settings = b"learning_rate: 1e-4\nmax_steps: 10\nlora: true\nlora_r: 4\nanswers: last\n"
    failed = {"schema": "vlinstruct.ask/1", "id": "p5", "status": "error", "code": "c", "message": "m"}
    log = [{"step": step, "loss": 1 / step, "learning_rate": 1e-3} for step in range(1, 5)]
    conversations = json.dumps(CONVERSATIONS).encode()
    plan: Sequence[tuple[str, str, bytes, Mutator, Callable[[Path], object]]] = [
        ("items", "items.jsonl", _lines(ITEMS), damaged_lines, read_items),
        ("items as CSV", "items.csv", rows, damaged_bytes, read_items),
        ("items as a list", "items.json", json.dumps(ITEMS).encode(), damaged_json, read_items),
        ("training data", "data.jsonl", _lines(CONVERSATIONS), damaged_lines, _learn),
        ("training data as a list", "data.json", conversations, damaged_json, _learn),
        ("training data as CSV", "data.csv", rows, damaged_bytes, _learn),
        ("training data beside pictures", "metadata.csv", rows.replace(b"image", b"file_name"), damaged_bytes, _learn),
        ("settings", "settings.yaml", settings, damaged_bytes, lambda path: read_settings(path, Experiment)),
        ("templates", "templates.yaml", templates_source().encode(), damaged_bytes, Templates.load),
        ("records of an earlier run", "out.jsonl", _lines([*RECORDS, failed]), damaged_lines, _go_on),
        ("log of a training", "log.jsonl", _lines(log), damaged_lines, read_log),
        ("parquet", "rows.parquet", _table(is_parquet=True), damaged_table, _read_table),
        ("Arrow", "rows.arrow", _table(is_parquet=False), damaged_bytes, _read_table),
    ]
    for name, file, content, mutate, read in plan:
        folder = _written(root / name, {file: content})
        for number in range(3):
            make_picture(20, 20, number).save(folder / f"{number}.png")
        at_file: Callable[[Path], None] = lambda at, file=file, read=read: _drop(read(at / file))  # noqa: E731
        yield Subject(name=name, folder=folder, file=file, mutate=mutate, read=at_file)


def _learn(path: Path) -> None:
    check_data(path, image_root=None)
    read_conversations(path, image_root=None, answers="all")


def _go_on(path: Path) -> None:
    """Goes on with a run of six items, after which each of them has one good record."""
    with open_records(path, schema="vlinstruct.ask/1", keys={f"p{n}": f"k{n}" for n in range(6)}) as writer:
        for number in range(6):
            if not writer.is_done(f"p{number}"):
                record = {"schema": "vlinstruct.ask/1", "id": f"p{number}", "status": "ok", "key": f"k{number}"}
                writer.write(record)
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    ids = [str(record["id"]) for record in records if record["status"] == "ok"]
    assert all(ids.count(f"p{number}") == 1 for number in range(6)), "a record is lost, or there twice"


def _table(*, is_parquet: bool) -> bytes:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    picture = encode_picture(make_picture(8, 8), "PNG")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": picture, "path": "a.png"}] * (NUM_ROWS - 2) + [None] * 2
    columns = {"question": ["q"] * NUM_ROWS, "answers": [["a", "b"]] * NUM_ROWS, "id": list(range(NUM_ROWS))}
    table = pyarrow.table({"image": pyarrow.array(images, kind), **columns})
    stream = io.BytesIO()
    if is_parquet:
        pyarrow.parquet.write_table(table, stream, row_group_size=7)
    else:
        with pyarrow.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    return stream.getvalue()


def _read_table(path: Path) -> None:
    table = open_table(path)
    rows = list(table.rows([name for name in ("question", "answers") if name in table.schema.names]))
    if "image" in table.schema.names and holds_pictures(table.schema.field("image").type):
        table.has_picture("image")
        for row in range(min(len(rows), NUM_ROWS)):
            table.picture("image", row)
    read_items(path)


def adapters(root: Path) -> Iterator[Subject]:
    """Ours with LoRA, and PEFT's folder alone."""
    for kind in ("t5", "llama"):
        trained = _trained(kind, root / kind) / "adapter"
        for file in ("alignment_config.json", "alignment.safetensors", "lora/adapter_config.json", LORA):
            yield _adapter(f"{kind} {file}", trained, file, kind)
        peft = root / f"{kind}-peft"
        shutil.copytree(trained / "lora", peft)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            yield _adapter(f"{kind} PEFT's {file}", peft, file, kind)


LORA = "lora/adapter_model.safetensors"


def _adapter(name: str, folder: Path, file: str, kind: str) -> Subject:
    def read(at: Path) -> None:
        network = tiny_models.our_model(kind) if kind not in _networks else _networks[kind]
        _networks[kind] = network
        load_adapter(at, network)
        if (at / "adapter_config.json").exists():
            read_lora(at, network.language_model)

    mutate = damaged_json if file.endswith(".json") else damaged_safetensors
    return Subject(name=name, folder=folder, file=file, mutate=mutate, read=read)


_networks: dict[str, tiny_models.InstructBlip] = {}


def checkpoints(root: Path) -> Iterator[Subject]:
    """Checkpoints of a training, and .pth files of LAVIS."""
    saved = _trained("t5", root / "t5") / "adapter" / "checkpoints"
    newest = max(saved.glob("step-*"))
    for path in sorted(newest.iterdir()):
        mutate = damaged_json if path.suffix == ".json" else damaged_safetensors
        file = str(path.relative_to(saved))
        yield Subject(name=path.name, folder=saved, file=file, mutate=mutate, read=lambda at: _drop(newest_state(at)))
    for kind in ("t5", "llama"):
        config = InstructBlipConfig.from_dict(lavis_files.tiny_config(kind))
        made = lavis_files.write(kind, root / f"{kind}-lavis")

        def read(at: Path, config: InstructBlipConfig = config) -> None:
            for weight in gathered([at / "trimmed.pth"], config, lambda notice: None).values():
                for piece in weight.pieces():
                    assert piece.sum() is not None

        folder = _written(root / f"{kind}-pth", {"trimmed.pth": _small_pth(made.files[0])})
        yield Subject(name=f"{kind} .pth", folder=folder, file="trimmed.pth", mutate=damaged_zip, read=read)


def _small_pth(path: Path) -> bytes:
    """Returns LAVIS's file with a dozen of its tensors: that more of a mutant is description."""
    model = torch.load(path, weights_only=True)["model"]
    names = [name for name in model if "proj" in name or name == "query_tokens" or "ln_vision" in name]
    stream = io.BytesIO()
    torch.save({"model": {name: model[name].clone() for name in names[:12]}, "epoch": 1}, stream)
    return stream.getvalue()


@cache
def _trained(kind: str, root: Path) -> Path:
    """Trains an adapter with LoRA."""
    tiny_models.write_folder(kind, root / "backbone")
    files = ["--data", write_data(root / "data"), "--backbone", root / "backbone", "-o", root / "adapter"]
    ended = run_vli("finetune", *files, *TRAINING)
    assert ended.exit_code == 0, ended.stderr
    return root


def _written(folder: Path, contents: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def _lines(values: Sequence[object]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


def _drop(value: object) -> None:
    """Takes what a reader returns; what is read lazily is read."""
    if isinstance(value, Iterator):
        for _ in value:
            pass


KINDS: Mapping[str, Callable[[Path], Iterator[Subject]]] = {
    "pictures": pictures,
    "folders": folders,
    "data": data,
    "adapters": adapters,
    "checkpoints": checkpoints,
}
