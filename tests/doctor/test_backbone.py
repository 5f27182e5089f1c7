"""A sound backbone has no problem; whatever is done to its folder is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlinstruct.doctor import backbone
from vlinstruct.doctor.attempt import Attempt
from vlinstruct.doctor.backbone import examine_backbone
from vlinstruct.doctor.finding import DoctorSettings, Finding

HUB_ID = "owner/instructblip"


def examined(name: object, **options: Any) -> list[Finding]:
    return examine_backbone(DoctorSettings(backbone=str(name), device="cpu", offline=True, **options))


def told(findings: list[Finding], check: str, level: str) -> str:
    """Returns what was found, with how to fix it, in the findings of one check and level."""
    chosen = [one for one in findings if (one.check, one.level) == (check, level)]
    assert chosen, findings
    return "; ".join(f"{one.found}. {one.fix}" for one in chosen)


def change_json(path: Path, *parts: str, **changes: object) -> None:
    """Changes a JSON object, or the one that lies at `parts` in it; None removes a key."""
    values = json.loads(path.read_text()) if path.exists() else {}
    place = values
    for part in parts:
        place = place[part]
    place.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del place[name]
    path.write_text(json.dumps(values))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    (folder / "model.safetensors").unlink()  # safetensors 0.5 writes into the file, which may be mapped
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_sound_backbone_has_no_problem_and_answers(tiny_folders: dict[str, Path], kind: str) -> None:
    findings = examined(tiny_folders[kind])
    assert [one for one in findings if one.level == "problem"] == []
    assert "twice the same" in told(findings, "answer", "ok")
    assert f"InstructBLIP with {'T5' if kind == 't5' else 'Llama'}" in told(findings, "architecture", "ok")


def test_mini_has_nothing_to_report() -> None:
    findings = examined("mini", adapter="mini-ema")
    assert {one.level for one in findings} == {"ok"}
    assert "the shape of mini" in told(findings, "architecture", "ok")
    assert "twice the same" in told(findings, "answer with mini-ema", "ok")


@pytest.mark.parametrize(
    ("part", "changes", "check", "level", "words"),
    [
        ((), {"model_type": "kosmos-2"}, "kind", "problem", "models of kind kosmos-2 are not supported"),
        (("text_config",), {"model_type": "opt"}, "configuration", "problem", "unsupported language model 'opt'"),
        ((), {"vision_config": [1]}, "configuration", "problem", "an object was expected"),
        (("text_config",), {"eos_token_id": "x"}, "configuration", "problem", "an id or a list of ids was expected"),
        ((), {"architectures": ["Other"]}, "architecture", "notice", "names ['Other']"),
        ((), {"auto_map": {"AutoModel": "evil.Model"}}, "code", "problem", "config.json (auto_map) asks for code"),
        ((), {"num_query_tokens": None}, "num_query_tokens", "notice", "taken for 32"),
        ((), {"num_query_tokens": None}, "tensors", "problem", "query_tokens (1, 4, 24) instead of (1, 32, 24)"),
        ((), {"image_token_index": None}, "image_token_index", "notice", "an old snapshot"),
        (("text_config",), {"dense_act_fn": None}, "activation", "notice", "gelu_new, but InstructBLIP's FlanT5"),
        (("text_config",), {"decoder_start_token_id": 5}, "decoder start", "notice", "id 5, but T5 was trained"),
        (("text_config",), {"decoder_start_token_id": 500}, "decoder start", "problem", "outside of the vocabulary"),
        (("text_config",), {"eos_token_id": 7}, "end token", "notice", "config.json says id 7"),
        (("text_config",), {"pad_token_id": 1}, "padding token", "problem", "config.json says id 1 (</s>)"),
        (("text_config",), {"eos_token_id": 125}, "end token", "problem", "the tokenizer does not have"),
        (("text_config",), {"vocab_size": 50}, "vocabulary", "problem", "the language model's table has 50 rows"),
        (("qformer_config",), {"vocab_size": 50}, "vocabulary", "problem", "the Q-Former's table has 50 rows"),
    ],
)
def test_a_setting_that_is_wrong_is_found(
    folder: Path, part: tuple[str, ...], changes: dict[str, object], check: str, level: str, words: str
) -> None:
    change_json(folder / "tokenizer_config.json", eos_token="</s>", pad_token={"content": "<pad>"})
    change_json(folder / "config.json", *part, **changes)
    assert words in told(examined(folder), check, level)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"size": {"height": 224, "width": 224}}, "problem", "the vision tower reads 28 x 28; --image-size"),
        ({"size": 28}, "ok", "28 x 28 pixels"),
        ({"image_mean": [0.5, 0.5, 0.5]}, "notice", "image_mean is (0.5, 0.5, 0.5)"),
        ({"image_std": [1, 0, 1]}, "problem", "image_std has a 0"),
        ({"image_mean": [0.5]}, "problem", "should be three numbers"),
        ({"image_mean": "x"}, "problem", "should be three numbers"),
        ({"resample": 2}, "notice", "resample is 2"),
        ({"do_normalize": False}, "notice", "image_mean is (0.0, 0.0, 0.0), image_std is (1.0, 1.0, 1.0)"),
        ({"do_center_crop": True, "do_resize": False}, "problem", "do_center_crop is true, which is not computed"),
    ],
)
def test_how_pictures_are_read_is_compared(folder: Path, changes: dict[str, object], level: str, words: str) -> None:
    change_json(folder / "preprocessor_config.json", **changes)
    assert words in told(examined(folder), "pictures", level)


def test_a_missing_image_processor_is_a_notice(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    assert "CLIP's mean and deviation are taken" in told(examined(folder), "pictures", "notice")


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (
            lambda state: state["query_tokens"][0, 1].fill_(torch.nan),
            "finite",
            "1 tensors hold NaN or infinity: query_t",
        ),
        (lambda state: state["query_tokens"][0, 1].fill_(-torch.inf), "finite", "query_tokens"),
        (lambda state: state.pop("query_tokens"), "tensors", "1 missing (query_tokens)"),
        (lambda state: state.update(surplus=torch.zeros(1)), "tensors", "1 unexpected (surplus)"),
        (lambda state: state.update(query_tokens=torch.zeros(3)), "tensors", "query_tokens (3,) instead of"),
        (lambda state: state.update(query_tokens=torch.zeros(1, 4, 24).long()), "dtype", "query_tokens int64"),
        (lambda state: state["language_projection.weight"].fill_(1e38), "answer", "its scores are not finite"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], check: str, words: str
) -> None:
    change_tensors(folder, change)
    findings = examined(folder)
    assert words in told(findings, check, "problem")
    assert check == "answer" or "not tried" in told(findings, "answer", "notice")


def test_the_types_of_the_files_are_told(folder: Path) -> None:
    change_tensors(folder, lambda state: state.update(query_tokens=state["query_tokens"].half()))
    assert "1 tensors of float16; 0.00 GB in 1 file" in told(examined(folder), "dtype", "ok")


def test_a_head_that_is_the_embedding_is_told(folder: Path) -> None:
    change_json(folder / "config.json", "text_config", tie_word_embeddings=True)
    change_tensors(folder, lambda state: state.pop("language_model.lm_head.weight"))
    assert "the head is the embedding" in told(examined(folder), "tensors", "ok")


def test_a_file_that_is_not_whole_is_named_with_what_to_do(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])
    findings = examined(folder)
    assert "bytes instead of" in told(findings, "files", "problem")
    assert "Delete it and run again" in told(findings, "files", "problem")
    assert not any(one.check in ("dtype", "tensors", "finite") for one in findings)  # the rest would be noise


@pytest.mark.parametrize("name", ["tokenizer.json", "qformer_tokenizer/tokenizer.json"])
def test_a_missing_tokenizer_is_one_problem(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (problem,) = [one for one in examined(folder) if one.level == "problem"]
    assert "tokenizer.json is missing" in problem.found


def test_a_folder_without_configuration_is_one_problem(tmp_path: Path) -> None:
    found, problem = examined(tmp_path)
    assert (found.level, problem.level, problem.check) == ("ok", "problem", "configuration")
    assert "config.json is missing" in problem.found


def test_a_model_that_does_not_fit_is_examined_but_not_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlinstruct.weights.placement.available_bytes", lambda: 1000)
    findings = examined(folder)
    assert "not tried: cannot load model" in told(findings, "answer", "notice")
    assert "all" in told(findings, "tensors", "ok")


def test_memory_that_ends_while_it_answers_is_no_bug(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB at 0x7f")

    monkeypatch.setattr(backbone, "attempt", fail)
    assert "out of memory" in told(examined(folder), "answer", "notice")


def test_answers_that_differ_are_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: Iterator[Attempt] = (Attempt(answer=answer, ias=1.0, token_nll=(1.0,)) for answer in ("red", "blue"))
    monkeypatch.setattr(backbone, "attempt", lambda model: next(attempts))
    assert "twice gave 'red' (IAS 1.00000) and 'blue'" in told(examined(folder), "answer", "problem")


def test_a_dtype_that_overflows_is_refused(folder: Path) -> None:
    assert "overflow in float16" in told(examined(folder, dtype="float16"), "answer", "problem")


def test_an_adapter_for_another_backbone_is_a_problem(folder: Path) -> None:
    assert "was made for another backbone" in told(examined(folder, adapter="mini-ema"), "answer", "problem")


def test_an_adapter_that_is_not_cached_is_a_notice(folder: Path) -> None:
    findings = examined(folder, adapter="owner/adapter")
    assert "hf download owner/adapter" in told(findings, "answer with owner/adapter", "notice")


def test_a_backbone_that_is_not_cached_is_a_notice_with_the_command_that_gets_it() -> None:
    (finding,) = examined("vicuna-7b")
    assert finding.level == "notice"
    assert "not in the cache, 32 GB to download" in finding.found
    assert "hf download Salesforce/instructblip-vicuna-7b" in str(finding.fix)


def test_an_unknown_backbone_is_a_problem() -> None:
    (finding,) = examined("flant5-xll")
    assert finding.level == "problem"
    assert str(finding.fix).startswith("Did you mean flant5-xl?")


def test_a_cached_repository_is_examined_with_its_commit(hub_cache: Path, folder: Path) -> None:
    repository = hub_cache / "models--owner--instructblip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee" * 6 + "0000")
    shutil.copytree(folder, repository / "snapshots" / ("c0ffee" * 6 + "0000"))
    findings = examined(HUB_ID)
    assert "owner/instructblip in the cache, commit c0ffeec0ffee" in told(findings, "backbone", "ok")
    assert "twice the same" in told(findings, "answer", "ok")


def test_reading_gigabytes_is_announced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vlinstruct.doctor.folder._SLOW_BYTES", 0)
    examined(folder)
    assert caplog.messages[0] == "reading 0 GB of weights"
