import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pretrain_mini import pretrain
from pretrain_mini.architecture import normalised
from pretrain_mini.batches import Batch, BatchMaker, BatchShape
from pretrain_mini.labels import FAMILY_NAMES, IGNORED, Ids
from pretrain_mini.losses import WEIGHTS, all_losses
from pretrain_mini.parallel import Peers
from pretrain_mini.pretrain import MODEL_FILE, Settings, Trainer, forget_after, main, shape_of, warmth
from pretrain_mini.reading import LANGUAGE_MODELS, LanguageModelName
from pretrain_mini.report import save_curve
from pretrain_mini.rewriting import TextPair
from pretrain_mini.row_tokenizer import Rows, RowTokenizer
from pretrain_mini.rows import FOREIGN
from pretrain_mini.weights import export
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.errors import CheckpointError

HEAD = "language_model.lm_head.weight"
TINY = BatchShape(pictures=3, pages=1, asked=4, scored=1, rewritten=2, told=1, read=2, compared=1)
ALONE = Peers(0, torch.zeros(1, 1), get_context("spawn").Barrier(1))


def test_the_learning_rates_rise_twice_and_fall_to_nothing(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, warm_up=0.1, seeing=0.5, typing=0, decay=0.2)
    first, second = [[warmth(begin + step, settings) for step in (0.0, 0.05, 0.1, 0.2)] for begin in (0.0, 0.5)]
    assert first[0] == second[0] == 0.0
    assert all(phase[1] == pytest.approx(0.5) and phase[2:] == pytest.approx([1, 1]) for phase in (first, second))
    assert warmth(0.9, settings) == pytest.approx(0.5)
    assert warmth(1.0, settings) == warmth(2.0, settings) == 0.0


def test_a_resumed_training_has_the_same_state(tmp_path: Path) -> None:
    trainer = Trainer(Settings(output=tmp_path, seed=1, processes=1))
    trainer.step, trainer.pictures, trainer.elapsed_s = 7, 448, 30.0
    for parameter in trainer.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    trainer.update()
    trainer.save(ALONE)
    resumed = Trainer(Settings(output=tmp_path, seed=2, processes=1, resume=True))
    assert (resumed.step, resumed.pictures, resumed.elapsed_s) == (8, 448, 30.0)
    pairs = zip(trainer.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    muon, adamw = resumed.optimizers.muon.state, resumed.optimizers.adamw.state
    assert len(muon) + len(adamw) == len(resumed.parameters())
    assert all(state["momentum_buffer"].any() for state in muon.values())
    assert all(state["exp_avg"].any() for state in adamw.values())


def _state(folder: Path) -> list[Tensor]:
    trainer = Trainer(Settings(output=folder, processes=1, steps=6, resume=True))
    muon, adamw = trainer.optimizers.muon.state, trainer.optimizers.adamw.state
    kept = [value for state in (*muon.values(), *adamw.values()) for value in state.values()]
    return [*trainer.parameters(), *kept]


@pytest.mark.slow
def test_a_training_that_was_killed_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in (
        ("SEEING", BatchShape(pictures=2, pages=1)),
        ("TYPING", BatchShape(pictures=0, rewritten=2, read=2)),
        ("RELATING", replace(TINY, families=("position",))),
        ("ANSWERING", TINY),
    ):
        monkeypatch.setattr(pretrain, name, shape)
    update = Trainer.update

    def killed(self: Trainer) -> None:
        if self.step == 4 and self.settings.output == tmp_path / "killed" and not self.settings.resume:
            raise KeyboardInterrupt
        update(self)

    monkeypatch.setattr(Trainer, "update", killed)

    def train(folder: Path, *, resume: bool) -> None:
        folder.mkdir(exist_ok=True)
        phases = {"seeing": 0.3, "typing": 0.3, "relating": 0.5}
        settings = Settings(output=folder, processes=1, steps=6, **phases, checkpoint_s=0, resume=resume)
        pretrain._train(0, settings, ALONE.slots, ALONE.barrier)

    train(tmp_path / "whole", resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", resume=False)
    train(tmp_path / "killed", resume=True)
    pairs = zip(_state(tmp_path / "whole"), _state(tmp_path / "killed"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_kill_between_two_checkpoints_leaves_the_old_one(tmp_path: Path) -> None:
    trainer = Trainer(Settings(output=tmp_path, processes=1))
    trainer.save(ALONE)
    trainer.settings.checkpoint.rename(tmp_path / "checkpoint.old")
    pretrain._recover(trainer.settings.checkpoint)
    Trainer(Settings(output=tmp_path, processes=1, resume=True))


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing to resume: .*checkpoint is missing"):
        Trainer(Settings(output=tmp_path, resume=True))


def test_a_new_training_can_start_from_an_exported_model(tmp_path: Path) -> None:
    trainer = Trainer(Settings(output=tmp_path, seed=1))
    trainer.save(ALONE)
    export(trainer.settings.checkpoint / MODEL_FILE, tmp_path / "model")
    started = Trainer(Settings(output=tmp_path / "new", seed=2, start=tmp_path / "model"))
    assert (started.step, started.elapsed_s) == (0, 0.0)
    pairs = zip(trainer.model.parameters(), started.model.parameters(), strict=True)
    assert all(torch.equal(a.half().float(), b) for a, b in pairs)


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pretrain", "--output", str(tmp_path), "--resume"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 5
    assert capsys.readouterr().err.count("\n") == 1


def test_a_training_is_resumed_with_its_own_kind_of_language_model(tmp_path: Path) -> None:
    Trainer(Settings(output=tmp_path, language_model="llama")).save(ALONE)
    with pytest.raises(CheckpointError, match="trains llama, not t5"):
        Trainer(Settings(output=tmp_path, resume=True))


def test_a_step_sees_as_much_as_it_is_told(tmp_path: Path) -> None:
    plain, scaled = (shape_of(0, Settings(output=tmp_path, seeing=0, typing=0, scale=scale)) for scale in (1, 3))
    assert scaled == plain.times(3)
    maker = BatchMaker(0, ("pillow",))
    few, many = (maker.make(0, TINY.times(scale)) for scale in (1, 3))
    assert len(many.pixels) == 3 * len(few.pixels)
    count = [sum(len(rows.target_ids) for rows in batch.text) for batch in (few, many)]
    assert count[1] == 3 * count[0]
    count = [sum(len(rows.picture) for rows in batch.visual) for batch in (few, many)]
    assert count[1] == 3 * count[0]


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_the_losses_of_what_is_written_are_those_of_transformers(kind: LanguageModelName, tmp_path: Path) -> None:
    """Recording attention and padding rows change nothing: the mean over rows of a plain cross-entropy each."""
    trainer = Trainer(Settings(output=tmp_path, language_model=kind))
    batch = BatchMaker(0, ("pillow",), kind).make(0, TINY)
    with torch.no_grad():
        losses = all_losses(trainer.model, trainer.heads, batch)
        assert losses.keys() == WEIGHTS.keys()
        theirs = their_language_model(trainer)
        prefixes = [prefix for rows in batch.visual for prefix in image_prefixes(trainer.model, batch, rows)]
        pairs = [pair for rows in batch.visual for pair in zip(rows.prompt_ids, rows.target_ids, strict=True)]
        every = [their_loss(theirs, kind, *pair, prefix) for pair, prefix in zip(pairs, prefixes, strict=True)]
        fits = np.concatenate([rows.fits for rows in batch.visual])
        asked = np.array(every)[fits != 0]
        texts = [pair for rows in batch.text for pair in zip(rows.prompt_ids, rows.target_ids, strict=True)]
        rewritten = [their_loss(theirs, kind, *pair) for pair in texts]
    margins = [low - high for low in np.array(every)[fits == 0] for high in np.array(every)[fits == 1]]
    distances = [0.5 * np.logaddexp(0, (1.5 - margin) / 0.5) for margin in margins]
    assert losses["unlikely"].item() == pytest.approx(np.sum(distances) / max(1, len(distances)), abs=1e-3)
    assert losses["target"].item() == pytest.approx(np.mean(asked), abs=1e-3)
    assert losses["rewrite"].item() == pytest.approx(np.mean(rewritten), abs=1e-3)


def their_language_model(trainer: Trainer) -> Any:
    """Returns transformers' language model with the weights of the training."""
    from transformers import InstructBlipForConditionalGeneration

    trainer.save(ALONE)
    export(trainer.settings.checkpoint / MODEL_FILE, trainer.settings.output / "model")
    theirs = InstructBlipForConditionalGeneration.from_pretrained(
        trainer.settings.output / "model", dtype=torch.float32
    )
    ours = trainer.model.language_model.state_dict()
    theirs.language_model.load_state_dict({name: ours[name] for name in ours}, strict=False)  # exported in 16 bits
    return theirs.language_model.eval()


def image_prefixes(model: InstructBlip, batch: Batch, rows: Rows) -> list[Tensor]:
    """Returns each row's (1, Q, L), computed alone."""
    image_embeds = model.encode_image(normalised(torch.from_numpy(batch.pixels)))
    ids = [torch.from_numpy(row[row != 0])[None] for row in rows.qformer_ids]
    pictures = [image_embeds[picture][None] for picture in rows.picture]
    return [
        model.project(model.query(picture, row, torch.ones_like(row))[0])
        for picture, row in zip(pictures, ids, strict=True)
    ]


def their_loss(theirs: Any, kind: str, prompt_ids: Ids, target_ids: Ids, prefix: Tensor | None = None) -> float:
    """Returns transformers' mean cross-entropy of one row without its padding."""
    prompt, target = (torch.from_numpy(ids[ids != 0])[None] for ids in (prompt_ids, target_ids))
    read = prompt if kind == "t5" else torch.cat([prompt, target], dim=1)
    embeds = theirs.get_input_embeddings()(read)
    if prefix is not None:
        embeds = torch.cat([prefix, embeds], dim=1)
    labels = target
    if kind == "llama":
        labels = torch.cat([torch.full((1, embeds.shape[1] - target.shape[1]), -100), target], dim=1)
    return float(theirs(inputs_embeds=embeds, labels=labels).loss)


@pytest.mark.parametrize("kind", ["t5", pytest.param("llama", marks=pytest.mark.slow)])
def test_a_step_of_either_kind_lowers_its_losses(kind: LanguageModelName, tmp_path: Path) -> None:
    trainer = Trainer(
        Settings(output=tmp_path, processes=1, language_model=kind, warm_up=0.5, steps=8, seeing=0, typing=0)
    )
    batch = BatchMaker(0, ("pillow",), kind).make(0, TINY)
    totals = []
    for _ in range(4):
        losses = trainer.losses(batch)
        totals.append(losses["target"].item() + losses["rewrite"].item())
        trainer.step = 2
        trainer.update()
    assert totals[-1] < totals[0]


def test_an_exported_llama_answers_as_transformers_does(tmp_path: Path) -> None:
    from transformers import InstructBlipForConditionalGeneration

    trainer = Trainer(Settings(output=tmp_path, language_model="llama"))
    trainer.save(ALONE)
    export(trainer.settings.checkpoint / MODEL_FILE, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 15 * 2**20
    theirs = InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ours = load_model(tmp_path / "model", device=torch.device("cpu"), dtype=torch.float32)
    context = ours.context(["what colour?", "is it red </s>?"], None)
    with torch.no_grad():
        logits, _ = ours.network.language_model.prefill(context.inputs_embeds, context.attention_mask)
        mask = context.attention_mask.long()
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        expected = theirs.language_model(
            inputs_embeds=context.inputs_embeds, attention_mask=mask, position_ids=places
        ).logits
        assert torch.allclose(logits[:, 0], expected[:, -1], atol=1e-4)
        pixels = torch.randn(2, 3, 120, 120)
        assert torch.allclose(
            ours.network.encode_image(pixels), theirs.vision_model(pixels).last_hidden_state, atol=1e-4
        )


def test_an_exported_llama_reads_what_it_was_trained_on(tmp_path: Path) -> None:
    trainer = Trainer(Settings(output=tmp_path, language_model="llama"))
    trainer.save(ALONE)
    export(trainer.settings.checkpoint / MODEL_FILE, tmp_path / "model")
    tokenizer = load_model(tmp_path / "model", device=torch.device("cpu"), dtype=torch.float32).tokenizer
    text = "is </s> or <pad> or <unk> red?"
    ids, rows = tokenizer.prompt_ids(text), RowTokenizer("llama").pairs([TextPair(prompt=text, target="no")])
    assert ids == rows[0][0].tolist()
    assert tokenizer.target_ids("no") == rows[1][0].tolist()
    assert not {0, 1, 2} & set(ids[1:])


def test_the_log_forgets_what_is_trained_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": step}) + "\n" for step in (50, 100, 150)))
    forget_after(log, step=120)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [50, 100]
    forget_after(tmp_path / "new.jsonl", step=0)
    assert (tmp_path / "new.jsonl").read_text() == ""


def test_an_exported_folder_loads_in_transformers_as_the_same_model(tmp_path: Path) -> None:
    from transformers import InstructBlipForConditionalGeneration

    trainer = Trainer(Settings(output=tmp_path))
    trainer.save(ALONE)
    export(trainer.settings.checkpoint / MODEL_FILE, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 15 * 2**20
    theirs = InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ours = load_model(tmp_path / "model", device=torch.device("cpu"), dtype=torch.float32).network
    assert torch.equal(theirs.state_dict()[HEAD], ours.state_dict()[HEAD])
    assert not torch.equal(theirs.state_dict()[HEAD], theirs.state_dict()["language_model.shared.weight"])
    pixels = torch.randn(2, 3, 120, 120)
    with torch.no_grad():
        expected = theirs.vision_model(pixels).last_hidden_state
        assert torch.allclose(ours.encode_image(pixels), expected, atol=1e-4)


def test_the_curve_is_drawn_from_the_log(tmp_path: Path) -> None:
    lines = [{"pictures": 10 * step, **dict.fromkeys(WEIGHTS, 3.0 / step)} for step in range(1, 20)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (960, 540)


def test_a_step_that_relates_asks_nothing_else() -> None:
    shape = BatchShape(pictures=3, asked=24, families=("position", "same"))
    batch = BatchMaker(0, ("pillow",)).make(0, shape)
    asked = {FAMILY_NAMES[family] for rows in batch.visual for family in rows.labels.family if family != IGNORED}
    assert asked == {"position", "same", FOREIGN}
