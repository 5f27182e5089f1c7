"""Language: in which script and, where it is clear, in which language a text is; linear time, no model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+")

# Words that tell the language, without those that another of these languages has too (`die`, `in`, `a`, `no`, `on`).
_FUNCTION_WORDS = {
    "English": "the is are what which how many there this that of and with where who does do it you can please picture "
    "colour color than not tell me any",
    "German": "der das den dem ein eine einen einem ist sind und nicht haben hatte ihr ihre welche welcher welches wie viele wo wer auf mit im "
    "steht bild gibt sich von zu zum zur was auch bitte hat es farbe",
    "French": "le les des du une est sont quelle quelles quel combien où qui sur dans avec il pas et cette ce y image au "
    "aux elle décris décrivez que est-ce couleur quoi",
    "Spanish": "el los las una es son qué cuál cuántos cuántas dónde quién con del y hay esta este cómo imagen al muestra "
    "cuantos que esto describe color",
    "Italian": "il lo gli una è sono che cosa quale quanti quante dove chi con del della nella nel c di questa questo "
    "immagine colore sul sulla ci",
    "Portuguese": "o os uma é são qual quantos quantas onde quem com do da na no há esta este isto imagem cor está que "
    "quais",
    "Dutch": "het een is zijn wat welke hoeveel waar wie op met van er de deze dit niet staat kleur afbeelding foto heeft zien "
    "je",
}  # fmt: skip
_LANGUAGES = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_SPACELESS = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
_HARMLESS = frozenset(
    "bild bildes foto photo image imagen immagine imagem afbeelding frage antwort antworte bitte please "
    "réponse question pregunta respuesta domanda risposta pergunta resposta vraag antwoord изображении картинке фото "
    "pouvez voyez sehen sieht können alsjeblieft favor".split()
)


def script(text: str) -> str | None:
    """Returns the script of most of the letters, by its Unicode name; None without letters.

    >>> script("какого цвета круг?"), script("圆是什么颜色"), script("12")
    ('CYRILLIC', 'CJK', None)
    """
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else None


def language(text: str) -> str | None:
    """Returns the language of a text in Latin letters; None where it is not clear.

    >>> language("Welche Farbe hat der Kreis?"), language("what colour is the circle"), language("circle colour")
    ('German', 'English', None)
    """
    spelled = set(_WORD.findall(text.casefold()))
    hits = sorted(((len(spelled & known), name) for name, known in _LANGUAGES.items()), reverse=True)
    (most, name), (second, _) = hits[:2]
    return name if most >= 2 and most > second else None


def language_changes(initial: str, candidate: str) -> list[str]:
    """Returns whether a candidate is in another script or language, in words.

    >>> language_changes("what colour is it", "Welche Farbe hat das Bild?")
    ['is in German, not in English']
    """
    before, after = script(initial), script(candidate)
    if before is not None and after is not None and before != after:
        return [f"is in another script ({after.title()} letters, not {before.title()})"]
    told, written = language(initial), language(candidate)
    if told is not None and written is not None and told != written:
        return [f"is in {written}, not in {told}"]
    return []


def is_english(text: str) -> bool:
    """Says whether English word lists apply: Latin letters, and no other language is clear."""
    return script(text) in ("LATIN", None) and language(text) in ("English", None)


def word_changes(initial: str, candidate: str) -> list[str]:
    """Returns words that a candidate loses or adds, by their letters alone, for languages without a lexicon.

    Endings are put aside: words are one if four in five of their letters are, from the start. Texts without spaces are
    compared letter by letter.

    >>> word_changes("Welche Farbe hat der Kreis?", "Welche Farbe haben die Kreise im Bild?")
    []
    >>> word_changes("Welche Farbe hat der Kreis?", "Welche Farbe hat das Dreieck?")
    ["loses 'kreis'", "adds 'dreieck'"]
    """
    if script(initial) in _SPACELESS:
        letters, kept = {c for c in initial if c.isalpha()}, {c for c in candidate if c.isalpha()}
        is_lost = len(letters & kept) < 0.6 * len(letters)
        return ["loses half of the words"] if is_lost else []
    first, second = _content(initial), _content(candidate)
    lost, added = _unmatched(first, second), _unmatched(second, first)
    return [
        *(f"loses {word!r}" for word in lost),
        *(f"adds {word!r}" for word in added if word not in _HARMLESS),
    ]


def _content(text: str) -> list[str]:
    known = _LANGUAGES.get(language(text) or "", frozenset())
    found = dict.fromkeys(word for word in _WORD.findall(text.casefold()) if len(word) >= 4)
    return [word for word in found if word not in known and word not in _HARMLESS]


def _unmatched(words: list[str], others: list[str]) -> list[str]:
    """Returns the words of which no other has the beginning."""
    beginnings = {word[:length] for word in others for length in range(3, min(len(word), 40) + 1)}
    return [word for word in words if word[: min(40, max(4, round(len(word) * 0.8)))] not in beginnings]


@lru_cache(4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]
