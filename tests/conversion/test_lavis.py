"""LAVIS's files become a folder that transformers and we load: the same weights bit for bit, the same outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lavis_files
import pytest
import torch
from lavis_files import LavisFiles
from safetensors.torch import load_file, save_file

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.load import empty_model, load_model
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.conversion.lavis import LavisParts, gathered, import_lavis, transformers_name
from vlinstruct.conversion.model_folder import Writing
from vlinstruct.errors import CheckpointError
from vlinstruct.weights.safetensors_files import shards

KINDS = ("t5", "llama")


def convert(made: LavisFiles, target: Path, **how: object) -> list[str]:
    """Converts, and returns the notices."""
    notices: list[str] = []
    config = json.loads(made.config.read_text())
    parts = LavisParts(files=made.files, language_model=made.language_model, bert=made.bert, config=config)
    import_lavis(parts, Writing(target=target, notify=notices.append, **how))  # type: ignore[arg-type]
    return notices


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in shards(folder) for name, tensor in load_file(path).items()}


def outputs(model: object, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (2, 7), generator=generator)
    image = torch.full((2, 4), lavis_files.IMAGE_TOKEN[kind])
    arguments = {
        "pixel_values": torch.randn(2, 3, 28, 28, generator=generator),
        "qformer_input_ids": torch.randint(5, 70, (2, 6), generator=generator),
        "input_ids": torch.cat([image, ids], dim=1),
    }
    labels = {"decoder_input_ids": ids[:, :3]} if kind == "t5" else {}
    with torch.no_grad():
        return model(**arguments, **labels).logits  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "prefix", "is_complete"),
    [
        (torch.float32, "", False),
        (torch.bfloat16, "module.", False),
        (torch.float16, "", True),
        (torch.float16, "module.", True),
    ],
)
def test_converted_weights_are_bit_equal_and_outputs_equal(
    tmp_path: Path, kind: str, dtype: torch.dtype, prefix: str, is_complete: bool
) -> None:
    from transformers import InstructBlipForConditionalGeneration

    made = lavis_files.write(kind, tmp_path / "lavis", dtype=dtype, prefix=prefix, is_complete=is_complete)
    convert(made, tmp_path / "out")
    found = stored(tmp_path / "out")
    assert found.keys() == made.state.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == dtype for n, t in made.state.items())
    theirs = InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(outputs(theirs, kind), outputs(lavis_files.hf_model(kind, made.state), kind))
    ours = load_model(tmp_path / "out", device=torch.device("cpu"), dtype=torch.float32).network.state_dict()
    assert all(torch.equal(tensor, made.state[name].float()) for name, tensor in ours.items())


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LavisFiles]:
    """A tiny model of each kind."""
    return {kind: lavis_files.write(kind, tmp_path_factory.mktemp(kind) / "lavis") for kind in KINDS}


@pytest.fixture
def made(templates: dict[str, LavisFiles], tmp_path: Path) -> LavisFiles:
    """A copy of the T5 one, to be changed."""
    return lavis_files.copy(templates["t5"], tmp_path / "lavis")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refusal(made: LavisFiles, target: Path, **how: object) -> str:
    """Checks that nothing is left, and returns the message."""
    with pytest.raises(CheckpointError) as caught:
        convert(made, target, **how)
    assert not [path for path in target.parent.iterdir() if "out" in path.name]
    return caught.value.message


def change(path: Path, **changes: object) -> None:
    """Changes tensors of a file's model; None takes one away."""
    content = torch.load(path, weights_only=True)
    model = content.get("model", content)
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        model.pop(name, None)
        if tensor is not None:
            model[name] = tensor
    torch.save(content, path)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_those_of_transformers_processor(
    templates: dict[str, LavisFiles], tmp_path: Path, kind: str
) -> None:
    from PIL import Image
    from transformers import InstructBlipProcessor

    convert(templates[kind], tmp_path / "out")
    processor = InstructBlipProcessor.from_pretrained(tmp_path / "out")
    theirs = processor(images=Image.new("RGB", (9, 7), "red"), text="what is it?", return_tensors="pt")
    ours = load_model(tmp_path / "out", device=torch.device("cpu"), dtype=torch.float32)
    image = [lavis_files.IMAGE_TOKEN[kind]] * 4
    assert theirs["input_ids"].tolist() == [image + ours.prompt_ids("what is it?")]
    assert theirs["qformer_input_ids"].tolist() == [ours.qformer_tokenizer.encode("what is it?")]
    assert torch.allclose(theirs["pixel_values"], ours.image_processor([Image.new("RGB", (9, 7), "red")]), atol=1e-6)


def test_vicunas_prompts_begin_with_the_end_token(templates: dict[str, LavisFiles], tmp_path: Path) -> None:
    convert(templates["llama"], tmp_path / "out")
    tokenizer = load_model(tmp_path / "out", device=torch.device("cpu"), dtype=torch.float32).tokenizer
    assert (tokenizer.prompt_prefix, tokenizer.eos_id) == ((2,), 2)
    assert tokenizer.tokenizer.token_to_id("[PAD]") == 99
    assert tokenizer.tokenizer.token_to_id("<image>") == 100


def test_the_qformers_tokenizer_gets_its_token(made: LavisFiles, target: Path) -> None:
    convert(made, target)
    values = json.loads((target / "qformer_tokenizer" / "tokenizer.json").read_text())
    assert [token["id"] for token in values["added_tokens"] if token["content"] == "[DEC]"] == [72]


def test_what_is_left_out_or_made_up_is_said_with_its_count(templates: dict[str, LavisFiles], tmp_path: Path) -> None:
    assert convert(templates["llama"], tmp_path / "out") == [
        "trimmed.pth: 3 entries beside 'model' are ignored: optimizer, config, scaler",
        "trimmed.pth: 3 tensors are left out, the model has no use for them: Qformer.bert 1, Qformer.cls 2",
        "eva.pth: 15 tensors are left out, the model has no use for them: visual_encoder.blocks.2 13, "
        "visual_encoder.norm 1, visual_encoder.head 1",
        "language_model.model.embed_tokens.weight: 2 rows are added, the mean of its 99, for InstructBLIP's tokens",
        "language_model.lm_head.weight: 2 rows are added, the mean of its 99, for InstructBLIP's tokens",
    ]


def test_a_repeated_embedding_of_the_language_model_is_left_out(made: LavisFiles, target: Path) -> None:
    assert convert(made, target)[-1] == (
        "language: 1 tensors are left out, they repeat others: encoder.embed_tokens.weight"
    )


def test_a_complete_file_needs_only_the_tokenizer(tmp_path: Path) -> None:
    made = lavis_files.write("t5", tmp_path / "lavis", is_complete=True)
    assert not (made.language_model / "model.safetensors").exists()
    assert "language: only its tokenizer is used" in convert(made, tmp_path / "out")[-1]


def test_the_last_file_has_the_last_word(made: LavisFiles, target: Path) -> None:
    """A fine-tuning's checkpoint, which holds what was trained, goes behind the files that it began with."""
    tuned = lavis_files.save(made.files[0].parent / "tuned.pth", {"query_tokens": torch.full((1, 4, 24), 7.0)})
    made.files.append(tuned)
    notices = convert(made, target)
    assert "tuned.pth: 1 tensors are taken in place of another file's: query_tokens" in notices
    assert bool((stored(target)["query_tokens"] == 7).all())


def test_the_encoder_alone_only_fills_in(made: LavisFiles, target: Path) -> None:
    """A checkpoint with a trained image encoder is not undone by eva_vit_g.pth behind it."""
    change(made.files[0], visual_encoder__cls_token=torch.full((1, 1, 32), 7.0))
    convert(made, target)
    assert bool((stored(target)["vision_model.embeddings.class_embedding"] == 7).all())


def test_a_file_without_a_model_entry_is_refused(made: LavisFiles, target: Path) -> None:
    torch.save({"Qformer.cls.bias": torch.zeros(3), "epoch": 3}, made.files[0])
    assert "no 'model' entry" in refusal(made, target)


def test_missing_unexpected_and_wrongly_shaped_tensors_are_named_together(made: LavisFiles, target: Path) -> None:
    change(made.files[0], query_tokens=None, surplus=torch.zeros(1), t5_proj__bias=torch.zeros(7))
    message = refusal(made, target)
    assert "1 missing (query_tokens)" in message
    assert "1 unexpected (surplus)" in message
    assert "1 wrong shape (language_projection.bias (7,) instead of (28,))" in message


def test_half_of_a_fused_bias_is_missing_and_unexpected(made: LavisFiles, target: Path) -> None:
    change(made.files[1], blocks__0__attn__v_bias=None)
    message = refusal(made, target)
    assert "1 missing (vision_model.encoder.layers.0.self_attn.qkv.bias)" in message
    assert "1 unexpected (vision_model.encoder.layers.0.self_attn.q_bias)" in message


def test_only_one_block_more_is_left_out(made: LavisFiles, target: Path) -> None:
    change(made.files[1], blocks__3__norm1__weight=torch.zeros(32))
    assert "vision_model.encoder.layers.3.layer_norm1.weight" in refusal(made, target)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(28, dtype=torch.int64), "language_projection.bias int64"),
        (torch.zeros(28, dtype=torch.float8_e4m3fn), "language_projection.bias float8_e4m3fn"),
        (torch.zeros(28, dtype=torch.bool), "language_projection.bias bool"),
    ],
)
def test_other_numbers_are_refused(made: LavisFiles, target: Path, tensor: torch.Tensor, words: str) -> None:
    change(made.files[0], t5_proj__bias=tensor)
    assert words in refusal(made, target)


def test_integers_are_not_hidden_in_a_fused_bias(made: LavisFiles, target: Path) -> None:
    change(made.files[1], blocks__0__attn__q_bias=torch.zeros(32, dtype=torch.int64))
    assert "vision_model.encoder.layers.0.self_attn.q_bias int64" in refusal(made, target)


def test_doubles_stay_doubles_unless_another_type_is_wanted(made: LavisFiles, tmp_path: Path) -> None:
    change(made.files[0], t5_proj__bias=torch.full((28,), 1 / 3, dtype=torch.float64))
    convert(made, tmp_path / "as-stored")
    assert stored(tmp_path / "as-stored")["language_projection.bias"].dtype == torch.float64
    convert(made, tmp_path / "single", dtype=torch.float32)
    assert {tensor.dtype for tensor in stored(tmp_path / "single").values()} == {torch.float32}


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_tensors_that_are_not_finite_are_all_named(made: LavisFiles, target: Path, number: float) -> None:
    change(made.files[0], t5_proj__bias=torch.full((28,), number), query_tokens=torch.full((1, 4, 24), number))
    message = refusal(made, target)
    assert "2 tensors in trimmed.pth, eva.pth, language hold NaN or infinity" in message
    assert "query_tokens" in message
    assert "language_projection.bias" in message


def test_they_are_kept_and_named_where_that_is_asked_for(made: LavisFiles, target: Path) -> None:
    change(made.files[0], query_tokens=torch.full((1, 4, 24), torch.nan))
    *_, notice = convert(made, target, keep_nonfinite=True)
    assert notice == "1 tensors in trimmed.pth, eva.pth, language hold NaN or infinity and were kept: query_tokens"
    assert stored(target)["query_tokens"].isnan().all()


def test_numbers_beyond_float16_are_named(made: LavisFiles, target: Path) -> None:
    change(made.files[0], t5_proj__bias=torch.full((28,), 1e6))
    message = refusal(made, target, dtype=torch.float16)
    assert (
        "1 tensors in trimmed.pth, eva.pth, language hold numbers beyond float16 (language_projection.bias)" in message
    )


def test_shared_and_scattered_tensors_are_converted_by_value(made: LavisFiles, target: Path) -> None:
    base = torch.randn(24, 28)
    change(
        made.files[0], t5_proj__weight=base.t(), t5_proj__bias=base[0], ln_vision__bias=base.t()[:, 0].repeat(2)[:32]
    )
    convert(made, target)
    assert torch.equal(stored(target)["language_projection.weight"], base.t())
    assert torch.equal(stored(target)["language_projection.bias"], base[0])


def test_a_name_that_occurs_twice_is_refused(made: LavisFiles, target: Path) -> None:
    change(made.files[0], module__query_tokens=torch.zeros(1, 4, 24))
    assert "two of its tensors are query_tokens" in refusal(made, target)
    change(made.files[0], module__query_tokens=None, llm_proj__bias=torch.zeros(28))
    assert "two of its tensors are language_projection.bias" in refusal(made, target)


@pytest.mark.parametrize(
    "thing", ["a word", 3, {"nested": {}}, torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")]
)
def test_what_is_no_plain_tensor_is_refused(made: LavisFiles, target: Path, thing: object) -> None:
    change(made.files[0], strange=thing)
    assert "its 'model' holds 'strange'" in refusal(made, target)


def test_files_of_another_language_model_are_refused(
    templates: dict[str, LavisFiles], made: LavisFiles, target: Path
) -> None:
    made.files[0] = templates["llama"].files[0]
    assert "it is for a llama, the configuration has a t5" in refusal(made, target)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "it is a llama, the configuration wants a t5"),
        ({"model_type": "opt"}, "its model_type is 'opt', neither t5 nor llama"),
        ({"num_heads": 2, "layer_norm_epsilon": 1e-5}, "num_heads 2 instead of 4, layer_norm_epsilon 1e-05"),
    ],
)
def test_a_language_model_that_computes_otherwise_is_refused(
    made: LavisFiles, target: Path, changes: dict[str, object], words: str
) -> None:
    config = made.language_model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    assert words in refusal(made, target)


def test_a_table_shorter_than_its_tokenizer_is_not_lengthened(made: LavisFiles, target: Path) -> None:
    state = load_file(made.language_model / "model.safetensors")
    # Not its copies alone: two tables that differ are another fault.
    state |= {
        name: state["shared.weight"][:50].clone()
        for name in state
        if name.endswith(("shared.weight", "embed_tokens.weight"))
    }
    save_file(state, made.language_model / "model.safetensors")
    assert "language_model.shared.weight (50, 28) instead of (130, 28)" in refusal(made, target)


@pytest.mark.parametrize("name", ["language", "bert"])
@pytest.mark.parametrize("damage", [None, "{"])
def test_a_missing_or_damaged_tokenizer_is_named(made: LavisFiles, target: Path, name: str, damage: str | None) -> None:
    path = made.files[0].parent / name / "tokenizer.json"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    assert "tokenizer.json" in refusal(made, target)


def test_a_tokenizer_of_another_model_is_refused(made: LavisFiles, target: Path) -> None:
    values = json.loads(made.config.read_text())
    made.config.write_text(json.dumps({**values, "image_token_index": 99}))
    assert "<image> gets the id 98, the configuration says 99" in refusal(made, target)
    values["qformer_config"]["vocab_size"] = 40
    made.config.write_text(json.dumps(values))
    assert "it has 73 tokens with [DEC], the Q-Former 40" in refusal(made, target)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("language", {"vocab_size": 60}, "it has 99 tokens, the configuration 60"),
        ("language", {"eos_token_id": 125}, "it has no token 125, which ends a text"),
        ("bert", {}, "it has no [CLS] or [SEP]"),
    ],
)
def test_a_tokenizer_that_lacks_something_is_refused(
    made: LavisFiles, target: Path, name: str, changes: dict[str, int], words: str
) -> None:
    values = json.loads(made.config.read_text())
    made.config.write_text(json.dumps({**values, "text_config": {**values["text_config"], **changes}}))
    if name == "bert":
        shutil.copy(made.language_model / "tokenizer.json", made.bert)
    assert words in refusal(made, target)


def test_a_name_that_a_safetensors_header_has_twice_is_refused(made: LavisFiles, target: Path) -> None:
    part = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{part},{part}}}".encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (made.language_model / "model.safetensors").write_bytes(content)
    assert "its header lists a name twice" in refusal(made, target)


def test_far_more_tensors_than_any_model_are_refused(made: LavisFiles, target: Path) -> None:
    header = json.dumps({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(20_001)})
    (made.language_model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert "has 20,001 tensors" in refusal(made, target)


def test_a_name_that_lavis_does_not_have_stays_as_it_is() -> None:
    assert transformers_name("vision_proj.weight") == "vision_proj.weight"


@pytest.mark.parametrize(
    ("name", "num_tensors"), [("flant5-xl", 1363), ("flant5-xxl", 1363), ("vicuna-7b", 1096), ("vicuna-13b", 1168)]
)
def test_every_tensor_of_the_papers_backbones_has_its_name(tmp_path: Path, name: str, num_tensors: int) -> None:
    """The names and shapes are the real ones; every number of a tensor is the same one, so that the file is small."""
    kind = "t5" if "t5" in name else "llama"
    config = InstructBlipConfig.from_dict(BACKBONES[name].config())
    expected = empty_model(config).state_dict()
    text = {n: t for n, t in expected.items() if n.startswith("language_model.")}
    theirs = {n.replace("language", "t5" if kind == "t5" else "llm", 1): t for n, t in text.items()}
    theirs |= lavis_files.lavis_state(expected, kind)
    path = lavis_files.save(tmp_path / "a.pth", {n: torch.zeros(1).expand(t.shape) for n, t in theirs.items()})
    found = gathered([path], config, notify=lambda message: None)
    assert {n: weight.shape for n, weight in found.items()} == {n: tuple(t.shape) for n, t in expected.items()}
    assert len(found) == num_tensors
