"""InstructBLIP behind `vlinstruct.backend.Backend`: texts and pictures in, texts and scores out.

The vision tower runs in `see` and nowhere else: by its parameters it is about 80 % of a scoring pass of FlanT5-XL and
43 % of Vicuna-7B's, and transformers runs it in every forward and every `generate`. The Q-Former runs once per picture
and text; only the language model runs in every call. Rows with a picture and rows without are two batches of one call.
A clip is its frames, as InstructBLIP's authors asked about videos: each is seen as a picture, and their prefixes stand
side by side in front of the prompt.

Legend: B rows, C context positions, L the language model's width, N frames of a row (1 of a picture), T Q-Former
tokens.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlinstruct.backend import Backend, Row, Seen, Written, not_taken
from vlinstruct.backends.decoding import Continuation
from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.backends.instructblip.decoding import generate, stream
from vlinstruct.backends.instructblip.familiarity import Familiarity
from vlinstruct.backends.instructblip.image_processor import ImageProcessor
from vlinstruct.backends.instructblip.language_model import Context, Reader
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.instructblip.prefixes import PrefixStore, SeenClip, SeenPicture, frames_of, stacked
from vlinstruct.backends.instructblip.recorded_reader import TOKENS_STEP, RecordedReader
from vlinstruct.backends.instructblip.scoring import target_nll
from vlinstruct.backends.instructblip.tokenization import QFormerTokenizer, TextTokenizer
from vlinstruct.backends.recordings import Recordings
from vlinstruct.backends.registry import INSTRUCTBLIP_ABILITIES
from vlinstruct.backends.text_pieces import text_pieces
from vlinstruct.errors import CheckpointError, ClipError, InputError, TextError
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import AttentionMap, Clip, Failed, Identity, Sound, TokenCount, TokenScores, Usage

if TYPE_CHECKING:
    from vlinstruct.values import Media

T = TypeVar("T")


class InstructBlipBackend(Backend):
    """A loaded model with its tokenizers and its image processor.

    Args:
        network: the torch module, in eval mode, on its device.
        image_processor: pictures to pixel values.
        tokenizer: the language model's.
        qformer_tokenizer: the Q-Former's.
        identity: where it comes from.
        familiarity: what its training's pictures look like; None where nobody knows.
        recordings: of small batches' kernels, which are replayed; None where everything runs anew.
    """

    abilities = INSTRUCTBLIP_ABILITIES

    def __init__(
        self,
        network: InstructBlip,
        *,
        image_processor: ImageProcessor,
        tokenizer: TextTokenizer,
        qformer_tokenizer: QFormerTokenizer,
        identity: Identity,
        familiarity: Familiarity | None = None,
        recordings: Recordings | None = None,
    ) -> None:
        self.network = network
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.qformer_tokenizer = qformer_tokenizer
        self.identity = identity
        self.familiarity = familiarity
        self.recordings = recordings
        self._prefixes = PrefixStore()
        self._turn = threading.RLock()  # one call at a time: torch would share the cores and the memory otherwise

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.network.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.network.query_tokens.dtype

    def reader(self, settings: GenerationSettings | None = None) -> Reader:
        """Returns what reads and writes: the language model itself, or its recordings.

        Args:
            settings: how it writes; None where it only scores.
        """
        language_model = self.network.language_model
        # Beams are moved from row to row in their states, which nothing recorded can be.
        if self.recordings is None or (settings is not None and settings.num_beams > 1):
            return language_model
        return RecordedReader(language_model, self.recordings, 0 if settings is None else settings.max_new_tokens)

    def _run(self, what: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return compute(*inputs) if self.recordings is None else self.recordings.run(what, compute, *inputs)

    @torch.inference_mode()
    def see(self, media: Sequence[Media]) -> list[Seen | Failed]:
        """Runs the vision tower, once per picture and once per clip.

        Args:
            media: RGB pictures of any size, and clips, B.
        """
        with self._turn:
            # All pictures are one batch. A clip is one by itself: sixteen of them together would not fit into memory.
            pictures = iter(self._see_pictures([medium for medium in media if isinstance(medium, Image.Image)]))
            outcomes: list[Seen | Failed] = []
            for medium in media:
                if isinstance(medium, Clip):
                    outcomes.append(SeenClip(self._see_pictures(medium.frames)))
                elif isinstance(medium, Sound):
                    outcomes.append(Failed(error=not_taken("sound", self.abilities)))
                else:
                    outcomes.append(next(pictures))
            return outcomes

    def _see_pictures(self, pictures: Sequence[Image.Image]) -> list[SeenPicture]:
        if not pictures:
            return []
        batch = self._run("pictures", self.network.encode_image, self.pixel_values(pictures))
        return [SeenPicture(batch, row) for row in range(len(batch))]

    def knows(self, seen: Seen) -> bool:
        familiarity = self.familiarity
        return familiarity is None or all(familiarity.knows(picture.image_embeds) for picture in frames_of(seen))

    def prepare(self, medium: Media) -> Media:
        """Returns a picture, or a clip with its frames, at the size that the vision tower reads."""
        if isinstance(medium, Sound):
            return medium
        if isinstance(medium, Clip):
            return replace(medium, frames=tuple(map(self.image_processor.resized, medium.frames)))
        return self.image_processor.resized(medium)

    def pixel_values(self, media: Sequence[Image.Image]) -> Tensor:
        """Returns what the vision tower reads, (B, 3, image_size, image_size)."""
        return self.image_processor(media).to(self.device, self.dtype)

    @torch.inference_mode()
    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        """Continues every row's prompt: greedy, sampled, with beams, or greedy with verified guesses."""

        def continuations(places: Sequence[int], ids: Sequence[Sequence[int]]) -> list[Written]:
            batch = [rows[place] for place in places]
            prefix = self._prefix_of(batch)
            # A row without a guess beside one that has some drafts nothing, and is as fast as a plain one.
            sources = [self.tokenizer.target_ids(row.guess) if row.guess else [] for row in batch]
            texts = generate(
                self.reader(settings),
                self.context_of_ids(ids, prefix),
                settings,
                self.tokenizer.stop_ids,
                sources=sources if any(sources) else (),
                draws=[row.draw for row in batch],
            )
            num_image_tokens = [0 if prefix is None else len(prefix[row]) for row in range(len(batch))]
            return [
                _written(text, self.tokenizer.decode(text.ids).strip(), len(row_ids) + num_tokens)
                for text, row_ids, num_tokens in zip(texts, ids, num_image_tokens, strict=True)
            ]

        return self._in_batches(rows, continuations)

    @torch.inference_mode()
    def stream(self, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        """Continues one row piece by piece; the pieces joined are the text that `write` returns."""
        # The lock is held for the context alone: whoever reads the pieces may take as long as a person does.
        with self._turn:
            context = self.context_of_ids([self.prompt_ids(self._full_prompt(row))], self._prefix_of([row]))
        stop_ids = self.tokenizer.stop_ids
        nll: list[float | None] = []
        new_ids: list[int] = []

        def ids() -> Iterator[int]:
            for token, nats in stream(self.reader(settings), context, settings, stop_ids, draws=[row.draw]):
                nll.append(nats)
                if token in stop_ids:
                    return
                new_ids.append(token)
                yield token

        pieces = []
        for piece in text_pieces(self.tokenizer, ids()):
            pieces.append(piece)
            yield piece
        token_nll = tuple(nats for nats in nll if nats is not None)  # beams have none
        text = Continuation(
            ids=new_ids,
            token_nll=token_nll if len(token_nll) == len(nll) else None,
            is_complete=len(new_ids) < len(nll),  # the stop id has nats, but is no part of the text
        )
        yield _written(text, "".join(pieces), context.inputs_embeds.shape[1])

    @torch.inference_mode()
    def score(
        self,
        rows: Sequence[Row],
        targets: Sequence[Sequence[str]],
        *,
        with_end: bool = True,
        num_first: int | None = None,
    ) -> list[list[TokenScores] | Failed]:
        """Scores targets by teacher forcing; a row with several reads its picture and prompt once for all of them."""

        def scores(places: Sequence[int], ids: Sequence[Sequence[int]]) -> list[list[TokenScores]]:
            encode = self.tokenizer.target_ids if with_end else self.tokenizer.encode
            target_ids = [
                [self._bounded(encode(text)[:num_first], "text", "Shorten it.") for text in targets[place]]
                for place in places
            ]
            if not any(map(any, target_ids)):  # nothing to read: no target at all, or only blank ones
                return [[TokenScores(tokens=(), token_nll=()) for _ in row_ids] for row_ids in target_ids]
            context = self.context_of_ids(ids, self._prefix_of([rows[place] for place in places]))
            is_one_each = all(len(row_ids) == 1 for row_ids in target_ids)
            reader = self.reader() if is_one_each else self.network.language_model  # several share their row's context
            nll = target_nll(reader, context, target_ids)
            return [
                [
                    TokenScores(tokens=self.tokenizer.pieces(ids), token_nll=tuple(nats))
                    for ids, nats in zip(row_ids, row_nll, strict=True)
                ]
                for row_ids, row_nll in zip(target_ids, nll, strict=True)
            ]

        return self._in_batches(rows, scores)

    def num_tokens(self, rows: Sequence[Row]) -> list[TokenCount | None]:
        """Counts tokens; the room is what the language model's positions, or its training, leave beside the picture."""
        text_config, counts = self.network.config.text_config, list[TokenCount | None]()
        for row in rows:
            prompt = len(self.tokenizer.prompt_ids(self._full_prompt(row)))
            # Not `encode`, which says that it cuts a text: this only counts.
            num_read = len(self.qformer_tokenizer.literal.encode(row.reads)) + 2
            reads = min(num_read, self.qformer_tokenizer.max_length) if row.seen else 0
            room = text_config.prompt_room(self._num_prefix_tokens(row)) - prompt
            is_shared = not text_config.is_encoder_decoder
            counts.append(TokenCount(prompt=prompt, reads=reads, room=room, is_room_shared=is_shared))
        return counts

    @torch.inference_mode()
    def attention(self, rows: Sequence[Row]) -> list[tuple[AttentionMap, ...]]:
        """Runs the Q-Former once more for every picture, and keeps where its queries look and what they read."""
        return [tuple(self._map(picture, row.reads) for picture in _frames(row)) for row in rows]

    def _map(self, picture: SeenPicture, text: str) -> AttentionMap:
        with self._turn:
            input_ids, attention_mask = self.qformer_ids([text])
            looks, reads = self.network.attention(picture.image_embeds[None], input_ids, attention_mask)
            patches = looks[0, :, 1:].float().cpu().numpy()  # without the class token
            side = math.isqrt(patches.shape[1])
            return AttentionMap(
                looks=patches.reshape(len(patches), side, side),
                tokens=self.qformer_tokenizer.pieces(input_ids[0].tolist()),
                reads=None if reads is None else reads[0].float().cpu().numpy(),
            )

    def _num_prefix_tokens(self, row: Row) -> int:
        return len(_frames(row)) * self.network.num_prefix_tokens

    def _in_batches(
        self, rows: Sequence[Row], work: Callable[[Sequence[int], Sequence[Sequence[int]]], list[T]]
    ) -> list[T | Failed]:
        """Works on rows with a picture and rows without as one batch each; one whose prompt is too long fails alone.

        Two batches, since a rewriting reads no picture and is shorter by a picture's Q or 2Q positions.

        Args:
            rows: all of them.
            work: gets the places of a batch's rows and the ids of their prompts; returns their results.
        """
        outcomes: dict[int, T | Failed] = {}  # by the row's place: the batches do not keep the order
        batches: dict[bool, dict[int, list[int]]] = {}
        for place, row in enumerate(rows):
            try:
                ids = self.prompt_ids(self._full_prompt(row))
                self._require_room(row, len(ids))
                batches.setdefault(bool(row.seen), {})[place] = ids
            except (InputError, CheckpointError) as error:
                outcomes[place] = Failed(error=error)
        with self._turn:
            for batch in batches.values():
                of_batch = self._apart(batch, work)
                outcomes.update(of_batch)
        return [outcomes[place] for place in range(len(rows))]

    def _apart(
        self, batch: Mapping[int, Sequence[int]], work: Callable[[Sequence[int], Sequence[Sequence[int]]], list[T]]
    ) -> dict[int, T | Failed]:
        """Works on a batch; where it fails, on its rows one by one, so that the row at fault fails alone.

        A row whose numbers overflow, in a narrow type or over one damaged embedding, says nothing of the others.
        """
        if not batch:
            return {}
        try:
            return dict(zip(batch, work(list(batch), list(batch.values())), strict=True))
        except (InputError, CheckpointError) as error:
            if len(batch) == 1:
                return dict.fromkeys(batch, Failed(error=error))
        return {place: outcome for row in batch.items() for place, outcome in self._apart(dict([row]), work).items()}

    def _prefix_of(self, rows: Sequence[Row]) -> Sequence[Tensor] | None:
        """Returns every row's projected queries, (NQ, L), or (2NQ, L) under EMA; None for rows without a picture.

        What the Q-Former made of a picture for a text is computed once, for as long as the picture lives.
        """
        if not rows[0].seen:
            return None
        pairs = [(picture, row.reads) for row in rows for picture in frames_of(row.seen[0])]
        prefixes = [self._prefixes.get(picture, text) for picture, text in pairs]
        # Rows of one call often share picture and text, e.g. samples of one rewriting: the first of them computes.
        computed_by: dict[tuple[int, str], int] = {}
        for place, ((picture, text), prefix) in enumerate(zip(pairs, prefixes, strict=True)):
            if prefix is None:
                computed_by.setdefault((id(picture), text), place)
        if computed_by:
            missing = [pairs[place] for place in computed_by.values()]
            image_embeds = stacked([picture for picture, _ in missing])
            texts = [text for _, text in missing]
            made = self._run("prefixes", self.network.image_prefix, image_embeds, *self.qformer_ids(texts))
            computed = dict(zip(computed_by, made, strict=True))
            for picture, text in missing:
                self._prefixes.put(picture, text, computed[id(picture), text])
            # From `computed`, not the store again: what was just put there may have been dropped for lack of room.
            prefixes = [
                computed[id(picture), text] if prefix is None else prefix
                for (picture, text), prefix in zip(pairs, prefixes, strict=True)
            ]
        of_pictures = iter(cast(list[Tensor], prefixes))
        of_rows = [[next(of_pictures) for _ in frames_of(row.seen[0])] for row in rows]
        return [torch.cat(of_row) if len(of_row) > 1 else of_row[0] for of_row in of_rows]

    def qformer_ids(self, texts: Sequence[str], num_tokens: int = 0) -> tuple[Tensor, Tensor]:
        """Returns what the Q-Former reads, (B, T), and its mask, (B, T), 1 where it is no padding.

        Args:
            texts: B of them.
            num_tokens: the least T; more where a text is longer.
        """
        rows = [self.qformer_tokenizer.encode(text) for text in texts]
        width = max([num_tokens, *map(len, rows)])
        if self.recordings is not None:
            width += -width % TOKENS_STEP
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return ids, (torch.arange(width, device=self.device) < lengths[:, None]).long()

    def context(self, prompts: Sequence[str], prefix: Sequence[Tensor] | None) -> Context:
        """Joins each row's prefix and prompt and pads on the left, so that the two stay neighbours.

        Args:
            prompts: one per row.
            prefix: per row what stands in front of it, (2Q, L) or (Q, L); differentiable. None for the text alone.
        """
        return self.context_of_ids([self.prompt_ids(prompt) for prompt in prompts], prefix)

    def context_of_ids(self, ids: Sequence[Sequence[int]], prefix: Sequence[Tensor] | None) -> Context:
        """Joins each row's prefix and prompt ids, (C,) in all, and pads on the left; see `context`.

        Args:
            ids: what `prompt_ids` returned, one per row.
            prefix: per row (2NQ, L) or (NQ, L); None for the text alone.
        """
        # One lookup of all rows' tokens, however many rows there are.
        flat = torch.tensor([token for row in ids for token in row], device=self.device)
        rows = list(torch.split(self.network.language_model.embed_tokens(flat), [len(row) for row in ids]))
        if prefix is not None:
            rows = [torch.cat(pair) for pair in zip(prefix, rows, strict=True)]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        inputs_embeds = pad_sequence(rows, batch_first=True, padding_side="left")
        num_positions = inputs_embeds.shape[1]
        return Context(
            inputs_embeds=inputs_embeds,
            attention_mask=torch.arange(num_positions, device=self.device) >= num_positions - lengths[:, None],
            penalized_ids=tuple(map(self.network.config.text_config.penalized_ids, ids)),
        )

    def _full_prompt(self, row: Row) -> str:
        """Returns a row's prompt with the conversation before it, as training spells one; alone where none was."""
        entry = self.identity.entry
        turns = row.history if entry is None or entry.reads_history else ()
        prompt = prompt_of([*((turn.question, turn.answer) for turn in turns), (row.prompt, "")])
        return f"{row.system} {prompt}" if row.system else prompt

    def prompt_ids(self, prompt: str) -> list[int]:
        """Returns a prompt's token ids.

        Raises:
            TextError: it has more tokens than the language model takes.
        """
        # Refused, not cut: without its end an instruction asks something else.
        return self._bounded(self.tokenizer.prompt_ids(prompt), "prompt", "Shorten the instruction.")

    def _require_room(self, row: Row, num_prompt_tokens: int) -> None:
        """Refuses a clip of more frames than the language model has positions for.

        Raises:
            ClipError: it has.
        """
        text_config = self.network.config.text_config
        num_frames = len(_frames(row))
        # T5's positions are relative: it has no end of them.
        if num_frames < 2 or text_config.is_encoder_decoder:
            return
        room = text_config.prompt_room(self._num_prefix_tokens(row)) - num_prompt_tokens
        if room < 0:
            message = f"clip too long: {num_frames} frames and the prompt are {-room} tokens too many for the model"
            raise ClipError(message, advice="Take fewer frames (--frames).", code="clip_too_long")

    def _bounded(self, ids: list[int], what: str, advice: str) -> list[int]:
        most = self.network.config.text_config.max_text_tokens
        if len(ids) > most:
            message = f"{what} too long: {len(ids)} tokens, the language model takes {most}"
            raise TextError(message, advice=advice, code="text_too_long")
        return ids


def _frames(row: Row) -> tuple[SeenPicture, ...]:
    return frames_of(row.seen[0]) if row.seen else ()


def _written(text: Continuation, decoded: str, num_read: int) -> Written:
    usage = Usage(prompt=num_read, written=len(text.ids) + text.is_complete)
    return Written(text=decoded, token_nll=text.token_nll, is_complete=text.is_complete, usage=usage)
