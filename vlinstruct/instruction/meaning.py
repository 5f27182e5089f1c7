"""Meaning: what English words ask, about what and in which form, and what a rewriting does to that.

    text -> sentences -> clauses: form of the question, the concepts that must stay, all concepts -> differences

A clause about the user, a reason and politeness may go; a word that nobody named may not come. Linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vlinstruct.errors import shortened
from vlinstruct.instruction.lexicon import Concept, concepts, lexicon, slips, words

Form = Literal["yes/no", "open", "statement"]

# A point within a word ends no sentence: `3.50`, `www.a.com`.
_SENTENCE = re.compile(r"[^.!?;\n]+(?:[.;](?!\s|$)[^.!?;\n]*)*[.!?;\n]*")
_CLAUSE_END = re.compile(r"[,:()]|\s[-\u2013\u2014]+\s")
_WHETHER = re.compile(
    r"\b(?:true or (?:false|not)|false or true|(?:yes|y)(?: or)? (?:no|n)|right or wrong|correct or (?:not|incorrect)"
    r"|(?:whether )?or (?:not|no\b)"
    r"|(?:is|am) (?:this|that|it|i|he|she|the statement) (?:true|correct|right(?! of| side| hand))"
    r"|(?:is|are|was|does|do|has|have|did|ca|wo) n't (?:it|there|they|he|she|that|this|you)$)"
)
_TAGS = ("right", "correct", "true", "huh", "is it", "are they", "yes", "no", "yeah")
_ANSWERS = ("yes", "no", "yep", "nope", "yeah")
# What is asked for of a thing: a keyword query with one of these is no yes/no question.
_ATTRIBUTES = {
    *("how many", "colour", "shape", "price", "size", "height", "age", "length", "distance", "weight", "material"),
    *("brand", "where", "why"),
}


@dataclass(frozen=True, kw_only=True)
class _Sentence:
    """What a sentence says.

    Args:
        form: None where it cannot be told, as of keywords.
        required: the concepts that must stay, in order.
        named: all its concepts.
        words: as typed.
        is_whether: it says that it is to be answered by yes or no.
        is_personal: it is about the user.
    """

    form: Form | None
    required: tuple[Concept, ...]
    named: tuple[Concept, ...]
    words: tuple[str, ...]
    is_whether: bool
    is_personal: bool

    @property
    def has_substance(self) -> bool:
        return _has_substance(self.named)

    @property
    def is_asking(self) -> bool:
        return self.form in ("yes/no", "open")

    @property
    def is_reply(self) -> bool:
        """It tells how to answer."""
        return self.words[:1] != () and self.words[0] in lexicon().roles["replies"]

    @property
    def is_answer(self) -> bool:
        return self.words[:1] != () and self.words[0] in _ANSWERS and not self.is_asking


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a text asks.

    Args:
        form: of its first question.
        required: the concepts that a rewriting must keep, in order.
        named: all concepts.
        num_questions, num_statements, num_answers: its sentences by what they do; an answer is a yes or no.
        offers: it offers a choice, by `or`.
    """

    form: Form | None
    required: tuple[Concept, ...]
    named: tuple[Concept, ...]
    num_questions: int
    num_statements: int
    num_answers: int
    offers: bool

    def names(self, *kinds: str) -> set[str]:
        """Returns the names of the required concepts of some kinds."""
        return {concept.name for concept in self.required if concept.kind in kinds}


def meaning(text: str, mended: Mapping[str, str] | None = None) -> Meaning:
    """Reads a text.

    Args:
        text: English.
        mended: what misspelt words stand for.

    >>> sorted(meaning("Hey, I can't see. could you tell me what the sign says, thanks!").names("ask", "content"))
    ['sign', 'what is written']
    """
    sentences = []
    for match in _SENTENCE.finditer(text):
        preamble, question = _preamble(match.group())
        if preamble:
            said = _sentence(preamble, mended or {})
            talk = replace(said, form=None, required=(), is_personal=True)
            sentences.append(said if said.is_reply else talk)
        sentences.append(_sentence(question, mended or {}))
    answers = [sentence for sentence in sentences if sentence.is_answer]
    replies = [sentence for sentence in sentences if sentence.is_reply]
    others = [sentence for sentence in sentences if sentence.has_substance and not sentence.is_reply]
    # `Can you help?` beside a question of substance is politeness.
    asking = [sentence for sentence in others if sentence.is_asking] or [s for s in sentences if s.is_asking][:1]
    statements = [sentence for sentence in others if not sentence.is_asking]
    impersonal = [sentence for sentence in statements if not sentence.is_personal]
    if asking:
        form = asking[0].form
        required = asking
        # `There is a circle. What colour is it?`: the subject stands before.
        if any(map(_refers_back, asking)):
            required = [*impersonal, *asking]
        num_statements = len(impersonal)
        # `Is this true? The circle is red.`
        if not any(sentence.has_substance for sentence in required) and asking[0].is_whether:
            required = statements
            num_statements -= 1
    else:
        required = impersonal or statements
        form = required[0].form if required else None
        num_statements = len(required) - 1
    if form in (None, "statement") and any(sentence.is_whether for sentence in sentences):
        form = "yes/no"
    return Meaning(
        form=form,
        required=tuple(concept for sentence in [*required, *replies] for concept in sentence.required),
        named=tuple(concept for sentence in sentences for concept in sentence.named),
        num_questions=sum(sentence.has_substance for sentence in asking),
        num_statements=max(0, num_statements),
        num_answers=len(answers),
        offers=any(map(_offers, asking or required)),
    )


def _has_substance(concepts: Sequence[Concept]) -> bool:
    return any(concept.kind in ("content", "ask", "relation") for concept in concepts)


def _offers(sentence: _Sentence) -> bool:
    following = zip(sentence.words, sentence.words[1:], strict=False)
    return any(word == "or" and then not in lexicon().roles["offering_nothing"] for word, then in following)


def _refers_back(sentence: _Sentence) -> bool:
    has_subject = any(concept.kind == "content" for concept in sentence.required)
    return not has_subject and not lexicon().roles["pronouns"].isdisjoint(sentence.words)


def _sentence(text: str, mended: Mapping[str, str]) -> _Sentence:
    roles = lexicon().roles
    is_whether = False
    form: Form | None = None
    spelled_all: list[str] = []
    required: list[Concept] = []
    named: list[Concept] = []
    is_personal = True
    for part in _CLAUSE_END.split(text):
        spelled = [mended.get(word, word) for word in words(part)]
        joined, num_removed = _WHETHER.subn(" ", " ".join(spelled))
        is_tag = joined in _TAGS and (bool(spelled_all) or (joined == "right" and part != text))
        is_whether |= num_removed > 0 or (is_tag and bool(spelled_all))
        spelled = [] if is_tag else joined.split()
        for piece in _before_reasons(_without_commands(spelled)):
            piece_form, start = _form(piece)
            is_asking = piece_form in ("yes/no", "open")
            if form is None or (form == "statement" and is_asking):
                form = piece_form
            if not is_asking:  # `I think this is a dog`
                start = next((at for at, word in enumerate(piece, 1) if word in roles["reporting"]), len(piece))
            is_about_user = not roles["personal"].isdisjoint(piece[:start])
            is_personal &= is_about_user and not is_asking
            named += concepts(piece)
            if piece[0] not in roles["reasons"]:
                required += concepts(piece[start:] if is_about_user else piece)
            spelled_all += piece
    if is_whether or (form == "statement" and text.rstrip().endswith("?")):
        form = "yes/no"
    return _Sentence(
        form=form,
        required=tuple(required if form in ("yes/no", "open") or _has_substance(required) else named),
        named=tuple(named),
        words=tuple(spelled_all),
        is_whether=is_whether,
        is_personal=is_personal,
    )


def _preamble(text: str) -> tuple[str, str]:
    """Splits what is said of a question from the question: `you are asked to tell: what is it?`."""
    before, colon, after = text.rpartition(":")
    is_preamble = colon and not lexicon().roles["preamble"].isdisjoint(words(before)) and words(after)
    return (before, after) if is_preamble else ("", text)


def _without_commands(spelled: Sequence[str]) -> list[str]:
    """Returns the words with a `say` and a `name` that ask the model to speak as what they are.

    Before a question `tell` (`say what colour`), else `answer` (`say unknown if it is not there`).
    """
    roles = lexicon().roles
    is_reply = spelled[:1] == ["say"] and "if" in spelled and roles["question_words"].isdisjoint(spelled)
    return [
        ("answer" if is_reply and not at else "tell")
        if word in roles["commands"] and (not at or spelled[at - 1] in roles["fillers"])
        else word
        for at, word in enumerate(spelled)
    ]


def _before_reasons(spelled: Sequence[str]) -> list[list[str]]:
    """Splits a clause before thanks and reasons."""
    pieces: list[list[str]] = []
    for word in spelled:
        if not pieces or word in lexicon().roles["reasons"]:
            pieces.append([])
        pieces[-1].append(word)
    return pieces


def _form(spelled: Sequence[str]) -> tuple[Form | None, int]:
    """Returns the form of a clause and where its asking words begin."""
    roles = lexicon().roles
    opener = _opener(spelled)
    inner = _embedded(spelled)
    if opener is None:
        return inner or ("statement" if not roles["finite"].isdisjoint(spelled) else None, 0)
    is_request = spelled[opener] in roles["requests"]
    following = [word for word in spelled[opener + 1 : opener + 5] if word not in ("please", "kindly", "n't")]
    is_addressed = bool(following) and following[0] in roles["addressed"]
    if inner and (is_request or is_addressed or inner[1] < opener):
        return inner
    # `Could you read it?` asks for what is read; `can you see it?` and `does he read?` do not.
    verb = following[1] if len(following) > 1 else ""
    if is_addressed and spelled[opener] in roles["modals"]:
        is_request = verb in roles["requests"] - roles["confirming"]
    return "open" if is_request else "yes/no", opener


def _opener(spelled: Sequence[str]) -> int | None:
    """Returns where a clause begins with a verb, as questions and requests do."""
    roles = lexicon().roles
    for position, word in enumerate(spelled):
        is_verb = word in roles["auxiliaries"] or word in roles["modals"]
        if is_verb and position and spelled[position - 1] == "you":
            return None  # `you are asked to`
        if is_verb or word in roles["requests"]:
            return position
        is_place = spelled[0] in roles["places"] and concepts([word])[0].kind == "soft"
        if word not in roles["fillers"] and not is_place:
            break
    # `I want to know is the circle red`
    for position, word in enumerate(spelled[1:], 1):
        if word in roles["auxiliaries"] and spelled[position - 1] in ("know", "wonder", "wondering", "me"):
            return position
    return None


def _embedded(spelled: Sequence[str]) -> tuple[Form, int] | None:
    """Returns the form of the first question word and where it stands."""
    roles = lexicon().roles
    for position, word in enumerate(spelled):
        previous = spelled[position - 1] if position else ""
        if word in roles["question_words"]:
            # `the man who sits` asks nothing.
            is_relative = word in roles["relative_words"] and previous and concepts([previous])[0].kind != "soft"
            if not is_relative and previous != "or":
                return "open", position
        elif (
            word == "whether"
            or (word == "if" and previous in roles["before_if"])
            or (word == "that" and (previous in roles["confirming"] or previous == "tell"))
        ):
            return "yes/no", position
    return None


def meaning_changes(initial: str, candidate: str, *, offered: str = "", has_text: bool = False) -> list[str]:
    """Returns what a rewriting does to the question, its negation, relations and subject, in words.

    Args:
        initial: the user's words.
        candidate: a rewriting.
        offered: the answers that the user offers; the candidate may name them.
        has_text: the user's words have a quotation or a number, so that asking what is written adds nothing.

    >>> meaning_changes("Which shape is not red?", "What is the shape that is red?")
    ['loses the negation']
    >>> meaning_changes("colour of cirle", "What color is the circle in the image?")
    []
    """
    mended = slips(words(initial), words(candidate))
    asked, written = meaning(initial, mended), meaning(candidate)
    if offered:
        asked = replace(asked, named=(*asked.named, *concepts(words(offered))), offers=True)
        written = replace(written, offers=True)  # or an option is lost, which is not said here
    return [
        *_negation(asked, written),
        *_relations(asked, written),
        *_moved(asked, written),
        *_forms(asked, written),
        *_subject(asked, written, has_text),
    ]


def _negation(asked: Meaning, written: Meaning) -> list[str]:
    is_negative = any(concept.kind == "negation" for concept in written.named)
    may_be = any(concept.kind == "negation" for concept in asked.named)
    if asked.names("negation") and not is_negative:
        return ["loses the negation"]
    return ["adds a negation"] if is_negative and not may_be else []


def _relations(asked: Meaning, written: Meaning) -> list[str]:
    present, allowed = ({c.name for c in each.named if c.kind == "relation"} for each in (written, asked))
    return [
        *(f"loses the relation {name!r}" for name in sorted(asked.names("relation") - present)),
        *(f"adds the relation {name!r}" for name in sorted(present - allowed)),
    ]


def _moved(asked: Meaning, written: Meaning) -> list[str]:
    """Returns the words that belong to another word than before: a colour, a negation, the sides of a relation."""
    before, after = _belongings(asked.required), _belongings(written.required)
    names = [{concept.name for concept in each.required if concept.kind == "content"} for each in (asked, written)]
    both = names[0] & names[1]
    changes = []
    for name in before.keys() & after.keys():
        (word, first), (other_word, second) = before[name], after[name]
        is_exchanged = first != second and {first, second} <= both
        # `What is left of the circle?` and `What is the circle left of?`
        is_turned = word == other_word and (first is None) != (second is None) and {first, second} - {None} <= both
        if is_exchanged or (is_turned and word.endswith((" of", " than"))):
            changes.append(f"moves {word!r} to another word")
    return sorted(changes)


def _belongings(concepts: Sequence[Concept]) -> dict[str, tuple[str, str | None]]:
    """Returns by the name of a word that stands once: the word, and the content word that it belongs to."""
    belongings: dict[str, tuple[str, str | None]] = {}
    seen: set[str] = set()
    following: Concept | None = None  # the next content word, from the end
    neighbour: Concept | None = None
    colours = lexicon().implied["colour"]
    for concept in reversed(concepts):
        if concept.name in seen:
            belongings.pop(concept.name, None)
        elif concept.kind == "relation":
            belongings[concept.name] = (concept.text, following.name if following else None)
        elif (concept.kind == "negation" or concept.name in colours) and neighbour and neighbour.kind == "content":
            belongings[concept.name] = (concept.text, neighbour.name)
        seen.add(concept.name)
        neighbour = concept
        if concept.kind == "content":
            following = concept
    return belongings


def _forms(asked: Meaning, written: Meaning) -> list[str]:
    changes = []
    if written.num_answers > asked.num_answers:
        changes.append("adds an answer")
    if written.num_questions > max(1, asked.num_questions):
        changes.append("adds a second question")
    if written.num_statements > asked.num_statements:
        changes.append("adds a statement")
    if asked.offers and not written.offers:
        changes.append("no longer offers a choice")
    form = asked.form
    if form is None and asked.names("ask") & _ATTRIBUTES and not asked.names("relation"):
        form = "open"
    if written.form == "yes/no" and form == "open" and not asked.offers:
        changes.append("asks for yes or no")
    elif written.form == "open" and form in ("yes/no", "statement") and not asked.offers:
        changes.append("asks for something else than yes or no")
    elif written.form == "statement" and form != "statement":
        changes.append("is no question any more")
    return changes


def _subject(asked: Meaning, written: Meaning, has_text: bool) -> list[str]:
    kinds = ("content", "ask")
    named = {concept.name for concept in asked.named}
    present = {concept.name for concept in written.named}
    expected = asked.names(*kinds)
    asks = asked.names("ask")
    excused = {name for name, implying in lexicon().implied.items() if implying & named}
    if has_text:
        excused.add("what is written")
    if not asked.offers and (asked.form == "open" or (asked.form is None and asks)):
        # `What is red?` does not ask for a colour, `what is on the sign?` may ask for its text.
        if asks:
            excused -= _ATTRIBUTES
        excused.discard("colour")
    excused_losses = excused if asked.form != "open" or asked.offers else excused - asks
    texts = {concept.name: concept.text for concept in (*written.named, *asked.named)}
    is_ask = {concept.name for concept in (*written.named, *asked.named) if concept.kind == "ask"}
    added = {concept.name for concept in written.named if concept.kind in kinds} - named - excused
    # Digits are compared as numbers.
    lost = {name for name in expected - present - excused_losses if not texts[name].isdigit()}
    added = {name for name in added if not texts[name].isdigit()}
    if asked.form is None and "number" in lost and "how many" in added:
        lost, added = lost - {"number"}, added - {"how many"}
    # `What do you see?`; `which things, and where?` as `Describe the places`.
    if "open" in (asked.form, written.form) and expected <= present and (asks or not expected):
        added -= {"a description"}
    if "like" in present:
        lost -= {"how"}  # `What is it like?`
    return [
        *(_said(name, texts, is_ask, "no longer asks for", "loses") for name in sorted(lost)),
        *(_said(name, texts, is_ask, "asks for", "adds") for name in sorted(added)),
    ]


def _said(name: str, texts: Mapping[str, str], is_ask: set[str], of_ask: str, of_word: str) -> str:
    return f"{of_ask} {name}" if name in is_ask else f"{of_word} {shortened(texts[name], 40)!r}"
