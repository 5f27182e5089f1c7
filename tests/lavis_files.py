"""LAVIS's side of the tests: a tiny model of transformers, spread over files as LAVIS's authors give them away."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tiny_models
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

IMAGE_TOKEN = {"t5": 98, "llama": 100}  # behind the language model's 98 tokens, or its 99 and [PAD]
NUM_OWN_ROWS = {"t5": 130, "llama": 99}
NUM_ROWS = {"t5": 130, "llama": 101}
TABLES = {
    "t5": ("shared.weight", "lm_head.weight"),
    "llama": ("model.embed_tokens.weight", "lm_head.weight"),
}
_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
    (r"^vision_model\.encoder\.layers", "visual_encoder.blocks"),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.projection\.", ".attn.proj."),
    (r"\.self_attn\.qkv\.", ".attn.qkv."),
    (r"^vision_model\.post_layernorm", "ln_vision"),
    (r"^qformer\.embeddings\.layernorm", "Qformer.bert.embeddings.LayerNorm"),
    (r"^qformer\.", "Qformer.bert."),
    (r"attention\.attention\.", "attention.self."),
)


@dataclass(frozen=True, kw_only=True)
class LavisFiles:
    """A model in LAVIS's form, and the same in transformers'.

    Args:
        files: the .pth files.
        language_model: FlanT5's or Vicuna's folder.
        bert: the folder of BERT's tokenizer.
        config: a file, the new folder's config.json.
        state: what the new folder must hold, by transformers' name.
    """

    files: list[Path]
    language_model: Path
    bert: Path
    config: Path
    state: Mapping[str, Tensor]

    @property
    def arguments(self) -> list[object]:
        """What is typed after `convert`."""
        parts = ["--qformer-tokenizer", self.bert, "--config", self.config]
        return [*self.files, self.language_model, *parts]


def write(
    kind: str, root: Path, *, dtype: torch.dtype = torch.float32, prefix: str = "", is_complete: bool = False
) -> LavisFiles:
    """Writes a tiny model: `trimmed.pth`, `eva.pth` and the language model's folder, or one `complete.pth`.

    Args:
        kind: t5 or llama.
        root: gets the files.
        dtype: of all tensors.
        prefix: of the names in the .pth files, e.g. `module.`.
        is_complete: write one file with everything.
    """
    root.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(dtype) for name, tensor in _state(kind).items()}
    text = {name: tensor for name, tensor in state.items() if name.startswith("language_model.")}
    names = {**lavis_state(state, kind), **_useless()}
    encoder = {name: tensor for name, tensor in names.items() if name.startswith("visual_encoder.")}
    rest = {name: tensor for name, tensor in names.items() if name not in encoder}
    if is_complete:
        language = {name.replace("language_model", f"{_short(kind)}_model", 1): tensor for name, tensor in text.items()}
        save(root / "complete.pth", {**names, **language}, prefix)
    else:
        save(root / "trimmed.pth", rest, prefix)
        flat = {name.removeprefix("visual_encoder."): tensor for name, tensor in encoder.items()}
        torch.save({**flat, **_last_block(flat)}, root / "eva.pth")
    write_language_model(kind, root / "language", {} if is_complete else text)
    return LavisFiles(
        files=[root / "complete.pth"] if is_complete else [root / "trimmed.pth", root / "eva.pth"],
        language_model=root / "language",
        bert=write_bert(root / "bert"),
        config=write_config(kind, root / "config.json"),
        state=_with_mean_rows(kind, state),
    )


def copy(made: LavisFiles, root: Path) -> LavisFiles:
    """Copies all files to another folder."""
    shutil.copytree(made.config.parent, root)
    return replace(
        made,
        files=[root / path.name for path in made.files],
        language_model=root / made.language_model.name,
        bert=root / made.bert.name,
        config=root / made.config.name,
    )


def save(path: Path, names: Mapping[str, Any], prefix: str = "", **others: Any) -> Path:
    """Writes what LAVIS's runner writes: the model beside what its training needs."""
    model = {prefix + name: tensor for name, tensor in names.items()}
    torch.save({"model": model, "optimizer": {"state": {}}, "config": {"run": {}}, "scaler": None, **others}, path)
    return path


def lavis_state(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Returns everything but the language model by LAVIS's names."""
    names: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("language_model."):
            continue
        theirs = name.replace("language_projection", f"{_short(kind)}_proj")
        for pattern, replacement in _NAMES:
            theirs = re.sub(pattern, replacement, theirs)
        if theirs.endswith("qkv.bias"):
            query, _, value = tensor.chunk(3)
            names[theirs.replace("qkv.bias", "q_bias")] = query.clone()
            names[theirs.replace("qkv.bias", "v_bias")] = value.clone()
        else:
            names[theirs] = tensor.clone()
    return names


def tiny_config(kind: str) -> dict[str, Any]:
    """Returns the configuration of the whole model."""
    values = tiny_models.tiny_config(kind)
    text = {**values["text_config"], "vocab_size": NUM_ROWS[kind]}
    return {**values, "text_config": text, "image_token_index": IMAGE_TOKEN[kind]}


def write_config(kind: str, path: Path) -> Path:
    """Writes it."""
    path.write_text(json.dumps(tiny_config(kind)))
    return path


def write_language_model(kind: str, folder: Path, text: Mapping[str, Tensor]) -> Path:
    """Writes FlanT5's or Vicuna's folder: no `<image>`, and no rows for what InstructBLIP adds."""
    folder.mkdir()
    own = {name.removeprefix("language_model."): tensor for name, tensor in text.items()}
    if own and kind == "t5":
        own["encoder.embed_tokens.weight"] = own["shared.weight"].clone()
    if own:
        save_file(own, folder / "model.safetensors")
    config = {**tiny_config(kind)["text_config"], "vocab_size": NUM_OWN_ROWS[kind]}
    (folder / "config.json").write_text(json.dumps(config))
    values = json.loads(tiny_models.text_tokenizer(kind).to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "<image>"]
    Tokenizer.from_str(json.dumps(values)).save(str(folder / "tokenizer.json"))
    return folder


def write_bert(folder: Path) -> Path:
    """Writes a tokenizer without `[DEC]`."""
    folder.mkdir()
    values = json.loads(tiny_models.qformer_tokenizer().to_str())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "[DEC]"]
    del values["model"]["vocab"]["[DEC]"]
    values["model"]["vocab"] = {piece: index for index, piece in enumerate(values["model"]["vocab"])}
    values["added_tokens"] = [{**t, "id": values["model"]["vocab"][t["content"]]} for t in values["added_tokens"]]
    Tokenizer.from_str(json.dumps(values)).save(str(folder / "tokenizer.json"))
    return folder


def hf_model(kind: str, state: Mapping[str, Tensor]) -> Any:
    """Builds transformers' model of a state, float32; T5's head is its own."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    model = InstructBlipForConditionalGeneration(InstructBlipConfig.from_dict(tiny_config(kind))).eval()
    if kind == "t5":
        model.language_model.lm_head.weight = torch.nn.Parameter(state["language_model.lm_head.weight"].float())
    copies = {f"language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    missing, unexpected = model.load_state_dict({n: t.float() for n, t in state.items()}, strict=False)
    assert set(missing) <= copies
    assert not unexpected
    return model


def _short(kind: str) -> str:
    return "t5" if kind == "t5" else "llm"


def _state(kind: str) -> dict[str, Tensor]:
    """Returns a model's tensors: the language model's own rows, and EVA's keys without a bias."""
    state = {name: tensor.detach().clone() for name, tensor in tiny_models.hf_model(kind).state_dict().items()}
    for name in [name for name in state if name.endswith("coder.embed_tokens.weight")]:
        del state[name]
    for table in TABLES[kind]:
        state[f"language_model.{table}"] = state[f"language_model.{table}"][: NUM_OWN_ROWS[kind]].clone()
    for name, tensor in state.items():
        if name.endswith("qkv.bias"):
            tensor.chunk(3)[1].zero_()
    return state


def _with_mean_rows(kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result = dict(state)
    for table in TABLES[kind]:
        own = state[f"language_model.{table}"]
        mean = own.double().mean(dim=0).to(own.dtype)
        result[f"language_model.{table}"] = torch.cat([own, mean.expand(NUM_ROWS[kind] - len(own), -1)])
    return result


def _useless() -> dict[str, Tensor]:
    """What LAVIS's files hold beside the model."""
    return {
        "Qformer.bert.embeddings.position_ids": torch.arange(64)[None],
        "Qformer.cls.predictions.bias": torch.zeros(120),
        "Qformer.cls.predictions.decoder.weight": torch.zeros(120, 24),
    }


def _last_block(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EVA's last block, norm and head, which InstructBLIP does not use."""
    block = {name.replace("blocks.1.", "blocks.2."): t for name, t in flat.items() if name.startswith("blocks.1.")}
    return {**block, "norm.weight": torch.ones(32), "head.weight": torch.zeros(10, 32)}
