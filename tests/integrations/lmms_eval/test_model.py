"""What lmms-eval gets from our models: the same as our own answers, whatever the batches are."""

from __future__ import annotations

import copy
import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from serving.loopback import serving

from vlinstruct.backends.instructblip.backend import InstructBlipBackend
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.errors import ImageError, InputError, ScoreError, TextError, UsageError, VlinstructError
from vlinstruct.integrations.lmms_eval.requests import Document, question
from vlinstruct.integrations.lmms_eval.settings import Settings
from vlinstruct.settings import GenerationSettings, OptimizationSettings
from vlinstruct.values import Failed, TokenScores

from . import harness

Make = Callable[..., Any]
SHORT = GenerationSettings(max_new_tokens=6)
BRIEF = OptimizationSettings(max_new_tokens=6)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the pictures that go through the vision tower, one entry per pass."""
    passes: list[int] = []
    original = InstructBlip.encode_image

    def counted(self: InstructBlip, pixel_values: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixel_values))
        return original(self, pixel_values)

    monkeypatch.setattr(InstructBlip, "encode_image", counted)
    return passes


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets instructions be rewritten in a few letters: a random model never ends by itself."""
    monkeypatch.setattr(Settings, "optimization", BRIEF)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("optimize", [False, True])
def test_answers_are_our_own_at_any_batch_size(make: Make, optimize: bool) -> None:
    documents = harness.docs(5)
    requests = harness.generate(documents, max_new_tokens=6)
    one_by_one = make(documents, batch_size=1, optimize=optimize)
    own = [
        one_by_one.pipeline.ask(
            doc["image"], doc["question"], optimize=optimize, optimization=BRIEF, generation=SHORT
        ).text
        for doc in documents
    ]
    assert one_by_one.generate_until(requests) == own
    assert make(documents, batch_size=3, optimize=optimize).generate_until(requests) == own
    assert any(own)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("optimize", [False, True])
def test_options_ranked_together_have_the_losses_of_each_alone(make: Make, optimize: bool) -> None:
    documents = harness.docs(5)
    requests = harness.rank(documents)
    model = make(documents, batch_size=3, optimize=optimize)
    together = model.loglikelihood(requests)
    alone = [model.loglikelihood([request])[0] for request in requests]
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in alone], abs=1e-5)
    assert [is_greedy for _, is_greedy in together] == [is_greedy for _, is_greedy in alone]
    own = [
        choice.nll
        for doc in documents
        for choice in model.pipeline.ask(
            doc["image"], doc["question"], choices=doc["options"], optimize=optimize, optimization=BRIEF
        ).choices
    ]
    assert [loss for loss, _ in together] == pytest.approx(own, abs=1e-5)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("optimize", [False, True])
def test_a_served_model_answers_and_ranks_as_it_does_here(make: Make, plugin: ModuleType, optimize: bool) -> None:
    documents = harness.docs(3)
    here = make(documents, batch_size=2, optimize=optimize)
    with serving(here.pipeline) as url:
        there = plugin.Simple(pretrained=url, batch_size=2, optimize=optimize, concurrency=2)
        there.task_dict = here.task_dict
        written = [model.generate_until(harness.generate(documents, max_new_tokens=6)) for model in (here, there)]
        ranked = [model.loglikelihood(harness.rank(documents)) for model in (here, there)]
    assert written[1] == written[0]
    assert [loss for loss, _ in ranked[1]] == pytest.approx([loss for loss, _ in ranked[0]], abs=1e-5)
    assert [is_greedy for _, is_greedy in ranked[1]] == [is_greedy for _, is_greedy in ranked[0]]


def test_optimization_changes_what_is_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "optimization", replace(BRIEF, select="paper"))
    documents = harness.docs(3)
    plain, optimized = (
        make(documents, batch_size=3, optimize=optimize).loglikelihood(harness.rank(documents))
        for optimize in (False, True)
    )
    assert [loss for loss, _ in plain] != pytest.approx([loss for loss, _ in optimized], abs=1e-3)


def test_results_stand_in_the_order_of_the_requests(make: Make) -> None:
    documents = harness.docs(4)
    model = make(documents, batch_size=2)
    for ask, requests in (
        (model.loglikelihood, harness.rank(documents)),
        (model.generate_until, harness.generate(documents, max_new_tokens=4)),
    ):
        expected = ask(requests)
        order = list(range(len(requests)))
        random.Random(0).shuffle(order)
        shuffled = ask([requests[place] for place in order])
        for place, result in zip(order, shuffled, strict=True):
            assert result == expected[place] or result[0] == pytest.approx(expected[place][0], abs=1e-5)


def test_a_picture_is_encoded_once_for_all_its_options(make: Make, encoded: list[int]) -> None:
    documents = harness.docs(5)
    make(documents, batch_size=3).loglikelihood(harness.rank(documents))
    assert encoded == [3, 2]


def test_the_greedy_option_is_the_one_that_would_be_written(make: Make) -> None:
    (doc,) = harness.docs(1)
    model = make([doc])
    written = model.pipeline.ask(doc["image"], doc["question"], generation=SHORT).text
    for options in ([written, "no"], ["yes", "no"]):
        requests = harness.rank([{**doc, "options": options}])
        longest = max(len(model.pipeline.backend.tokenizer.target_ids(option)) for option in options)
        said = model.pipeline.ask(doc["image"], doc["question"], generation=GenerationSettings(max_new_tokens=longest))
        flags = [is_greedy for _, is_greedy in model.loglikelihood(requests)]
        assert flags == [said.text == option for option in options]


def test_an_option_that_is_surely_greedy_needs_no_generation(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sure, unsure = (TokenScores(tokens=("a", "b"), token_nll=nll) for nll in ((0.1, 0.6), (0.1, 0.7)))
    monkeypatch.setattr(InstructBlipBackend, "score", lambda *_: [[unsure, sure]])
    monkeypatch.setattr(InstructBlipBackend, "write", lambda *_: pytest.fail("generated"))
    documents = harness.docs(1)
    losses = make(documents).loglikelihood(harness.rank(documents))
    assert [is_greedy for _, is_greedy in losses] == [False, True]


def test_an_answer_ends_where_the_task_says(make: Make) -> None:
    documents = harness.docs(3)
    model = make(documents, batch_size=3)
    whole = model.generate_until(harness.generate(documents, max_new_tokens=8))
    end = next(text[2:4] for text in whole if len(text) > 4)
    cut = model.generate_until(harness.generate(documents, max_new_tokens=8, until=["never", end]))
    assert cut == [text.split(end)[0].strip() for text in whole]
    assert cut != whole


def test_tasks_with_different_settings_share_no_batch(make: Make) -> None:
    documents = harness.docs(4)
    requests = [harness.generate(documents, max_new_tokens=3 + number % 2)[number] for number in range(len(documents))]
    model = make(documents, batch_size=4)
    assert model.generate_until(requests) == [model.generate_until([request])[0] for request in requests]


def test_a_repeated_request_is_sampled_anew_and_greedy_stays(make: Make) -> None:
    documents = harness.docs(1)
    model = make(documents)
    sampled = model.generate_until(3 * harness.generate(documents, max_new_tokens=12, do_sample=True, temperature=2.0))
    assert len(set(sampled)) == 3
    assert len(set(model.generate_until(3 * harness.generate(documents, max_new_tokens=12)))) == 1


def test_placeholders_of_lmms_eval_are_not_read(make: Make) -> None:
    documents = harness.docs(2)
    model = make(documents)
    plain = harness.generate(documents, max_new_tokens=6)
    assert model.generate_until(harness.generate(documents, context="<image>\n{}", max_new_tokens=6)) == (
        model.generate_until(plain)
    )


def test_a_delimiter_before_options_changes_nothing(make: Make) -> None:
    documents = harness.docs(2)
    model = make(documents)
    assert model.loglikelihood(harness.rank(documents)) == model.loglikelihood(harness.rank(documents, delimiter=""))


def test_a_target_may_come_as_a_function_of_the_document(make: Make) -> None:
    documents = harness.docs(1)
    model = make(documents)
    text, *_ = harness.rank(documents)
    context, _, *rest = text.args
    function = harness.Instance((context, lambda doc: doc["options"][0], *rest))
    assert model.loglikelihood([function]) == model.loglikelihood([text])


def test_every_result_goes_to_the_cache(make: Make) -> None:
    documents = harness.docs(2)
    model = make(documents)
    answers = model.generate_until(harness.generate(documents, max_new_tokens=3))
    losses = model.loglikelihood(harness.rank(documents)[:1])
    assert model.cache_hook.added == [
        *(
            ("generate_until", (doc["question"], {"max_new_tokens": 3}), answer)
            for doc, answer in zip(documents, answers, strict=True)
        ),
        ("loglikelihood", (documents[0]["question"], documents[0]["options"][0]), losses[0]),
    ]


def test_a_chat_model_reads_messages(make: Make) -> None:
    documents = harness.docs(3)
    chat = make(documents, "Chat", batch_size=2)
    simple = make(documents, batch_size=2)
    assert (simple.is_simple, chat.is_simple) == (True, False)
    expected = simple.generate_until(harness.generate(documents, max_new_tokens=5))
    assert chat.generate_until(harness.chat(documents, max_new_tokens=5)) == expected
    with pytest.raises(NotImplementedError, match="Use --model vlinstruct"):
        chat.loglikelihood([])


def test_several_rounds_are_refused(make: Make) -> None:
    with pytest.raises(NotImplementedError, match="one question per document"):
        make([]).generate_until_multi_round([])


@pytest.mark.parametrize(
    ("visuals", "why"),
    [
        (lambda doc: [doc["image"], doc["image"]], "it has 2 pictures, the model reads one"),
        (lambda doc: None, "it has no pictures, the model reads one"),
        (lambda doc: [{"video": "a.mp4"}], "it has a dict where its picture should be"),
    ],
)
def test_what_is_not_one_picture_is_refused_by_document_and_task(make: Make, visuals: Any, why: str) -> None:
    documents = harness.docs(1)
    with pytest.raises(InputError) as caught:
        make(documents).generate_until(harness.generate(documents, visuals=visuals))
    assert caught.value.message == f"cannot ask (document 0 of task toy): {why}. Leave the task out"


def test_a_picture_may_be_a_file(make: Make, tmp_path: Path) -> None:
    documents = harness.docs(1)
    documents[0]["image"].save(tmp_path / "a.png")
    model = make(documents)
    requests = harness.generate(documents, visuals=lambda doc: [str(tmp_path / "a.png")], max_new_tokens=5)
    assert model.generate_until(requests) == model.generate_until(harness.generate(documents, max_new_tokens=5))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"document 0 of task toy"):
        model.generate_until(requests)


def test_a_picture_of_a_data_set_is_read_as_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "a.jpg"
    Image.effect_noise((60, 20), 80).save(path, exif=exif)
    document = Document(task="toy", split="test", number=0)
    by_path = question(document, [str(path)], "what?").picture
    with Image.open(path) as opened:
        assert question(document, [opened], "what?").picture == by_path
    assert by_path.size == (20, 60)


def test_a_damaged_picture_of_a_data_set_is_named(make: Make, tmp_path: Path) -> None:
    documents = harness.docs(1)
    Image.effect_noise((64, 64), 80).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with (
        Image.open(tmp_path / "a.png") as picture,
        pytest.raises(ImageError, match=r"document 0 of task toy.*truncated image"),
    ):
        make(documents).generate_until(harness.generate(documents, visuals=lambda doc: [picture]))


def cut_off(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()[:-300]


@pytest.mark.parametrize(
    "picture",
    [cut_off(Image.effect_noise((64, 64), 80)), b"<html>404</html>", "https://example.org/a.png"],
    ids=["cut off", "web page", "url"],
)
def test_a_picture_that_cannot_be_read_is_answered_with_advice_that_lmms_eval_can_follow(picture: object) -> None:
    with pytest.raises(ImageError) as refused:
        question(Document(task="toy", split="test", number=0), [picture], "what?")
    assert "(document 0 of task toy)" in refused.value.message or "URL" in refused.value.message
    assert refused.value.message.endswith(". Replace the picture in the data set, or leave the task out")
    assert "--" not in refused.value.message


def test_a_device_that_is_not_there_is_answered_in_model_args(
    plugin: ModuleType, tiny_folders: dict[str, Path]
) -> None:
    with pytest.raises(VlinstructError) as refused:
        plugin.Simple(pretrained=str(tiny_folders["t5"]), device="cuda:99")
    assert "device=cpu" in refused.value.message
    assert "--" not in refused.value.message


def test_a_blank_question_is_named(make: Make) -> None:
    documents = harness.docs(1)
    with pytest.raises(TextError, match=r"document 0 of task toy.*blank"):
        make(documents).generate_until(harness.generate(documents, context="<image>\n"))


def test_a_score_that_is_not_finite_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = TokenScores(tokens=("a",), token_nll=(math.nan,))
    monkeypatch.setattr(InstructBlipBackend, "score", lambda *_: [[broken, broken]])
    documents = harness.docs(1)
    with pytest.raises(ScoreError, match=r"^document 0 of task toy: the model gave no finite score"):
        make(documents).loglikelihood(harness.rank(documents))


def test_a_prompt_too_long_is_named(plugin: ModuleType, tiny_folders: dict[str, Path]) -> None:
    documents = harness.docs(2)
    model = plugin.Simple(pretrained=str(tiny_folders["llama"]), device="cpu", batch_size=2)
    model.task_dict = {harness.TASK: {harness.SPLIT: documents}}
    short, _ = harness.generate(documents)
    long = harness.Instance(("x" * 3000, {}, harness.doc_to_visual, 1, harness.TASK, harness.SPLIT))
    with pytest.raises(TextError, match=r"^document 1 of task toy: prompt too long"):
        model.generate_until([short, long])


def test_an_error_of_optimization_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = harness.docs(1)
    model = make(documents, optimize=True)
    monkeypatch.setattr(model.pipeline, "optimize_each", lambda *_, **__: [Failed(error=ScoreError("no finite score"))])
    for ask, requests in ((model.generate_until, harness.generate), (model.loglikelihood, harness.rank)):
        with pytest.raises(ScoreError, match=r"^document 0 of task toy: no finite score"):
            ask(requests(documents))


def test_unknown_arguments_are_refused_before_a_model_is_loaded(plugin: ModuleType) -> None:
    with pytest.raises(UsageError, match=r"\(dytpe\): unknown. Known are pretrained, adapter, device"):
        plugin.Simple(pretrained="no such model", dytpe="float32")


def test_a_process_takes_its_rank_and_device_from_accelerate(
    plugin: ModuleType, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(Accelerator=lambda: started))
    launched = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    model = plugin.Simple(pretrained=str(tiny_folders["t5"]), device="cuda:7")
    assert (model.rank, model.world_size, model.device.type) == (1, 2, "cpu")
    assert model.accelerator is started


def test_the_model_is_let_go_when_all_is_answered(make: Make) -> None:
    model = make([])
    model.clean()
    assert not hasattr(model, "pipeline")


def test_a_loss_is_a_pair_and_what_lmms_eval_unwraps(make: Make) -> None:
    documents = harness.docs(1)
    loss, *_ = make(documents).loglikelihood(harness.rank(documents))
    assert isinstance(loss, tuple)
    assert isinstance(loss, harness.GenerationResult)
    assert (loss.text, loss.text.strip(), loss.token_counts) == (loss, loss, None)
    assert json.loads(json.dumps(loss)) == list(loss)
    assert copy.deepcopy(loss) == loss  # what passes it between processes copies it so
    number, flag = loss
    assert (type(number), type(flag)) == (float, bool)


def test_the_manifest_names_both_models(plugin: ModuleType) -> None:
    from vlinstruct.integrations.lmms_eval.manifest import manifests

    paths = {one.model_id: (one.simple_class_path, one.chat_class_path) for one in manifests()}
    home = plugin.__name__
    assert paths == {"vlinstruct": (f"{home}.Simple", None), "vlinstruct_chat": (None, f"{home}.Chat")}
    assert plugin.Simple.is_simple
    assert not plugin.Chat.is_simple
