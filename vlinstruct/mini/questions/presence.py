"""Whether a question about one picture makes sense for another: whether all that it names is there."""

from __future__ import annotations

from vlinstruct.mini.questions.fact import Fact, plural_noun
from vlinstruct.mini.questions.texts import is_label
from vlinstruct.mini.scene import COLOURS, SHAPES, Scene

_SINGULAR = {plural_noun(shape): shape for shape in SHAPES}
# What is offered to choose from, and how things stand to each other, need not be there.
_OFFERED = ("options", "tokens", "relation", "quote")


def names_only_what_is_there(fact: Fact, scene: Scene) -> bool:
    """True when every thing and text that the fact names is in the scene.

    A count of nothing and a question for what is missing name what is not there, whatever their answers.
    """
    if not all(_is_there(value, scene) for name, value in fact.slots.items() if name not in _OFFERED):
        return False
    printed = [text.text.lower() for text in scene.prints]
    return {
        "reading": any(not text.isdigit() for text in printed),
        "number": any(map(str.isdigit, printed)),
        "written": fact.slots.get("quote") in printed,
        "meme": fact.slots.get("quote") in printed and any(map(is_label, printed)),
        "ocr": any(text in fact.slots.get("tokens", "").split(", ") for text in printed),
    }.get(fact.family, True)


def _is_there(named: str, scene: Scene) -> bool:
    """True when a noun such as "a red star", "circles", "colour of the text" names something in the scene."""
    words = [_SINGULAR.get(word, word) for word in named.split()]
    if "text" in words:
        return bool(scene.prints)
    if "background" in words:
        return True
    colours, shapes = ([word for word in words if word in known] for known in (COLOURS, SHAPES))
    return any(
        all(thing.colour == colour for colour in colours) and all(thing.shape == shape for shape in shapes)
        for thing in scene.things
    )
