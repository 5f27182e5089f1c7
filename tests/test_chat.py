"""A chat as Python sees it: what each of the two language readers gets, what is kept, what is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import NUM_QUERY_TOKENS

import vlinstruct as vli
from vlinstruct.backend import Backend, Row, Seen, Written
from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.conversation import prompt_of
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.backends.registry import BACKBONES
from vlinstruct.chat import Chat, ChatSettings
from vlinstruct.errors import TextError
from vlinstruct.mini.draw import draw
from vlinstruct.mini.scene import COLOURS, Scene, Thing
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed, Identity, Optimization, TokenCount, TokenScores, good

BRIEF = ChatSettings(generation=GenerationSettings(max_new_tokens=6))
Read = list[tuple[str, str]]


@pytest.fixture(scope="module")
def loaded(tiny_folders: dict[str, Path]) -> dict[str, vli.Model]:
    return {kind: vli.load(str(folder), device="cpu") for kind, folder in tiny_folders.items()}


@pytest.fixture(params=["t5", "llama"])
def model(request: pytest.FixtureRequest, loaded: dict[str, vli.Model]) -> vli.Model:
    return loaded[request.param]


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Collects what the language model and the Q-Former read in each turn."""
    seen: Read = []
    original = InstructBlipBackend.stream

    def spy(self: InstructBlipBackend, row: Row, settings: GenerationSettings) -> Iterator[str | Written]:
        seen.append((spelt(row), row.reads))
        return original(self, row, settings)

    monkeypatch.setattr(InstructBlipBackend, "stream", spy)
    return seen


def spelt(row: Row) -> str:
    """What the language model reads of a row."""
    return prompt_of([*((turn.question, turn.answer) for turn in row.history), (row.prompt, "")])


def room_of_500(self: InstructBlipBackend, rows: Sequence[Row]) -> list[TokenCount | None]:
    """In place of `num_tokens`, for a prompt of at most 500 tokens."""
    lengths = [len(self.tokenizer.prompt_ids(spelt(row))) for row in rows]
    return [TokenCount(prompt=length, room=500 - length, is_room_shared=False) for length in lengths]


def test_the_first_answer_is_the_one_of_ask(model: vli.Model, image: Image.Image) -> None:
    answer = Chat(model, image, settings=BRIEF).ask("what is it?")
    assert answer == model.ask(image, "what is it?", generation=BRIEF.generation)


def test_the_second_answer_is_the_spelled_talks_with_the_qformer_at_the_last_question(
    model: vli.Model, image: Image.Image
) -> None:
    chat, seen = Chat(model, image, settings=BRIEF), model.see(image)
    first, second, third = (chat.ask(question).text for question in ("what?", "which {colour}?", "why </s>?"))
    for history, question, answer in (
        ([("what?", first)], "which {colour}?", second),
        ([("what?", first), ("which {colour}?", second)], "why </s>?", third),
    ):
        prompt = prompt_of([*history, (question, "")])
        assert prompt.endswith(f"Question: {question} Answer:")
        (written,) = model.backend.write([Row(prompt=prompt, seen=(seen,), reads=question)], BRIEF.generation)
        assert answer == good(written).text


def test_the_language_model_reads_the_talk_and_the_qformer_the_question(
    model: vli.Model, image: Image.Image, prompts: Read
) -> None:
    chat = Chat(model, image, settings=BRIEF)
    answer = chat.ask("what?").text
    chat.ask("why?")
    assert prompts == [("what?", "what?"), (f"Question: what? Answer: {answer} Question: why? Answer:", "why?")]


def test_the_picture_is_encoded_once(model: vli.Model, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    original, passes = InstructBlip.encode_image, []

    def counted(self: InstructBlip, pixel_values: object) -> object:
        passes.append(pixel_values)
        return original(self, pixel_values)  # type: ignore[arg-type]

    monkeypatch.setattr(InstructBlip, "encode_image", counted)
    chat = Chat(model, image, settings=BRIEF)
    for question in ("a?", "b?", "a?"):
        chat.ask(question)
    chat.optimize("what?")
    chat.reset()
    chat.ask("c?")
    assert len(passes) == 1
    Chat(model, chat.seen, settings=BRIEF).ask("d?")
    assert len(passes) == 1


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "temperature": 3.0, "seed": 5}, {"num_beams": 3}])
def test_the_pieces_joined_are_the_answer(model: vli.Model, image: Image.Image, settings: dict[str, float]) -> None:
    chatting = ChatSettings(generation=GenerationSettings(max_new_tokens=12, **settings))  # type: ignore[arg-type]
    asking, streaming = Chat(model, image, settings=chatting), Chat(model, image, settings=chatting)
    for question in ("what?", "why?"):
        assert "".join(streaming.stream(question)) == asking.ask(question).text
    assert streaming.turns == asking.turns
    assert [turn.question for turn in asking.turns] == ["what?", "why?"]


def test_a_turn_whose_answer_was_not_taken_to_its_end_is_not_kept(model: vli.Model, image: Image.Image) -> None:
    chat = Chat(model, image, settings=ChatSettings(generation=GenerationSettings(max_new_tokens=12)))
    pieces = chat.stream("what?")
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert (chat.turns, chat.question) == ((), "what?")
    assert chat.ask("why?") == model.ask(image, "why?", generation=chat.settings.generation)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\udcff", "a" * 20_001])
def test_a_question_that_cannot_be_asked_leaves_the_chat_as_it_was(
    text: str, model: vli.Model, image: Image.Image
) -> None:
    chat = Chat(model, image, settings=BRIEF)
    chat.ask("what?")
    before = chat.turns
    with pytest.raises(TextError):
        chat.ask(text)
    assert (chat.turns, chat.question) == (before, "what?")


def test_reset_forgets_what_was_said(model: vli.Model, image: Image.Image) -> None:
    chat = Chat(model, image, settings=BRIEF)
    first = chat.ask("what?")
    chat.ask("why?")
    chat.reset()
    assert (chat.turns, chat.question) == ((), None)
    assert chat.ask("what?") == first


# The prompt's room


@pytest.mark.parametrize("length", [40, 300])
def test_whole_turns_are_cut_from_the_left_and_the_question_stays_whole(
    length: int,
    model: vli.Model,
    image: Image.Image,
    prompts: Read,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(InstructBlipBackend, "num_tokens", room_of_500)
    chat = Chat(model, image, settings=BRIEF)
    for number in range(9):
        chat.ask(f"{number} " + "x" * length)
    pairs = [(turn.question, turn.answer.text) for turn in chat.turns]
    tokenizer = model.backend.tokenizer
    for number, (turn, (prompt, _)) in enumerate(zip(chat.turns, prompts, strict=True)):
        cut = turn.num_turns_cut
        assert prompt == prompt_of([*pairs[cut:number], (turn.question, "")])
        assert cut == number or len(tokenizer.prompt_ids(prompt)) <= 500
        one_more = prompt_of([*pairs[max(cut - 1, 0) : number], (turn.question, "")])
        assert cut == 0 or len(tokenizer.prompt_ids(one_more)) > 500
    assert chat.turns[-1].num_turns_cut > 0
    assert f"left out: {chat.turns[-1].num_turns_cut}" in caplog.messages[-1]


@pytest.mark.parametrize(("kind", "room"), [("t5", 512), ("llama", 2048 - NUM_QUERY_TOKENS - 6)])
def test_a_talk_may_fill_the_prompt_to_its_last_token(
    kind: str, room: int, loaded: dict[str, vli.Model], image: Image.Image, prompts: Read
) -> None:
    model, tokenizer = loaded[kind], loaded[kind].backend.tokenizer
    chat = Chat(model, image, settings=BRIEF)
    answer = chat.ask("what?").text
    spent = len(tokenizer.prompt_ids(prompt_of([("what?", answer), ("", "")])))
    question = "x" * (room - spent)
    (turn,) = chat.turns
    for text, num_cut in ((question, 0), (question + "x", 1)):
        chat.turns = (turn,)
        chat.ask(text)
        assert chat.turns[-1].num_turns_cut == num_cut
    assert len(tokenizer.prompt_ids(prompts[1][0])) == room
    assert prompts[2] == (question + "x", question + "x")


def test_a_question_longer_than_any_prompt_is_asked_as_ask_asks_it(
    loaded: dict[str, vli.Model], image: Image.Image
) -> None:
    t5, llama = (Chat(loaded[kind], image, settings=BRIEF) for kind in ("t5", "llama"))
    assert t5.ask("x" * 600) == loaded["t5"].ask(image, "x" * 600, generation=BRIEF.generation)
    with pytest.raises(TextError, match="the language model takes 2048"):
        llama.ask("x" * 3000)
    assert not llama.turns


def test_a_long_question_is_cut_for_the_qformer_with_one_notice(
    model: vli.Model, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat(model, image, settings=BRIEF)
    for question in ("what?", "why?", "x" * 100):
        chat.ask(question)
    assert caplog.messages == ["the Q-Former reads the first 62 of the instruction's 100 tokens"]


# Other backends


class Echo(Backend):
    """A backend of the three methods alone: it repeats what it read."""

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        return list(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        return [
            Failed(error=TextError("too long", code="text_too_long"))
            if row.prompt == "endless"
            else Written(text=f"{len(row.history)} {row.prompt}" if row.prompt != "nothing" else "")
            for row in rows
        ]

    def score(
        self, rows: Sequence[Row], targets: Sequence[Sequence[str]], **_: Any
    ) -> list[list[TokenScores] | Failed]:
        return [[TokenScores(tokens=("a",), token_nll=(1.0,)) for _ in texts] for texts in targets]


def test_a_backend_of_three_methods_can_chat_and_none_of_its_turns_is_cut(image: Image.Image) -> None:
    chat = Chat(vli.Model(Echo()), image)
    assert [chat.ask(question).text for question in ("a", "nothing", "c")] == ["0 a", "", "2 c"]
    assert [turn.num_turns_cut for turn in chat.turns] == [0, 0, 0]
    assert list(chat.stream("d")) == ["3 d"]


def test_a_turn_that_fails_raises_its_error_and_is_not_kept(image: Image.Image) -> None:
    chat = Chat(vli.Model(Echo()), image)
    chat.ask("a")
    with pytest.raises(TextError) as raised:
        chat.ask("endless")
    assert raised.value.code == "text_too_long"
    assert [turn.question for turn in chat.turns] == ["a"]


# Follow-ups

COLOUR, FOLLOW_UP, WHOLE = "what colour is the circle?", "and the square?", "what colour is the square?"


def test_a_follow_up_is_asked_whole_and_kept_as_typed(model: vli.Model, image: Image.Image, prompts: Read) -> None:
    chat = Chat(model, image, settings=BRIEF)
    first = chat.ask(COLOUR).text
    answer = chat.ask(FOLLOW_UP)
    assert prompts[-1] == (prompt_of([(COLOUR, first), (WHOLE, "")]), WHOLE)
    assert (chat.turns[-1].question, answer.instruction, chat.question) == (FOLLOW_UP, WHOLE, WHOLE)


def test_a_follow_up_stays_as_typed_where_that_is_asked_for_or_the_model_reads_turns(image: Image.Image) -> None:
    class ChatModel(Echo):
        identity = Identity(name="chat", is_chat_model=True)

    for backend, settings in ((Echo(), replace(BRIEF, complete=False)), (ChatModel(), BRIEF)):
        chat = Chat(vli.Model(backend), image, settings=settings)
        assert [chat.ask(question).text for question in (COLOUR, FOLLOW_UP)] == [f"0 {COLOUR}", f"1 {FOLLOW_UP}"]
    chat = Chat(vli.Model(Echo()), image)
    chat.ask(COLOUR)
    assert list(chat.stream(FOLLOW_UP, verbatim=True)) == [f"1 {FOLLOW_UP}"]


def test_a_model_that_learnt_no_conversation_is_asked_the_question_alone(
    model: vli.Model, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = replace(model.backend.identity, entry=replace(BACKBONES["flant5-xl"], reads_history=False))
    monkeypatch.setattr(model.backend, "identity", identity)
    chat = Chat(model, image, settings=BRIEF)
    chat.ask(COLOUR)
    assert chat.ask(FOLLOW_UP).text == model.ask(image, WHOLE, generation=BRIEF.generation).text


@pytest.mark.parametrize("name", ["mini", "mini-llama"])
def test_mini_answers_follow_ups_about_what_they_name(name: str) -> None:
    things = [
        Thing(shape=shape, colour=colour, rgb=COLOURS[colour], x=x, y=0.5, size=0.3)
        for shape, colour, x in (("circle", "red", 0.25), ("square", "blue", 0.75))
    ]
    scene = Scene(background="white", background_rgb=COLOURS["white"], things=tuple(things))
    chat = Chat(vli.load(name, device="cpu"), draw(scene))
    questions = ("what colour is the circle?", "and the square?", "how many?", "what colour is it?")
    assert [chat.ask(question).text for question in questions] == ["red", "blue", "1", "blue"]


# Optimization


def assert_alike(first: Optimization | None, second: Optimization | None) -> None:
    """Who shares a batch with whom, and so the last digits of an IAS, depends on which texts were read before."""
    assert first is not None
    assert second is not None
    for role in ("initial", "rewritten", "optimized"):
        assert getattr(first, role).text == getattr(second, role).text
        assert getattr(first, role).ias == pytest.approx(getattr(second, role).ias, abs=1e-5)
    assert first.chosen == second.chosen


def test_optimize_shows_what_the_model_optimizes_and_is_no_turn(model: vli.Model, image: Image.Image) -> None:
    optimization = OptimizationSettings(select="paper", max_new_tokens=12)
    chat = Chat(model, image, settings=ChatSettings(generation=BRIEF.generation, optimization=optimization))
    chat.ask("name 2 things")
    turns = chat.turns
    assert_alike(chat.optimize(), model.optimize("name 2 things", image, optimization=optimization))
    assert_alike(chat.optimize("what?"), model.optimize("what?", image, optimization=optimization))
    assert (chat.turns, chat.question) == (turns, "name 2 things")


def test_there_is_nothing_to_optimize_before_the_first_question(model: vli.Model, image: Image.Image) -> None:
    with pytest.raises(TextError, match="no question to optimize yet") as refused:
        Chat(model, image).optimize()
    assert refused.value.code == "no_question"


def test_a_question_is_optimized_without_the_talk_and_remembered_as_it_was_asked(
    model: vli.Model, image: Image.Image, prompts: Read
) -> None:
    optimization = OptimizationSettings(select="paper", max_new_tokens=12)
    settings = ChatSettings(generation=BRIEF.generation, optimize=True, optimization=optimization)
    chat = Chat(model, image, settings=settings)
    for question in ("what?", "name 2 things"):
        answer = chat.ask(question)
        assert_alike(answer.optimization, model.optimize(question, image, optimization=optimization))
        assert answer.optimization is not None
        assert answer.instruction == answer.optimization.instruction != question
    first, second = (turn.answer for turn in chat.turns)
    assert first.text == model.ask(image, first.instruction, generation=BRIEF.generation).text
    prompt = prompt_of([(first.instruction, first.text), (second.instruction, "")])
    assert prompts == [(first.instruction, first.instruction), (prompt, second.instruction)]
