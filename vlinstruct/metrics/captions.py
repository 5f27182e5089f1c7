"""How a table's captions are tokenized: by Stanford CoreNLP where it can be run, else by our own rules.

In: all captions and references of a table. Out: the tokens of each, and which tokenizer served all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from vlinstruct.errors import ResourceError
from vlinstruct.metrics.corenlp import find_corenlp
from vlinstruct.metrics.ptb import Tokens, ptb_tokens

CaptionTokenizer = Literal["stanford-corenlp-3.4.1", "built-in"]


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Tokenized captions.

    Args:
        tokens: by the text of the caption.
        tokenizer: what tokenized all of them: `corenlp`'s, or `ptb`'s, which is built in.
    """

    tokens: Mapping[str, Tokens]
    tokenizer: CaptionTokenizer


def tokenized(texts: Iterable[str], notify: Callable[[str], None] = lambda notice: None) -> Captions:
    """Tokenizes captions, equal ones once, all of them by the same tokenizer: a start of Java takes half a second.

    Args:
        texts: captions and references, in any order.
        notify: is told when Java is here and failed.

    >>> captions = tokenized(["A dog.", "A cat!", "A dog."])
    >>> captions.tokens["A dog."], len(captions.tokens)
    (('a', 'dog'), 2)
    """
    distinct = list(dict.fromkeys(texts))
    corenlp = find_corenlp() if distinct else None
    if corenlp is not None:
        try:
            found = dict(zip(distinct, corenlp.tokens(distinct), strict=True))
            return Captions(tokens=found, tokenizer="stanford-corenlp-3.4.1")
        except ResourceError as error:
            notify(f"captions are tokenized by the built-in rules: {error.message}")
    return Captions(tokens={text: ptb_tokens(text) for text in distinct}, tokenizer="built-in")
