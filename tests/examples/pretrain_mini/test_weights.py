from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from pretrain_mini.pretrain import Settings, Trainer
from pretrain_mini.tokenizers import language_tokenizer
from pretrain_mini.weights import _renumbered
from vlinstruct.backends.registry import mini_folder
from vlinstruct.errors import CheckpointError

EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
QFORMER_WORDS = "qformer.embeddings.word_embeddings.weight"


def test_a_llama_takes_all_but_the_layers_from_mini(tmp_path: Path) -> None:
    untrained, started = (
        Trainer(Settings(output=tmp_path, language_model="llama", start=start)).model.state_dict()
        for start in (None, mini_folder())
    )
    stored = load_file(mini_folder() / "model.safetensors")
    tables = {EMBEDDING: "language_model.shared.weight", HEAD: HEAD, QFORMER_WORDS: QFORMER_WORDS}
    for name, tensor in started.items():
        if name not in tables:
            is_taken = not name.startswith("language_model.model.")
            assert torch.equal(tensor, stored[name].float() if is_taken else untrained[name])
    known, pieces = Tokenizer.from_file(str(mini_folder() / "tokenizer.json")), language_tokenizer()
    for name in (EMBEDDING, HEAD):
        row = stored[tables[name]][known.token_to_id("▁red")]
        assert torch.equal(started[name][pieces.token_to_id("▁red")], row.float())


def test_a_vocabulary_that_has_grown_keeps_the_pieces_it_knew() -> None:
    known, pieces = {"red": 0, "▁what": 1}, {"new": 0, "▁WHAT": 1, "red": 2, "▁what": 3}
    table, start = torch.tensor([[1.0], [2.0]]), torch.full((4, 1), 9.0)
    assert _renumbered(table, known, start, pieces).flatten().tolist() == [9.0, 2.0, 1.0, 2.0]


def test_eyes_and_language_model_may_come_from_two_folders(tmp_path: Path) -> None:
    llama, mini = mini_folder().parent / "llama_weights", mini_folder()
    settings = Settings(output=tmp_path, language_model="llama", start=llama, eyes=mini)
    started = Trainer(settings).model.state_dict()
    seeing, speaking = (load_file(folder / "model.safetensors") for folder in (mini, llama))
    for name, tensor in started.items():
        source = speaking if name.startswith("language_model.") else seeing
        assert name in (EMBEDDING, HEAD, QFORMER_WORDS) or torch.equal(tensor, source[name].float())


def test_what_was_taken_is_said(tmp_path: Path) -> None:
    (taken,) = Trainer(Settings(output=tmp_path, language_model="llama", start=mini_folder())).taken
    assert "qformer 100 of 100" in taken
    assert "language_model 2 of 81" in taken


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        Trainer(Settings(output=tmp_path, start=tmp_path / "nowhere"))
