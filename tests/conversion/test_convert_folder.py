"""A converted folder is the same model; a merged one is what backbone and adapter were together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vlinstruct as vli
from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.lora import LoraSettings, add_lora, lora_parameters
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.conversion.adapters import merge_adapter
from vlinstruct.conversion.model_folder import Writing, convert_folder
from vlinstruct.errors import CheckpointError, InputError, ResourceError
from vlinstruct.weights.safetensors_files import shards

KINDS = ("t5", "llama")
CPU = torch.device("cpu")
Adapt = Callable[..., Path]

# peft 0.21 asks for a property that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def source(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny T5 folder, to be changed."""
    return Path(shutil.copytree(tiny_folders["t5"], tmp_path / "source"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, device=CPU, dtype=torch.float32).network.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_converted_folder_holds_the_same_numbers_rounded_once(
    tiny_folders: dict[str, Path], target: Path, kind: str, dtype: torch.dtype | None
) -> None:
    convert_folder(tiny_folders[kind], Writing(target=target, dtype=dtype, max_shard_bytes=50_000))
    before, after = weights(tiny_folders[kind]), weights(target)
    assert len(shards(target)) > 3
    assert all(torch.equal(after[n], t.to(dtype or t.dtype).float()) for n, t in before.items())
    for name in ("tokenizer.json", "preprocessor_config.json", "qformer_tokenizer/tokenizer.json"):
        assert (target / name).read_bytes() == (tiny_folders[kind] / name).read_bytes()


def test_transformers_loads_a_folder_in_its_new_type(tiny_folders: dict[str, Path], target: Path) -> None:
    from transformers import InstructBlipForConditionalGeneration

    convert_folder(tiny_folders["llama"], Writing(target=target, dtype=torch.bfloat16, max_shard_bytes=50_000))
    model = InstructBlipForConditionalGeneration.from_pretrained(target)
    assert model.dtype == torch.bfloat16
    ours = weights(target)
    assert all(torch.equal(t.float(), ours[n]) for n, t in model.state_dict().items())


def test_there_and_back_again_is_the_same_file(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    convert_folder(tiny_folders["t5"], Writing(target=tmp_path / "one"))
    convert_folder(tmp_path / "one", Writing(target=tmp_path / "many", max_shard_bytes=10_000))
    convert_folder(tmp_path / "many", Writing(target=tmp_path / "again"))
    first, last = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again"))
    assert first == last


def test_a_missing_head_of_a_tied_model_stays_missing(source: Path, target: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = True
    (source / "config.json").write_text(json.dumps(config))
    state = load_file(source / "model.safetensors")
    del state["language_model.lm_head.weight"]
    (source / "model.safetensors").unlink()  # safetensors 0.5 writes into the file, which is mapped
    save_file(state, source / "model.safetensors")
    convert_folder(source, Writing(target=target))
    assert "language_model.lm_head.weight" not in load_file(target / "model.safetensors")
    assert torch.equal(weights(target)["language_model.lm_head.weight"], state["language_model.shared.weight"])


def test_code_and_pickles_are_never_copied(source: Path, target: Path) -> None:
    for name in ("model.py", "pytorch_model.bin", "README.md", ".hidden"):
        (source / name).write_text("x")
    notices: list[str] = []
    convert_folder(source, Writing(target=target, notify=notices.append))
    assert notices == ["source: 2 files are not copied: model.py, pytorch_model.bin"]
    assert {path.name for path in target.iterdir()} >= {"README.md", "tokenizer.json"}
    assert not {path.name for path in target.iterdir()} & {"model.py", "pytorch_model.bin", ".hidden"}


def test_a_folder_whose_settings_name_code_is_refused(source: Path, target: Path) -> None:
    (source / "generation_config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(CheckpointError, match="asks for code of its own"):
        convert_folder(source, Writing(target=target))
    assert not target.exists()


def test_a_folder_can_be_replaced_by_itself(source: Path) -> None:
    before = weights(source)
    with pytest.raises(InputError, match="it exists"):
        convert_folder(source, Writing(target=source))
    convert_folder(source, Writing(target=source, dtype=torch.bfloat16, force=True))
    assert all(torch.equal(t, before[n].bfloat16().float()) for n, t in weights(source).items())


def test_a_failed_conversion_leaves_the_old_folder(source: Path, tiny_folders: dict[str, Path]) -> None:
    broken = Path(shutil.copytree(source, source.parent / "broken"))
    state = load_file(broken / "model.safetensors")
    state["query_tokens"].fill_(torch.nan)
    (broken / "model.safetensors").unlink()  # safetensors 0.5 writes into the file, which is mapped
    save_file(state, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match="1 tensors in broken hold NaN or infinity"):
        convert_folder(broken, Writing(target=source, force=True))
    before = weights(tiny_folders["t5"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(source).items())


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match=r"it takes 0\.0 GB, 0\.0 GB of the disk are free"):
        convert_folder(source, Writing(target=target))
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [({"model_type": "t5"}, "not an InstructBLIP model"), ({"model_type": "instructblip"}, "unsupported language")],
)
def test_a_folder_of_another_kind_is_refused(source: Path, target: Path, content: object, words: str) -> None:
    (source / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        convert_folder(source, Writing(target=target))


@pytest.mark.parametrize("keep", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(source: Path, target: Path, keep: int) -> None:
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"damaged|empty"):
        convert_folder(source, Writing(target=target))


def test_a_missing_shard_is_named(source: Path, tmp_path: Path) -> None:
    convert_folder(source, Writing(target=tmp_path / "many", max_shard_bytes=50_000))
    shards(tmp_path / "many")[1].unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-"):
        convert_folder(tmp_path / "many", Writing(target=tmp_path / "out"))


def test_a_tensor_in_two_files_is_refused(source: Path, target: Path) -> None:
    shutil.copy(source / "model.safetensors", source / "second.safetensors")
    index = {"weight_map": {"a": "model.safetensors", "b": "second.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"two files of .* have the tensor"):
        convert_folder(source, Writing(target=target))


@pytest.fixture
def adapt(tiny_folders: dict[str, Path], tmp_path: Path) -> Adapt:
    """Trains an adapter, in a way."""

    def make(kind: str, *layers: str, use_ema: bool = False, lora: bool = False) -> Path:
        model = load_model(tiny_folders[kind], device=CPU, dtype=torch.float32).network
        model.use_ema = use_ema
        torch.manual_seed(0)
        if "cmaa" in layers:
            model.learn_cmaa()
        if lora:
            add_lora(model.language_model, LoraSettings(r=3, alpha=12), seed=0)
            _learn(dict(lora_parameters(model.language_model)))
        _learn(dict(model.language_projection.named_parameters()))
        if "ln_vision" in layers:
            _learn(dict(model.vision_model.post_layernorm.named_parameters()))
        save_adapter(tmp_path / "adapter", model, layers=layers or ("projection",), lora=lora)
        return tmp_path / "adapter"

    return make


def _learn(parameters: dict[str, torch.nn.Parameter]) -> None:
    for parameter in parameters.values():
        parameter.data.add_(torch.randn(parameter.shape) * 0.1)


def answers(folder: Path, adapter: Path | None = None) -> tuple[InstructBlip, list[float]]:
    """Returns a model, and its scores of a text about a picture."""
    pipeline = vli.load(str(folder), adapter=adapter, device="cpu")
    picture = Image.new("RGB", (30, 20))
    picture.putdata([(i % 256, i * 7 % 256, i * 3 % 256) for i in range(600)])
    (scored,) = pipeline.score(picture, "what is written on the sign?")
    return pipeline.backend.network, [scored.ias, *scored.scores.token_nll]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [("projection",), ("projection", "ln_vision")])
@pytest.mark.parametrize("use_ema", [False, True])
def test_a_merged_folder_is_backbone_and_adapter_together(
    tiny_folders: dict[str, Path], target: Path, adapt: Adapt, kind: str, layers: tuple[str, ...], use_ema: bool
) -> None:
    adapter, notices = adapt(kind, *layers, use_ema=use_ema), list[str]()
    merge_adapter(adapter, tiny_folders[kind], Writing(target=target, notify=notices.append))
    (model, merged), (expected, together) = answers(target), answers(tiny_folders[kind], adapter)
    assert merged == together != answers(tiny_folders[kind])[1]
    assert model.use_ema == use_ema
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert ["transformers will leave it out" in notice for notice in notices] == [True] * use_ema


@pytest.mark.parametrize("kind", KINDS)
def test_merged_lora_computes_what_lora_beside_the_weights_does(
    tiny_folders: dict[str, Path], target: Path, adapt: Adapt, kind: str
) -> None:
    adapter = adapt(kind, lora=True)
    merge_adapter(adapter, tiny_folders[kind], Writing(target=target))
    (model, merged), (expected, together) = answers(target), answers(tiny_folders[kind], adapter)
    assert merged == pytest.approx(together, rel=1e-5)
    assert merged != answers(tiny_folders[kind])[1]
    assert model.state_dict().keys() == load_file(target / "model.safetensors").keys()
    adapted = {name for name, module in expected.named_modules() if hasattr(module, "base_layer")}
    for name in adapted:
        layer = expected.get_submodule(name)
        layer.merge()  # type: ignore[operator]
        torch.testing.assert_close(model.get_parameter(f"{name}.weight"), layer.weight, rtol=1e-6, atol=1e-6)
    assert adapted


def test_integers_are_not_hidden_under_lora(source: Path, target: Path, adapt: Adapt) -> None:
    name = "language_model.encoder.block.0.layer.0.SelfAttention.q.weight"
    state = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    save_file({**state, name: state[name].long()}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"q\.weight int64"):
        merge_adapter(adapt("t5", lora=True), source, Writing(target=target, dtype=torch.float32))


def test_the_type_of_a_merged_folder_is_rounded_once(
    tiny_folders: dict[str, Path], tmp_path: Path, adapt: Adapt
) -> None:
    adapter = adapt("t5", lora=True)
    notices: list[str] = []
    for name, dtype in {"exact": None, "rounded": torch.bfloat16}.items():
        assert notices == []
        merge_adapter(adapter, tiny_folders["t5"], Writing(target=tmp_path / name, dtype=dtype, notify=notices.append))
    exact, rounded = weights(tmp_path / "exact"), weights(tmp_path / "rounded")
    assert "LoRA's small changes are rounded to bfloat16: --dtype float32 keeps them" in notices
    assert all(torch.equal(tensor.bfloat16().float(), rounded[name]) for name, tensor in exact.items())


def test_a_merge_without_ema_takes_the_flag_away(tiny_folders: dict[str, Path], tmp_path: Path, adapt: Adapt) -> None:
    merge_adapter(adapt("t5", use_ema=True), tiny_folders["t5"], Writing(target=tmp_path / "first"))
    assert json.loads((tmp_path / "first" / "config.json").read_text())["use_ema"] is True
    convert_folder(tmp_path / "first", Writing(target=tmp_path / "copy"))
    assert load_model(tmp_path / "copy", device=CPU, dtype=torch.float32).network.use_ema
    shutil.rmtree(tmp_path / "adapter")
    merge_adapter(adapt("t5"), tmp_path / "first", Writing(target=tmp_path / "second"))
    assert "use_ema" not in json.loads((tmp_path / "second" / "config.json").read_text())


def test_learned_cmaa_cannot_be_merged(tiny_folders: dict[str, Path], target: Path, adapt: Adapt) -> None:
    with pytest.raises(CheckpointError, match="it learned CMAA"):
        merge_adapter(adapt("t5", "projection", "cmaa", use_ema=True), tiny_folders["t5"], Writing(target=target))
    assert not target.exists()


def test_an_adapter_of_another_backbone_is_refused(tiny_folders: dict[str, Path], target: Path, adapt: Adapt) -> None:
    with pytest.raises(CheckpointError, match="language_model t5 instead of llama"):
        merge_adapter(adapt("t5"), tiny_folders["llama"], Writing(target=target))


def test_a_damaged_adapter_is_refused(tiny_folders: dict[str, Path], target: Path, adapt: Adapt) -> None:
    adapter = adapt("t5")
    content = bytearray((adapter / "alignment.safetensors").read_bytes())
    content[-1] ^= 1
    (adapter / "alignment.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged adapter"):
        merge_adapter(adapter, tiny_folders["t5"], Writing(target=target))


def test_lora_of_another_shape_is_refused(tiny_folders: dict[str, Path], target: Path, adapt: Adapt) -> None:
    adapter = adapt("t5", lora=True)
    state = load_file(adapter / "lora" / "adapter_model.safetensors")
    name = next(iter(state))
    save_file({**state, name: torch.zeros(3, 5)}, adapter / "lora" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 wrong shape .*\(3, 5\) instead of"):
        merge_adapter(adapter, tiny_folders["t5"], Writing(target=target))


def test_what_a_link_fetches_from_elsewhere_is_not_copied(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("SECRET")
    (source / "LICENSE").symlink_to(tmp_path / "credentials")
    (source / "notes.json").symlink_to("config.json")
    notices: list[str] = []
    convert_folder(source, Writing(target=target, notify=notices.append))
    assert not (target / "LICENSE").exists()
    assert (target / "notes.json").read_text() == (source / "config.json").read_text()
    assert any("1 files are not copied: LICENSE" in notice for notice in notices)


def test_a_snapshot_of_the_hubs_cache_is_copied_through_its_links(source: Path, target: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.parent.mkdir()
    shutil.copytree(source, snapshot)
    for path in snapshot.glob("*.json"):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    convert_folder(snapshot, Writing(target=target))
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
