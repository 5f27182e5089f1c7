"""Follow-up questions: "and the square?" after "what colour is the circle?" is "what colour is the square?".

    earlier question, follow-up -> what the follow-up leaves out, from the earlier one -> a whole question, or None

A Q-Former reads the question alone, and small language models learnt no conversations: what a follow-up leaves out is
put back before it is asked. Words and their order decide, in English; whatever is in doubt stays as it was typed, and a
question that is whole always does (`tests/tools/follow_ups.py` measures both).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlinstruct.errors import plural
from vlinstruct.instruction.content import frame
from vlinstruct.instruction.language import is_english
from vlinstruct.instruction.lexicon import lexicon, stem

_MOST_CHARACTERS = 100  # of a follow-up; an ellipsis is short
_MOST_EARLIER_CHARACTERS = 1_000
_MOST_WORDS, _MOST_PLACED = 5, 7

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_OPENING = re.compile(
    r"\s*(?:(?:ok|okay|and|now|then|so|but|also|or|right|alright|well|hm+|thanks|cool|nice|&)(?!\w)[\s,.!:-]*)*+"
    r"(?:(?:what|how)\s+about\s+|what\s+of\s+|same\s+(?:question\s+)?for\s+)?",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"(?:[\s,]+(?:then|too|as well|instead|please|pls|plz|thanks|now))*[\s?.!]*\Z", re.IGNORECASE)
_PARTS = re.compile(r"[:;.?!#=]")  # what is left of an ellipsis is one piece
_PRONOUNS = frozenset({"it", "its", "they", "their", "them", "that", "those", "these", "this", "he", "she", "him"})
_INDEFINITE = frozenset({"a", "an", "any", "some"})
_SHOWING = frozenset({"this", "that", "these", "those"})
_POSSESSIVE = frozenset({"my", "your", "his", "her", "our", "their"})
_DETERMINERS = _INDEFINITE | _SHOWING | _POSSESSIVE | {"the"}
_PREPOSITIONS = frozenset({"in", "on", "at", "with", "from"})
# The lexicon has these among the words that a rewriting may add or lose; here they are what is asked about.
_NAMING = frozenset(
    {"object", "objects", "item", "items", "thing", "things", "one", "ones", "background", "foreground"}
)
_PICTURES = frozenset(
    {"picture", "pictures", "image", "images", "photo", "photograph", "pic", "drawing", "scene", "statement"}
    | {"question", "answer", "sentence", "kind", "type", "sort", "name"}
)
_ATTRIBUTES = frozenset({"colour", "shape", "size", "material", "brand", "height", "age", "length", "weight", "price"})
_WRITTEN = frozenset({"text", "texts", "word", "words", "writing", "lettering", "inscription"})
_SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_NOUNS_IN_ING = frozenset(
    {"ring", "thing", "string", "king", "wing", "building", "ceiling", "painting", "clothing", "railing", "drawing"}
)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A word, or a phrase of the lexicon, in its place.

    Args:
        start: of its first character in the text.
        end: behind its last one.
        text: in lower case, without slips.
        kind: the lexicon's; "content" for a word that it lacks.
        name: the lexicon's.
    """

    start: int
    end: int
    text: str
    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class _Noun:
    """What a question is about: "the red star", "how many STARS".

    Args:
        start: of its first character, of the determiner where it has one.
        end: behind its last one.
        determiner: in lower case; empty without.
        words: all others, as written.
        is_counted: it stands behind "how many".
    """

    start: int
    end: int
    determiner: str
    words: tuple[str, ...]
    is_counted: bool = False

    @property
    def is_plural(self) -> bool:
        return _is_plural(self.words[-1])

    @property
    def named(self) -> str:
        """It as the subject of another question."""
        determiner = "the" if not self.determiner or self.determiner in _INDEFINITE else self.determiner
        return " ".join((determiner, *self.words)).removesuffix("'s")


def whole_question(question: str, earlier: str) -> str | None:
    """Puts back what a follow-up leaves out.

    Args:
        question: as typed.
        earlier: the question before it, whole.

    Returns:
        The whole question; None where it is whole as it was typed, or where it cannot be told what it leaves out.

    >>> whole_question("and the square?", "what colour is the circle?")
    'what colour is the square?'
    >>> whole_question("on the right?", "Which shape is to the left of the red star?")
    'Which shape is to the right of the red star?'
    >>> whole_question("and its colour?", "Is there a star?"), whole_question("how many?", "Is there a star?")
    ('what colour is the star?', 'how many stars are there?')
    >>> whole_question("how many squares are there?", "what colour is the circle?")
    """
    if len(question) > _MOST_CHARACTERS or len(earlier) > _MOST_EARLIER_CHARACTERS:
        return None
    if "\n" in question or not (is_english(question) and is_english(earlier)):
        return None
    opening, closing = _OPENING.match(question), _CLOSING.search(question)
    assert opening is not None
    assert closing is not None
    rest = question[opening.end() : max(opening.end(), closing.start())]
    pieces = _pieces(rest)
    if not pieces or _PARTS.search(rest):
        return None
    is_opened = bool(opening.group().strip())
    before, core, behind = frame(earlier)
    asked = _pieces(core)
    completed = (
        _of_same_noun(pieces, core, asked)
        or _elsewhere(rest, pieces, core, asked, is_opened=is_opened)
        or _of_other_noun(rest, pieces, core, asked, is_opened=is_opened)
    )
    if completed is None or completed.rstrip(" ?").lower() == question.strip(" ?").lower():
        return None
    return f"{before}{completed}{behind}"


def whole_last(questions: Sequence[str]) -> str:
    """Returns the last of a conversation's questions, whole.

    >>> whole_last(["what colour is the circle?", "and the star?", "how many?"])
    'how many stars are there?'
    """
    whole = questions[0]
    for question in questions[1:]:
        whole = whole_question(question, whole) or question
    return whole


def _of_same_noun(pieces: list[_Piece], core: str, asked: list[_Piece]) -> str | None:
    """Completes what asks for something else of the same thing: "and its colour?", "what shape is it?", "where?"."""
    words = [piece.text for piece in pieces]
    asks = [piece for piece in pieces if piece.kind == "ask"]
    rest = {word for piece in pieces if piece.kind != "ask" for word in piece.text.split()}
    machinery = {"what", "which", "is", "are", "of", "the", "it's", "there", "has", "does", "have", "what's", "in"}
    if len(asks) != 1 or not rest <= machinery | _PRONOUNS:
        return None
    (ask,) = asks
    noun = _noun(core, asked)
    if noun is None and any(piece.name == "what is written" for piece in asked):
        noun = _Noun(start=0, end=0, determiner="the", words=("text",))
    if noun is None:
        return None
    verb = "are" if noun.is_plural else "is"
    if ask.text == "how many" and words[0] == "how many" and not noun.is_counted:
        counted = noun.words if noun.is_plural else (*noun.words[:-1], plural(noun.words[-1]))
        return f"how many {' '.join(counted)} are there?"
    if ask.text == "where" and words[0] == "where":
        return f"where {verb} {noun.named}?"
    if ask.name in _ATTRIBUTES and " " not in ask.text:
        return f"what {ask.text} {verb} {noun.named}?"
    return None


def _elsewhere(rest: str, pieces: list[_Piece], core: str, asked: list[_Piece], *, is_opened: bool) -> str | None:
    """Completes what asks for another place: "and on the left?", "above it?", "at the bottom?"."""
    first, *others = pieces
    if (first.kind != "relation" or first.name == "same") and first.text not in _PREPOSITIONS:
        return None
    may_follow = _DETERMINERS | _PRONOUNS | _NAMING
    if len(rest.split()) > _MOST_PLACED or any(
        piece.kind in ("ask", "negation") or _is_verb(piece) or (piece.kind == "soft" and piece.text not in may_follow)
        for piece in others
    ):
        return None
    others = [piece for piece in others if piece.text not in _PRONOUNS]
    # "left of red star?" is how some ask for a shape
    if others and not is_opened and others[0].text not in _DETERMINERS:
        return None
    place = next((piece for piece in asked if _is_place(piece, first)), None)
    if place is None:
        is_question = any(_is_verb(piece) or piece.name == "how many" for piece in asked)
        if not is_question or any(piece.text in _PRONOUNS for piece in (*asked, *pieces)):
            return None
        end = len(core.rstrip(" ?.!"))
        return f"{core[:end]} {rest}{core[end:].rstrip() or '?'}"
    behind = _pieces(core[place.end :])
    if behind and behind[0].text in _PRONOUNS:
        return None
    noun = _noun(core[place.end :], behind)
    takes_noun = place.text.endswith(" of") or noun is not None
    if others and takes_noun:  # "above the circle": another thing, too
        end = place.end + noun.end if noun is not None else len(core.rstrip(" ?.!"))
        return f"{core[: place.start]}{rest}{core[end:]}"
    if not takes_noun:
        return None if others and first.kind != "relation" else f"{core[: place.start]}{rest}{core[place.end :]}"
    side = _SIDES.get(first.name)
    return None if side is None else f"{core[: place.start]}{side}{core[place.end :]}"


def _is_place(piece: _Piece, other: _Piece) -> bool:
    """Says whether one place may be put for another: sides, or what has the same preposition."""
    if other.kind == "relation":
        return piece.kind == "relation" and piece.name != "same" and piece.text not in _NAMING
    return piece.text == other.text


def _of_other_noun(rest: str, pieces: list[_Piece], core: str, asked: list[_Piece], *, is_opened: bool) -> str | None:
    """Completes what asks the same of another thing: "and the square?", "what about a blue circle?", "stars?"."""
    if any(_is_verb(piece) or (piece.kind in ("ask", "negation") and piece.text not in _WRITTEN) for piece in pieces):
        return None
    determiner = pieces[0].text.split()[0] if pieces[0].text in _DETERMINERS else ""
    content = pieces[1:] if determiner else pieces
    if not content or len(rest.split()) > _MOST_WORDS:
        return None
    if any(piece.kind in ("soft", "relation") and piece.text not in _NAMING for piece in content):
        return None
    noun = _noun(core, asked, determiner)
    if noun is None or not _may_replace(noun, determiner, content, asked, is_opened=is_opened):
        return None
    words = [rest[piece.start : piece.end] for piece in content]
    head = noun.words[-1]
    if words[-1].lower() in ("one", "ones"):
        words[-1] = head
    elif len(words) == 1 and len(noun.words) > 1 and stem(words[0].lower()) in lexicon().implied["colour"]:
        words.append(head)
    if words == list(noun.words):
        return None
    if head.endswith("'s") and not words[-1].endswith("'s"):
        words[-1] += "'s"
    if noun.is_counted and not _is_plural(words[-1]):
        words[-1] = plural(words[-1])
    is_plural, before = _is_plural(words[-1]), core[: noun.start]
    if noun.determiner in ("a", "an"):
        words.insert(0, "an" if words[0][0].lower() in "aeiou" else "a")
    elif noun.determiner:
        words.insert(0, determiner if determiner and determiner not in _INDEFINITE else noun.determiner)
    if is_plural != noun.is_plural:
        wrong, right = ("is", "are") if is_plural else ("are", "is")
        before = re.sub(rf"\b{wrong} \Z", f"{right} ", before)
    return f"{before}{' '.join(words)}{core[noun.end :]}"


def _may_replace(noun: _Noun, determiner: str, content: list[_Piece], asked: list[_Piece], *, is_opened: bool) -> bool:
    """Says whether what is named now may stand for what a question is about."""
    is_indefinite, was_indefinite = determiner in _INDEFINITE, noun.determiner in _INDEFINITE
    if determiner in ("any", "some"):  # asks by itself whether there are some
        return noun.determiner in ("any", "some")
    if noun.is_counted and not is_opened:  # "stars?" after "how many circles?", and nothing else
        return not determiner and _is_plural(content[-1].text)
    if was_indefinite and not is_indefinite and any(piece.text in _PRONOUNS for piece in asked):
        return False  # "does it have a tag?", "and the cat?"
    # A word or two alone may be all that somebody types: "the text?" asks what is written.
    is_reading = content[-1].text in _WRITTEN
    return is_opened or (bool(determiner) and is_indefinite <= was_indefinite and not is_reading)


def _pieces(text: str) -> list[_Piece]:
    """Returns the words of a text, phrases of the lexicon together; the longest wins."""
    entries, longest = lexicon().entries, lexicon().longest
    found = list(_WORD.finditer(text))
    lower = [match.group().lower().replace("\u2019", "'") for match in found]
    # Hasty spellings of one word, only as words are looked up: what is taken over from a question keeps its slips.
    right = {word: lexicon().spellings.get(word, word) for word in lower}
    lower = [word if " " in right[word] else right[word] for word in lower]
    pieces, position = [], 0
    while position < len(found):
        length = min(longest.get(lower[position], 1), len(found) - position)
        while length > 1 and " ".join(lower[position : position + length]) not in entries:
            length -= 1
        end = position + length
        phrase = " ".join(lower[position:end])
        kind, name = entries.get(phrase, ("content", phrase))
        pieces.append(
            _Piece(start=found[position].start(), end=found[end - 1].end(), text=phrase, kind=kind, name=name)
        )
        position = end
    return pieces


def _noun(text: str, pieces: list[_Piece], like: str = "") -> _Noun | None:
    """Returns what a question is about; None where it names nothing, or without an article several things.

    Args:
        text: the question, or its end.
        pieces: its.
        like: the determiner of what is to stand in its place, in lower case.
    """
    nouns = _nouns(text, pieces)
    if not nouns:
        return None
    # The first is the subject. "this" and "my" are talk more often than not, and "a star" is not asked like "the star".
    return min(
        nouns,
        key=lambda noun: (
            noun.determiner in _SHOWING | _POSSESSIVE,
            (noun.determiner in _INDEFINITE) != (like in _INDEFINITE),
        ),
    )


def _nouns(text: str, pieces: list[_Piece]) -> list[_Noun]:
    """Returns what a question names, in order."""
    nouns = []
    for place, piece in enumerate(pieces):
        is_counted = piece.name == "how many"
        # "is that funny?" is about no funny.
        is_pronoun = piece.text in _SHOWING and place > 0 and _is_verb(pieces[place - 1])
        if is_pronoun or not (is_counted or piece.text in _DETERMINERS):
            continue
        rest = pieces[place + 1 :]
        if is_counted and rest and rest[0].text in ("of", "the"):
            rest = rest[1:]
        run = _run(rest, is_counted=is_counted)
        if not run or run[-1].text in _PICTURES:
            continue
        run = run[: len(run) - _num_predicates(pieces[:place], run, is_end=run[-1] is pieces[-1])]
        nouns.append(
            _Noun(
                start=run[0].start if is_counted else piece.start,
                end=run[-1].end,
                determiner="" if is_counted else piece.text,
                words=tuple(text[word.start : word.end] for word in run),
                is_counted=is_counted,
            )
        )
    # "star colour?": without an article, and no talk around it
    are_keywords = any(piece.kind == "ask" for piece in pieces) and not any(
        piece.text in _PRONOUNS or (_is_verb(piece) and piece.text != "what") for piece in pieces if piece.kind != "ask"
    )
    if nouns or len(pieces) > _MOST_WORDS or not are_keywords:
        return nouns
    starts = [place for place in range(len(pieces)) if _run(pieces[place:]) and not _run(pieces[place - 1 : place])]
    runs = [_run(pieces[place:]) for place in starts]
    if len(runs) != 1 or runs[0][-1].text in _PICTURES:
        return []
    (run,) = runs
    words = tuple(text[word.start : word.end] for word in run)
    return [_Noun(start=run[0].start, end=run[-1].end, determiner="", words=words)]


def _run(pieces: list[_Piece], *, is_counted: bool = False) -> list[_Piece]:
    """Returns the pieces from the first on that name a thing: adjectives and nouns."""
    run: list[_Piece] = []
    for piece in pieces:
        names = piece.kind == "content" or piece.text in _NAMING
        if not run:  # "how many people" asks for no name
            names = names or piece.text in _WRITTEN or (is_counted and piece.kind == "ask")
        if not names or _is_verb(piece):
            break
        if run and piece.text.endswith("ing") and piece.text not in _NOUNS_IN_ING:
            break
        run.append(piece)
    return run


def _num_predicates(before: list[_Piece], noun: list[_Piece], *, is_end: bool) -> int:
    """Returns how many words at a noun's end belong to what is said of it: "is the man OLD", "does the sign SAY"."""
    if len(noun) < 2 or not before:
        return 0
    verb = before[-1].text
    is_yes_no = len(before) == 1 or before[-2].text == "why"
    is_said = is_end and is_yes_no and verb in ("is", "are", "was", "were")
    return int(is_said or verb in ("do", "does", "did", "can", "will"))


def _is_verb(piece: _Piece) -> bool:
    roles = lexicon().roles
    return any(
        word in roles["auxiliaries"] or word in roles["modals"] or word in roles["question_words"]
        for word in re.split("[ ']", piece.text)
    )


def _is_plural(noun: str) -> bool:
    return noun.lower().endswith("s") and not noun.lower().endswith(("ss", "'s"))
