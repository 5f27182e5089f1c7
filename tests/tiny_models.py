"""Tiny random InstructBLIP folders (about 40k parameters), written by transformers: the oracle's side of the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from vlinstruct.backend import Seen
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.prefixes import SeenPicture
from vlinstruct.model import ImageLike, Model
from vlinstruct.values import good

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 28, "patch_size": 14}
QFORMER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4}
QFORMER |= {"vocab_size": 120, "max_position_embeddings": 64, "encoder_hidden_size": 32}
T5_TEXT = {"model_type": "t5", "vocab_size": 130, "d_model": 28, "d_kv": 6, "d_ff": 36, "num_layers": 2, "num_heads": 4}
T5_TEXT |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "tie_word_embeddings": False}
T5_TEXT |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
LLAMA_TEXT = {"model_type": "llama", "vocab_size": 130, "hidden_size": 32, "intermediate_size": 44}
LLAMA_TEXT |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6}
LLAMA_TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

NUM_QUERY_TOKENS = 4
IMAGE_TOKEN_INDEX = 129
CHARACTERS = [chr(code) for code in range(33, 127)]


def tiny_config(kind: str) -> dict[str, Any]:
    """Returns a transformers `config.json` for `kind` t5 or llama."""
    return {
        "architectures": ["InstructBlipForConditionalGeneration"],
        "model_type": "instructblip",
        "vision_config": {"model_type": "instructblip_vision_model", **VISION},
        "qformer_config": {"model_type": "instructblip_qformer", **QFORMER},
        "text_config": T5_TEXT if kind == "t5" else LLAMA_TEXT,
        "num_query_tokens": NUM_QUERY_TOKENS,
        "image_token_index": IMAGE_TOKEN_INDEX,
    }


def text_tokenizer(kind: str) -> Tokenizer:
    """One piece per printable character, T5's or Llama's special tokens."""
    special = ["<pad>", "</s>", "<unk>"] if kind == "t5" else ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {piece: index for index, piece in enumerate([*special, "▁", *CHARACTERS])}
    pieces = [(piece, -1.0) for piece in vocabulary]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_special_tokens([AddedToken("<image>", special=True)])
    return tokenizer


def qformer_tokenizer() -> Tokenizer:
    """A BERT-like tokenizer that spells."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *[c for c in CHARACTERS if not c.isupper()]]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in pieces[:5]])
    return tokenizer


def hf_model(kind: str, seed: int = 0) -> Any:
    """Builds transformers' model with weights large enough to make outputs differ; T5 gets a head of its own."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    torch.manual_seed(seed)
    model = InstructBlipForConditionalGeneration(InstructBlipConfig.from_dict(tiny_config(kind)))
    for name, parameter in model.named_parameters():
        is_norm = "norm" in name.lower() and name.endswith("weight")
        parameter.data = torch.randn_like(parameter) * (0.1 if is_norm else 0.2) + (1.0 if is_norm else 0.0)
    if kind == "t5":
        head = torch.nn.Parameter(torch.randn(T5_TEXT["vocab_size"], T5_TEXT["d_model"]) * 0.3)
        model.language_model.lm_head.weight = head
    return model.eval()


def same_nll(token_nll: Sequence[float]) -> Any:
    """What equals these nats token by token, but for the order in which float32 sums.

    A batch of another width sums in another order: up to 1.1e-5 nats have been seen between two processors' ways, of a
    token of 2.4. One other token in front changes the random models' logits by 0.5 (their median).
    """
    return pytest.approx(token_nll, abs=5e-5)


def our_model(kind: str, seed: int = 0) -> InstructBlip:
    """Builds our model with transformers' weights of the same seed."""
    model = InstructBlip(InstructBlipConfig.from_dict(tiny_config(kind))).eval()
    state = hf_model(kind, seed).state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def write_folder(kind: str, folder: Path, seed: int = 0) -> Any:
    """Writes a whole InstructBLIP folder in transformers' format and returns transformers' model."""
    from safetensors.torch import save_file

    model = hf_model(kind, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config(kind)))
    tied = {f"language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    text_tokenizer(kind).save(str(folder / "tokenizer.json"))
    (folder / "qformer_tokenizer").mkdir(exist_ok=True)
    qformer_tokenizer().save(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    processor = {"size": {"height": 28, "width": 28}, "resample": 3, "do_resize": True, "do_normalize": True}
    processor |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def seen_of(model: Model, *images: ImageLike) -> list[SeenPicture]:
    """Looks at pictures together, all of which can be read."""
    return [cast(SeenPicture, good(outcome)) for outcome in model.see_each(images)]


def not_finite(seen: Seen) -> SeenPicture:
    """The same picture, as a broken vision tower would see it."""
    image_embeds = cast(SeenPicture, seen).image_embeds
    return SeenPicture(torch.full_like(image_embeds, torch.nan)[None], 0)
