"""A folder that transformers saved computes the same here: every key that changes its logits is followed, or refused.

The models are transformers' own, of any supported version, saved by their own `save_pretrained` with keys away from
their defaults; what it computes with the folder that it wrote is the measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlinstruct.backend import Row
from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.load import load_model
from vlinstruct.errors import CheckpointError, InputError
from vlinstruct.values import good

QUESTION, ANSWERS = "what is written?", ("red", "a dog.")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
Changes = dict[str, dict[str, Any]]


def config_of(kind: str, changes: Changes) -> dict[str, Any]:
    """A tiny configuration with settings changed, by part; one that becomes None is left out."""
    values = tiny_models.tiny_config(kind)
    values["image_token_index"] = tiny_models.text_tokenizer(kind).token_to_id("<image>")
    for part, settings in changes.items():
        if part.endswith("_config"):
            merged = {**values[part], **settings}
            values[part] = {name: value for name, value in merged.items() if value is not None}
    return values


def save(kind: str, folder: Path, changes: Changes) -> Path:
    """Lets transformers build a model with random weights and a processor, and save both."""
    from transformers import (
        BlipImageProcessor,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    config = InstructBlipConfig(**config_of(kind, changes))
    model = InstructBlipForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    names = {"bos_token": "<s>"} if kind == "llama" else {}
    text = PreTrainedTokenizerFast(
        tokenizer_object=templated(kind), eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **names
    )
    qformer = PreTrainedTokenizerFast(
        tokenizer_object=bert_templated(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    side = config.vision_config.image_size
    pictures = BlipImageProcessor(size={"height": side, "width": side}, **changes.get("pictures", {}))
    InstructBlipProcessor(pictures, text, qformer, num_query_tokens=tiny_models.NUM_QUERY_TOKENS).save_pretrained(
        folder
    )
    model.save_pretrained(folder)
    return folder


def templated(kind: str) -> Any:
    from tokenizers import processors

    tokenizer = tiny_models.text_tokenizer(kind)
    single = "$A </s>" if kind == "t5" else "<s> $A"
    named = [(token, tokenizer.token_to_id(token)) for token in single.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=named)
    return tokenizer


def bert_templated() -> Any:
    from tokenizers import processors

    tokenizer = tiny_models.qformer_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def theirs(folder: Path, image_size: int | None = None) -> list[list[float]]:
    """The nats of every token of the answers, as transformers computes them with a folder."""
    from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

    model = InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = InstructBlipProcessor.from_pretrained(folder)
    sized = {} if image_size is None else {"size": {"height": image_size, "width": image_size}}
    inputs = dict(processor(images=PICTURE, text=QUESTION, return_tensors="pt", **sized))
    if image_size is not None:
        inputs["interpolate_pos_encoding"] = True
    return [_nats(model, inputs, processor.tokenizer, answer) for answer in ANSWERS]


def _nats(model: Any, inputs: dict[str, Tensor], tokenizer: Any, answer: str) -> list[float]:
    ids = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.inference_mode():
        if model.language_model.config.is_encoder_decoder:
            logits = model(**inputs, labels=torch.tensor([ids])).logits[0]
        else:
            rows = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
            longer = {**inputs, "input_ids": rows, "attention_mask": torch.ones_like(rows)}
            logits = model(**longer).logits[0][-len(ids) - 1 : -1]
    nats: list[float] = (-logits.log_softmax(-1)[range(len(ids)), ids]).tolist()
    return nats


def load(folder: Path, image_size: int | None = None) -> InstructBlipBackend:
    return load_model(folder, device=torch.device("cpu"), dtype=torch.float32, image_size=image_size)


def ours(backend: InstructBlipBackend) -> list[list[float]]:
    """The same from us."""
    (seen,) = map(good, backend.see([PICTURE]))
    (scores,) = backend.score([Row(prompt=QUESTION, reads=QUESTION, seen=(seen,), stage="score")], [list(ANSWERS)])
    return [list(score.token_nll) for score in good(scores)]


def assert_same(got: list[list[float]], right: list[list[float]]) -> None:
    assert [len(row) for row in got] == [len(row) for row in right]
    np.testing.assert_allclose(np.concatenate(got), np.concatenate(right), atol=2e-4)


def is_same(got: list[list[float]], right: list[list[float]]) -> bool:
    """Says whether the weights are the same: mapped at another place of a file, their products may round otherwise."""
    return bool(np.allclose(np.concatenate(got), np.concatenate(right), rtol=0, atol=1e-5))


def edit(path: Path, part: str | None = None, **changes: object) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    (values if part is None else values.setdefault(part, {})).update(changes)
    path.write_text(json.dumps(values))


VISION = {"layer_norm_eps": 0.01, "qkv_bias": False, "hidden_act": "relu", "patch_size": 7}
QFORMER = {"layer_norm_eps": 0.01, "hidden_act": "silu", "cross_attention_frequency": 1}
QFORMER |= {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4}
T5 = {"num_decoder_layers": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}
T5 |= {"layer_norm_epsilon": 0.01, "decoder_start_token_id": 3, "dropout_rate": 0.4}
LLAMA = {"head_dim": 6, "hidden_act": "gelu", "rms_norm_eps": 0.01, "attention_bias": True, "mlp_bias": True}
LLAMA |= {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "num_key_value_heads": 1}
PICTURES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2, "rescale_factor": 1 / 127.5}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("t5", {"text_config": T5, "vision_config": VISION, "qformer_config": QFORMER}),
        ("llama", {"text_config": LLAMA, "vision_config": VISION, "qformer_config": QFORMER}),
        ("t5", {"text_config": {"tie_word_embeddings": True, "dense_act_fn": None}}),  # the first T5: scaled
        ("t5", {"text_config": {"feed_forward_proj": "relu", "dense_act_fn": None}}),
        ("t5", {"text_config": {"feed_forward_proj": "gated-silu", "dense_act_fn": None}}),
        ("llama", {"text_config": {"tie_word_embeddings": True}}),
        ("llama", {"text_config": {"num_key_value_heads": None}}),
        ("llama", {"pictures": PICTURES}),
        ("t5", {"pictures": {"do_normalize": False}}),
        ("llama", {"pictures": {"do_rescale": False}}),
    ],
)
def test_a_saved_folder_computes_what_transformers_does(kind: str, changes: Changes, tmp_path: Path) -> None:
    folder = save(kind, tmp_path / "model", changes)
    assert_same(ours(load(folder)), theirs(folder))


def test_what_transformers_5_writes_of_flan_t5_is_not_scaled(tmp_path: Path) -> None:
    folder = save("t5", tmp_path / "model", {})
    text = json.loads((folder / "config.json").read_text())["text_config"]
    assert text.get("scale_decoder_outputs") is False
    plain = load(folder)
    edit(folder / "config.json", "text_config", scale_decoder_outputs=True)
    assert plain.network.language_model.output_scale == 1
    assert load(folder).network.language_model.output_scale == text["d_model"] ** -0.5


def test_image_settings_in_the_processors_file_win_over_an_older_save(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model", {"pictures": PICTURES})
    nested = json.loads((folder / "processor_config.json").read_text()).get("image_processor")
    if nested is None:  # an older transformers writes the flat file
        nested = json.loads((folder / "preprocessor_config.json").read_text())
        edit(folder / "processor_config.json", image_processor=nested)
    right = ours(load(folder))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [9.0] * 3}))
    assert is_same(ours(load(folder)), right)
    edit(folder / "processor_config.json", image_processor=None)
    assert not is_same(ours(load(folder)), right)


@pytest.mark.parametrize(
    ("changes", "same_as"),
    [
        ({"image_mean": 0.5}, {"image_mean": [0.5, 0.5, 0.5]}),
        ({"resample": "bilinear"}, {"resample": 2}),
        ({"resample": None, "do_center_crop": None}, {}),
        ({"size": 28, "crop_size": {"height": 9, "width": 9}}, {}),
    ],
)
def test_other_spellings_of_image_settings_mean_the_same(
    changes: dict[str, Any], same_as: dict[str, Any], tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    def score(settings: dict[str, Any]) -> list[list[float]]:
        edit(folder / "preprocessor_config.json", **settings)
        return ours(load(folder))

    folder = copy(tiny_folders["t5"], tmp_path)
    right = score(same_as)
    assert is_same(score(changes), right)


def copy(folder: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True))


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("image_size", [56, 45])
def test_other_image_sizes_interpolate_the_positions(kind: str, image_size: int, tmp_path: Path) -> None:
    folder = save(kind, tmp_path / "model", {})
    assert_same(ours(load(folder, image_size)), theirs(folder, image_size))


def test_an_image_size_below_a_patch_is_refused(tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="patches of 14 pixels"):
        load(tiny_folders["t5"], 13)


@pytest.mark.parametrize(
    ("file", "part", "changes", "words"),
    [
        ("config.json", "text_config", {"soft_cap": 30.0}, "soft_cap is 30.0, which this version does not know"),
        ("config.json", "text_config", {"is_decoder": True}, "is_decoder is True, only False"),
        (
            "config.json",
            "text_config",
            {"hidden_size": "32"},
            "hidden_size should be .* to 10,000,000, got '32'",
        ),
        ("config.json", "text_config", {"rms_norm_eps": True}, "rms_norm_eps should be a number above 0"),
        ("config.json", "text_config", {"rms_norm_eps": float("inf")}, "rms_norm_eps should be a number above 0"),
        ("config.json", "text_config", {"attention_bias": 1}, "attention_bias should be true or false"),
        ("config.json", "text_config", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "'linear'"),
        ("config.json", "text_config", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("config.json", "text_config", {"rope_parameters": 3}, "rope_parameters is 3: an object"),
        ("config.json", "text_config", {"eos_token_id": "x"}, "an id or a list of ids"),
        ("config.json", "text_config", {"eos_token_id": [2, True]}, "an id or a list of ids"),
        ("config.json", "text_config", {"suppress_tokens": [5]}, "suppress_tokens is"),
        ("config.json", "text_config", {"num_hidden_layers": 10**9}, "num_hidden_layers should be .* to 1,000, got"),
        ("config.json", "text_config", {"num_attention_heads": 5}, "5 attention heads do not divide"),
        ("config.json", "text_config", {"num_key_value_heads": 3}, "does not divide 4"),
        ("config.json", "vision_config", {"patch_size": 0}, "patch_size should be"),
        ("config.json", "qformer_config", {"num_attention_heads": 0}, "num_attention_heads should be"),
        ("config.json", "vision_config", {"num_channels": 4}, "num_channels is 4, only 3"),
        ("config.json", "vision_config", {"image_size": [28, 14]}, "image_size should be"),
        ("config.json", "qformer_config", {"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ("config.json", None, {"num_query_tokens": 2.5}, "num_query_tokens should be"),
        ("config.json", None, {"text_config": [1]}, r"text_config is \[1\]: an object"),
        ("config.json", None, {"use_new_attention": True}, "use_new_attention is True, which this version"),
        ("config.json", None, {"quantization_config": {"quant_method": "awq"}}, "quantized by awq"),
        ("preprocessor_config.json", None, {"do_center_crop": True}, "do_center_crop is true, which is not computed"),
        ("preprocessor_config.json", None, {"do_resize": False}, "do_resize is false"),
        ("preprocessor_config.json", None, {"size": {"shortest_edge": 28}}, "size is"),
        ("preprocessor_config.json", None, {"size": {"height": 56, "width": 56}}, "--image-size"),
        ("preprocessor_config.json", None, {"image_mean": ["a", 1, 2]}, "image_mean should be three numbers"),
        ("preprocessor_config.json", None, {"resample": 17}, "resample should be"),
        ("preprocessor_config.json", None, {"image_processor_type": "SiglipImageProcessor"}, "BLIP's was expected"),
        ("preprocessor_config.json", None, {"patch_size": 14}, "patch_size is 14, which this version does not know"),
        ("processor_config.json", None, {"image_processor": [1]}, "an object was expected"),
        ("generation_config.json", None, {"suppress_tokens": [5]}, "suppress_tokens is"),
        ("generation_config.json", None, {"eos_token_id": 2.5}, "an id or a list of ids"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    file: str, part: str | None, changes: dict[str, Any], words: str, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(tiny_folders["llama"], tmp_path)
    edit(folder / file, part, **changes)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_null_and_what_changes_nothing_are_accepted(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(tiny_folders["llama"], tmp_path)
    right = ours(load(folder))
    edit(folder / "config.json", "text_config", soft_cap=None, num_beams=4, pretraining_tp=2, max_sequence_length=2048)
    edit(folder / "config.json", "qformer_config", pad_token_id=0, is_decoder=False, position_embedding_type="absolute")
    edit(folder / "config.json", "vision_config", image_size=[28, 28], projection_dim=512, num_channels=3)
    edit(
        folder / "generation_config.json", do_sample=True, temperature=0.6, bos_token_id=1, transformers_version="4.31"
    )
    assert is_same(ours(load(folder)), right)


def test_the_first_llamas_end_token_is_not_taken_for_the_tokenizers(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model", {})
    right = ours(load(folder))
    edit(folder / "config.json", "text_config", bos_token_id=0, eos_token_id=1, pad_token_id=-1)
    backend = load(folder)
    assert (backend.tokenizer.prompt_prefix, backend.tokenizer.eos_id) == ((1,), 2)
    assert is_same(ours(backend), right)


def test_writing_stops_at_every_end_token_and_scores_end_with_the_tokenizers(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model", {})
    edit(folder / "config.json", "text_config", eos_token_id=[2, 47])
    edit(folder / "generation_config.json", eos_token_id=[2, 51])
    tokenizer = load(folder).tokenizer
    assert set(tokenizer.stop_ids) == {2, 47, 51}
    assert tokenizer.target_ids("a")[-1] == 2


@pytest.mark.parametrize(
    "settings", [{"add_bos_token": False}, {"add_eos_token": True}, {"bos_token": "</s>"}, {"bos_token": None}]
)
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_prompts_have_the_tokens_that_transformers_gives_them(
    kind: str, settings: dict[str, object], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = save(kind, tmp_path / "model", {})
    edit(folder / "tokenizer_config.json", **settings)
    right = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(QUESTION).input_ids
    assert load(folder).tokenizer.prompt_ids(QUESTION) == right


def test_spaces_are_cleaned_up_as_transformers_does_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = save("t5", tmp_path / "model", {})
    text = "we do n't say ' no ' , it 's red . is n't it ? they 're , i 'm : yes !"
    for cleans in (True, False):
        edit(folder / "tokenizer_config.json", clean_up_tokenization_spaces=cleans)
        tokenizer = load(folder).tokenizer
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == AutoTokenizer.from_pretrained(folder, trust_remote_code=False).decode(ids)
        from vlinstruct.backends.text_pieces import text_pieces

        assert "".join(text_pieces(tokenizer, ids)) == tokenizer.decode(ids).strip()


def test_a_bert_tokenizer_whose_files_contradict_each_other_is_refused(
    tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(tiny_folders["t5"], tmp_path)
    settings = folder / "qformer_tokenizer" / "tokenizer_config.json"
    edit(settings, tokenizer_class="BertTokenizer", do_lower_case=True)
    load(folder)
    edit(settings, do_lower_case=False)
    with pytest.raises(CheckpointError, match=r"do_lower_case is False, tokenizer\.json has True"):
        load(folder)


def test_a_table_under_other_names_is_read_and_two_that_differ_are_refused(tmp_path: Path) -> None:
    folder = save("t5", tmp_path / "model", {})
    right, file = ours(load(folder)), folder / "model.safetensors"

    def rewrite(change: Callable[[dict[str, Tensor]], object]) -> None:
        state = load_file(file)
        change(state)
        file.unlink()  # safetensors 0.5 writes into the file, which may be mapped
        save_file(state, file, metadata={"format": "pt"})

    copies = [f"language_model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    rewrite(lambda state: state.update({name: state["language_model.shared.weight"].clone() for name in copies}))
    rewrite(lambda state: state.pop("language_model.shared.weight"))
    assert is_same(ours(load(folder)), right)
    rewrite(lambda state: state[copies[1]].add_(1))
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is not language_model\.shared"):
        load(folder)


def test_an_adapter_fits_a_padded_table(tmp_path: Path) -> None:
    from vlinstruct.backends.instructblip.adapter import save_adapter

    small = load(save("llama", tmp_path / "small", {}))
    save_adapter(tmp_path / "adapter", small.network)
    large = load(save("llama", tmp_path / "large", {"text_config": {"vocab_size": 192}}))
    load_adapter(tmp_path / "adapter", large.network)
    name = "language_projection.weight"
    assert torch.equal(large.network.get_parameter(name), small.network.get_parameter(name))


PEFTS_WRAPPER = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@PEFTS_WRAPPER
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_lora_on_transformers_whole_model_is_an_adapter(kind: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import InstructBlipForConditionalGeneration

    folder = save(kind, tmp_path / "model", {})
    whole = InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    targets = ["q", "v"] if kind == "t5" else ["q_proj", "v_proj"]
    adapted = get_peft_model(whole, LoraConfig(r=4, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
    adapted.save_pretrained(tmp_path / "lora")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for path in folder.iterdir():
        if not (tmp_path / "merged" / path.name).exists():
            path.rename(tmp_path / "merged" / path.name)
    backend = load(folder_with_weights(tmp_path, folder))
    load_adapter(tmp_path / "lora", backend.network)
    assert_same(ours(backend), theirs(tmp_path / "merged"))


def folder_with_weights(tmp_path: Path, folder: Path) -> Path:
    """The model's folder again, whose other files the merged one took."""
    for path in (tmp_path / "merged").iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


@PEFTS_WRAPPER
def test_lora_outside_of_the_language_model_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import InstructBlipForConditionalGeneration

    folder = save("llama", tmp_path / "model", {})
    whole = InstructBlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    get_peft_model(whole, LoraConfig(r=4, target_modules=["q_proj", "qkv"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(CheckpointError, match="outside of the language model"):
        load_adapter(tmp_path / "lora", load(folder).network)


@pytest.mark.parametrize(("name", "words"), [("m.gguf", "GGUF"), ("pytorch_model.bin", "pickles")])
def test_a_folder_of_another_format_is_named(
    name: str, words: str, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(tiny_folders["llama"], tmp_path)
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=words):
        load(folder)
