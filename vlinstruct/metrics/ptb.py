"""PTB tokens of a caption, without Java: what CIDEr reads where CoreNLP cannot be run.

Follows what pycocoevalcap 1.2's PTBTokenizer makes of one: Stanford CoreNLP 3.4.1 with `-lowerCase`, then a list of
punctuation left out. Brackets stay, as `-lrb-` and the like: CoreNLP writes them in lower case, the list has them in
upper case. `?!` and `!!` stay too, since they are not on the list.

Where we differ: emoticons, HTML tags, fractions (`½`), currencies (`€5` is `$ 5` there), names with symbols (`c++`) and
rarer abbreviations are not followed.
"""

from __future__ import annotations

import re

Tokens = tuple[str, ...]
"""The words of one caption; a tuple, so that a caption that nobody tokenized is no `Tokens`."""

_PUNCTUATION = frozenset("'`.?!,:-;")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "--", "\u2014": "--", "\u2026": "..."}
)

_TOKEN = re.compile(
    r"""
      https?://\S*[^\s.,;:!?)'"]
    | (?: (?:mr|mrs|ms|dr|drs|prof|sen|rep|lt|col|gen|gov|rev|sgt|cpl|capt|st|mt|ave|blvd|rd|jr|sr|etc|vs|inc|co|corp
        |ltd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tue|wed|thu|fri|ft|dept|est|bros|ph\.d) \. (?!\w)
      | (?: [^\W\d_]\. )+ (?!\w) )                     # an abbreviation keeps its period: u.s., p.m., st.
    | (?-i: [A-Z]+ (?: &[A-Z]+ )+ )                    # R&B
    | (?: can(?=not\b) | gon(?=na\b) | wan(?=na\b) | got(?=ta\b) | gim(?=me\b) | lem(?=me\b)
      | 't(?=is\b|was\b) | y'(?=all\b|know\b) )        # the first half of two words written as one
    | '(?:s|m|d|ll|re|ve)\b | 'n' | 'n(?!\w) | '(?:em|cause)\b | '\d0s\b
    | (?: [#@](?=[^\W\d_]) | (?<!\S)-(?=\.?\d) | (?<!\S)\.(?=\d) )? [^\W_]
      (?: (?! n't\b | '(?:s|m|d|ll|re|ve)\b | 'n' )    # a word ends before its clitic
        (?: \w | [-/.@](?=[^\W_]) | (?<=[^\W\d_])'(?=[^\W\d_]) | (?<=\d)[,:](?=\d) ) )*
    | \.{2,} | -{2,} | [?!]+ | [^\s"]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LEFT_OUT = re.compile(r"\.{2,}|-{2,}")
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")


def ptb_tokens(caption: str) -> Tokens:
    """Splits a caption into lower-case PTB tokens without punctuation.

    Args:
        caption: as written by a person or a model; a newline is a space.

    Returns:
        The tokens, none for a caption of punctuation alone.

    >>> ptb_tokens("The man's dog can't sit (still).")
    ('the', 'man', "'s", 'dog', 'ca', "n't", 'sit', '-lrb-', 'still', '-rrb-')
    """
    # CoreNLP drops characters beyond the basic plane, emoji among them.
    text = _BEYOND_BMP.sub(" ", caption.replace("&amp;", "&").translate(_TYPOGRAPHY))
    tokens = (_BRACKETS.get(token, token.lower()) for token in _TOKEN.findall(text))
    return tuple(token for token in tokens if token not in _PUNCTUATION and not _LEFT_OUT.fullmatch(token))
