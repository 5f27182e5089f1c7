"""A LoRA folder is PEFT's: it computes the same on transformers' model and on ours, or is refused."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlinstruct as vli
from vlinstruct.backend import Row
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.language_model import LanguageModel
from vlinstruct.backends.instructblip.lora import (
    CONFIG_FILE,
    TENSORS_FILE,
    LoraSettings,
    add_lora,
    load_lora,
    lora_parameters,
    save_lora,
)
from vlinstruct.errors import CheckpointError, ResourceError, UsageError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import good

# peft 0.21 asks for a property that transformers 5.23 has renamed. PEFT's own wrapper does so; ours does not need it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

KINDS = ("t5", "llama")
SETTINGS = LoraSettings(r=4, alpha=12)
ALL = {
    "t5": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "llama": ("q_proj", "k_proj", "o_proj", "up_proj", "down_proj"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def language_model(kind: str) -> LanguageModel:
    return tiny_models.our_model(kind).language_model


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    """A LoRA that has learned something."""
    trained = tiny_models.our_model(kind).language_model
    add_lora(trained, SETTINGS, seed=1)
    learn(lora_parameters(trained))
    save_lora(tmp_path / "lora", trained)
    return tmp_path / "lora"


def learn(parameters: dict[str, Any]) -> None:
    """Gives all matrices, also the B that begin as zero, values large enough to change the logits."""
    draw = torch.Generator().manual_seed(3)
    for name in sorted(parameters):
        parameters[name].data = torch.randn(parameters[name].shape, generator=draw) * 0.3


def hidden_size(kind: str) -> int:
    return int(tiny_models.T5_TEXT["d_model"] if kind == "t5" else tiny_models.LLAMA_TEXT["hidden_size"])


def inputs(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    embeds = torch.randn(2, 7, hidden_size(kind), generator=draw)
    return embeds, torch.ones(2, 7, dtype=torch.long), torch.randint(4, 98, (2, 5), generator=draw)


def our_logits(language_model: LanguageModel, kind: str) -> Tensor:
    return language_model.target_logits(*inputs(kind))


def their_logits(model: Any, kind: str) -> Tensor:
    embeds, mask, targets = inputs(kind)
    if kind == "t5":
        return model(inputs_embeds=embeds, attention_mask=mask, labels=targets).logits
    embeds = torch.cat([embeds, model.get_input_embeddings()(targets[:, :-1])], dim=1)
    return model(inputs_embeds=embeds).logits[:, -targets.shape[1] :]


def peft_model(kind: str, **settings: Any) -> Any:
    """Returns PEFT's model around transformers' language model."""
    from peft import LoraConfig, get_peft_model

    task_type = "SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM"
    config = LoraConfig(r=4, lora_alpha=12, task_type=task_type, **settings)
    return get_peft_model(tiny_models.hf_model(kind).language_model, config)


def loaded_by_peft(kind: str, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(tiny_models.hf_model(kind).language_model, folder).eval()


def change_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**values, **changes}))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / TENSORS_FILE)
    change(state)
    (folder / TENSORS_FILE).unlink()  # safetensors 0.5 writes into the file, which may be mapped
    save_file(state, folder / TENSORS_FILE)


def refused(folder: Path, language_model: LanguageModel, words: str) -> None:
    """The folder is refused in one line, and nothing of the model has changed."""
    before = {name: tensor.clone() for name, tensor in language_model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as caught:
        load_lora(folder, language_model)
    assert "\n" not in caught.value.message
    after = language_model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("all_layers", [False, True])
def test_peft_loads_our_folder_onto_transformers_model(kind: str, all_layers: bool, tmp_path: Path) -> None:
    language_model = tiny_models.our_model(kind).language_model
    plain = our_logits(language_model, kind)
    settings = LoraSettings(r=4, alpha=12, target_modules=ALL[kind] if all_layers else ())
    add_lora(language_model, settings, seed=0)
    learn(lora_parameters(language_model))
    save_lora(tmp_path, language_model)
    ours = our_logits(language_model, kind)
    torch.testing.assert_close(ours, their_logits(loaded_by_peft(kind, tmp_path), kind), atol=1e-4, rtol=1e-4)
    assert (ours - plain).abs().max() > 0.1


@pytest.mark.parametrize("all_layers", [False, True])
def test_we_load_pefts_folder(kind: str, all_layers: bool, language_model: LanguageModel, tmp_path: Path) -> None:
    theirs = peft_model(kind, lora_dropout=0.1, target_modules=list(ALL[kind]) if all_layers else None).eval()
    learn({name: parameter for name, parameter in theirs.named_parameters() if ".lora_" in name})
    theirs.save_pretrained(tmp_path)
    load_lora(tmp_path, language_model)
    torch.testing.assert_close(our_logits(language_model, kind), their_logits(theirs, kind), atol=1e-4, rtol=1e-4)


def test_a_folder_has_pefts_names_settings_and_nothing_else(kind: str, folder: Path, tmp_path: Path) -> None:
    theirs = peft_model(kind, lora_dropout=0.05)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, expected = load_file(folder / TENSORS_FILE), load_file(tmp_path / "theirs" / TENSORS_FILE)
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in expected.items()}
    values, wanted = (json.loads((path / CONFIG_FILE).read_text()) for path in (folder, tmp_path / "theirs"))
    assert {**values, "target_modules": set(values["target_modules"])} == {
        **wanted,
        "target_modules": set(wanted["target_modules"]),
    }
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, TENSORS_FILE]


def test_saved_and_loaded_again_is_bitwise_the_same(kind: str, folder: Path, language_model: LanguageModel) -> None:
    load_lora(folder, language_model)
    save_lora(folder.parent / "again", language_model)
    for name in (CONFIG_FILE, TENSORS_FILE):
        assert (folder / name).read_bytes() == (folder.parent / "again" / name).read_bytes()


def test_new_lora_changes_nothing_and_alone_can_learn(kind: str, language_model: LanguageModel) -> None:
    plain = our_logits(language_model, kind)
    add_lora(language_model, LoraSettings(), seed=0)
    assert torch.equal(our_logits(language_model, kind), plain)
    learning = {name for name, parameter in language_model.named_parameters() if parameter.requires_grad}
    assert learning == set(lora_parameters(language_model))
    assert len(learning) == 2 * 2 * {"t5": 6, "llama": 2}[kind]


def test_the_seed_decides_alone_and_leaves_torchs_random_state(kind: str) -> None:
    def draw(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        language_model = tiny_models.our_model(kind).language_model.to(dtype)
        state = torch.get_rng_state()
        add_lora(language_model, SETTINGS, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        return {name: parameter.detach() for name, parameter in lora_parameters(language_model).items()}

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], other[name]) == (".lora_B." in name) for name in first)
    assert {tensor.dtype for tensor in draw(1, torch.bfloat16).values()} == {torch.float32}


def test_loading_leaves_torchs_random_state(folder: Path, language_model: LanguageModel) -> None:
    state = torch.get_rng_state()
    load_lora(folder, language_model)
    assert torch.equal(torch.get_rng_state(), state)


def test_lora_stays_float32_beside_a_bfloat16_model(kind: str, folder: Path, language_model: LanguageModel) -> None:
    load_lora(folder, language_model.bfloat16())
    saved = load_file(folder / TENSORS_FILE)
    for name, parameter in lora_parameters(language_model).items():
        assert torch.equal(parameter, saved[f"base_model.model.{name.replace('.default', '')}"])
    embeds, mask, targets = inputs(kind)
    logits = language_model.target_logits(embeds.bfloat16(), mask, targets)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_gradients_through_target_logits_are_pefts(kind: str, folder: Path, language_model: LanguageModel) -> None:
    theirs = loaded_by_peft(kind, folder)
    load_lora(folder, language_model)
    expected = {n: p.requires_grad_(True) for n, p in theirs.named_parameters() if ".lora_" in n}
    ours = {name: parameter.requires_grad_(True) for name, parameter in lora_parameters(language_model).items()}
    our_logits(language_model, kind).logsumexp(dim=-1).sum().backward()
    their_logits(theirs, kind).logsumexp(dim=-1).sum().backward()
    for name, parameter in ours.items():
        gradient = expected[f"base_model.model.{name}"].grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


def test_dropout_acts_in_training_alone(kind: str, language_model: LanguageModel) -> None:
    add_lora(language_model, LoraSettings(dropout=0.5), seed=0)
    learn(lora_parameters(language_model))
    assert torch.equal(our_logits(language_model, kind), our_logits(language_model, kind))
    language_model.train()
    assert not torch.equal(our_logits(language_model, kind), our_logits(language_model, kind))


def test_a_model_in_training_gets_its_lora_in_training(kind: str, language_model: LanguageModel) -> None:
    add_lora(language_model.train(), LoraSettings(dropout=0.5), seed=0)
    learn(lora_parameters(language_model))
    assert not torch.equal(our_logits(language_model, kind), our_logits(language_model, kind))


def test_a_loaded_lora_computes_without_dropout_and_learns_nothing(
    kind: str, folder: Path, language_model: LanguageModel
) -> None:
    load_lora(folder, language_model.train())
    assert not any(module.training for module in language_model.modules())
    assert not any(parameter.requires_grad for parameter in language_model.parameters())
    assert torch.equal(our_logits(language_model, kind), our_logits(language_model, kind))


def test_loading_replaces_what_lora_there_is(kind: str, folder: Path, language_model: LanguageModel) -> None:
    fresh = tiny_models.our_model(kind).language_model
    load_lora(folder, fresh)
    add_lora(language_model, LoraSettings(target_modules=ALL[kind]), seed=0)
    learn(lora_parameters(language_model))
    load_lora(folder, language_model)
    assert list(language_model.state_dict()) == list(fresh.state_dict())
    assert torch.equal(our_logits(language_model, kind), our_logits(fresh, kind))


def merge(language_model: LanguageModel, folder: Path) -> None:
    """W + alpha / r * B A by hand: an oracle that knows nothing of PEFT's layers."""
    state = load_file(folder / TENSORS_FILE)
    for name in (name for name in state if name.endswith("lora_A.weight")):
        weight = language_model.get_parameter(name.removeprefix("base_model.model.").replace("lora_A.", ""))
        weight.data += SETTINGS.alpha / SETTINGS.r * (state[name.replace("lora_A", "lora_B")] @ state[name])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_every_way_to_answer_writes_what_merged_weights_write(
    kind: str, num_beams: int, folder: Path, tiny_folders: dict[str, Path]
) -> None:
    plain, adapted, merged = (vli.load(str(tiny_folders[kind]), device="cpu").backend for _ in range(3))
    load_lora(folder, adapted.network.language_model)
    merge(merged.network.language_model, folder)
    images = [Image.effect_noise((40, 30), 90.0).convert("RGB") for _ in range(2)]
    prompts = ["what is it?", "a longer question than that"]
    settings = GenerationSettings(max_new_tokens=10, num_beams=num_beams)

    def rows(backend: InstructBlipBackend, guesses: tuple[str, str] = ("", "")) -> list[Row]:
        return [
            Row(prompt=prompt, seen=(good(seen),), reads=prompt, guess=guess)
            for prompt, seen, guess in zip(prompts, backend.see(images), guesses, strict=True)
        ]

    answers = [
        [good(written).text for written in backend.write(rows(backend), settings)]
        for backend in (plain, adapted, merged)
    ]
    assert answers[1] == answers[2]
    assert answers[1] != answers[0]
    steps = GenerationSettings(max_new_tokens=10)
    guessed = adapted.write(rows(adapted, (answers[1][0], answers[1][1][::-1])), steps)
    unguessed = adapted.write(rows(adapted), steps)
    assert [good(written).text for written in guessed] == [good(written).text for written in unguessed]
    scores = [backend.score(rows(backend), [["yes"], ["no"]]) for backend in (adapted, merged)]
    for ours, expected in zip(*scores, strict=True):
        assert good(ours)[0].token_nll == pytest.approx(good(expected)[0].token_nll, abs=1e-4)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_both_files_have_the_umasks_mode(language_model: LanguageModel, tmp_path: Path, umask: int, mode: int) -> None:
    add_lora(language_model, SETTINGS, seed=0)
    before = os.umask(umask)
    try:
        save_lora(tmp_path, language_model)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_a_folder_that_cannot_be_made_is_named(language_model: LanguageModel, tmp_path: Path) -> None:
    add_lora(language_model, SETTINGS, seed=0)
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write LoRA \(.*file/lora\): Not a directory"):
        save_lora(tmp_path / "file" / "lora", language_model)


def test_settings_out_of_range_are_named_together() -> None:
    with pytest.raises(UsageError) as caught:
        LoraSettings(r=0, alpha=float("nan"), dropout=1.0)
    assert caught.value.message == (
        "LoRA's r must be 1 to 4096, got 0; LoRA's alpha must be above 0 and finite, got nan; "
        "LoRA's dropout must be 0 to below 1, got 1.0"
    )


@pytest.mark.parametrize("target", ["query", "lm_head", "layer", "roj", ""])
def test_layers_that_the_model_lacks_are_named_beside_those_it_has(language_model: LanguageModel, target: str) -> None:
    targets = (*(("q",) if "shared.weight" in language_model.state_dict() else ("q_proj",)), target)
    with pytest.raises(UsageError, match=rf"cannot add LoRA \({target}\): no such linear layer .* It has q(_proj)?, k"):
        add_lora(language_model, LoraSettings(target_modules=targets), seed=0)
    assert not lora_parameters(language_model)


def test_lora_is_added_once(language_model: LanguageModel) -> None:
    add_lora(language_model, SETTINGS, seed=0)
    with pytest.raises(UsageError, match="has it already"):
        add_lora(language_model, SETTINGS, seed=0)


@pytest.mark.parametrize("name", [CONFIG_FILE, TENSORS_FILE])
def test_a_missing_file_is_named(folder: Path, language_model: LanguageModel, name: str) -> None:
    (folder / name).unlink()
    refused(folder, language_model, name)


def test_a_pickle_is_never_loaded(folder: Path, language_model: LanguageModel) -> None:
    (folder / TENSORS_FILE).rename(folder / "adapter_model.bin")
    refused(folder, language_model, r"no adapter_model\.safetensors; \.bin files are never loaded")


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff", "[" * 100_000])
def test_a_damaged_configuration_is_refused(folder: Path, language_model: LanguageModel, content: str) -> None:
    (folder / CONFIG_FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    refused(folder, language_model, rf"{CONFIG_FILE} is damaged")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, r"its peft_type is IA3\. Only LORA can be loaded"),
        ({"peft_type": None}, "its peft_type is None"),
        ({"peft_type": ["\x1b[2J"]}, r"its peft_type is \['\\x1b\[2J'\]"),
        ({"r": "8"}, "r missing or of the wrong type"),
        ({"r": True, "lora_alpha": None}, "r, lora_alpha missing or of the wrong type"),
        ({"r": 0}, "r must be 1 to 4096, got 0"),
        ({"r": 10**12}, "r must be 1 to 4096, got 1000000000000"),
        ({"lora_alpha": float("inf")}, "alpha must be above 0 and finite"),
        ({"lora_dropout": -1}, "dropout must be 0 to below 1"),
        ({"target_modules": "(.*)*q"}, "target_modules missing or of the wrong type"),
        ({"target_modules": []}, "target_modules must be names"),
        ({"target_modules": ["q", 1]}, "target_modules must be names"),
        ({"target_modules": ["fc1", "c_attn"]}, r"no layers named fc1, c_attn\. It was made for another backbone"),
        ({"target_modules": [f"m{n}" for n in range(7)]}, r"named m0, m1, m2, m3, m4 and 2 more"),
        ({"use_dora": True}, "made it with use_dora"),
        ({"use_rslora": True, "rank_pattern": {"q": 2}}, "made it with rank_pattern, use_rslora"),
        ({"modules_to_save": ["lm_head"]}, "made it with modules_to_save"),
        ({"bias": "all"}, "made it with bias"),
        ({"init_lora_weights": "pissa"}, "made it with init_lora_weights"),
        ({"peft_version": "9.9", "use_new_idea": 3}, r"peft 9\.9 made it with use_new_idea"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "made it with megatron_config"),
        ({"layers_to_transform": [0]}, "made it with layers_to_transform"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(
    folder: Path, language_model: LanguageModel, changes: dict[str, object], words: str
) -> None:
    change_config(folder, **changes)
    refused(folder, language_model, words)


def test_what_a_configuration_says_about_elsewhere_is_never_opened(
    folder: Path, language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(folder)
    change_config(
        folder,
        base_model_name_or_path="../../../etc/passwd",
        auto_mapping={"base_model_class": "Evil", "parent_library": "evil"},
        megatron_core="evil",
        revision="../..",
    )
    load_lora(folder, language_model)
    assert not (folder / "canary").exists()


def test_a_folder_may_be_a_link(folder: Path, language_model: LanguageModel) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    load_lora(link, language_model)
    assert lora_parameters(language_model)


@pytest.mark.parametrize("keep", [0, 4, 8, 50, -1])
def test_a_truncated_file_is_refused(folder: Path, language_model: LanguageModel, keep: int) -> None:
    (folder / TENSORS_FILE).write_bytes((folder / TENSORS_FILE).read_bytes()[:keep])
    refused(folder, language_model, rf"{TENSORS_FILE} is (empty|damaged)")


def rewritten(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Returns a safetensors file with another header."""
    size = struct.unpack("<Q", content[:8])[0]
    values = json.loads(content[8 : 8 + size])
    change(values)
    header = json.dumps(values).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def first(values: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in values.items() if name != "__metadata__")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"\x00" * 8,
        lambda content: struct.pack("<Q", 10**12) + content[8:],
        lambda content: rewritten(content, lambda values: first(values).update(data_offsets=[0, 8])),
        lambda content: rewritten(content, lambda values: first(values).update(data_offsets=[0, 2**70])),
        lambda content: rewritten(content, lambda values: first(values).update(dtype="F7")),
        lambda content: rewritten(content, lambda values: first(values).update(shape=[2**62, 2**62])),
        lambda content: b"\x80\x04pickle" + content,
    ],
    ids=["trailing", "huge header", "overlap", "beyond", "dtype", "overflow", "pickle"],
)
def test_a_damaged_file_is_refused(
    folder: Path, language_model: LanguageModel, damage: Callable[[bytes], bytes]
) -> None:
    (folder / TENSORS_FILE).write_bytes(damage((folder / TENSORS_FILE).read_bytes()))
    refused(folder, language_model, rf"{TENSORS_FILE} is damaged")


def test_a_name_that_the_header_has_twice_is_refused(folder: Path, language_model: LanguageModel) -> None:
    content = (folder / TENSORS_FILE).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    name, value = next((name, value) for name, value in json.loads(content[8 : 8 + size]).items() if name[0] != "_")
    again = f"{{{json.dumps(name)}: {json.dumps(value)}, ".encode() + content[9 : 8 + size]
    (folder / TENSORS_FILE).write_bytes(struct.pack("<Q", len(again)) + again + content[8 + size :])
    refused(folder, language_model, "its header lists a name twice")


def test_far_more_tensors_than_any_model_has_are_refused(folder: Path, language_model: LanguageModel) -> None:
    content = (folder / TENSORS_FILE).read_bytes()
    end = len(content) - 8 - struct.unpack("<Q", content[:8])[0]
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    many = {f"x{number}": nothing for number in range(20_000)}
    (folder / TENSORS_FILE).write_bytes(rewritten(content, lambda values: values.update(many)))
    refused(folder, language_model, "tensors: no model of this family has so many")


def test_missing_unexpected_and_wrongly_shaped_tensors_are_named_together(
    folder: Path, language_model: LanguageModel
) -> None:
    names = sorted(load_file(folder / TENSORS_FILE))

    def damage(state: dict[str, Tensor]) -> None:
        del state[names[0]]
        state["base_model.model.surplus"] = torch.zeros(1)
        state[names[1]] = torch.zeros(9, 4)

    change_tensors(folder, damage)
    refused(
        folder, language_model, rf"1 missing \({names[0]}\); 1 unexpected .*surplus\); .*{names[1]} \(9, 4\) instead"
    )


def test_a_lora_of_another_rank_than_its_configuration_is_refused(folder: Path, language_model: LanguageModel) -> None:
    change_config(folder, r=5)
    refused(folder, language_model, r"wrong shape .*\(4, \d+\) instead of \(5, \d+\)")


def test_a_lora_for_the_other_language_model_is_refused(kind: str, folder: Path) -> None:
    other = tiny_models.our_model("llama" if kind == "t5" else "t5").language_model
    refused(folder, other, "no layers named q.*made for another backbone")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(
    folder: Path, language_model: LanguageModel, value: float
) -> None:
    name = min(load_file(folder / TENSORS_FILE))
    change_tensors(folder, lambda state: state[name][0].fill_(value))
    refused(folder, language_model, "lora_A.* with values that are not finite")


def test_integers_are_no_weights(folder: Path, language_model: LanguageModel) -> None:
    name = min(load_file(folder / TENSORS_FILE))
    change_tensors(folder, lambda state: state.update({name: state[name].long()}))
    refused(folder, language_model, "lora_A.* not of floating point numbers")


def test_half_precision_files_are_widened(kind: str, folder: Path, language_model: LanguageModel) -> None:
    change_tensors(folder, lambda state: state.update({name: tensor.bfloat16() for name, tensor in state.items()}))
    load_lora(folder, language_model)
    saved = load_file(folder / TENSORS_FILE)
    for name, parameter in lora_parameters(language_model).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, saved[f"base_model.model.{name.replace('.default', '')}"].float())
