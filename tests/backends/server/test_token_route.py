from __future__ import annotations

from typing import Any

import pytest
from serving.loopback import Reply, scripted

from vlinstruct.backend import Row
from vlinstruct.backends.server.connection import Connection
from vlinstruct.backends.server.token_route import TokenRoute, Tokens, placeholder_of
from vlinstruct.errors import NetworkError, TextError

PROMPT, TARGET = [1, 9, 5, 2], [7, 8]
TOKENS = Tokens(placeholder_id=9, end_id=2, guard_ids=(50, 51), tells_cached=True)


def scored(cached: int | None) -> dict[str, Any]:
    rows = [None, *({str(id): {"logprob": -id / 10, "decoded_token": str(id)}} for id in [*PROMPT[1:], *TARGET])]
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_logprobs": rows, "usage": {"prompt_tokens": 6, **details}}


@pytest.fixture(scope="module")
def route() -> Any:
    with scripted(lambda path, body: (404, {}, {})) as server:
        connection = Connection([server.url])
        yield TokenRoute(connection, "tiny", TOKENS)
        connection.close()


@pytest.mark.parametrize(("cached", "is_known"), [(0, True), (3, True), (4, False), (6, False), (None, False)], ids=str)
def test_a_row_that_may_have_come_from_the_cache_is_not_believed(
    cached: int | None, is_known: bool, route: TokenRoute
) -> None:
    made = route.scores(scored(cached), TARGET, reads_cache=True)
    assert (made is not None) == is_known
    fresh = route.scores(scored(cached), TARGET)
    assert fresh is not None
    assert fresh.token_nll == (0.7, 0.8)


@pytest.mark.parametrize("rows", [None, [], [None, None], [None] * 4 + [{"7": {}}, {"8": {"logprob": -1}}]])
def test_scores_that_are_not_told_are_an_error(rows: Any, route: TokenRoute) -> None:
    with pytest.raises(NetworkError):
        route.scores({"prompt_logprobs": rows}, TARGET)


def by_letters(path: str, body: Any) -> Reply:
    """A tokenizer of letters, in which `<end>` is the token 2 and U+E0F0 two tokens; a private `z` swallows it."""
    text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    ids: list[int] = []
    while text:
        word = next((word for word in ("<end>", "z\ue0f0", "\ue0f0") if text.startswith(word)), text[0])
        ids += {"<end>": [2], "\ue0f0": [50, 51], "z\ue0f0": [99]}.get(word, [ord(word[0])])
        text = text[len(word) :]
    return 200, {"tokens": ids}, {}


def test_a_typed_control_token_is_spelt_out_and_one_that_cannot_be_is_refused() -> None:
    with scripted(by_letters) as server:
        connection = Connection([server.url])
        route = TokenRoute(connection, "tiny", TOKENS)
        spelt = [ord(letter) for letter in "a<end>b"]
        assert route.text_ids("a<end>b", ["<end>"]) == spelt
        assert route.prompt_ids(Row(prompt="a<end>b"), ["<end>"]) == spelt
        assert route.text_ids("a<end>c", []) == [ord("a"), 2, ord("c")], "the same without a guard"
        with pytest.raises(TextError, match="means something"):
            route.text_ids("zend>", ["zend>"])
        connection.close()


def test_a_picture_without_a_run_of_tokens_has_no_placeholder() -> None:
    assert placeholder_of([1, 4, 5, 2], [1, 2]) is None
