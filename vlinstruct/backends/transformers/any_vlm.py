"""Any vision-language model of transformers behind `vlinstruct.backend.Backend`.

`see` runs the processor, once for each medium. What the model reads first in every prompt about it, the beginning of
the turn and the medium, then goes through the model once, and every stage of algorithm 2 continues from a fork of that.
Pictures that are seen together are read together, padded on the left; texts behind them are batched where they have the
same number of tokens, so that no padding ever stands between a picture and its text: sliding windows and linear
attention would count it.

Legend: B rows, P positions of a prefix, N tokens behind it, S target tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backend import Backend, Row, Seen, Written, not_taken
from vlinstruct.backends.decoding import Continuation, require_finite, step_by_step, token_nll, until_stop
from vlinstruct.backends.recordings import Recordings
from vlinstruct.backends.text_pieces import text_pieces
from vlinstruct.backends.transformers.chat_template import ChatTemplate
from vlinstruct.backends.transformers.families import Family
from vlinstruct.backends.transformers.prefix import Reader, Reading, ReadingStore
from vlinstruct.backends.transformers.prompts import (
    Prompt,
    Prompts,
    SeenMedium,
    kind_of,
    media_failures_named,
    media_of,
)
from vlinstruct.backends.transformers.recorded_reading import recorded
from vlinstruct.errors import CheckpointError, InputError, TextError
from vlinstruct.settings import MAX_NEW_TOKENS, GenerationSettings
from vlinstruct.values import (
    Abilities,
    Failed,
    Identity,
    TokenCount,
    TokenScores,
    Usage,
)

if TYPE_CHECKING:
    from vlinstruct.values import Media

T = TypeVar("T")

_MAX_THOUGHT_TOKENS = 2048
# What one pass over targets may take beside the weights. Logits in float32 of 3 instructions of 30 tokens and Qwen's
# 152,000 words take 55 MB; keys and values of 1,000 picture tokens, repeated for each target, 57 MB in Qwen2.5-VL-7B.
_MAX_PASS_BYTES = 1024 * 1024 * 1024
# Settings of `generate` that forbid or force tokens: with one of them, `generate` itself writes.
_FORCING = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "sequence_bias",
    "suppress_tokens",
)


class TransformersBackend(Backend):
    """A loaded model of transformers with its processor.

    Args:
        model: for conditional generation, in eval mode, on its device.
        processor: transformers' own.
        family: how its kind departs from the common path.
        identity: where it comes from.
        think: whether it may think before it answers.
        recordings: of small batches' kernels, which are replayed; None where everything runs anew.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        family: Family,
        identity: Identity,
        think: bool = False,
        recordings: Recordings | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.family = family
        self.identity = identity
        self.think = think
        self.recordings = recordings
        text_config = model.config.get_text_config(decoder=True)
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder or text_config.is_encoder_decoder)
        ends = model.generation_config.eos_token_id
        self.template = ChatTemplate(processor, [] if ends is None else ends if isinstance(ends, list) else [ends])
        self.prompts = Prompts(model, processor, self.template, family=family, name=identity.name)
        positions = next((module for module in model.modules() if hasattr(module, "rope_deltas")), None)
        self.reader = Reader(
            getattr(model, family.decoder) if family.decoder else model,
            positions,
            text_model=model.get_submodule(family.text_model) if family.text_model else None,
        )
        self.abilities = Abilities(
            media=media_of(model, processor, str(self.template.template)),
            can_beam=True,
            can_stream=True,
            keeps_typed_tokens=self._is_fast,
        )
        self._readings = ReadingStore()
        self._turn = threading.RLock()  # one call at a time: Qwen's models keep positions of the last picture

    @property
    def _is_fast(self) -> bool:
        return bool(getattr(self.template.tokenizer, "is_fast", False))

    @property
    def device(self) -> torch.device:
        """Where the model reads ids."""
        return cast(torch.device, self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return cast(torch.dtype, self.model.dtype)

    @torch.inference_mode()
    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        """Runs the processor; the model itself reads a medium when it is first asked about it.

        Args:
            media: B of them; pictures are padded into one batch where the kind of model allows it.
        """
        seen: dict[int, SeenMedium | Failed] = {}
        groups: dict[object, list[int]] = {}
        for place, kind in enumerate(map(kind_of, media)):
            if kind not in self.abilities.media:
                seen[place] = Failed(error=not_taken(kind, self.abilities))
            else:
                groups.setdefault(kind if kind == "picture" and self.family.batches else place, []).append(place)
        with self._turn:
            for places in groups.values():
                seen |= zip(places, self.prompts.look([media[place] for place in places]), strict=True)
        return [seen[place] for place in range(len(media))]

    @torch.inference_mode()
    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        """Continues every row's prompt: greedy or sampled one token after another, with beams by `generate`."""
        if self._is_written_by_generate(settings):
            return self._each(rows, lambda prompt, row: self._generate(prompt, settings, row.draw), think=self.think)

        def continuations(prompts: Sequence[Prompt], places: Sequence[int]) -> list[Written]:
            steps = list(self._steps(prompts, settings, [rows[place].draw for place in places]))
            ids = torch.stack([next_ids for next_ids, _ in steps], dim=1).tolist()
            nll = torch.stack([nats for _, nats in steps], dim=1).tolist()
            return [
                self._written(until_stop(row_ids, row_nll, self.template.stop_ids), prompt, settings)
                for row_ids, row_nll, prompt in zip(ids, nll, prompts, strict=True)
            ]

        num_tokens = self._num_wanted_tokens(settings)
        return self._in_batches(rows, continuations, think=self.think, num_tokens=num_tokens)

    @torch.inference_mode()
    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        """Continues one row piece by piece; the pieces joined are the text that `write` returns."""
        if self._is_written_by_generate(settings):
            yield from super().stream(row, settings)
            return
        with self._turn:
            prompt = self.prompts.prompt_of(row, think=self.think)
            steps = self._steps([prompt], settings, [row.draw])
        nll: list[float] = []
        new_ids: list[int] = []
        # Some models think though they were told not to.
        thoughts = self.template.thoughts(prompt.ids)

        def ids() -> Iterator[int]:
            for next_ids, nats in steps:
                nll.append(float(nats))
                new_ids.append(int(next_ids))
                if new_ids[-1] in self.template.stop_ids:
                    return
                if thoughts.is_answer(new_ids[-1]):
                    yield new_ids[-1]

        yield from text_pieces(self.template, ids())
        yield self._written(until_stop(new_ids, nll, self.template.stop_ids), prompt, settings)

    @torch.inference_mode()
    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        """Scores targets by teacher forcing; a row with several reads its prompt once for all of them."""

        def scores(prompts: Sequence[Prompt], places: Sequence[int]) -> list[list[TokenScores]]:
            target_ids = [
                [self.template.target_ids(text, with_end=with_end)[:num_first] for text in targets[place]]
                for place in places
            ]
            for prompt, row_ids in zip(prompts, target_ids, strict=True):
                self.prompts.require_embeddings([token for ids in row_ids for token in ids])
                self._require_room(prompt, max(map(len, row_ids), default=0))
            nll = self._target_nll(prompts, target_ids)
            return [
                [
                    TokenScores(tokens=self.template.pieces(ids), token_nll=tuple(nats))
                    for ids, nats in zip(row_ids, row_nll, strict=True)
                ]
                for row_ids, row_nll in zip(target_ids, nll, strict=True)
            ]

        # Behind a closed thought, whatever the model may do when it answers: an open one would be continued.
        return self._in_batches(rows, scores, think=False)

    @torch.inference_mode()
    def plain_nll(self, row: Row, target: str) -> list[float]:
        """Scores one target in one forward of everything, without a cache: slow, and what `score` must equal.

        Raises:
            TextError: the row cannot be read.
        """
        with self._turn:
            prompt = self.prompts.prompt_of(row, think=False)
            ids = torch.tensor([self.template.target_ids(target)], device=self.device)
            if self.is_encoder_decoder:
                return self._labels_nll(prompt, ids)[0]
            inputs = self.prompts.whole_inputs(replace(prompt, ids=[*prompt.ids, *ids[0].tolist()]))
            if self.family.is_prefix_lm:  # its targets do not see what follows them
                inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
                inputs["token_type_ids"][:, -ids.shape[1] :] = 1
            logits = self._network_of(prompt)(**inputs, use_cache=False).logits
            return token_nll(logits[:, -ids.shape[1] - 1 : -1], ids)[0].tolist()

    @torch.inference_mode()
    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        """Counts tokens; the room is what the language model's positions leave beside the medium."""
        counts: list[TokenCount | None] = []
        for row in rows:
            prompt = self.prompts.prompt_of(row, think=self.think, is_bounded=False)
            room = None if self.prompts.max_positions is None else self.prompts.max_positions - len(prompt.all_ids)
            num_prompt = len(prompt.ids) + (0 if prompt.seen is None else len(prompt.seen.batch.plain_head))
            counts.append(TokenCount(prompt=num_prompt, room=room, is_room_shared=not self.is_encoder_decoder))
        return counts

    def _reading_of(self, seen: SeenMedium) -> Reading:
        reading = self._readings.get(seen.batch)
        if reading is None:
            with media_failures_named("the model", seen.kind):
                _, reading = self.reader.begin(seen.batch.inputs, whole=self.model)
            self._readings.put(seen.batch, reading)
        return reading

    def _begin(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Reading]:
        """Reads the prompts of a group, and returns the logits of what follows, (B, V), and what was read."""
        first = prompts[0].seen
        if first is None:
            rows = [torch.tensor(prompt.ids, device=self.device) for prompt in prompts]
            ids = pad_sequence(rows, batch_first=True, padding_side="left")
            lengths = torch.tensor([len(row) for row in rows], device=self.device)
            mask = (torch.arange(ids.shape[1], device=self.device) >= ids.shape[1] - lengths[:, None]).long()
            types = {"token_type_ids": torch.zeros_like(ids)} if self.family.is_prefix_lm else {}
            return self.reader.begin({"input_ids": ids, "attention_mask": mask, **types})
        if self.family.is_prefix_lm:
            with media_failures_named("the model", first.kind):
                return self.reader.begin(self.prompts.whole_inputs(prompts[0]), whole=self.model)
        reading = self._reading_of(first).fork([_row_of(prompt) for prompt in prompts])
        ids = torch.tensor([prompt.ids for prompt in prompts], device=self.device)
        return reading.feed(ids, num_logits=1)[:, -1], reading

    def _steps(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, draws: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        logits, reading = self._begin(prompts)
        num_tokens = min(self._num_new_tokens(prompt, settings) for prompt in prompts)
        replayed = None
        if self.recordings is not None and not self.is_encoder_decoder:
            replayed = recorded(reading, self.recordings, self.model.config, num_tokens)
        steps = step_by_step(
            logits,
            (lambda ids: reading.feed(ids, num_logits=1)[:, -1]) if replayed is None else replayed.feed,
            replace(settings, max_new_tokens=num_tokens),
            self.template.stop_ids,
            penalized_ids=[prompt.all_ids for prompt in prompts] if settings.repetition_penalty != 1.0 else (),
            draws=draws,
        )
        return self._until_answered(steps, prompts, settings.max_new_tokens) if self.think else steps

    def _num_new_tokens(self, prompt: Prompt, settings: GenerationSettings) -> int:
        """Returns the most tokens that are written: OPT and BART have no positions beyond their last one."""
        return min(self._num_wanted_tokens(settings), self._room(prompt))

    def _num_wanted_tokens(self, settings: GenerationSettings) -> int:
        """Returns the most tokens of a text and its thoughts."""
        return min(settings.max_new_tokens + (_MAX_THOUGHT_TOKENS if self.think else 0), MAX_NEW_TOKENS)

    def _room(self, prompt: Prompt) -> int:
        """Returns how many tokens can follow a prompt; an encoder-decoder's stand in positions of their own."""
        if self.prompts.max_positions is None:
            return MAX_NEW_TOKENS
        return self.prompts.max_positions - (0 if self.is_encoder_decoder else len(prompt.all_ids))

    def _require_room(self, prompt: Prompt, num_tokens: int) -> None:
        """Refuses what cannot be read behind a prompt.

        Raises:
            TextError: it is too long.
        """
        room = self._room(prompt)
        if self.prompts.max_positions is not None and num_tokens > room:
            message = f"text too long: {num_tokens} tokens, behind its prompt the language model takes {room}"
            raise TextError(message, advice="Shorten the text.", code="text_too_long")

    def _until_answered(
        self, steps: Iterator[tuple[Tensor, Tensor]], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Ends with the longest answer: what a row did not think is no room for its answer."""
        thoughts = [self.template.thoughts(prompt.ids) for prompt in prompts]
        num_left = [max_new_tokens] * len(prompts)
        for next_ids, nats in steps:
            yield next_ids, nats
            for row, token in enumerate(next_ids.tolist()):
                if token in self.template.stop_ids:
                    num_left[row] = 0
                elif thoughts[row].is_answer(token):
                    num_left[row] -= 1
            if max(num_left) <= 0:
                return

    def _target_nll(
        self, prompts: Sequence[Prompt], targets: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[list[float]]]:
        """Scores each prompt's targets; returns the nats of every token, by prompt and target."""
        flat = [torch.tensor(ids, dtype=torch.long, device=self.device) for row in targets for ids in row]
        if not any(map(len, flat)):
            return [[[] for _ in row] for row in targets]
        places = [place for place, row in enumerate(targets) for _ in row]
        ids = pad_sequence(flat, batch_first=True)  # (n, S); what is right of a target does not change its logits
        nll: list[list[float]] = []
        if self.is_encoder_decoder:
            (prompt,) = prompts
            nll = self._labels_nll(prompt, ids)
        elif len(flat) == len(prompts) and prompts[0].seen is not None and not self.family.is_prefix_lm:
            # One target a prompt: both in one pass behind the medium.
            reading = self._reading_of(prompts[0].seen).fork([_row_of(prompt) for prompt in prompts])
            read = torch.tensor([prompt.ids for prompt in prompts], device=self.device)
            logits = reading.feed(torch.cat([read, ids], dim=1), num_logits=ids.shape[1] + 1)
            nll = token_nll(logits[:, :-1], ids).tolist()
        else:
            first_logits, reading = self._begin(prompts)
            num_bytes = 4 * ids.shape[1] * first_logits.shape[-1] + reading.num_bytes // reading.num_rows
            for start, stop in _pieces(len(flat), num_bytes):
                logits = first_logits[places[start:stop], None]
                if ids.shape[1] > 1:
                    rest = reading.fork(places[start:stop]).feed(ids[start:stop, :-1])
                    logits = torch.cat([logits, rest], dim=1)
                nll += token_nll(logits, ids[start:stop]).tolist()
        scores = iter(nll)
        return [[next(scores)[: len(target)] for target in row] for row in targets]

    def _labels_nll(self, prompt: Prompt, ids: Tensor) -> list[list[float]]:
        """An encoder-decoder reads the prompt with its encoder, once for each target (n, S), which is its decoder's."""
        network = self._network_of(prompt)
        inputs = self.prompts.whole_inputs(prompt)
        nll: list[list[float]] = []
        for start, stop in _pieces(len(ids), 4 * ids.shape[1] * self.model.config.get_text_config().vocab_size):
            repeated = {name: value.repeat_interleave(stop - start, dim=0) for name, value in inputs.items()}
            with media_failures_named("the model", prompt.kind):
                logits = network(**repeated, labels=ids[start:stop]).logits
            nll += token_nll(logits, ids[start:stop]).tolist()
        return nll

    def _network_of(self, prompt: Prompt) -> Any:
        """Returns what reads a prompt as a whole: without a medium, the part that takes texts alone."""
        return self.reader.network if prompt.seen is None else self.model

    def _is_written_by_generate(self, settings: GenerationSettings) -> bool:
        is_forced = any(getattr(self.model.generation_config, name, None) for name in _FORCING)
        return settings.num_beams > 1 or self.is_encoder_decoder or is_forced

    def _generate(self, prompt: Prompt, settings: GenerationSettings, draw: int) -> Written:
        """Writes one row with transformers' `generate`."""
        prompt = self.prompts.alone(prompt)
        network = self._network_of(prompt)
        inputs = self.prompts.whole_inputs(prompt)
        config = copy.deepcopy(network.generation_config)
        config.update(
            max_new_tokens=self._num_new_tokens(prompt, settings),
            max_length=None,
            num_beams=settings.num_beams,
            length_penalty=settings.length_penalty,
            early_stopping=False,
            repetition_penalty=settings.repetition_penalty,
            no_repeat_ngram_size=0,
            do_sample=settings.do_sample,
            eos_token_id=list(self.template.stop_ids),
            pad_token_id=self.template.end_id,
            return_dict_in_generate=True,
            output_logits=settings.num_beams == 1,
        )
        if settings.do_sample:
            config.update(temperature=settings.temperature, top_p=settings.top_p, top_k=0)
        with media_failures_named("the model", prompt.kind), torch.random.fork_rng(enabled=settings.do_sample):
            if settings.do_sample:
                torch.manual_seed(settings.seed_of(draw))
            made = network.generate(**inputs, generation_config=config)
        # A decoder-only model returns what it read, too; an encoder-decoder the token that its decoder starts with.
        start = 1 if self.is_encoder_decoder else inputs["input_ids"].shape[1]
        ids = made.sequences[0, start:].tolist()
        nll = None
        if settings.num_beams == 1:
            logits = torch.cat(made.logits).float()
            require_finite(logits)
            nll = token_nll(logits[None], torch.tensor([ids], device=logits.device))[0].tolist()
        return self._written(until_stop(ids, nll, self.template.stop_ids), prompt, settings)

    def _written(self, made: Continuation, prompt: Prompt, settings: GenerationSettings) -> Written:
        ids, nll, is_complete = made.ids, made.token_nll, made.is_complete
        thoughts = self.template.thoughts(prompt.ids)
        is_answer = [thoughts.is_answer(token) for token in ids]
        ids = [token for token, is_part in zip(ids, is_answer, strict=True) if is_part]
        is_complete = is_complete and not thoughts.is_open
        if nll is not None:
            # The end token's belongs to the answer, not to a thought that it breaks off.
            nll = tuple(nats for nats, is_part in zip(nll, [*is_answer, is_complete], strict=False) if is_part)
        if len(ids) > settings.max_new_tokens:
            ids, is_complete = ids[: settings.max_new_tokens], False
            nll = None if nll is None else nll[: settings.max_new_tokens]
        usage = Usage(prompt=len(prompt.all_ids), written=len(made.ids) + made.is_complete)
        return Written(text=self.template.decode(ids).strip(), token_nll=nll, is_complete=is_complete, usage=usage)

    def _each(self, rows: Sequence[Row], work: Callable[[Prompt, Row], T], *, think: bool) -> list[T | Failed]:
        outcomes: list[T | Failed] = []
        with self._turn:
            for row in rows:
                try:
                    outcomes.append(work(self.prompts.prompt_of(row, think=think), row))
                except (InputError, CheckpointError) as error:
                    outcomes.append(Failed(error=error))
        return outcomes

    def _in_batches(
        self,
        rows: Sequence[Row],
        work: Callable[[Sequence[Prompt], Sequence[int]], list[T]],
        *,
        think: bool,
        num_tokens: int = 0,
    ) -> list[T | Failed]:
        """Works on rows that can be one batch together; one whose prompt cannot be read fails alone.

        Args:
            rows: all of them.
            work: gets the prompts of a batch and their rows' places; returns their results.
            think: whether what is written may begin with a thought.
            num_tokens: that each is to have room for; one without is worked on alone, so that it cuts no other's text.
        """
        outcomes: dict[int, T | Failed] = {}
        groups: dict[object, dict[int, Prompt]] = {}
        with self._turn:
            for place, row in enumerate(rows):
                try:
                    prompt = self.prompts.prompt_of(row, think=think)
                    group = place if self._room(prompt) < num_tokens else self._group_of(prompt, place)
                    groups.setdefault(group, {})[place] = prompt
                except (InputError, CheckpointError) as error:
                    outcomes[place] = Failed(error=error)
            for of_key in groups.values():
                of_group: dict[int, T | Failed] = self._apart(of_key, work)
                outcomes |= of_group
        return [outcomes[place] for place in range(len(rows))]

    def _group_of(self, prompt: Prompt, place: int) -> object:
        """Returns a key that rows of one batch share: the media's batch, and the number of tokens behind it."""
        if self.is_encoder_decoder or self.family.is_prefix_lm:
            return place
        return "texts" if prompt.seen is None else (id(prompt.seen.batch), len(prompt.ids))

    def _apart(
        self, group: Mapping[int, Prompt], work: Callable[[Sequence[Prompt], Sequence[int]], list[T]]
    ) -> dict[int, T | Failed]:
        """Works on a group; where it fails as a whole, on each of its rows, so that the one at fault fails alone.

        Media that went through the processor together are processed anew, each alone: the model reads them as one.
        """
        try:
            return dict(zip(group, work(list(group.values()), list(group)), strict=True))
        except (InputError, CheckpointError) as error:
            if len(group) == 1:
                return dict.fromkeys(group, Failed(error=error))
        apart: dict[int, T | Failed] = {}
        for place, prompt in group.items():
            of_row: dict[int, T | Failed] = self._apart(
                {place: prompt}, lambda prompts, places: work([self.prompts.alone(prompts[0])], places)
            )
            apart |= of_row
        return apart


def _row_of(prompt: Prompt) -> int:
    assert prompt.seen is not None
    return prompt.seen.row


def _pieces(num_targets: int, num_bytes: int) -> Iterator[tuple[int, int]]:
    """Divides targets, each of which takes so many bytes, into passes that fit."""
    most = max(1, _MAX_PASS_BYTES // num_bytes)
    for start in range(0, num_targets, most):
        yield start, min(start + most, num_targets)
