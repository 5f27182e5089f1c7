"""Tiny random vision-language models in transformers' own folder format: from configs alone, without a download.

    build("qwen2_5_vl", folder)     writes a folder that AutoModelForMultimodalLM and AutoProcessor load
    FAMILIES["qwen2_5_vl"]          what tests need to know of the family

Two layers of width 32, a byte-pair tokenizer trained on four sentences, weights of standard deviation 0.15: so large
that another picture changes likelihoods by 0.1 nats and more, and an equality within 1e-5 means something.
A new family is one function here with its facts in front.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vlinstruct.values import MediaKind

Parts = tuple[Any, Any]
"""A model and its processor."""

SENTENCES = (
    "What is written on the sign? Describe the image in one sentence, please.",
    "There is the text. Please modify the text to make it better while retaining the sentence structure and keywords.",
    "Based on the image given, the most appropriate instruction should be:",
    "How many red dogs are there? yes no true false one two three (a) (b) (c) Question: Short answer:",
)
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
PATCHES = {"image_size": 32, "patch_size": 8}
SIDE = {"height": 32, "width": 32}
AUDIO = {"num_mel_bins": 80, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
TILINGS = [[32, 64], [64, 32], [64, 64]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What tests need to know of a family.

    Args:
        make: builds model and processor.
        control_tokens: such as users type, separated by spaces: the picture's, what ends a turn.
        media: what the model takes.
        has_template: it has a chat template.
        is_supported: False where the backend must refuse it.
        tolerance: nats by which float32 alone may move a likelihood.
        takes_float64: its forward computes in it.
        broken_in: releases of transformers whose own forward fails.
    """

    make: Callable[[], Parts]
    control_tokens: str
    media: frozenset[MediaKind] = frozenset({"picture"})
    has_template: bool = True
    is_supported: bool = True
    tolerance: float = 1e-5
    takes_float64: bool = True
    broken_in: tuple[str, ...] = ()

    @property
    def is_broken(self) -> bool:
        return hf.__version__ in self.broken_in


FAMILIES: dict[str, Family] = {}


def family(*more_media: MediaKind, **facts: Any) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Enters a builder into FAMILIES under its own name.

    Args:
        *more_media: what it takes besides pictures.
        **facts: those of `Family`.
    """

    def enter(make: Callable[[], Parts]) -> Callable[[], Parts]:
        FAMILIES[make.__name__] = Family(make=make, media=frozenset({"picture", *more_media}), **facts)
        return make

    return enter


def build(name: str, folder: Path) -> Path:
    """Writes the folder of a family and returns it."""
    model, processor = FAMILIES[name].make()
    _randomize(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _randomize(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            # Vectors are biases, near zero, or the weights of norms, near one.
            weight.copy_(noise * 0.15 if weight.ndim > 1 else noise * 0.1 + float(weight.mean() > 0.5))
    return model.eval()


# Tokenizers and templates.


def _byte_level(special: list[str]) -> Tokenizer:
    """A byte-level BPE as Qwen's, Llama 3's and GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _metaspace(special: list[str]) -> Tokenizer:
    """A BPE with U+2581 for spaces and bytes for what is unknown, as Llama 2's and Gemma's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    # Without this split whole sentences become tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", *special, *in_bytes]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator((text.replace(" ", "\u2581") for text in SENTENCES), trainer)
    # To the trainer the bytes are control tokens; in the vocabulary they are words like others.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in in_bytes]
    return Tokenizer.from_str(json.dumps(content))


def _fast(make: Callable[[list[str]], Tokenizer], special: list[str], **named: str) -> Any:
    """Wraps a tokenizer; `named` are tokens by role: eos_token, image_token, boi_token and the like."""
    usual = ("bos_token", "eos_token", "pad_token", "chat_template")
    roles = {role: token for role, token in named.items() if role not in usual}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=make(special),
        additional_special_tokens=special,
        extra_special_tokens=roles,
        **{role: token for role, token in named.items() if role in usual},
        **({"unk_token": "<unk>"} if make is _metaspace else {}),
    )


def _template(turn: str, *, opening: str = "", answer: str = "", **parts: str) -> str:
    """A chat template.

    Args:
        turn: one message, with ROLE and CONTENT in it.
        opening: in front of all.
        answer: what opens the assistant's turn.
        **parts: what stands for an image, a video, an audio.
    """
    branches = "".join(f"{{% elif p['type'] == '{kind}' %}}{token}" for kind, token in parts.items())
    content = (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
        "{% if 'text' in p %}{{ p['text'] }}" + branches + "{% endif %}{% endfor %}{% endif %}"
    )
    turn = turn.replace("ROLE", "{{ m['role'] }}").replace("CONTENT", content)
    return (
        opening
        + "{% for m in messages %}"
        + turn
        + "{% endfor %}{% if add_generation_prompt %}"
        + answer
        + "{% endif %}"
    )


def _chatml(answer: str = "", **parts: str) -> str:
    turn = "<|im_start|>ROLE\nCONTENT<|im_end|>\n"
    return _template(turn, answer="<|im_start|>assistant\n" + answer, **parts)


def _vicuna(**parts: str) -> str:
    """LLaVA 1.5's: no system turn, no end token in it."""
    return _template("{{ m['role'] | upper }}: CONTENT ", answer="ASSISTANT:", **parts)


def _gemma(**parts: str) -> str:
    turn = "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\nCONTENT<end_of_turn>\n"
    form = _template(turn, opening="{{ bos_token }}", answer="<start_of_turn>model\n", **parts)
    return form.replace("{{ p['text'] }}", "{{ p['text'] | trim }}")


# Families.

QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
QWEN_TOKENS += ["<|image_pad|>", "<|video_pad|>", "<think>", "</think>"]
QWEN_MEDIA = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
QWEN_IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2}
QWEN_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}
NO_THOUGHT = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"


def _qwen_tokenizer(form: str) -> Any:
    return _fast(_byte_level, QWEN_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=form)


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(keys, ids, strict=True))


def _qwen_sizes(patch: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": patch * patch * 4, "longest_edge": patch * patch * 16}}


@family("clip", control_tokens="<|image_pad|> <|im_end|>")
def qwen2_5_vl() -> Parts:
    form = _chatml(**QWEN_MEDIA)
    tokenizer = _qwen_tokenizer(form)
    text = {**TEXT, **QWEN_IDS, "vocab_size": len(tokenizer), "rope_parameters": QWEN_ROPE}
    vision = {**QWEN_VISION, "fullatt_block_indexes": [1], "window_size": 56}
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    images, videos = hf.Qwen2VLImageProcessor(**_qwen_sizes(28)), hf.Qwen2VLVideoProcessor(**_qwen_sizes(28))
    processor = hf.Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=form)
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3(config_class: Any, model_class: Any, text: dict[str, Any], vision: dict[str, Any], rope: Any) -> Parts:
    form = _chatml(NO_THOUGHT, **QWEN_MEDIA)
    tokenizer = _qwen_tokenizer(form)
    text = {**TEXT, **text, **QWEN_IDS, "head_dim": 8, "vocab_size": len(tokenizer)}
    text["rope_parameters"] = {**QWEN_ROPE, "mrope_interleaved": True, **rope}
    vision = {**QWEN_VISION, **vision, "num_position_embeddings": 16}
    config = config_class(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    images = hf.Qwen2VLImageProcessor(**_qwen_sizes(32), patch_size=16)
    return model_class(config), hf.Qwen3VLProcessor(images, tokenizer, hf.Qwen3VLVideoProcessor(), chat_template=form)


@family("clip", control_tokens="<|image_pad|> <|im_end|>")
def qwen3_vl() -> Parts:
    """Features of an earlier vision layer ride along into the language model."""
    vision = {"deepstack_visual_indexes": [0]}
    return _qwen3(hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration, {}, vision, {})


@family("clip", control_tokens="<|image_pad|> <|im_end|>", tolerance=3e-5)
def qwen3_5() -> Parts:
    """Hybrid: linear attention in the first layer, full attention in the second.

    One processor's float32 moved its likelihoods by 1.2e-5 between two batches.
    """
    text = {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
    text |= {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    rope = {"partial_rotary_factor": 1.0}
    return _qwen3(hf.Qwen3_5Config, hf.Qwen3_5ForConditionalGeneration, text, {}, rope)


@family("clip", "sound", control_tokens="<|im_end|> <|IMAGE|> <|AUDIO|>")
def qwen2_5_omni() -> Parts:
    """The thinker, which hears and writes; the talker, which speaks, is another model."""
    roles = {"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "audio_token": "<|AUDIO|>"}
    roles |= {"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>"}
    roles |= {"audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    form = _chatml(
        image="<|vision_bos|><|IMAGE|><|vision_eos|>",
        video="<|vision_bos|><|VIDEO|><|vision_eos|>",
        audio="<|audio_bos|><|AUDIO|><|audio_eos|>",
    )
    special = [*QWEN_TOKENS[:3], *roles.values()]
    usual = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual, **roles)
    ids = tokenizer.convert_tokens_to_ids
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config={**TEXT, **QWEN_IDS, "vocab_size": len(tokenizer), "rope_parameters": QWEN_ROPE},
        vision_config={**QWEN_VISION, "fullatt_block_indexes": [1], "window_size": 56},
        audio_config={**AUDIO, "n_window": 10, "output_dim": 32, "max_source_positions": 150},
        image_token_index=ids("<|IMAGE|>"),
        video_token_index=ids("<|VIDEO|>"),
        audio_token_index=ids("<|AUDIO|>"),
        vision_start_token_id=ids("<|vision_bos|>"),
        vision_end_token_id=ids("<|vision_eos|>"),
        audio_start_token_id=ids("<|audio_bos|>"),
        audio_end_token_id=ids("<|audio_eos|>"),
    )
    images, videos = hf.Qwen2VLImageProcessor(**_qwen_sizes(28)), hf.Qwen2VLVideoProcessor(**_qwen_sizes(28))
    sounds = hf.WhisperFeatureExtractor(feature_size=80, chunk_length=3)
    processor = hf.Qwen2_5OmniProcessor(images, videos, sounds, tokenizer, chat_template=form)
    return hf.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def _idefics_parts() -> tuple[Any, str, dict[str, Any]]:
    """Tokenizer, template and config of SmolVLM and Idefics3, whose template loops over parts alone."""
    special = ["<|im_start|>", "<end_of_utterance>", "<pad>", "<fake_token_around_image>", "<global-img>", "<image>"]
    special += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    form = (
        "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image>{% elif p['type'] == 'video' %}<video>"
        "{% elif 'text' in p %} {{ p['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    usual = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<pad>"}
    tokenizer = _fast(_byte_level, special, **usual, chat_template=form)
    text = hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=2)
    config = {"text_config": text, "vision_config": VISION | PATCHES, "scale_factor": 2, "pad_token_id": 2}
    config["image_token_id"] = tokenizer.convert_tokens_to_ids("<image>")
    return tokenizer, form, config


IDEFICS_SIZES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}


@family("clip", control_tokens="<image> <end_of_utterance>")
def smolvlm() -> Parts:
    tokenizer, form, config = _idefics_parts()
    sampling = {"max_frames": 4, "fps": 1, "video_size": {"longest_edge": 64}}
    videos = hf.SmolVLMVideoProcessor(**IDEFICS_SIZES, num_frames=4, fps=1, video_sampling=sampling)
    images = hf.SmolVLMImageProcessor(**IDEFICS_SIZES)
    processor = hf.SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4, chat_template=form)
    return hf.SmolVLMForConditionalGeneration(hf.SmolVLMConfig(**config)), processor


@family(control_tokens="<image> <end_of_utterance>")
def idefics3() -> Parts:
    tokenizer, form, config = _idefics_parts()
    images = hf.Idefics3ImageProcessor(**IDEFICS_SIZES)
    processor = hf.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=form)
    return hf.Idefics3ForConditionalGeneration(hf.Idefics3Config(**config)), processor


def _llama2_tokenizer(*more: str, **named: str) -> Any:
    special = ["<s>", "</s>", "<pad>", *more]
    return _fast(_metaspace, special, bos_token="<s>", eos_token="</s>", pad_token="<pad>", **named)


LLAMA2_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
CLIP_CROP = {"size": {"shortest_edge": 32}, "crop_size": SIDE}
LLAVA_PATCHES = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@family(control_tokens="<image> </s>")
def llava() -> Parts:
    form = _vicuna(image="<image>\n")
    tokenizer = _llama2_tokenizer("<image>", chat_template=form)
    text = hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer), **LLAMA2_IDS)
    vision = hf.CLIPVisionConfig(**VISION, **PATCHES)
    config = hf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=4, image_seq_length=16)
    images = hf.CLIPImageProcessor(**CLIP_CROP)
    processor = hf.LlavaProcessor(images, tokenizer, **LLAVA_PATCHES, chat_template=form)
    return hf.LlavaForConditionalGeneration(config), processor


@family("clip", control_tokens="<image> </s>")
def llava_next_video() -> Parts:
    form = _vicuna(image="<image>\n", video="<video>\n")
    tokenizer = _llama2_tokenizer("<image>", "<video>", chat_template=form)
    config = hf.LlavaNextVideoConfig(
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(tokenizer), **LLAMA2_IDS),
        vision_config=hf.CLIPVisionConfig(**VISION, **PATCHES),
        image_token_index=4,
        video_token_index=5,
        image_grid_pinpoints=TILINGS,
        image_seq_length=16,
        video_seq_length=4,
    )
    videos = hf.LlavaNextVideoVideoProcessor(**CLIP_CROP)
    images = hf.LlavaNextImageProcessor(**CLIP_CROP, image_grid_pinpoints=TILINGS)
    processor = hf.LlavaNextVideoProcessor(videos, images, tokenizer, **LLAVA_PATCHES, chat_template=form)
    return hf.LlavaNextVideoForConditionalGeneration(config), processor


def _chatml_tokenizer(form: str, *more: str, **roles: str) -> Any:
    """Qwen 2's, with a family's own tokens for media."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more]
    usual = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": form}
    return _fast(_byte_level, special, **usual, **roles)


def _qwen2_text(tokenizer: Any) -> Any:
    return hf.Qwen2Config(**TEXT, **QWEN_IDS, vocab_size=len(tokenizer))


@family("clip", control_tokens="<image> <|im_end|>")
def llava_onevision() -> Parts:
    form = _chatml(image="<image>", video="<video>")
    tokenizer = _chatml_tokenizer(form, "<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        text_config=_qwen2_text(tokenizer),
        vision_config=hf.SiglipVisionConfig(**VISION, **PATCHES, vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=TILINGS,
        vision_aspect_ratio="anyres_max_9",
    )
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=TILINGS),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=SIDE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=form,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


@family("clip", control_tokens="<|im_end|> <IMG_CONTEXT>")
def internvl() -> Parts:
    form = _chatml(image="<IMG_CONTEXT>\n", video="<video>\n")
    roles = {"start_image_token": "<img>", "end_image_token": "</img>"}
    roles |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = _chatml_tokenizer(form, *roles.values(), **roles)
    config = hf.InternVLConfig(
        text_config=_qwen2_text(tokenizer),
        vision_config=hf.InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[8, 8]),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images, videos = hf.GotOcr2ImageProcessor(size=SIDE, max_patches=4), hf.InternVLVideoProcessor(size=SIDE)
    processor = hf.InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=form)
    return hf.InternVLForConditionalGeneration(config), processor


def _gemma_tokenizer(form: str, **roles: str) -> Any:
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *roles.values()]
    usual = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "chat_template": form}
    return _fast(_metaspace, special, **usual, **roles)


GEMMA_IDS = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 3}
GEMMA_LAYERS = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}


@family(control_tokens="<start_of_image> <end_of_turn> <image_soft_token>")
def gemma3() -> Parts:
    """A window of 8 positions in the first layer; what ends a turn is not `eos_token`."""
    form = _gemma(image="<start_of_image>")
    roles = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _gemma_tokenizer(form, **roles)
    ids = tokenizer.convert_tokens_to_ids
    config = hf.Gemma3Config(
        text_config={**TEXT, **GEMMA_LAYERS, **GEMMA_IDS, "vocab_size": len(tokenizer), "query_pre_attn_scalar": 8},
        vision_config=VISION | PATCHES,
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    images = hf.Gemma3ImageProcessor(size=SIDE)
    model = hf.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [2, ids("<end_of_turn>")]
    return model, hf.Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=form)


@family("clip", "sound", control_tokens="<image> <end_of_turn>", tolerance=6e-5, takes_float64=False)
def gemma4() -> Parts:
    """In float32 its likelihoods are 2.5e-5 off those in float64, ours as transformers' own."""
    form = _gemma(image="<image>", video="<|video|>", audio="<audio>")
    roles = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>"}
    roles |= {"boa_token": "<boa>", "eoa_token": "<eoa>", "audio_token": "<audio>", "video_token": "<|video|>"}
    tokenizer = _gemma_tokenizer(form, **roles)
    ids = tokenizer.convert_tokens_to_ids
    size = len(tokenizer)
    vision = {**VISION, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 4, "pooling_kernel_size": 3}
    audio = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "output_proj_dims": 32}
    config = hf.Gemma4Config(
        text_config={
            **TEXT,
            **GEMMA_LAYERS,
            **GEMMA_IDS,
            "vocab_size": size,
            "vocab_size_per_layer_input": size,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
        },
        vision_config={**vision, "position_embedding_size": 64},
        audio_config={**audio, "subsampling_conv_channels": [128, 4]},
        boi_token_id=ids("<start_of_image>"),
        eoi_token_id=ids("<end_of_image>"),
        image_token_id=ids("<image>"),
        boa_token_id=ids("<boa>"),
        eoa_token_index=ids("<eoa>"),
        audio_token_id=ids("<audio>"),
        video_token_id=ids("<|video|>"),
    )
    sizes = {"patch_size": 4, "pooling_kernel_size": 3, "max_soft_tokens": 70}
    sounds, images, videos = hf.Gemma4AudioFeatureExtractor(), hf.Gemma4ImageProcessor, hf.Gemma4VideoProcessor
    processor = hf.Gemma4Processor(
        sounds, images(**sizes), tokenizer, videos(**sizes), chat_template=form, image_seq_length=70
    )
    model = hf.Gemma4ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [2, ids("<end_of_turn>")]
    return model, processor


@family(control_tokens="<image> <eos> <loc0001>", has_template=False)
def paligemma() -> Parts:
    """A prefix language model: picture and prompt see each other in both directions."""
    special = ["<pad>", "<eos>", "<bos>", "<image>"]
    usual = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = _fast(_metaspace, special, **usual, image_token="<image>")
    # Its processor adds 1,024 tokens for places and 128 for segments.
    text = hf.GemmaConfig(**TEXT, **GEMMA_IDS, head_dim=8, vocab_size=2048)
    vision = hf.SiglipVisionConfig(**VISION, **PATCHES, projection_dim=32)
    widths = {"projection_dim": 32, "hidden_size": 32, "vocab_size": 2048}
    config = hf.PaliGemmaConfig(text_config=text, vision_config=vision, image_token_index=4, **widths)
    images = hf.SiglipImageProcessor(size=SIDE)
    images.image_seq_length = 16
    return hf.PaliGemmaForConditionalGeneration(config), hf.PaliGemmaProcessor(images, tokenizer)


@family(control_tokens="<|eot_id|> <|image|>")
def mllama() -> Parts:
    """Cross-attention to the picture in one layer: it has no positions in the text."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    special += ["<|finetune_right_pad_id|>", "<|image|>"]
    header = "<|start_header_id|>ROLE<|end_header_id|>\n\n"
    form = _template(
        header + "CONTENT<|eot_id|>",
        opening="{{ bos_token }}",
        answer=header.replace("ROLE", "assistant"),
        image="<|image|>",
    )
    usual = {"bos_token": special[0], "eos_token": "<|eot_id|>", "pad_token": special[5], "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual)
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 5}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    text = {**TEXT, **ids, "num_hidden_layers": 3, "cross_attention_layers": [1], "vocab_size": len(tokenizer)}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 4, "vision_output_dim": 64, "intermediate_layers_indices": [0], "max_num_tiles": 4}
    config = hf.MllamaConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config=vision | PATCHES,
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    images = hf.MllamaImageProcessor(size=SIDE, max_image_tiles=4)
    return hf.MllamaForConditionalGeneration(config), hf.MllamaProcessor(images, tokenizer, chat_template=form)


@family(control_tokens="<|image|> <|eot|>", broken_in=("5.24.0",))
def llama4() -> Parts:
    """Attention in chunks of 16 positions in the first layer, experts in both."""
    special = ["<|begin_of_text|>", "<|eot|>", "<|pad|>", "<|header_start|>", "<|header_end|>", "<|image|>"]
    special += ["<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"]
    header = "<|header_start|>ROLE<|header_end|>\n\n"
    form = _template(
        header + "CONTENT<|eot|>",
        opening="{{ bos_token }}",
        answer=header.replace("ROLE", "assistant"),
        image="<|image|>",
    )
    usual = {"bos_token": special[0], "eos_token": "<|eot|>", "pad_token": "<|pad|>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual)
    ids = tokenizer.convert_tokens_to_ids
    text = {**TEXT, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "vocab_size": len(tokenizer)}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "attention_chunk_size": 16}
    text |= {"layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0]}
    vision = {**VISION, **PATCHES, "intermediate_size": 128, "vision_output_dim": 32, "pixel_shuffle_ratio": 0.5}
    config = hf.Llama4Config(
        text_config=text,
        vision_config={**vision, "projector_input_dim": 32, "projector_output_dim": 32},
        image_token_index=ids("<|patch|>"),
        boi_token_index=ids("<|image_start|>"),
        eoi_token_index=ids("<|image_end|>"),
    )
    images = hf.Llama4ImageProcessor(size=SIDE, max_patches=4)
    processor = hf.Llama4Processor(images, tokenizer, patch_size=8, chat_template=form)
    return hf.Llama4ForConditionalGeneration(config), processor


@family(control_tokens="[IMG] </s>")
def mistral3() -> Parts:
    """The picture's rows end in tokens of their own; nothing opens the assistant's turn."""
    special = ["<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    form = _template(
        "{% if m['role'] == 'user' %}[INST]CONTENT[/INST]{% else %}CONTENT</s>{% endif %}",
        opening="{{ bos_token }}",
        image="[IMG]",
    )
    usual = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = hf.Mistral3Config(
        text_config=hf.MistralConfig(**TEXT, **ids, head_dim=8, vocab_size=len(tokenizer), sliding_window=None),
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=64, patch_size=8),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    images = hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})
    tokens = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    sizes = {"patch_size": 8, "spatial_merge_size": 2}
    processor = hf.PixtralProcessor(images, tokenizer, **sizes, **tokens, chat_template=form)
    return hf.Mistral3ForConditionalGeneration(config), processor


@family("sound", control_tokens="<|image|> <|end|>")
def phi4_multimodal() -> Parts:
    special = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|image|>", "<|audio|>"]
    form = _template("<|ROLE|>CONTENT<|end|>", answer="<|assistant|>", image="<|image|>", audio="<|audio|>")
    usual = {"eos_token": "<|end|>", "pad_token": "<|endoftext|>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual, image_token="<|image|>", audio_token="<|audio|>")
    ids = tokenizer.convert_tokens_to_ids
    audio = {"hidden_size": 32, "intermediate_size": 64, "num_blocks": 1, "num_attention_heads": 4}
    audio |= {"ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 32}
    # Its processor counts a picture's tokens for this size, whatever size it is given.
    vision = {**VISION, "image_size": 448, "patch_size": 14, "crop_size": 448}
    config = hf.Phi4MultimodalConfig(
        **TEXT,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
        vision_config={**vision, "image_token_id": ids("<|image|>")},
        audio_config={**audio, "audio_token_id": ids("<|audio|>")},
    )
    images, sounds = hf.Phi4MultimodalImageProcessor(dynamic_hd=1), hf.Phi4MultimodalFeatureExtractor()
    # Its processor keeps the template on the tokenizer.
    return hf.Phi4MultimodalForCausalLM(config), hf.Phi4MultimodalProcessor(images, sounds, tokenizer)


def _blip2(text: Any, tokenizer: Any) -> Parts:
    qformer = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    qformer |= {"intermediate_size": 64, "encoder_hidden_size": 32, "cross_attention_frequency": 2}
    config = hf.Blip2Config(
        text_config=text,
        vision_config={**VISION, **PATCHES, "initializer_range": 0.02},
        qformer_config=qformer,
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = hf.BlipImageProcessor(size=SIDE)
    return hf.Blip2ForConditionalGeneration(config), hf.Blip2Processor(images, tokenizer, num_query_tokens=4)


@family(control_tokens="<image> </s>", has_template=False)
def blip2_opt() -> Parts:
    tokenizer = _llama2_tokenizer("<image>")
    widths = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = hf.OPTConfig(**widths, **LLAMA2_IDS, vocab_size=len(tokenizer), word_embed_proj_dim=32)
    return _blip2(text, tokenizer)


@family(control_tokens="<image> </s>", has_template=False)
def blip2_t5() -> Parts:
    tokenizer = _fast(_metaspace, ["<pad>", "</s>", "<image>"], eos_token="</s>", pad_token="<pad>")
    widths = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    ids = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return _blip2(hf.T5Config(**widths, **ids, vocab_size=len(tokenizer), feed_forward_proj="gated-gelu"), tokenizer)


@family(control_tokens="<image> </s>", has_template=False)
def florence2() -> Parts:
    """An encoder-decoder: pixels go into BART's encoder."""
    special = ["<s>", "<pad>", "</s>", "<image>"]
    usual = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = _fast(_byte_level, special, **usual, image_token="<image>")
    widths = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
    widths |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    stages = {"embed_dim": [16] * 4, "depths": [1] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4}
    config = hf.Florence2Config(
        text_config=hf.BartConfig(**widths, **ids, vocab_size=len(tokenizer), dropout=0.0),
        vision_config={**stages, "projection_dim": 32, "window_size": 4, "drop_path_rate": 0.0},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = hf.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = hf.Florence2Processor(images, tokenizer, num_additional_image_tokens=1)
    return hf.Florence2ForConditionalGeneration(config), processor


@family(control_tokens="<image> </s>", has_template=False, is_supported=False)
def kosmos2() -> Parts:
    """Its likelihoods behind a cache differ from those without."""
    special = ["<s>", "<pad>", "</s>", "<image>", "</image>", "<phrase>", "</phrase>", "<object>", "</object>"]
    usual = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = _fast(_metaspace, [*special, "<grounding>"], **usual)
    text = {"vocab_size": 1700, "embed_dim": 32, "layers": 2, "ffn_dim": 64, "attention_heads": 4, "dropout": 0.0}
    text |= {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3, "attention_dropout": 0.0}
    config = hf.Kosmos2Config(text_config=text, vision_config=VISION | PATCHES, latent_query_num=64)
    processor = hf.Kosmos2Processor(hf.CLIPImageProcessor(**CLIP_CROP), tokenizer, num_patch_index_tokens=16)
    return hf.Kosmos2ForConditionalGeneration(config), processor


@family(control_tokens="<image> <|end|>")
def aya_vision() -> Parts:
    """On no list of ours: it works by the common path alone."""
    special = ["<pad>", "<bos>", "<eos>", "<|turn|>", "<|end|>", "<image>", "<|IMG_PATCH|>", "<|START_OF_IMG|>"]
    special += ["<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL", *(f"TILE_{tile}" for tile in range(1, 5))]
    form = _template(
        "<|turn|>ROLE\nCONTENT<|end|>", opening="{{ bos_token }}", answer="<|turn|>assistant\n", image="<image>"
    )
    usual = {"bos_token": "<bos>", "eos_token": "<|end|>", "pad_token": "<pad>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 4}
    layers = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    config = hf.AyaVisionConfig(
        text_config=hf.Cohere2Config(**TEXT, **ids, **layers, head_dim=8, vocab_size=len(tokenizer)),
        vision_config=hf.SiglipVisionConfig(**VISION, **PATCHES, vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    images = hf.GotOcr2ImageProcessor(size=SIDE, max_patches=4)
    sizes = {"patch_size": 8, "img_size": 32, "downsample_factor": 2}
    processor = hf.AyaVisionProcessor(images, tokenizer, **sizes, chat_template=form)
    return hf.AyaVisionForConditionalGeneration(config), processor


@family("clip", control_tokens="<|image|> <|user|>")
def glm4v() -> Parts:
    """On no list of ours, either. Its template opens a thought and has no switch; a turn ends where the next begins."""
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<think>", "</think>", "<|image|>", "<|video|>"]
    special += [f"<|{side}_of_{kind}|>" for kind in ("image", "video") for side in ("begin", "end")]
    form = _template(
        "<|ROLE|>\nCONTENT",
        answer="<|assistant|>\n<think>",
        image="<|begin_of_image|><|image|><|end_of_image|>",
        video="<|begin_of_video|><|video|><|end_of_video|>",
    )
    usual = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "chat_template": form}
    tokenizer = _fast(_byte_level, special, **usual)
    ids = tokenizer.convert_tokens_to_ids
    text = {**TEXT, "vocab_size": len(tokenizer), "rope_parameters": {**QWEN_ROPE, "partial_rotary_factor": 1.0}}
    config = hf.Glm4vConfig(
        text_config={**text, "eos_token_id": 0, "pad_token_id": 0},
        vision_config={**QWEN_VISION, "image_size": 56, "patch_size": 14},
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
    )
    sizes = {"size": {"shortest_edge": 28 * 28 * 8, "longest_edge": 28 * 28 * 32}}
    images, videos = hf.Glm4vImageProcessor(**sizes), hf.Glm4vVideoProcessor(**sizes)
    model = hf.Glm4vForConditionalGeneration(config)
    model.generation_config.eos_token_id = [0, ids("<|user|>")]
    return model, hf.Glm4vProcessor(images, tokenizer, videos, chat_template=form)
