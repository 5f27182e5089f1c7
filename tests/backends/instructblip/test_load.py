"""Folders in transformers' format load as they are; anything else is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlinstruct as vli
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, load_model
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.errors import CheckpointError
from vlinstruct.weights.safetensors_files import shards

CPU, FLOAT32 = torch.device("cpu"), torch.float32


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny T5 folder, to be damaged."""
    return Path(shutil.copytree(tiny_folders["t5"], tmp_path / "model"))


def load(folder: Path, dtype: torch.dtype = FLOAT32) -> InstructBlipBackend:
    return load_model(folder, device=CPU, dtype=dtype)


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    (folder / "model.safetensors").unlink()  # safetensors 0.5 writes into the file, which may be mapped
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_every_tensor_of_transformers_folder_is_loaded(kind: str, tiny_folders: dict[str, Path]) -> None:
    theirs = tiny_models.hf_model(kind).state_dict()
    ours = load(tiny_folders[kind]).network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert {name for name in theirs if name not in ours} <= {
        "language_model.encoder.embed_tokens.weight",
        "language_model.decoder.embed_tokens.weight",
    }


def test_t5s_head_is_not_its_embedding(tiny_folders: dict[str, Path]) -> None:
    language_model = load(tiny_folders["t5"]).network.language_model
    assert not torch.equal(
        language_model.get_parameter("lm_head.weight"), language_model.get_parameter("shared.weight")
    )


def change_config(folder: Path, part: str | None = None, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (values if part is None else values[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_missing_head_of_a_tied_model_is_the_embedding(folder: Path) -> None:
    change_tensors(folder, lambda state: state.pop("language_model.lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing \(language_model\.lm_head\.weight\)"):
        load(folder)
    change_config(folder, "text_config", tie_word_embeddings=True)
    language_model = load(folder).network.language_model
    assert torch.equal(language_model.get_parameter("lm_head.weight"), language_model.get_parameter("shared.weight"))


def test_redundant_copies_of_the_embedding_are_accepted(folder: Path) -> None:
    def copy(state: dict[str, Tensor]) -> None:
        for side in ("encoder", "decoder"):
            state[f"language_model.{side}.embed_tokens.weight"] = state["language_model.shared.weight"].clone()

    before = load(folder).network.state_dict()
    change_tensors(folder, copy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load(folder).network.state_dict().items())


def shard(folder: Path, num_shards: int) -> None:
    """Splits the folder's file as transformers does it."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-{index + 1:05}-of-{num_shards:05}.safetensors" for index in range(num_shards)]
    weight_map = {tensor: names[index % num_shards] for index, tensor in enumerate(state)}
    for name in names:
        save_file({tensor: state[tensor] for tensor in state if weight_map[tensor] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_load_like_one_file(folder: Path) -> None:
    whole = load(folder).network.state_dict()
    shard(folder, 3)
    assert len(shards(folder)) == 3
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load(folder).network.state_dict().items())


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing"):
        load(folder)


def test_an_index_cannot_lead_out_of_its_folder(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside of its folder"):
        load(folder)


@pytest.mark.parametrize("weight_map", [3, None, [], {"a": ["b"]}, {"a": 1, "b": "x"}, {"a": ""}])
def test_an_index_that_names_no_files_is_damaged(weight_map: object, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="weight_map does not name a file for each tensor"):
        load(folder)


@pytest.mark.parametrize("name", ["x" * 4000, "x\0y", "\ud800", ".."])
def test_a_shard_with_a_name_that_no_file_can_have_is_missing(name: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="is missing in") as refused:
        load(folder)
    assert len(refused.value.message) <= 300


def test_files_of_another_floating_type_are_converted(folder: Path) -> None:
    whole = load(folder).network.state_dict()
    change_tensors(folder, lambda state: state.update({name: t.half() for name, t in state.items()}))
    halved = load(folder).network.state_dict()
    assert all(torch.equal(tensor, whole[name].half().float()) for name, tensor in halved.items())
    assert load(folder, torch.bfloat16).dtype == torch.bfloat16


def test_missing_unexpected_and_wrongly_shaped_tensors_are_named_together(folder: Path) -> None:
    def damage(state: dict[str, Tensor]) -> None:
        del state["query_tokens"]
        state["surplus"] = torch.zeros(1)
        state["language_projection.bias"] = torch.zeros(7)

    change_tensors(folder, damage)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "1 missing (query_tokens)" in caught.value.message
    assert "1 unexpected (surplus)" in caught.value.message
    assert "language_projection.bias (7,) instead of (28,)" in caught.value.message


def test_integers_are_no_weights(folder: Path) -> None:
    change_tensors(folder, lambda state: state.update(query_tokens=state["query_tokens"].long()))
    with pytest.raises(CheckpointError, match=r"query_tokens holds torch\.int64"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\x00" * 100, "damaged"),
    ],
)
def test_a_file_that_is_no_safetensors_is_recognised(folder: Path, content: bytes, words: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


@pytest.mark.parametrize("keep", [4, 8, 50, 0.5, -1])
def test_a_truncated_file_is_damaged(folder: Path, keep: float) -> None:
    content = (folder / "model.safetensors").read_bytes()
    length = int(len(content) * keep) if isinstance(keep, float) else keep
    (folder / "model.safetensors").write_bytes(content[:length])
    with pytest.raises(CheckpointError, match="damaged"):
        load(folder)


def test_pickles_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only safetensors are loaded"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "qformer_tokenizer/tokenizer.json"])
@pytest.mark.parametrize("content", [None, "{", "[]", "\udcff"])
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str, content: str | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=Path(name).name):
        load(folder)


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        (None, {"model_type": "blip-2"}, "not an InstructBLIP model"),
        ("text_config", {"model_type": "opt"}, "unsupported language model 'opt'"),
        ("text_config", {"dense_act_fn": "mystery"}, "unsupported activation 'mystery'"),
        ("text_config", {"vocab_size": 50}, "they do not belong together|tensors do not fit"),
        ("vision_config", {"hidden_size": 64}, "wrong shape"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(
    folder: Path, part: str | None, changes: dict[str, object], words: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_remote_code_in_a_configuration_is_never_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (folder / "evil.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"asks for code of its own \(auto_map\), which is never run"):
        load(folder)
    assert not (folder / "canary").exists()


def test_a_folder_may_be_a_path_and_is_refused_like_its_text(folder: Path) -> None:
    assert vli.load(folder, device="cpu").backend.identity.name == str(folder)
    (folder / "generation_config.json").write_text('{"trust_remote_code": true}')
    with pytest.raises(CheckpointError, match="asks for code of its own"):
        vli.load(folder, device="cpu")


def test_the_beginning_token_of_the_tokenizer_wins(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """InstructBLIP's Vicuna begins its prompts with `</s>`, as its tokenizer_config.json says."""
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "model"))
    assert load(folder).tokenizer.prompt_prefix == (1,)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "</s>"}}))
    assert load(folder).tokenizer.prompt_prefix == (2,)


def test_texts_never_end_at_an_id_that_the_vocabulary_lacks(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5, -1, 10**6, 2**70]}))
    assert set(load(folder).tokenizer.stop_ids) == {1, 5}
    assert isinstance(vli.load(folder, device="cpu").ask(Image.new("RGB", (9, 9)), "what?").text, str)


@pytest.mark.parametrize("token", ["\ud800", {"content": "a\udfff"}])
def test_a_token_of_half_a_character_is_none_of_the_tokenizers(
    token: object, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folders["llama"], tmp_path / "model"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": token, "bos_token": token}))
    ours, plain = load(folder).tokenizer, load(tiny_folders["llama"]).tokenizer
    assert (ours.eos_id, ours.prompt_prefix) == (plain.eos_id, plain.prompt_prefix)


@pytest.mark.parametrize(
    ("name", "billions", "projection"),
    [
        ("flant5-xl", 4.02, 1_574_912),
        ("flant5-xxl", 12.31, 3_149_824),
        ("vicuna-7b", 7.91, 3_149_824),
        ("vicuna-13b", 14.19, 3_937_280),
    ],
)
def test_the_shipped_configurations_have_the_papers_sizes(name: str, billions: float, projection: int) -> None:
    model = empty_model(InstructBlipConfig.from_dict(BACKBONES[name].config()))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == billions
    assert sum(parameter.numel() for parameter in model.language_projection.parameters()) == projection


def test_a_configuration_round_trips() -> None:
    for kind in ("t5", "llama"):
        config = InstructBlipConfig.from_dict(tiny_models.tiny_config(kind))
        assert InstructBlipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
