"""The oracle: likelihoods and texts by transformers alone, the plain way, one row at a time.

Every target is read behind its context in one forward of the whole sequence, without a cache, and texts are
`generate`'s. Nothing of vlinstruct is imported here. Where families differ is said at the line that does it.

Legend: P positions of a context, T tokens of a target, its end token last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.video_utils import VideoMetadata

SNOWMAN = "\u2603"


class Reference:
    """One model of any family.

    Args:
        folder: in transformers' format.
        dtype: what it computes in; in float64 the difference that is left is that of our float32.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float64) -> None:
        self.model: Any = AutoModelForMultimodalLM.from_pretrained(folder, dtype=dtype).eval()
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        # Phi-4's processor keeps the template on its tokenizer.
        self.template = self.processor.chat_template or self.tokenizer.chat_template
        self.kind: str = self.model.config.model_type
        decoder = self.model.config.get_text_config(decoder=True)
        self.is_encoder_decoder: bool = self.model.config.is_encoder_decoder or decoder.is_encoder_decoder
        self.end_id = self._end_id()
        stops = self.model.generation_config.eos_token_id
        self.stop_ids: list[int] = stops if isinstance(stops, list) else [stops]

    def context(
        self,
        prompt: str,
        media: Any = None,
        *,
        history: Sequence[tuple[str, str]] = (),
        system: str = "",
    ) -> dict[str, Tensor]:
        """Returns what the model reads before a target.

        Args:
            prompt: the user's text; a token in it that controls the model stays text.
            media: a PIL picture; frames with their metadata (`frames`, `frame_indices`, `fps`, ...); `samples`; None
                for the language model alone.
            history: earlier questions and answers; the media belong to the first question.
            system: in front of all.
        """
        typed = self.control_tokens(prompt)
        if typed:
            # Rendered with something harmless in its place, for which its own spelling is put in afterwards.
            marked = self.context(prompt.replace(typed[0], SNOWMAN), media, history=history, system=system)
            return self._spelt_out(marked, typed[0])
        kind, value, options = _as_part(media)
        if kind == "video" and hasattr(self.processor.video_processor, "cap_pixels_per_frame"):
            options["cap_pixels_per_frame"] = True
        if self.template is None:
            return self._untemplated(prompt, kind, value)
        parts = [{"type": kind, kind: value}] if kind else []
        turns = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        for question, answer in history:
            turns.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            parts = []
        turns.append({"role": "user", "content": [*parts, {"type": "text", "text": prompt}]})
        rendered = self.processor.apply_chat_template(
            turns,
            chat_template=self.template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            enable_thinking=False,
            processor_kwargs=options,
        )
        context = self._tensors(rendered)
        if self.tokenizer.decode(context["input_ids"][0]).rstrip().endswith("<think>"):
            # A template that opens a thought and has no switch: a thought without a word.
            closing = self.tokenizer("\n</think>\n\n", add_special_tokens=False, return_tensors="pt").input_ids
            context = self._extended(context, closing)
        return context

    def _spelt_out(self, context: dict[str, Tensor], token: str) -> dict[str, Tensor]:
        ids = context["input_ids"][0].tolist()
        marker = self.tokenizer(SNOWMAN, add_special_tokens=False).input_ids
        start = next(place for place in range(len(ids)) if ids[place : place + len(marker)] == marker)
        spelling = torch.tensor([self._plain_ids(token)])
        longer = dict(context)
        for key, value in context.items():
            if _is_per_position(value, len(ids)):
                middle = spelling if key == "input_ids" else value[:, [start] * spelling.shape[1]]
                longer[key] = torch.cat([value[:, :start], middle, value[:, start + len(marker) :]], 1)
        return longer

    def _plain_ids(self, text: str) -> list[int]:
        """Returns the ids of a text by the same tokenizer without the tokens that were added to it.

        `split_special_tokens` is not enough: PaliGemma's places are added and no special tokens.
        """
        content = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"added_tokens": []}
        return Tokenizer.from_str(json.dumps(content)).encode(text, add_special_tokens=False).ids

    def _untemplated(self, prompt: str, kind: str, value: Any) -> dict[str, Tensor]:
        if kind:
            return self._tensors(self.processor(text=prompt, **{f"{kind}s": value}, return_tensors="pt"))
        if self.kind == "paligemma":
            # As its processor writes a prompt behind a picture. Without types all tokens would see each other.
            prompt = f"{self.tokenizer.bos_token}{prompt}\n"
            options = {"add_special_tokens": False, "return_token_type_ids": True}
        else:
            options = {"return_token_type_ids": False}
        return self._tensors(self.tokenizer(prompt, return_tensors="pt", **options))

    def _tensors(self, rendered: Any) -> dict[str, Tensor]:
        tensors = {key: value for key, value in rendered.items() if isinstance(value, Tensor)}
        tensors.pop("labels", None)
        # Pixels are float32, Llama 4's bfloat16.
        dtype = self.model.dtype
        return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}

    def control_tokens(self, text: str) -> list[str]:
        """Returns the tokens in a text that control the model, `<image>` for one."""
        added = self.tokenizer.added_tokens_decoder.values()
        return [token.content for token in added if token.content in text and not token.content.isspace()]

    def target_ids(self, text: str, *, with_end: bool = True) -> list[int]:
        """Returns the tokens of a target; what looks like a control token in it is text."""
        return [*self._plain_ids(text), *([self.end_id] if with_end else [])]

    def token_nll(self, context: dict[str, Tensor], ids: Sequence[int]) -> list[float]:
        """Returns the nats of every token of a target, T."""
        target = torch.tensor([list(ids)])
        with torch.no_grad():
            if self.is_encoder_decoder:
                logits = self._reader(context)(**context, labels=target).logits
            else:
                logits = self._reader(context)(**self._extended(context, target), use_cache=False).logits
                logits = logits[:, -target.shape[1] - 1 : -1]
        return (-logits.log_softmax(-1).gather(-1, target[..., None])[0, :, 0]).tolist()

    def score(self, context: dict[str, Tensor], text: str) -> list[float]:
        """Returns the nats of every token of a text and of the end token behind it."""
        return self.token_nll(context, self.target_ids(text))

    def generate(
        self, context: dict[str, Tensor], max_new_tokens: int, **options: Any
    ) -> tuple[list[int], list[float]]:
        """Writes, greedily unless told otherwise.

        Returns:
            The tokens, the end token last if it came, and the nats of each; none of these with beams.
        """
        options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, **options}
        with torch.no_grad():
            made = self._reader(context).generate(**context, max_new_tokens=max_new_tokens, **options)
        # A decoder-only model returns what it read, too; an encoder-decoder the token that starts its decoder.
        ids = made.sequences[0, 1 if self.is_encoder_decoder else context["input_ids"].shape[1] :]
        if "num_beams" in options:
            return ids.tolist(), []
        # Not by reading all of it once more: a picture's token that was written would stand for a picture there.
        logits = torch.cat(made.logits)
        return ids.tolist(), (-logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]).tolist()

    def outside_thoughts(self, ids: Sequence[int]) -> tuple[list[int], bool]:
        """Returns the places of what is no thought, and whether the last thought is closed."""
        opening, closing = self.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
        places, is_open = [], False
        for place, token in enumerate(ids):
            if token in (opening, closing) and token != self.tokenizer.unk_token_id:
                is_open = token == opening
            elif not is_open:
                places.append(place)
        return places, not is_open

    def text(self, ids: Sequence[int]) -> str:
        """Returns tokens as text, without white space around it and without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _reader(self, context: dict[str, Tensor]) -> Any:
        """The whole model; BLIP-2 insists on a picture, so without one its language model."""
        has_media = any(value.is_floating_point() for value in context.values())
        return self.model if has_media or self.kind != "blip-2" else self.model.language_model

    def _extended(self, context: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Appends a target to the ids, and to every tensor with one entry a position."""
        num_positions = context["input_ids"].shape[1]
        longer = dict(context)
        for key, value in context.items():
            if not _is_per_position(value, num_positions):
                continue
            if key == "input_ids":
                tail = target
            elif key == "attention_mask":
                tail = torch.ones_like(target)
            elif key == "cross_attention_mask":  # Mllama's: an answer sees the tiles that the prompt's end sees
                tail = value[:, -1:].expand(-1, target.shape[1], *value.shape[2:])
            else:  # types of tokens; PaliGemma reads its prefix (0) in both directions, so that a target must not be 0
                tail = torch.full_like(target, int(self.kind == "paligemma"))
            longer[key] = torch.cat([value, tail], 1)
        return longer

    def _end_id(self) -> int:
        """The token behind an assistant's text where a template is rendered; without one, `eos_token`."""
        if self.template is None:
            return self.tokenizer.eos_token_id
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "a"), ("assistant", "@"))
        ]
        rendered = self.processor.apply_chat_template(turns, chat_template=self.template, tokenize=False)
        ids = self.tokenizer(rendered.rpartition("@")[2], add_special_tokens=False).input_ids
        # LLaVA 1.5's template writes no end of turn.
        return ids[0] if ids and ids[0] in self.tokenizer.added_tokens_decoder else self.tokenizer.eos_token_id


def _is_per_position(value: Tensor, num_positions: int) -> bool:
    return not value.is_floating_point() and value.shape[:2] == (1, num_positions)


def _as_part(media: Any) -> tuple[str, Any, dict[str, Any]]:
    """Returns the kind of a medium as templates call it, its value, and what its processor must be told."""
    if media is None:
        return "", None, {}
    if hasattr(media, "samples"):
        return "audio", media.samples, {"sampling_rate": media.sampling_rate}
    if hasattr(media, "frames"):
        metadata = VideoMetadata(
            total_num_frames=media.num_source_frames,
            fps=media.fps,
            duration=media.duration_s,
            frames_indices=list(media.frame_indices),
            width=media.frames[0].width,
            height=media.frames[0].height,
        )
        return "video", list(media.frames), {"video_metadata": [metadata], "do_sample_frames": False}
    return "image", media, {}
