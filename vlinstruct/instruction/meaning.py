"""Meaning: what a question asks, about what, and in which form, as far as its English words tell.

    text -> sentences -> clauses -> form of the question, the words that must stay, the words that may

A heuristic that must err towards silence where it does not understand: what it cannot read constrains nothing by its
form, and its content words alone. Linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vlinstruct.instruction.lexicon import Concept, alike, concepts_of, corrected, group, words

Form = Literal["yes/no", "open", "choice", "statement"]

# A point within a word ends no sentence: `3.50`, `www.a.com`.
_SENTENCE = re.compile(r"[^.!?;\n]+(?:[.;](?!\s|$)[^.!?;\n]*)*[.!?;\n]*")
_CLAUSE = re.compile(r"[,:()]|\s[-\u2013\u2014]+\s|\s\.\.+\s")

_WH = {"what", "which", "where", "who", "whom", "whose", "why", "when", "how", "howmany", "whats", "wheres", "whos", "wat",
       "wich", "whch", "wht", "wut", "waht"}  # fmt: skip
_RELATIVE = {"who", "which", "where", "when", "whose", "whom"}
_AUX = {"is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "am", "isnt", "arent", "doesnt", "dont", "iz",
        "wasnt", "hasnt", "ai", "isn", "r"}  # fmt: skip
_MODAL = {"can", "could", "will", "would", "may", "might", "should", "ca", "wo"}
_FINITE = {
    "is",
    "are",
    "was",
    "were",
    "has",
    "have",
    "had",
    "does",
    "do",
    "did",
    "'s",
    "'re",
    "shows",
    "show",
    "contains",
}
_YOU = {"you", "u", "we", "anyone", "anybody", "someone", "i"}
_IMPERATIVE = {
    "describe", "caption", "count", "read", "name", "list", "identify", "give", "say", "tell", "find", "transcribe", "explain",
    "summarize", "summarise", "determine", "state", "write", "provide", "locate", "show", "spell", "point", "guess",
    "detect", "check", "verify", "report", "specify", "estimate", "output", "extract", "recognize", "recognise", "look",
    "let", "help", "decide", "indicate", "classify", "talk", "see", "caption", "generate", "create", "make", "compare",
    "translate", "choose", "pick", "select", "figure", "discribe", "desribe", "mention", "ocr", "note",
}  # fmt: skip
_REPLY = {"answer", "reply", "respond", "say", "use", "choose", "pick", "select"}
_BEFORE_IF = {"know", "tell", "say", "see", "check", "determine", "verify", "wonder", "wondering", "ask", "sure", "question", "out",
              "me", "decide", "identify", "judge", "curious", "us", "state", "whether"}  # fmt: skip
_BEFORE_SAY = {
    "you",
    "u",
    "please",
    "to",
    "could",
    "would",
    "and",
    "then",
    "just",
    "can",
    "i",
    "must",
    "pls",
    "plz",
    "me",
}
_PERSONAL = {"i", "im", "my", "me", "mine", "we", "our", "us", "i'm", "ive", "myself"}
_PRONOUNS = {
    "it",
    "its",
    "they",
    "them",
    "he",
    "she",
    "his",
    "her",
    "their",
    "that",
    "one",
    "ones",
    "these",
    "those",
    "him",
}
_CUT_BEFORE = {"because", "cuz", "bc", "thanks", "thank", "thx", "cheers", "since", "ty", "cos"}
_TAGS = {f"{aux}{no} {who}" for aux in ("is", "are", "does", "do", "was", "has", "have", "did", "ca", "wo", "were")
         for no in ("nt", " n't") for who in ("it", "there", "they", "he", "she", "that", "this", "you")}  # fmt: skip
_TAGS |= {
    "right",
    "correct",
    "true",
    "yes",
    "no",
    "is it",
    "are they",
    "or not",
    "true or false",
    "yes or no",
    "huh",
    "ok",
}
_YES_NO = re.compile(
    r"\b(?:true or false|yes or no|yes no|y n|right or wrong|correct or (?:not|incorrect)|or not|"
    r"is (?:this|that|it|the|the following)(?: statement| sentence| claim)? (?:true|correct|right|false|wrong|so)|"
    r"true or not|agree or disagree|true if|yes if|say yes)\b"
)
# Where the number of what is written is meant, `written` goes without saying.
_NUMERIC = {"number", "letter", "digit", "price", "date", "phon", "headlin", "titl", "quot", "telephone"}
_ANSWERS = {"yes", "no", "yep", "nope", "yeah"}


@dataclass(frozen=True)
class _Clause:
    """A part of a sentence between commas.

    Args:
        concepts: what must stay if this clause asks.
        context: what stands before the asking words in a clause about oneself.
        form: the form of the question, None where it cannot be told.
        is_personal: it speaks about the user.
    """

    concepts: tuple[Concept, ...]
    context: tuple[Concept, ...]
    spelled: tuple[str, ...]
    form: Form | None
    is_personal: bool


@dataclass(frozen=True)
class _Sentence:
    clauses: tuple[_Clause, ...]
    form: Form | None
    is_machinery: bool
    is_reply: bool

    @property
    def concepts(self) -> list[Concept]:
        return [concept for clause in self.clauses for concept in (*clause.context, *clause.concepts)]

    @property
    def spelled(self) -> list[str]:
        return [word for clause in self.clauses for word in clause.spelled]

    @property
    def is_asking(self) -> bool:
        return self.form in ("yes/no", "open", "choice") and not self.is_machinery


@dataclass(frozen=True)
class Meaning:
    """What a text asks.

    Args:
        forms: the forms of its questions, in order.
        num_questions: its questions and fragments.
        num_answers: its sentences that are no more than yes or no.
        required: the concepts that a rewriting must keep.
        allowed: all of the text's concepts.
    """

    forms: tuple[Form | None, ...]
    num_questions: int
    num_answers: int
    required: tuple[Concept, ...]
    allowed: tuple[Concept, ...]

    def names(self, *kinds: str) -> set[str]:
        """Returns the names of the required concepts of some kinds."""
        return {concept.name for concept in self.required if concept.kind in kinds}


def meaning(text: str) -> Meaning:
    """Reads a text.

    >>> sorted(meaning("Hey, I can't see. could you tell me what the sign says, thanks!").names("ask", "content"))
    ['sign', 'what is written']
    """
    sentences = [_sentence(match.group()) for match in _SENTENCE.finditer(text)]
    sentences = [sentence for sentence in sentences if sentence.clauses]
    num_answers = sum(_is_answer(sentence) for sentence in sentences)
    # By position: sentences may be equal, and there may be thousands.
    asking = {at: sentence for at, sentence in enumerate(sentences) if sentence.is_asking}
    # `Can you help me?` beside a question of substance is politeness.
    substantial = {at: sentence for at, sentence in asking.items() if _substance(_kept_of(sentence, True))}
    asking = substantial or dict([*asking.items()][:1])
    is_checked = any(sentence.is_machinery and sentence.form == "yes/no" for sentence in sentences)
    statements = {
        at: sentence
        for at, sentence in enumerate(sentences)
        if not sentence.is_asking and not sentence.is_machinery and _substance(sentence.concepts)
    }
    fragments = [
        sentence
        for sentence in statements.values()
        if sentence.form is None and not sentence.is_reply and not _is_personal(sentence)
    ]
    required: list[Concept] = []
    for position, sentence in enumerate(sentences):
        if position in asking:
            kept = _kept_of(sentence, True)
            if _refers_back(kept, sentence.spelled):
                required += [concept for clause in sentence.clauses for concept in clause.context]
                required += [
                    concept
                    for at in range(max(0, position - 2), position)
                    if at in statements
                    for clause in statements[at].clauses
                    if not clause.is_personal or {"see", "have", "there", "look"} & set(clause.spelled)
                    for concept in clause.concepts
                ]
            required += kept
        elif sentence.is_reply or (position in statements and not asking):
            required += _kept_of(sentence, False)
    forms: tuple[Form | None, ...] = tuple(sentence.form for sentence in asking.values())
    if is_checked and not asking:
        forms = ("yes/no",)
    elif not asking:
        forms = tuple(sentence.form for sentence in statements.values() if not _is_personal(sentence))[:1] or (None,)
        if forms == ("statement",) and any(concept.kind == "ask" for concept in required):
            forms = (None,)
    return Meaning(
        forms=forms,
        num_questions=len(asking) + len(fragments),
        num_answers=num_answers,
        required=tuple(required),
        allowed=tuple(concept for sentence in sentences for concept in sentence.concepts),
    )


def meaning_changes(initial: str, candidate: str, *, has_text: bool = False) -> list[str]:
    """Returns what a rewriting does to the question, its negation, relations and subject, in words.

    Args:
        initial: the user's words.
        candidate: a rewriting.
        has_text: the user's words have a quotation or a number, so that asking what is written adds nothing.

    >>> meaning_changes("Which shape is not red?", "What is the shape of the red object?")
    ['loses the negation']
    >>> meaning_changes("colour of circle", "What color is the circle in the image?")
    []
    """
    asked, written = meaning(initial), meaning(candidate)
    return [
        *_negation(asked, written),
        *_relations(asked, written),
        *_forms(asked, written),
        *_subject(asked, written, has_text),
    ]


def _negation(asked: Meaning, written: Meaning) -> list[str]:
    is_negative = any(concept.kind == "negation" for concept in written.required)
    if asked.names("negation") and not is_negative:
        return ["loses the negation"]
    may_be = any(concept.kind == "negation" for concept in asked.allowed)
    return ["adds a negation"] if is_negative and not may_be else []


def _relations(asked: Meaning, written: Meaning) -> list[str]:
    expected, present = asked.names("relation"), {c.name for c in written.allowed if c.kind == "relation"}
    allowed = {concept.name for concept in asked.allowed if concept.kind == "relation"}
    changes = [f"loses the relation {name!r}" for name in sorted(expected - present)]
    changes += [f"adds the relation {name!r}" for name in sorted(present - allowed)]
    if not changes:
        for name in sorted(expected & group("directed")):
            if _is_turned(_sides(asked.required, name), _sides(written.required, name)):
                changes.append(f"exchanges the sides of {name!r}")
    return changes


@dataclass(frozen=True)
class _Sides:
    before: frozenset[str]
    after: str | None


def _sides(concepts: Sequence[Concept], name: str) -> _Sides | None:
    """Returns what stands before a relation and the first content word after it; None unless it stands there once."""
    positions = [position for position, concept in enumerate(concepts) if concept.name == name]
    if len(positions) != 1:
        return None
    after = [concept.name for concept in concepts[positions[0] + 1 :] if concept.kind == "content"]
    before = frozenset(concept.name for concept in concepts[: positions[0]] if concept.kind == "content")
    return _Sides(before=before, after=after[0] if after else None)


def _is_turned(first: _Sides | None, second: _Sides | None) -> bool:
    if first is None or second is None:
        return False
    if first.after is not None and second.after is not None:
        return first.after != second.after and first.after in second.before and second.after in first.before
    # `What is left of the circle?` and `What is the circle left of?`
    return (first.after is None) != (second.after is None) and (first.after or second.after) in (
        second.before | first.before
    )


def _forms(asked: Meaning, written: Meaning) -> list[str]:
    changes = []
    if written.num_answers > asked.num_answers:
        changes.append("adds an answer")
    if written.num_questions > max(1, asked.num_questions):
        changes.append("adds a second question")
    expected, present = set(asked.forms), set(written.forms)
    if len(expected) != 1:
        return changes
    (form,) = expected
    has_ask = bool(written.names("ask"))
    if form == "yes/no" and present & {"open"}:
        changes.append("asks for something else than yes or no")
    elif form == "open" and "yes/no" in present:
        changes.append("asks for yes or no")
    elif form == "statement" and "open" in present:
        changes.append("asks for something else than whether the statement is true")
    elif form in ("yes/no", "open", "choice") and (
        present == {"statement"} or (present == {None} and not (has_ask and form == "open"))
    ):
        changes.append("is no question any more")
    elif form is None and present == {"statement"}:
        changes.append("is a statement")
    return changes


def _subject(asked: Meaning, written: Meaning, has_text: bool) -> list[str]:
    kinds = ("content", "ask")
    known = {concept.name for concept in asked.allowed if concept.kind in kinds}
    present = {concept.name for concept in written.allowed if concept.kind in kinds}
    form = next(iter(asked.forms), None)
    contents, asks = asked.names("content"), asked.names("ask")
    names_colour, names_shape = bool(known & group("colours")), bool(known & group("shapes"))
    excused_additions, excused_losses = set(), set()
    if names_colour:
        excused_additions.add("colour")
        if form != "open":
            excused_losses.add("colour")
    is_bare = form in ("open", None) and not asks and not contents - group("colours") - group("shapes")
    if names_shape or (is_bare and (contents or asked.names("relation"))):
        excused_additions.add("shape")
        if names_shape and form != "open":
            excused_losses.add("shape")
    if has_text or known & group("texts"):
        excused_additions.add("what is written")
    if has_text or known & _NUMERIC:
        excused_losses.add("what is written")
    if known & group("persons") or "who" in known:
        excused_additions |= {"who", "name"}
    if known & group("persons"):
        excused_losses.add("who")
    if form is None and "number" in known:
        excused_additions.add("how many")
        if "how many" in present:
            excused_losses.add("number")
    if "how many" in known:
        excused_additions.add("number")
        excused_losses.add("number")
    if form == "open" and "how" in asks:
        excused_losses.add("how")
        excused_additions.add("like")
    # `What do you see?` asks for a description.
    if is_bare and not contents and not asked.names("relation"):
        excused_additions.add("a description")
    if asks == {"a description"} and not present and not contents and "open" in written.forms:
        excused_losses.add("a description")
    lost = _unmatched(sorted({*contents, *asks}), present)
    added = _unmatched(sorted(present), known)
    spelling = {concept.name: concept.text for concept in (*written.allowed, *asked.allowed)}
    asked_names = {concept.name for concept in (*written.allowed, *asked.allowed) if concept.kind == "ask"}
    return [
        *(
            f"no longer asks for {name}" if name in asked_names else f"loses {_shown(spelling[name])!r}"
            for name in lost
            # Digits are compared as numbers.
            if name not in excused_losses and not spelling[name].isdigit()
        ),
        *(
            f"asks for {name}" if name in asked_names else f"adds {_shown(spelling[name])!r}"
            for name in added
            if name not in excused_additions
        ),
    ]


def _shown(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:18]}...{word[-18:]}"


def _unmatched(names: Iterable[str], others: set[str]) -> list[str]:
    """Returns the names that no other is, spelling mistakes aside; each pair of initial letter is compared once."""
    left = []
    by_initial: dict[str, list[str]] = {}
    for other in others:
        by_initial.setdefault(other[0], []).append(other)
    budget = 2000  # comparisons of misspelt words, a bound for hostile texts
    for name in names:
        if name in others:
            continue
        near = by_initial.get(name[0], [])
        budget -= len(near)
        if budget < 0 or not any(alike(name, other) for other in near):
            left.append(name)
    return left


def _sentence(text: str) -> _Sentence:
    is_question = text.rstrip().endswith("?")
    clauses = []
    is_tagged = False
    for part in _CLAUSE.split(text):
        spelled = [corrected(word) for word in words(part)]
        for piece in _cut(spelled):
            joined = " ".join(piece)
            if joined in _TAGS and (clauses or is_question):
                is_tagged = is_tagged or joined not in ("ok", "yes", "no")
                if joined in ("yes", "no") and not clauses:
                    clauses.append(_clause(piece, False))
                continue
            clauses.append(_clause(piece, is_question))
    joined = " ".join(word for clause in clauses for word in clause.spelled)
    forms = [clause.form for clause in clauses if clause.form not in (None, "statement")]
    form = forms[0] if forms else None
    asks_whether = bool(_YES_NO.search(joined))
    if asks_whether and form != "choice":
        form = "yes/no"
    if form is None and any(clause.form == "statement" for clause in clauses):
        form = "yes/no" if is_question or is_tagged else "statement"
    substance = _substance(concept for clause in clauses for concept in (*clause.context, *clause.concepts))
    is_machinery = (asks_whether or (is_tagged and not clauses)) and not substance
    if is_tagged and not clauses:
        form = "yes/no"
        clauses = [_clause([], False)]
    first = next((word for clause in clauses for word in clause.spelled if word not in ("please", "and", "then")), "")
    is_reply = first in _REPLY and not any(word in _WH for clause in clauses for word in clause.spelled)
    if is_reply and form == "open":
        form = None
    return _Sentence(clauses=tuple(clauses), form=form, is_machinery=is_machinery, is_reply=is_reply)


def _cut(spelled: list[str]) -> list[list[str]]:
    """Splits a clause before thanks and reasons."""
    pieces: list[list[str]] = [[]]
    for word in spelled:
        if word in _CUT_BEFORE and pieces[-1]:
            pieces.append([])
        pieces[-1].append(word)
    return [piece for piece in pieces if piece]


def _clause(spelled: list[str], is_question: bool) -> _Clause:
    form, start = _form(spelled, is_question)
    is_personal = bool(_PERSONAL & set(spelled[: start if form else len(spelled)]))
    is_context = form is not None and form != "statement" and is_personal and start > 0
    head = spelled[:start] if is_context else []
    return _Clause(
        concepts=tuple(_marked(spelled[len(head) :])),
        context=tuple(_marked(head)),
        spelled=tuple(spelled),
        form=form,
        is_personal=is_personal and (form is None or form == "statement"),
    )


def _marked(spelled: list[str]) -> list[Concept]:
    """Returns concepts; `say` and `name` are asked for or machinery, by what stands before them."""
    found: list[Concept] = []
    previous = ""
    for concept in concepts_of(spelled):
        if concept.text == "say" and previous and previous not in _BEFORE_SAY:
            concept = Concept(kind="ask", name="what is written", text="say")
        elif concept.text == "name" and (not previous or previous in _BEFORE_SAY):
            concept = Concept(kind="soft", name="name", text="name")
        found.append(concept)
        previous = concept.text
    return found


def _form(spelled: list[str], is_question: bool) -> tuple[Form | None, int]:
    """Returns the form of a clause and where its asking words begin."""
    is_start = True
    starts_with_place = bool(spelled) and spelled[0] in {
        "in",
        "on",
        "from",
        "at",
        "looking",
        "given",
        "based",
        "according",
        "for",
    }
    kinds = {}
    for position, word in enumerate(spelled):
        previous = spelled[position - 1] if position else ""
        following = spelled[position + 1] if position + 1 < len(spelled) else ""
        if word in _WH and not (word in {"what", "how"} and following == "about") and previous != "or":
            is_relative = word in _RELATIVE and position > 0 and _kind(previous, kinds) in ("content", "ask")
            if not is_relative:
                return "open", position
        if word in ("if", "whether") and (previous in _BEFORE_IF or (word == "whether" and not position)):
            return "yes/no", position
        if is_start and word in _AUX:
            if following in _YOU and any(
                later in _WH
                and (spelled[at] not in _RELATIVE or _kind(spelled[at - 1], kinds) not in ("content", "ask"))
                for at, later in enumerate(spelled[position + 1 :], position + 1)
            ):
                return "open", position
            return _choice(spelled[position:]), position
        if is_start and word in _MODAL:
            return _modal(spelled, position, kinds)
        if is_start and word in _IMPERATIVE:
            later = _later(spelled, position + 1, kinds)
            return later or ("open", position)
        if (
            previous in {"know", "wondering", "me", "wonder", "ask"}
            and word in _AUX
            and _PERSONAL & set(spelled[:position])
        ):
            return _choice(spelled[position:]), position
        is_start = is_start and (
            (starts_with_place and _kind(word, kinds) in ("function", "soft"))
            or word in {"and", "so", "but", "then", "ok", "okay", "hey", "hi", "hello", "please", "plz", "pls", "now", "well", "just",
                        "also", "to", "n't", "sir", "you", "kindly", "question", "instruction"}
        )  # fmt: skip
    if _FINITE & set(spelled):
        return "statement", 0
    return None, 0


def _modal(spelled: list[str], position: int, kinds: dict[str, str]) -> tuple[Form | None, int]:
    """Returns the form of `could you ...`: a request, or a question."""
    rest = [word for word in spelled[position + 1 :] if word not in ("please", "kindly", "pls", "plz", "n't", "maybe")]
    if not rest or rest[0] not in _YOU:
        return _choice(spelled[position:]), position
    later = _later(spelled, position + 2, kinds)
    if later is not None:
        return later
    verb = rest[1] if len(rest) > 1 else ""
    if verb == "say" and "that" in rest[2:3]:
        return "yes/no", position
    if verb == "see" or (verb not in _IMPERATIVE and verb not in ("please", "do", "be", "like", "want")):
        return "yes/no", position
    return "open", position


def _later(spelled: list[str], start: int, kinds: dict[str, str]) -> tuple[Form | None, int] | None:
    """Returns the form of an indirect question after `tell me` and the like, if there is one."""
    for position in range(start, len(spelled)):
        word, previous = spelled[position], spelled[position - 1]
        if word in _WH and not (word in _RELATIVE and _kind(previous, kinds) in ("content", "ask")):
            return "open", position
        if word == "whether" or (word == "if" and previous in _BEFORE_IF):
            return "yes/no", position
    return None


def _choice(spelled: list[str]) -> Form:
    """Returns the form of a question that begins with a verb: `is it red or blue` offers a choice."""
    for position, word in enumerate(spelled[:-1]):
        if word == "or" and spelled[position + 1] not in {
            "not",
            "no",
            "so",
            "what",
            "is",
            "are",
            "something",
            "anything",
        }:
            return "choice"
    return "yes/no"


def _kind(word: str, kinds: dict[str, str]) -> str:
    if word not in kinds:
        kinds[word] = concepts_of([word])[0].kind if word else "function"
    return kinds[word]


def _substance(concepts: Iterable[Concept]) -> list[Concept]:
    return [concept for concept in concepts if concept.kind in ("content", "ask", "relation")]


def _kept_of(sentence: _Sentence, is_asking: bool) -> list[Concept]:
    """Returns the concepts of a sentence without the clauses that are about the user."""
    clauses = [clause for clause in sentence.clauses if not clause.is_personal]
    if not clauses and not is_asking:
        clauses = list(sentence.clauses)
    reasons = {"because", "cuz", "bc", "since", "cos", "thanks", "thank"}
    return [
        concept
        for clause in clauses
        if not (clause.spelled and clause.spelled[0] in reasons and len(clauses) > 1)
        for concept in clause.concepts
    ]


def _refers_back(kept: Sequence[Concept], spelled: Sequence[str]) -> bool:
    names = {concept.name for concept in kept if concept.kind == "content"}
    return not names - group("colours") and bool(_PRONOUNS & set(spelled))


def _is_personal(sentence: _Sentence) -> bool:
    return all(clause.is_personal for clause in sentence.clauses)


def _is_answer(sentence: _Sentence) -> bool:
    return (
        not sentence.is_asking
        and bool(sentence.spelled)
        and sentence.spelled[0] in _ANSWERS
        and len(sentence.spelled) < 3
    )
