"""A process that answers one question about one picture with transformers, as one would write it: for the cold start.

    python -m vlinstruct.bench.cold_transformers FOLDER PICTURE QUESTION

Of ours it uses the preprocessing alone, which is lighter to import than transformers' own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer

from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.bench.load import architecture


def answer(folder: Path, picture: Path, question: str) -> str:
    """Loads transformers' model and answers greedily."""
    model = architecture().from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    config = model.eval().config
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    qformer_tokenizer = Tokenizer.from_file(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    prompt = tokenizer.encode(question).ids
    ids = torch.tensor([[config.image_token_index] * config.num_query_tokens + prompt])
    qformer_ids = torch.tensor([qformer_tokenizer.encode(question).ids])
    with torch.inference_mode():
        written = model.generate(
            pixel_values=ImageProcessor(image_size=config.vision_config.image_size)([Image.open(picture)]),
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            qformer_input_ids=qformer_ids,
            qformer_attention_mask=torch.ones_like(qformer_ids),
            max_new_tokens=15,
            do_sample=False,
        )
    return tokenizer.decode(written[0].tolist())


if __name__ == "__main__":
    print(answer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
