"""Measures any vision-language model at a shape of its own, with random weights: what `vlinstruct bench` says of it.

    PYTHONPATH=tests python -m bench.vlm_shapes 30m --threads 1
    PYTHONPATH=tests python -m bench.vlm_shapes 7b --device cuda --dtype bfloat16 --json

A Qwen2.5-VL, whose picture has 256 tokens: `30m` has 12 layers of width 384, `7b` is Qwen2.5-VL-7B-Instruct's own
shape, `tiny` shows that all of this runs. More options are those of `vlinstruct bench`. The processor is transformers'
own, with a toy tokenizer that knows the words of our prompts.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

import transformers as hf
from backends.transformers.tiny_families import FAMILIES

from vlinstruct.bench.workload import INSTRUCTION
from vlinstruct.instruction.templates import Templates

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": ({"vocab_size": 1000}, {}),
    "30m": (
        {
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 8192,
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e4},
        },
        {
            "depth": 8,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_heads": 4,
            "out_hidden_size": 384,
            "fullatt_block_indexes": [3, 7],
            "window_size": 112,
        },
    ),
    "7b": (
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        },
        {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
        },
    ),
}
_PIXELS = 28 * 28 * 256


def write_folder(shape: str, folder: Path) -> None:
    """Writes a folder with a configuration and a processor, and without weights."""
    text, vision = SHAPES[shape]
    model, processor = FAMILIES["qwen2_5_vl"].make()
    config = model.config
    for part, values in ((config.text_config, text), (config.vision_config, vision)):
        for name, value in values.items():
            setattr(part, name, value)
    # With a token for nearly every word that is asked, as a vocabulary of its size has.
    texts = [INSTRUCTION, *astuple(Templates.default())] * 2
    processor.tokenizer = processor.tokenizer.train_new_from_iterator(texts, vocab_size=2000, show_progress=False)
    if shape != "tiny":
        processor.image_processor = hf.Qwen2VLImageProcessor(size={"shortest_edge": _PIXELS, "longest_edge": _PIXELS})
    config.text_config.layer_types = None  # as many as there are layers
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Measures what the command line says."""
    from vlinstruct.cli.main import main as vlinstruct

    shape, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(shape, Path(folder) / shape)
        sys.argv = ["vlinstruct", "bench", "--random-weights", "--backbone", str(Path(folder) / shape), *options]
        vlinstruct()


if __name__ == "__main__":
    main()
