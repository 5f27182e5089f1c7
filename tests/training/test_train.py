"""The laws of training: resumed equals uninterrupted, cached equals fresh, ours equals transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from PIL import Image
from torch import Tensor

from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.errors import CheckpointError, DivergedError, InputError, OutputInUseError, ResourceError
from vlinstruct.files import lock
from vlinstruct.media.images import load_image
from vlinstruct.training.devices import Devices
from vlinstruct.training.examples import answer_nll
from vlinstruct.training.features import FeatureRows, Features, compute_features
from vlinstruct.training.frontier import Frontier, frontier, unfreeze
from vlinstruct.training.job import Progress
from vlinstruct.training.schedule import epoch_batches
from vlinstruct.training.settings import TrainingSettings
from vlinstruct.training.state import newest_state, save_state
from vlinstruct.training.train import plan_training
from vlinstruct.training.train import train as run_training

from .training_set import DROPPING, SETTINGS, job, model, result, samples

# The first, one at a checkpoint, those at and after a validation, the last: what the loop may do after an update.
# With everything that learns, one kind of model is stopped after each of them; the loop does not know kinds.
SOME_UPDATES = (1, 3, 5, 6, 11)


def train(
    backbone: Path,
    folder: Path,
    data: Path,
    *,
    settings: TrainingSettings = SETTINGS,
    stop_after: int | None = None,
    **more: Any,
) -> list[str]:
    """Trains, and stops after so many updates of this call; returns the notices."""
    notices: list[str] = []
    updates: list[Mapping[str, Any]] = []

    def should_stop() -> bool:
        is_training = (folder / "log.jsonl").exists()  # and no longer computing features
        return stop_after is not None and is_training and len(updates) >= stop_after - 1

    progress = Progress(on_step=updates.append, notify=notices.append, should_stop=should_stop)
    wanted = job(model(backbone), samples(data), folder, settings, **more)
    run_training(wanted, devices=Devices(cpu=True), progress=progress)
    return notices


@pytest.fixture(scope="module", params=["t5", "llama"])
def whole(
    request: pytest.FixtureRequest, tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A backbone, a finished training of it, and its data."""
    root = tmp_path_factory.mktemp("whole")
    backbone = tiny_folders[request.param]
    train(backbone, root / "adapter", root / "data")
    return backbone, root / "adapter", root / "data"


@pytest.fixture(scope="module", params=["t5", "llama"])
def dropping(
    request: pytest.FixtureRequest, tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """The same with all that can learn: LoRA with dropout, ln_vision, CMAA; and with validations."""
    root = tmp_path_factory.mktemp("dropping")
    backbone, data = tiny_folders[request.param], root / "data"
    train(backbone, root / "adapter", data, settings=replace(SETTINGS, **DROPPING), validation=samples(data)[:3])
    return backbone, root / "adapter", data


@pytest.mark.parametrize(
    ("whole", "stop_after"), [(kind, stop) for kind in ("t5", "llama") for stop in SOME_UPDATES], indirect=["whole"]
)
def test_resumed_equals_uninterrupted(stop_after: int, whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, adapter, data = whole
    train(backbone, tmp_path, data, stop_after=stop_after)
    assert not (tmp_path / "alignment.safetensors").exists()
    train(backbone, tmp_path, data, resume=True)
    assert result(tmp_path) == result(adapter)


@pytest.mark.parametrize(
    ("dropping", "stop_after"),
    [("t5", stop) for stop in range(1, 12)] + [("llama", stop) for stop in SOME_UPDATES],
    indirect=["dropping"],
)
def test_resumed_equals_uninterrupted_at_every_update_with_dropout(
    stop_after: int, dropping: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    backbone, adapter, data = dropping
    settings = replace(SETTINGS, **DROPPING)
    validation = samples(data)[:3]
    train(backbone, tmp_path, data, settings=settings, validation=validation, stop_after=stop_after)
    train(backbone, tmp_path, data, settings=settings, validation=validation, resume=True)
    assert result(tmp_path) == result(adapter)
    assert len(result(adapter)) == 7  # log, adapter, best, LoRA in both, the checkpoint's two


def test_stopped_after_every_single_update_it_ends_the_same(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, adapter, data = whole
    for _ in range(SETTINGS.max_steps or 0):
        train(backbone, tmp_path, data, stop_after=1, resume=True)
    assert result(tmp_path) == result(adapter)


def test_updates_after_the_last_checkpoint_are_done_again(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, adapter, data = whole
    train(backbone, tmp_path, data, stop_after=7)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000007")
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'{"step": 8, "lo')
    train(backbone, tmp_path, data, resume=True)
    assert result(tmp_path) == result(adapter)


def test_a_damaged_checkpoint_is_passed_over_and_said(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, adapter, data = whole
    train(backbone, tmp_path, data, stop_after=7)
    damaged = tmp_path / "checkpoints" / "step-00000007" / "learning.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (notice,) = train(backbone, tmp_path, data, resume=True)
    assert "step-00000007 is damaged" in notice
    assert result(tmp_path) == result(adapter)


def test_a_link_in_the_place_of_a_checkpoint_stops_no_saving(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    state, _ = newest_state(whole[1] / "checkpoints")
    assert state is not None
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    for step, target in ((1, elsewhere), (2, elsewhere), (3, tmp_path / "nowhere")):
        (folder / f"step-{step:08}").symlink_to(target)
    for step in (2, 3):
        save_state(folder, replace(state, step=step))
    assert {path.name: path.is_symlink() for path in folder.iterdir()} == {
        "step-00000002": False,
        "step-00000003": False,
    }
    assert (elsewhere / "kept").exists()


def test_a_manifest_opens_no_other_file_than_a_checkpoints_own(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint = max((whole[1] / "checkpoints").iterdir())
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoints" / checkpoint.name)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest |= {"../../../secret": "0" * 64, "/etc/passwd": "0" * 64}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    state, notices = newest_state(tmp_path / "checkpoints")
    assert state is not None
    assert notices == [], "a name that was looked up would have another checksum, or be missing"


def test_nothing_but_damaged_checkpoints_is_refused(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, data = whole
    train(backbone, tmp_path, data, stop_after=2)
    (tmp_path / "checkpoints" / "step-00000002" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="all checkpoints"):
        train(backbone, tmp_path, data, resume=True)


def test_a_finished_training_is_left_alone(whole: tuple[Path, Path, Path]) -> None:
    backbone, adapter, data = whole
    before = {path: path.stat().st_mtime_ns for path in adapter.rglob("*") if path.is_file()}
    (notice,) = train(backbone, adapter, data, resume=True)
    assert "already complete" in notice
    assert before == {path: path.stat().st_mtime_ns for path in adapter.rglob("*") if path.is_file()}


def test_a_run_is_not_overwritten_without_resume(whole: tuple[Path, Path, Path]) -> None:
    backbone, adapter, data = whole
    with pytest.raises(InputError, match="it holds a run"):
        train(backbone, adapter, data)


def test_other_settings_are_not_resumed(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, data = whole
    train(backbone, tmp_path, data, stop_after=2)
    with pytest.raises(InputError, match=r"learning_rate was 0.01, is 0.02"):
        train(backbone, tmp_path, data, resume=True, settings=replace(SETTINGS, learning_rate=0.02))


def test_changed_data_is_not_resumed(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, _ = whole
    train(backbone, tmp_path / "a", tmp_path / "data", stop_after=2)
    changed = [replace(one, answer="other") for one in samples(tmp_path / "data")]
    with pytest.raises(InputError, match="data was"):
        run_training(job(model(backbone), changed, tmp_path / "a", SETTINGS, resume=True), devices=Devices(cpu=True))


def test_resume_without_a_checkpoint_starts_anew_and_says_so(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, adapter, data = whole
    (notice,) = train(backbone, tmp_path, data, resume=True)
    assert "begins with its first" in notice
    assert result(tmp_path) == result(adapter)


def test_two_runs_do_not_share_a_folder(whole: tuple[Path, Path, Path]) -> None:
    backbone, adapter, data = whole
    with (adapter / ".lock").open("ab") as stream:
        lock(stream, "other")
        with pytest.raises(OutputInUseError):
            train(backbone, adapter, data, resume=True)


@pytest.mark.parametrize("ema", [True, False])
def test_the_adapter_answers_as_the_trained_model(ema: bool, whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, data = whole
    trained, loaded = model(backbone), model(backbone)
    settings = replace(SETTINGS, ema=ema, max_steps=2)
    run_training(job(trained, samples(data), tmp_path, settings), devices=Devices(cpu=True))
    assert load_adapter(tmp_path, loaded.network).use_ema is ema
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, trained.network.state_dict()[name]), name


def test_only_the_projection_learns(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, data = whole
    before, after = model(backbone), model(backbone)
    run_training(job(after, samples(data), tmp_path, SETTINGS), devices=Devices(cpu=True))
    old = before.network.state_dict()
    changed = [name for name, value in after.network.state_dict().items() if not torch.equal(value, old[name])]
    assert sorted(changed) == ["language_projection.bias", "language_projection.weight"]


@pytest.mark.parametrize(("together", "num_readers"), [(1, 1), (3, 1), (16, 1), (3, 4)])
@pytest.mark.parametrize("more", [{}, {"ema": False}, {"learned_cmaa": True}, {"ln_vision": True}])
def test_cached_features_are_bit_for_bit_the_fresh_ones(
    together: int, num_readers: int, more: dict[str, bool], whole: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    backbone, _, data = whole
    ours, learned, settings = model(backbone), samples(data), replace(SETTINGS, **more)
    unfreeze(ours.network, settings)
    kept = frontier(ours, settings.layers, [sample.instruction for sample in learned])
    rows = FeatureRows.of(learned, is_per_picture=kept.is_per_picture)
    num_rows = len(rows.firsts)
    features = Features(tmp_path, fingerprint="f", num_rows=num_rows, shape=kept.shape, dtype=ours.dtype)
    compute_features(kept, rows, features, together=together, num_readers=num_readers)
    again = Features(tmp_path, fingerprint="f", num_rows=num_rows, shape=kept.shape, dtype=ours.dtype)
    assert again.missing() == []
    assert num_rows == (5 if settings.ln_vision else 7)
    for sample, row in zip(learned, rows.of_sample, strict=True):
        with Image.open(sample.image) as image:
            pixels = ours.pixel_values([image.convert("RGB")] * together)
        assert torch.equal(again.read([row])[0], _alone(kept, pixels, sample.instruction))


def test_the_room_of_features_is_taken_before_any_is_computed(tmp_path: Path) -> None:
    """Where a mapped file has none when a row is written, the system ends the process with SIGBUS."""
    Features(tmp_path, fingerprint="f", num_rows=64, shape=(32, 100), dtype=torch.float32)
    status = (tmp_path / "features.bin").stat()
    assert status.st_size == 64 * 32 * 100 * 4
    assert status.st_blocks * 512 >= status.st_size


def _alone(kept: Frontier, pixel_values: Tensor, instruction: str) -> Tensor:
    """Returns a row that is computed with nothing but itself, as often as the batch has rows."""
    num_rows = len(pixel_values)
    num_tokens = len(kept.backend.qformer_tokenizer.encode(instruction))
    padded = num_tokens if num_rows == 1 else -(-num_tokens // 16) * 16
    with torch.inference_mode():
        return kept.rows(kept.read(pixel_values), [instruction] * num_rows, padded)[num_rows // 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1)])
@pytest.mark.parametrize("is_per_picture", [False, True])
def test_processes_that_come_late_leave_no_row_out(
    order: tuple[int, ...], is_per_picture: bool, whole: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    backbone, _, data = whole
    ours, learned = model(backbone), samples(data)
    kept = frontier(ours, SETTINGS.layers, [sample.instruction for sample in learned])
    rows = FeatureRows.of(learned, is_per_picture=is_per_picture)
    features = Features(tmp_path, fingerprint="f", num_rows=len(rows.firsts), shape=kept.shape, dtype=ours.dtype)
    computed: list[int] = []
    for rank in order:  # each begins when the others' rows are there
        compute_features(
            kept, rows, features, together=2, share=(rank, len(order)), on_progress=lambda: computed.append(1)
        )
    assert features.missing() == []
    assert len(computed) == 5, "every picture in one process"


@pytest.mark.parametrize("more", [{}, {"ema": False}, {"learned_cmaa": True}, {"ln_vision": True}])
def test_the_prefix_from_the_cache_is_the_models_own(
    more: dict[str, bool], whole: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    backbone, _, data = whole
    ours, learned, settings = model(backbone), samples(data), replace(SETTINGS, **more)
    unfreeze(ours.network, settings)
    texts = [sample.instruction for sample in learned]
    kept = frontier(ours, settings.layers, texts)
    with Image.open(learned[0].image) as image, torch.inference_mode():
        pixels = ours.pixel_values([image.convert("RGB")] * len(texts))
        rows = kept.rows(kept.read(pixels), texts, 0)
        expected = ours.network.image_prefix(ours.network.encode_image(pixels), *ours.qformer_ids(texts)).clone()
    torch.testing.assert_close(kept.prefix(rows.clone(), texts), expected, atol=1e-5, rtol=1e-4)


def test_features_of_something_else_are_computed_anew(tmp_path: Path) -> None:
    first = Features(tmp_path, fingerprint="a", num_rows=2, shape=(1, 2), dtype=torch.float32)
    first.write(0, torch.ones(1, 2))
    assert first.missing() == [1]
    second = Features(tmp_path, fingerprint="b", num_rows=2, shape=(1, 2), dtype=torch.float32)
    assert second.missing() == [0, 1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "features.bin").write_bytes((folder / "features.bin").read_bytes()[:-1]),
        lambda folder: (folder / "features.bin").unlink(),
        lambda folder: (folder / "computed.bin").write_bytes(b""),
        lambda folder: (folder / "features.json").write_text("[" * 100_000),
        lambda folder: (folder / "features.json").write_bytes(b"\xff"),
    ],
)
def test_features_that_were_damaged_are_computed_anew(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"fingerprint": "a", "num_rows": 2, "shape": (1, 2), "dtype": torch.float32}
    first = Features(tmp_path, **arguments)
    first.write(1, torch.ones(1, 2))
    first.flush()
    assert Features(tmp_path, **arguments).missing() == [0]
    spoil(tmp_path)
    assert Features(tmp_path, **arguments).missing() == [0, 1]


def test_a_batch_has_the_gradients_of_one_by_one(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Accumulation changes nothing but the last bits."""
    backbone, _, data = whole
    logs = []
    for rows, parts in ((1, 4), (2, 2), (4, 1)):
        folder = tmp_path / str(rows)
        settings = replace(SETTINGS, per_device_train_batch_size=rows, gradient_accumulation_steps=parts, max_steps=3)
        train(backbone, folder, data, settings=settings)
        logs.append([json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()])
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    assert logs[2] == pytest.approx(logs[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_gradients_equal_those_of_transformers(kind: str, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    ours, theirs = model(tiny_folders[kind]), tiny_models.hf_model(kind)
    sample = samples(tmp_path)[3]
    learning = unfreeze(ours.network, replace(SETTINGS, ema=False))
    kept = frontier(ours, ("projection",), [])
    pixels = ours.image_processor([load_image(sample.image).image])
    with torch.inference_mode():
        row = kept.rows(kept.read(pixels), [sample.instruction], 0)
    prefix = kept.prefix(row.clone(), [sample.instruction])
    prompt, target = ours.tokenizer.prompt_ids(sample.prompt), ours.tokenizer.target_ids(sample.answer)
    answer_nll(ours, prefix, [prompt], [target]).backward()
    marks = [tiny_models.IMAGE_TOKEN_INDEX] * tiny_models.NUM_QUERY_TOKENS
    given = marks + prompt + (target if kind == "llama" else [])
    labels = [-100] * (len(given) - len(target)) + target if kind == "llama" else target
    qformer_ids = torch.tensor([ours.qformer_tokenizer.encode(sample.instruction)])
    theirs(
        pixel_values=pixels,
        input_ids=torch.tensor([given]),
        attention_mask=torch.ones(1, len(given), dtype=torch.long),
        qformer_input_ids=qformer_ids,
        qformer_attention_mask=torch.ones_like(qformer_ids),
        labels=torch.tensor([labels]),
    ).loss.backward()
    for name, parameter in theirs.language_projection.named_parameters():
        mine = learning[f"language_projection.{name}"].grad / len(target)
        torch.testing.assert_close(mine, parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_update(
    whole: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _, data = whole
    original, calls = answer_nll, []

    def poisoned(ours: InstructBlipBackend, *rest: Any) -> torch.Tensor:
        calls.append(rest)
        return original(ours, *rest) * (float("nan") if len(calls) == 9 else 1.0)

    monkeypatch.setattr("vlinstruct.training.examples.answer_nll", poisoned)
    with pytest.raises(DivergedError, match=r"update 5 is not finite \(samples s\d\)"):
        train(backbone, tmp_path, data)
    monkeypatch.undo()
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000003"]
    train(backbone, tmp_path, data, resume=True)
    assert result(tmp_path) == result(whole[1])


def test_a_full_disk_keeps_the_last_checkpoint(
    whole: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, adapter, data = whole
    train(backbone, tmp_path, data, stop_after=4)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        train(backbone, tmp_path, data, resume=True)
    monkeypatch.undo()
    train(backbone, tmp_path, data, resume=True)
    assert result(tmp_path) == result(adapter)


def test_too_small_a_disk_is_refused_before_anything_is_computed(
    whole: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ResourceError, match="are needed"):
        train(whole[0], tmp_path, whole[2])
    assert not (tmp_path / "features").exists()


def test_the_plan_counts_what_learns(whole: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, _, data = whole
    planned = plan_training(job(model(backbone), samples(data), tmp_path, SETTINGS))
    width = (tiny_models.T5_TEXT if backbone.name == "t5" else tiny_models.LLAMA_TEXT).get("d_model", 32)
    assert planned.learning == {"language_projection.weight": 24 * width, "language_projection.bias": width}
    assert (planned.num_samples, planned.num_steps, planned.batch_size) == (7, 12, 2)
    assert planned.features_bytes == 7 * 2 * 4 * 24 * 4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_an_epoch_has_every_sample_once(size: int) -> None:
    lengths = [((7 * number) % 13, number % 5) for number in range(41)]
    epochs = [epoch_batches(lengths, size, seed=3, epoch=epoch) for epoch in range(2)]
    for batches in epochs:
        assert sorted(index for batch in batches for index in batch) == list(range(41))
        assert max(map(len, batches)) <= size
    assert size == 100 or epochs[0] != epochs[1]
    assert epochs[0] == epoch_batches(lengths, size, seed=3, epoch=0)
