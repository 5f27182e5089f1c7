"""Writes a trained mini as an InstructBLIP folder in transformers' format.

`python -m vlinstruct.mini.export CHECKPOINT FOLDER` exports a training that is still under way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.mini.architecture import mini_config
from vlinstruct.mini.pixels import PIXEL_MEAN, PIXEL_STD
from vlinstruct.mini.reading import LanguageModelName
from vlinstruct.mini.tokenizers import language_tokenizer, qformer_tokenizer, save_tokenizers

_BICUBIC = 3
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m vlinstruct.mini.export", description="Export a training checkpoint."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.folder)
