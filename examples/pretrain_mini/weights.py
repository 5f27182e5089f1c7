"""mini's weights as folders: exports a training, averages two, and starts a training from one.

    python -m pretrain_mini.weights export CHECKPOINT FOLDER        also of a training that is still under way
    python -m pretrain_mini.weights familiarise FOLDER              which pictures it knows; pretrain does it at its end
    python -m pretrain_mini.weights average BEFORE AFTER FOLDER     where AFTER's training went on from BEFORE

With the mean, what the second training learned is kept and what it forgot comes back: on 200 dev items each, captions
were right in 59.5 % before, 62.0 % after and 64.5 % with the mean, reading in 96.0, 94.0 and 96.0 % (`vlinstruct
evaluate mini/flickr30k mini/textvqa --split dev --seed 5 --limit 200`, plain, canonical words). Source: WiSE-FT
(Wortsman et al., 2022).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_mini.architecture import IMAGE_SIZE, PIXEL_MEAN, PIXEL_STD, mini_config, normalised
from pretrain_mini.batches import picture_at
from pretrain_mini.reading import LanguageModelName
from pretrain_mini.tokenizers import language_tokenizer, qformer_tokenizer, save_tokenizers
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.familiarity import fitted, save
from vlinstruct.backends.instructblip.load import load_model, vocabulary_tables
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.files import read_json_object
from vlinstruct.mini import Split
from vlinstruct.mini.world import sample_scene
from vlinstruct.weights.safetensors_files import shards, tensors, write_tensors

_BICUBIC = 3
_SEEN, _SEEN_BATCH, _FALSE_ALARMS = 3000, 50, 0.002
_LANGUAGE_MODEL = "language_model."
# Of pictures, in pixels: the model's own, and those that people have; and their heights by them.
_WIDTHS = (120, 120, 150, 240, 320)
_ASPECTS = (0.75, 1.33)
_QFORMER_WORDS = "qformer.embeddings.word_embeddings.weight"
_GENERATION: Mapping[LanguageModelName, dict[str, int]] = {
    "t5": {"decoder_start_token_id": 0},
    "llama": {"bos_token_id": 1},
}


def _preprocessor(image_size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": PIXEL_MEAN,
        "image_std": PIXEL_STD,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _configuration(config: InstructBlipConfig) -> dict[str, Any]:
    values = config.to_dict()
    return values | {"architectures": ["InstructBlipForConditionalGeneration"], "dtype": "float16"}


def export(checkpoint: Path, folder: Path) -> None:
    """Writes the model of a training checkpoint.

    Args:
        checkpoint: `checkpoint.pt` of a training.
        folder: gets config.json, float16 model.safetensors, both tokenizers, preprocessor and generation settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    kind: LanguageModelName = state["language_model"]
    config = mini_config(language_tokenizer().get_vocab_size(), qformer_tokenizer().get_vocab_size(), kind)
    halves = {name: tensor.half().contiguous() for name, tensor in state["model"].items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    _write_json(folder / "config.json", _configuration(config))
    _write_json(folder / "preprocessor_config.json", _preprocessor(config.vision_config.image_size))
    _write_json(folder / "generation_config.json", _GENERATION[kind] | {"eos_token_id": 1, "pad_token_id": 0})
    save_tokenizers(folder, kind)


def average(before: Path, after: Path, output: Path) -> None:
    """Writes the mean of two exported models.

    Args:
        before: one folder.
        after: one whose training went on from it.
        output: a new folder.
    """
    shutil.copytree(after, output)
    for path in shards(output):
        first = dict(tensors(before / path.name))
        mean = {name: ((value.float() + first[name].float()) / 2).to(value.dtype) for name, value in tensors(path)}
        path.unlink()
        write_tensors(mean, path, metadata={"format": "pt"})


def familiarise(folder: Path) -> None:
    """Adds to an exported model what its pictures look like, so that it knows which ones it does not know.

    Only mini's own pictures are looked at, of every size: one in 500 of the dev part's is called unknown.
    """
    network = load_model(folder, device=torch.device("cpu"), dtype=torch.float32).network

    def seen(split: Split, count: int) -> Tensor:
        batches = []
        for start in range(0, count, _SEEN_BATCH):
            rng = random.Random(f"seen {split} {start}")
            scenes = [sample_scene(seed, split=split) for seed in range(start, start + _SEEN_BATCH)]
            widths = [rng.choice(_WIDTHS) for _ in scenes]
            sizes = [(width, round(width * rng.uniform(*_ASPECTS))) for width in widths]
            pictures = [picture_at(*pair, IMAGE_SIZE) for pair in zip(scenes, sizes, strict=True)]
            pixels = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
            batches.append(network.encode_image(normalised(torch.from_numpy(pixels))))
        return torch.cat(batches)

    with torch.inference_mode():
        save(fitted(seen("train", _SEEN), seen("dev", _SEEN), false_alarms=_FALSE_ALARMS), folder)


def start_from(folder: Path, model: InstructBlip, *, with_language_model: bool = True) -> str:
    """Gives a model the weights of an exported one, where names and shapes agree.

    The embedding and the head of the vocabulary agree though they are named otherwise; of vocabularies the pieces are
    taken that both have, and a capitalised word that is new starts as the word in small letters.

    Args:
        folder: config.json and model.safetensors.
        model: is changed in place.
        with_language_model: take that, too; else only what sees.

    Returns:
        A line about what was taken, of each part.

    Raises:
        CheckpointError: there is no such folder, or it is no InstructBLIP.
    """
    config = InstructBlipConfig.from_dict(read_json_object(folder / "config.json"))
    renamed = dict(zip(vocabulary_tables(config), vocabulary_tables(model.config), strict=True))
    stored = {renamed.get(name, name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    expected = model.state_dict()
    for names, tokenizer, file in (
        (vocabulary_tables(model.config), language_tokenizer(), folder / "tokenizer.json"),
        ((_QFORMER_WORDS,), qformer_tokenizer(), folder / "qformer_tokenizer" / "tokenizer.json"),
    ):
        pieces, known = tokenizer.get_vocab(), Tokenizer.from_file(str(file)).get_vocab()
        for name in names:
            stored[name] = _renumbered(stored[name], known, expected[name], pieces)
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    fitting = {
        name: tensor
        for name, tensor in stored.items()
        if shapes.get(name) == tensor.shape and (with_language_model or not name.startswith(_LANGUAGE_MODEL))
    }
    model.load_state_dict({**expected, **fitting})
    return _account(fitting, expected)


def _renumbered(table: Tensor, known: Mapping[str, int], start: Tensor, pieces: Mapping[str, int]) -> Tensor:
    """Returns a vocabulary's table with the rows of the pieces that another table has.

    Args:
        table: (K, W), the other one.
        known: its pieces' rows.
        start: (V, W), what new pieces start as.
        pieces: V pieces' rows.
    """
    renumbered = start.clone()
    for piece, row in pieces.items():
        place = known.get(piece, known.get(piece.lower()))
        if place is not None:
            renumbered[row] = table[place]
    return renumbered


def _account(fitting: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Returns how many of each part's tensors were taken.

    >>> _account({"a.b": Tensor(), "c": Tensor()}, {"a.b": Tensor(), "a.d": Tensor(), "c": Tensor()})
    'a 1 of 2, c 1 of 1 tensors'
    """
    num_fitting, parts = (Counter(name.split(".")[0] for name in names) for names in (fitting, expected))
    return ", ".join(f"{part} {num_fitting[part]} of {count}" for part, count in parts.items()) + " tensors"


def main() -> None:
    """Exports or averages as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m pretrain_mini.weights", description="Write a folder of weights.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, names, text in (
        ("export", ("checkpoint", "folder"), "export a training checkpoint"),
        ("average", ("before", "after", "folder"), "average two trainings of mini"),
        ("familiarise", ("folder",), "let an exported model know which pictures it knows"),
    ):
        arguments = commands.add_parser(command, help=text)
        for name in names:
            arguments.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.command == "export":
        export(options.checkpoint, options.folder)
    elif options.command == "familiarise":
        familiarise(options.folder)
    else:
        average(options.before, options.after, options.folder)


if __name__ == "__main__":
    main()
