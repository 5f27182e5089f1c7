"""Rows as token arrays, with what guides the language model's attention in them.

Legend: R rows, Q queries, G patches per side, T prompt tokens, S target tokens. Token arrays are padded with 0 on the
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pretrain_mini.copying import Sources, name_sources, prompt_sources, query_sources, run_of
from pretrain_mini.encoder_attention import (
    Judgement,
    SparseLooks,
    comparing_looks,
    judge_relation,
    judge_sameness,
    judge_spelling,
    no_judgement,
    sparse,
)
from pretrain_mini.labels import (
    FAMILY_NAMES,
    FOCUS_QUERIES,
    IGNORED,
    NUM_QUERY_TOKENS,
    VERDICT_QUERY,
    Ids,
    PatchLabels,
    RowLabels,
    row_labels,
)
from pretrain_mini.reading import END, READINGS, LanguageModelName
from pretrain_mini.rewriting import TextPair
from pretrain_mini.rows import ReadQuestion, Row
from pretrain_mini.tokenizers import QFORMER_SPECIALS, language_tokenizer, qformer_tokenizer
from vlinstruct.mini.scene import COLOUR_NAMES, SHAPES

Labels = TypeVar("Labels", PatchLabels, RowLabels)

VERDICT_FAMILIES = ("position", "exist", "count", "same", "written", "meme")
SPELLING_FAMILIES = ("reading", "number", "caption", "description")
_NO_TOKEN = -1
# What follows an instruction in the comparison's template; always as long.
_SCORE = "Score: 0.0000."
_AFTER_FIRST_DIGIT = len("0.0000.")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that go through the language model together.

    Args:
        picture: (R,) which picture a row is about.
        qformer_ids: (R, T) what the Q-Former reads.
        prompt_ids: (R, T) what the language model reads, end or beginning token included (`reading.py`).
        target_ids: (R, S) what it should write, end token included.
        sources: (R, S, Q + T), where the decoder should look for what it copies (`copying.py`).
        better: (R, Q + T), 1 where a comparison's better instruction stands, 0 where the worse one does, else IGNORED.
        looks: (R, 2, Q + T, Q + T), where a position should look (`encoder_attention.py`).
        agrees: (R, Q + T), 1 where what is read or seen agrees with the question's words, 0 where not, else IGNORED.
        verdict_places: (R,), which position is asked for the verdict.
        fits: (R,), of an instruction that is scored by itself 1 where it fits the picture, 0 where not, else IGNORED.
        labels: what the auxiliary losses want, stacked.
    """

    picture: Ids
    qformer_ids: Ids
    prompt_ids: Ids
    target_ids: Ids
    sources: Sources
    better: Ids
    looks: SparseLooks
    agrees: Ids
    verdict_places: Ids
    fits: Ids
    labels: RowLabels


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """Rows without a picture that go through the language model together.

    Args:
        prompt_ids: (R, T).
        target_ids: (R, S).
        sources: (R, S, T), where the decoder should look for what it copies.
    """

    prompt_ids: Ids
    target_ids: Ids
    sources: Sources


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """Questions that the Q-Former reads without a picture.

    Args:
        qformer_ids: (R, T).
        family: (R,), position in FAMILY_NAMES.
        shapes: (R, 2), positions in SHAPES of the shapes that the question names, in the fact's order; else IGNORED.
        colours: (R, 2), of the colours, in COLOUR_NAMES.
    """

    qformer_ids: Ids
    family: Ids
    shapes: Ids
    colours: Ids


def padded(sequences: Sequence[Sequence[int]]) -> Ids:
    """Stacks sequences of different lengths, zeros on the right; at least one column."""
    array = np.zeros((len(sequences), max(map(len, sequences), default=1)), np.int64)
    for i, sequence in enumerate(sequences):
        array[i, : len(sequence)] = sequence
    return array


class RowTokenizer:
    """Turns rows into token arrays with both of mini's tokenizers.

    Args:
        language_model: the kind that reads them.
    """

    def __init__(self, language_model: LanguageModelName = "t5") -> None:
        self.reading = READINGS[language_model]
        self.language = _literal(language_tokenizer())
        self.qformer = _literal(qformer_tokenizer())
        self.names = {name: self._text_ids(name)[0] for name in (*COLOUR_NAMES, *SHAPES)}
        self.score_length = len(self._text_ids(_SCORE))
        self.cls_id, self.sep_id = QFORMER_SPECIALS.index("[CLS]"), QFORMER_SPECIALS.index("[SEP]")

    def _text_ids(self, text: str) -> list[int]:
        ids: list[int] = self.language.encode(text, add_special_tokens=False).ids
        return ids

    def _qformer_ids(self, text: str) -> list[int]:
        return [self.cls_id, *self.qformer.encode(text, add_special_tokens=False).ids, self.sep_id]

    def pairs(self, pairs: Sequence[TextPair]) -> tuple[Ids, Ids]:
        """Returns what is read, (R, T), and what should be written, (R, S)."""
        prompts, targets = (
            [self.reading.prompt_ids(self._text_ids(pair.prompt)) for pair in pairs],
            [[*self._text_ids(pair.target), END] for pair in pairs],
        )
        return padded(prompts), padded(targets)

    def text_rows(self, pairs: Sequence[TextPair]) -> TextRows:
        """Tokenizes rows without a picture."""
        prompt_ids, target_ids = self.pairs(pairs)
        return TextRows(prompt_ids=prompt_ids, target_ids=target_ids, sources=sources_in(prompt_ids, target_ids))

    def read_rows(self, questions: Sequence[ReadQuestion]) -> ReadRows:
        """Tokenizes questions that are read without a picture."""
        named = [question.named for question in questions]
        return ReadRows(
            qformer_ids=padded([self._qformer_ids(question.text) for question in questions]),
            family=np.array([FAMILY_NAMES.index(question.family) for question in questions]),
            shapes=_places_in(SHAPES, named),
            colours=_places_in(COLOUR_NAMES, named),
        )

    def rows(self, rows: list[Row], patches: list[PatchLabels]) -> Rows:
        """Tokenizes rows that go through the model together; `patches` are the labels of all pictures."""
        prompt_ids, target_ids = self.pairs([row.pair for row in rows])
        from_queries = np.stack([self._query_sources(*pair) for pair in zip(rows, target_ids, strict=True)])
        copied_ids = np.stack([self._copied(*pair) for pair in zip(rows, prompt_ids, strict=True)])
        from_prompt = sources_in(copied_ids, target_ids) * (from_queries.sum(axis=-1, keepdims=True) == 0)
        for i, row in enumerate(rows):
            self._read_relation(row, prompt_ids[i], from_queries[i], from_prompt[i])
        judgements = [self._judgement(*pair) for pair in zip(rows, prompt_ids, strict=True)]
        better = np.stack([self._better(*pair) for pair in zip(rows, prompt_ids, strict=True)])
        looks = np.stack([judgement.looks for judgement in judgements])
        return Rows(
            picture=np.array([row.picture for row in rows]),
            qformer_ids=padded([self._qformer_ids(row.qformer_text) for row in rows]),
            prompt_ids=prompt_ids,
            target_ids=target_ids,
            sources=np.concatenate([from_queries, from_prompt], axis=-1),
            better=self.reading.labels(better, looks),
            looks=sparse(self.reading.looks(looks, prompt_ids)),
            agrees=self.reading.labels(np.stack([judgement.agrees for judgement in judgements]), looks),
            verdict_places=self.reading.verdict_places(prompt_ids),
            fits=np.array([IGNORED if row.fits is None else int(row.fits) for row in rows]),
            labels=stacked([row_labels(row, patches[row.picture]) for row in rows]),
        )

    def _read_relation(self, row: Row, prompt_ids: Ids, from_queries: Sources, from_prompt: Sources) -> None:
        """Lets a verdict on a relation look as much at its word as at the query that knows how things stand."""
        if row.fact is not None and row.fact.family == "position" and row.verdict == row.pair.target:
            word = self._relation_run(row.fact.slots["relation"], prompt_ids)
            if word.any():
                from_prompt += from_queries.sum(axis=-1, keepdims=True) * word / (2 * word.sum())
                from_queries /= 2

    def _relation_run(self, relation: str, prompt_ids: Ids) -> NDArray[np.bool_]:
        """Returns (T,): True where the prompt says how things stand, nowhere where it does so in words of its own."""
        runs = (self._run(word, prompt_ids) for word in relation_words(relation))
        return next((run for run in runs if run.any()), np.zeros(len(prompt_ids), np.bool_))

    def _copied(self, row: Row, prompt_ids: Ids) -> Ids:
        """Returns (T,): the part of the prompt that the target is made from; elsewhere what is no token."""
        if not row.pair.source:
            return prompt_ids
        return np.where(self._run(row.pair.source, prompt_ids), prompt_ids, _NO_TOKEN)

    def _run(self, text: str, prompt_ids: Ids) -> NDArray[np.bool_]:
        """Returns (T,): True where a text first stands in a prompt."""
        return run_of(np.array(self._text_ids(text)), prompt_ids)

    def _better(self, row: Row, prompt_ids: Ids) -> Ids:
        """Returns (Q + T,): which of two compared instructions, its score included, a token belongs to."""
        better = np.full(NUM_QUERY_TOKENS + len(prompt_ids), IGNORED)
        for label, span in enumerate(self._spans(row, prompt_ids)):
            better[span] = label
        return better

    def _places(self, text: str, prompt_ids: Ids) -> list[int]:
        """Returns the positions, queries counted, at which a text first stands in a prompt."""
        return [NUM_QUERY_TOKENS + int(place) for place in np.nonzero(self._run(text, prompt_ids))[0]]

    def _spans(self, row: Row, prompt_ids: Ids) -> list[slice]:
        """Returns where the worse and the better of two compared instructions stand, their scores included."""
        if row.pair.source == row.pair.rejected:
            return []
        runs = [self._places(text, prompt_ids) for text in (row.pair.rejected, row.pair.source)]
        return [slice(run[0], run[-1] + 1 + self.score_length) for run in runs]

    def _judgement(self, row: Row, prompt_ids: Ids) -> Judgement:
        """Returns where the encoder should look in a comparison, or to give a verdict."""
        length = NUM_QUERY_TOKENS + len(prompt_ids)
        spans = self._spans(row, prompt_ids)
        if spans:
            looks = comparing_looks(length, spans, [span.stop - _AFTER_FIRST_DIGIT for span in spans])
            return replace(no_judgement(length), looks=looks)
        if row.fact is None or row.pair.source or row.verdict != row.pair.target:
            return no_judgement(length)
        slots = row.fact.slots
        match row.fact.family:
            case "position":
                word = np.flatnonzero(self._relation_run(slots["relation"], prompt_ids))
                places = [NUM_QUERY_TOKENS + int(place) for place in word]
                return judge_relation(length, places, row.verdict in ("yes", "true"))
            case "same":
                return judge_sameness(length, row.verdict == "yes")
            case "written":
                spelt = self._text_ids(slots["quote"])[1:]  # without the space in front
                letters = [NUM_QUERY_TOKENS + int(i) for i in np.flatnonzero(run_of(np.array(spelt), prompt_ids))]
                if len(letters) == len(slots["quote"]):
                    return judge_spelling(length, letters, slots["quote"], row.scene.prints[0].text.lower())
        return no_judgement(length)

    def _query_sources(self, row: Row, target_ids: Ids) -> Sources:
        """Returns (S, Q): the queries that hold what is written, characters or the names of the things in focus."""
        if row.fact is None or row.pair.source:
            return np.zeros((len(target_ids), NUM_QUERY_TOKENS), np.float32)
        if row.fact.family in SPELLING_FAMILIES and row.scene.prints:
            spelt = np.array(self._text_ids(row.scene.prints[0].text.lower()))
            return query_sources(target_ids, spelt, NUM_QUERY_TOKENS)
        if row.fact.family in VERDICT_FAMILIES and row.verdict == row.pair.target:
            sources = np.zeros((len(target_ids), NUM_QUERY_TOKENS), np.float32)
            sources[target_ids > END, VERDICT_QUERY] = 1
            return sources
        named = [[self.names[name] for name in (thing.shape, thing.colour)] for thing in row.fact.focus]
        return name_sources(target_ids, dict(zip(FOCUS_QUERIES, named, strict=False)), NUM_QUERY_TOKENS)


_RELATION_WORDS = {
    "to the left of": ("left", "leftward", "lefthand", "leftwards"),
    "to the right of": ("right", "rite", "rightward", "rightwards"),
    "above": ("above", "over", "higher", "top", "up", "upper", "upwards", "overhead"),
    "below": ("below", "under", "underneath", "beneath", "lower", "bottom", "down", "underside"),
}


def relation_words(relation: str) -> list[str]:
    """Returns the words that may tell a relation from the others, in every spelling that is a piece of its own.

    >>> relation_words("to the left of")[:3]
    ['left', 'Left', 'LEFT']
    """
    words = _RELATION_WORDS[relation]
    return [spelling for word in words for spelling in (word, word.capitalize(), word.upper())]


def _places_in(names: Sequence[str], named: Sequence[Sequence[str]]) -> Ids:
    """Returns (R, 2): the place among names of the word that each of two nouns has of them, else IGNORED."""
    places = np.full((len(named), len(FOCUS_QUERIES)), IGNORED)
    for row, nouns in enumerate(named):
        for column, noun in enumerate(nouns[: len(FOCUS_QUERIES)]):
            places[row, column] = next((names.index(word) for word in noun.split(" ") if word in names), IGNORED)
    return places


def sources_in(prompt_ids: Ids, target_ids: Ids) -> Sources:
    """Returns (R, S, T): where each row's target is copied from its prompt; padding and end tokens are no copies."""
    pairs = zip(prompt_ids, target_ids, strict=True)
    sources = [prompt_sources(target, prompt) * (target > END)[:, None] for prompt, target in pairs]
    return np.stack(sources) if sources else np.zeros((0, 1, 1), np.float32)


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True
    return tokenizer


def stacked(labels: Sequence[Labels]) -> Labels:
    """Stacks dataclasses of arrays, field by field, along a new first axis."""
    kind = type(labels[0])
    return kind(**{field.name: np.stack([getattr(row, field.name) for row in labels]) for field in fields(kind)})
