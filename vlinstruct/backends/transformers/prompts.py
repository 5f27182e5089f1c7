"""From media and rows to what a model reads: the processor's tensors of a medium, and the ids of the text behind it.

The processor runs once for a medium, behind a prompt of ours. Whatever is asked then begins with the same ids, those of
the turn's beginning and of the medium, and only the text behind them is rendered and tokenized anew.

Legend: B rows, P positions of a prefix, N tokens behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vlinstruct.backend import Row
from vlinstruct.backends.transformers.chat_template import MARKER, PARTS, ChatTemplate, Conversation, turns_of
from vlinstruct.backends.transformers.families import Family
from vlinstruct.errors import (
    CheckpointError,
    ClipError,
    ImageError,
    InputError,
    SoundError,
    TextError,
    VlinstructError,
    cause_of,
    is_out_of_memory,
)
from vlinstruct.values import Clip, Failed, MediaKind, Sound, good

if TYPE_CHECKING:
    from vlinstruct.values import Media

_MEDIUM_REFUSED = "processor"
_REFUSALS: dict[MediaKind, tuple[type[InputError], str]] = {
    "picture": (ImageError, "Give it in another size"),
    "clip": (ClipError, "Give it in another size, or with more frames"),
    "sound": (SoundError, "Give a longer one"),
}
_OTHER = "z"  # a prompt that begins otherwise than ours
_MAX_JOINED = 4  # ids before a text that may join its beginning: white space, a colon


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenBatch:
    """Media that went through the processor together.

    Args:
        inputs: what the forward takes of the prefix: ids and masks (B, P), padded on the left, and pixels or features.
        heads: each row's ids up to the end of its medium, without padding.
        plain_head: the same ids with the placeholder as the template writes it, which every rendering begins with.
        tail: ids that stand behind the prompt where there is no chat template.
    """

    inputs: Mapping[str, Tensor]
    heads: Sequence[Sequence[int]]
    plain_head: Sequence[int] = ()
    tail: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenMedium:
    """One medium as the processor made it.

    Args:
        medium: as it was given.
        kind: of medium.
        batch: with whom it was processed.
        row: which of them it is.
        variants: the same alone, or behind a system's text, by that text, and with a shorter head, by how many ids it
            lacks; made when they are asked for.
    """

    medium: Media
    kind: MediaKind
    batch: SeenBatch
    row: int
    variants: dict[str | int, SeenMedium] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<SeenMedium, a {self.kind}>"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a row reads: a medium, or none, and the ids behind it."""

    seen: SeenMedium | None
    ids: list[int]

    @property
    def kind(self) -> MediaKind | None:
        """Of the medium."""
        return None if self.seen is None else self.seen.kind

    @property
    def all_ids(self) -> list[int]:
        """With the medium's placeholders."""
        return self.ids if self.seen is None else [*self.seen.batch.heads[self.seen.row], *self.ids]


class Prompts:
    """A processor with its template: makes what a model reads.

    Args:
        model: transformers' own; its device, its dtype and the number of its positions count.
        processor: transformers' own.
        template: of that processor.
        family: how the kind of model departs from the common path.
        name: what messages call the model.
    """

    def __init__(self, model: Any, processor: Any, template: ChatTemplate, *, family: Family, name: str) -> None:
        self.model = model
        self.processor = processor
        self.template = template
        self.family = family
        self.name = name
        text_config = model.config.get_text_config(decoder=True)
        self.num_embeddings = int(model.get_input_embeddings().num_embeddings)
        self.max_positions: int | None = getattr(text_config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Where the model reads ids."""
        return cast(torch.device, self.model.device)

    def look(self, media: Sequence[Media], system: str = "") -> list[SeenMedium | Failed]:
        """Runs the processor over media of one kind, behind a prompt of ours in whose place the users' come."""
        kind = kind_of(media[0])
        try:
            with media_failures_named("the model's processor", kind):
                batch = self._processed(media, system)
        except InputError as error:
            if len(media) > 1 and error.code == _MEDIUM_REFUSED:
                return [seen for medium in media for seen in self.look([medium], system)]
            if error.code == _MEDIUM_REFUSED:
                return [Failed(error=error)]
            raise
        return [SeenMedium(medium=medium, kind=kind, batch=batch, row=row) for row, medium in enumerate(media)]

    def _processed(self, media: Sequence[Media], system: str) -> SeenBatch:
        kind = kind_of(media[0])
        if self.template.template is None:
            return self._processed_plainly(media, kind)
        conversation = Conversation(prompt=MARKER, system=self.template.guard(system), media=kind)
        plain_text = str(self.template.apply(turns_of(conversation), **self.template.prompt_options()))
        turns = [_with_medium(turns_of(replace(conversation, system=system)), medium) for medium in media]
        padding = {"padding": True, "padding_side": "left"} if len(media) > 1 else {}
        made = self.template.apply(
            turns if len(media) > 1 else turns[0],
            **self.template.prompt_options(),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={**padding, **_processor_options(self.processor, media[0])},
        )
        inputs = self._tensors(made)
        mask = inputs["attention_mask"].bool()
        rows = [ids[kept].tolist() for ids, kept in zip(inputs["input_ids"], mask, strict=True)]
        plain = self.template.encode(plain_text, is_guarded=conversation.system != system)
        # Up to the prompt and no less: Qwen2.5-Omni counts positions up to the token that closes a picture.
        other_text = self.template.render(replace(conversation, prompt=_OTHER))
        num_behind = len(plain) - _num_shared(plain, self.template.encode(other_text, is_guarded=True))
        if any(ids[-num_behind:] != plain[-num_behind:] for ids in rows):
            raise CheckpointError(f"the processor of {self.name} changes a prompt behind a picture.")
        cut = inputs["input_ids"].shape[1] - num_behind
        return SeenBatch(
            inputs={name: value[:, :cut] if _is_per_position(value, mask) else value for name, value in inputs.items()},
            heads=[ids[: len(ids) - num_behind] for ids in rows],
            plain_head=plain[: len(plain) - num_behind],
        )

    def _processed_plainly(self, media: Sequence[Media], kind: MediaKind) -> SeenBatch:
        """Finds what the processor writes in front of a prompt and behind it, for a model without a chat template."""
        (medium,) = media
        made = self.processor(
            text=self.family.before_prompt + MARKER, **{f"{PARTS[kind]}s": medium}, return_tensors="pt"
        )
        inputs = self._tensors(made)
        ids = inputs["input_ids"][0].tolist()
        marker = self.template.encode(MARKER, add_special_tokens=False)
        starts = [start for start in range(len(ids)) if ids[start : start + len(marker)] == marker]
        if not starts:
            raise CheckpointError(f"the processor of {self.name} writes no prompt behind a picture.")
        cut = starts[-1]
        mask = torch.ones_like(inputs["input_ids"])
        inputs.setdefault("attention_mask", mask)
        return SeenBatch(
            inputs={name: value[:, :cut] if _is_per_position(value, mask) else value for name, value in inputs.items()},
            heads=[ids[:cut]],
            tail=ids[cut + len(marker) :],
        )

    def _tensors(self, made: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns what the forward takes of a processor's output, on its device and in its dtype."""
        return {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor) and name != "labels"
        }

    def prompt_of(self, row: Row, *, think: bool, is_bounded: bool = True) -> Prompt:
        """Renders a row and finds the ids behind its medium.

        Raises:
            TextError: it is too long, or has a control token that the tokenizer cannot keep apart.
        """
        seen = cast(SeenMedium, row.seen[0]) if row.seen else None
        if seen is not None and row.system:
            seen = self.variant(seen, row.system)
        typed = Conversation(
            prompt=row.prompt, history=row.history, system=row.system, media=None if seen is None else seen.kind
        )
        conversation = self.template.guarded(typed)
        text, is_guarded = self.template.render(conversation, think=think), conversation != typed
        if self.template.template is None:
            ids = self._plain_ids(text, seen, is_guarded=is_guarded)
        else:
            ids = self.template.encode(text, is_guarded=is_guarded)
            if seen is not None:
                # A text's beginning, a line break for one, may become one token with what stands before it.
                num_head = _num_shared(ids, seen.batch.plain_head)
                if num_head < len(seen.batch.plain_head):
                    seen = self._with_shorter_head(seen, len(seen.batch.plain_head) - num_head)
                ids = ids[num_head:]
        self.require_embeddings(ids)
        prompt = Prompt(seen=seen, ids=ids)
        num_tokens = len(prompt.all_ids)
        if is_bounded and self.max_positions is not None and num_tokens >= self.max_positions:
            message = f"prompt too long: {num_tokens} tokens, the language model takes {self.max_positions}"
            raise TextError(message, advice="Shorten the instruction.", code="text_too_long")
        return prompt

    def require_embeddings(self, ids: Sequence[int]) -> None:
        """Refuses tokens of a tokenizer that has more of them than the weights; those of media may well have none.

        Raises:
            CheckpointError: there is one.
        """
        if max(ids, default=0) >= self.num_embeddings:
            why = f"its tokenizer made token {max(ids)} of this text, and its weights have {self.num_embeddings}"
            raise CheckpointError.at("cannot use model", self.name, why, "Download the folder again")

    def _plain_ids(self, text: str, seen: SeenMedium | None, *, is_guarded: bool) -> list[int]:
        if seen is not None:
            return [
                *self.template.encode(text, add_special_tokens=False, is_guarded=is_guarded),
                *seen.batch.tail,
            ]
        if self.family.behind_prompt:  # as the processor writes a prompt behind a picture
            text = f"{self.template.tokenizer.bos_token}{text}{self.family.behind_prompt}"
            return self.template.encode(text, add_special_tokens=False, is_guarded=is_guarded)
        return self.template.encode(text, is_guarded=is_guarded)

    def variant(self, seen: SeenMedium, system: str) -> SeenMedium:
        """Returns a medium as the processor makes it alone, behind a system's text or none."""
        if system not in seen.variants:
            (outcome,) = self.look([seen.medium], system)
            seen.variants[system] = good(outcome)
        return seen.variants[system]

    def alone(self, prompt: Prompt) -> Prompt:
        """Returns a prompt whose medium was processed with no other one.

        Raises:
            InputError: the processor does not take it.
        """
        seen = prompt.seen
        if seen is None or len(seen.batch.heads) == 1:
            return prompt
        single = self.variant(seen, "")
        if num_less := len(single.batch.plain_head) - len(seen.batch.plain_head):
            single = self._with_shorter_head(single, num_less)
        return replace(prompt, seen=single)

    def _with_shorter_head(self, seen: SeenMedium, num_less: int) -> SeenMedium:
        """Returns a medium whose head lacks its last ids, which are text behind the medium.

        Raises:
            TextError: they are not: the template begins otherwise than before.
        """
        batch = seen.batch
        num_text = min(_num_shared(batch.plain_head[::-1], head[::-1]) for head in batch.heads)
        if num_less > min(num_text, _MAX_JOINED):
            what = "the model's chat template writes something else in front of this text's picture"
            raise TextError(what, advice="Ask about the picture anew.", code="chat_template")
        if num_less not in seen.variants:
            mask = batch.inputs["attention_mask"]
            inputs = {
                name: value[:, :-num_less] if _is_per_position(value, mask) else value
                for name, value in batch.inputs.items()
            }
            shorter = replace(
                batch,
                inputs=inputs,
                heads=[head[:-num_less] for head in batch.heads],
                plain_head=batch.plain_head[:-num_less],
            )
            seen.variants[num_less] = replace(seen, batch=shorter, variants={})
        return seen.variants[num_less]

    def whole_inputs(self, prompt: Prompt) -> dict[str, Tensor]:
        """Returns what the model's own forward takes for one row, pixels and all."""
        ids = torch.tensor([prompt.ids], device=self.device)
        if prompt.seen is None:
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        batch = prompt.seen.batch
        assert len(batch.heads) == 1
        mask = batch.inputs["attention_mask"]
        inputs = dict(batch.inputs)
        for name, value in batch.inputs.items():
            if _is_per_position(value, mask):
                inputs[name] = torch.cat([value, _behind(name, value, ids)], dim=1)
        return inputs


def media_of(model: Any, processor: Any, template: str) -> frozenset[MediaKind]:
    """Returns the kinds of media that a model or its template says it takes, and that its processor has a part for."""
    takes: dict[MediaKind, tuple[str, ...]] = {
        "picture": ("image_processor",),
        "clip": ("video_processor",),
        "sound": ("feature_extractor", "audio_processor"),
    }
    return frozenset(
        kind
        for kind, parts in takes.items()
        # SmolVLM names no video, whose frames are pictures to it; its template does.
        if (PARTS[kind] in model.input_modalities or f"'{PARTS[kind]}'" in template)
        and any(hasattr(processor, part) for part in parts)
    )


@contextmanager
def media_failures_named(who: str, kind: MediaKind | None) -> Iterator[None]:
    """Turns what transformers raises over a medium into one line: over sizes that nobody thought of, anything.

    Args:
        who: cannot take it.
        kind: of the medium; None for text alone, at which nothing is turned.

    Raises:
        ImageError: with the code `processor`; so do a clip's and a sound's.
    """
    try:
        yield
    except VlinstructError:
        raise
    except Exception as error:
        # No picture is to blame for a GPU that failed.
        if kind is None or is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        error_class, advice = _REFUSALS[kind]
        why = f"{who} cannot take it: {cause_of(error, 120)}"
        raise error_class.at(f"cannot use a {kind}", kind, why, advice, code=_MEDIUM_REFUSED) from error


def kind_of(medium: Media) -> MediaKind:
    return "clip" if isinstance(medium, Clip) else "sound" if isinstance(medium, Sound) else "picture"


def _with_medium(turns: list[dict[str, Any]], medium: Media) -> list[dict[str, Any]]:
    """Puts a medium into the part that stands for it."""
    for turn in turns:
        for part in turn["content"]:
            if part["type"] in PARTS.values():
                part[part["type"]] = _value_of(medium)
    return turns


def _value_of(medium: Media) -> Any:
    if isinstance(medium, Clip):
        return list(medium.frames)
    return medium.samples if isinstance(medium, Sound) else medium


def _processor_options(processor: Any, medium: Media) -> dict[str, Any]:
    """Returns what a processor must be told of a medium, so that it samples nothing itself."""
    if isinstance(medium, Sound):
        return {"sampling_rate": medium.sampling_rate}
    if not isinstance(medium, Clip):
        return {}
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(
        total_num_frames=medium.num_source_frames,
        fps=medium.fps,
        duration=medium.duration_s,
        frames_indices=list(medium.frame_indices),
        width=medium.frames[0].width,
        height=medium.frames[0].height,
    )
    options = {"video_metadata": [metadata], "do_sample_frames": False}
    # Qwen's own limit, which transformers will set by itself, and says so as long as nobody does (5.24).
    has_cap = hasattr(processor.video_processor, "cap_pixels_per_frame")
    return options | ({"cap_pixels_per_frame": True} if has_cap else {})


def _num_shared(one: Sequence[object], other: Sequence[object]) -> int:
    """Returns how many of their first entries two sequences share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, pair in pairs if pair[0] != pair[1]), min(len(one), len(other)))


def _is_per_position(value: Tensor, mask: Tensor) -> bool:
    """Says whether a tensor has one entry for each position, as ids and masks do."""
    return not value.is_floating_point() and value.shape[:2] == mask.shape


def _behind(name: str, value: Tensor, ids: Tensor) -> Tensor:
    """Returns how a tensor with one entry for each position goes on behind a medium, over ids (1, N)."""
    if name == "input_ids":
        return ids
    if name == "attention_mask":
        return torch.ones_like(ids)
    if name == "cross_attention_mask":  # Mllama's: what follows sees what the medium's end sees
        return value[:, -1:].expand(-1, ids.shape[1], *value.shape[2:])
    return torch.zeros(1, ids.shape[1], *value.shape[2:], dtype=value.dtype, device=value.device)
