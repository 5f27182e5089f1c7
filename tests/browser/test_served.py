"""The page that `vlinstruct serve` shows at `/`."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from picture_fixtures import make_picture
from PIL import Image
from serving.attacks import Puppet
from serving.loopback import serving

from vlinstruct.backend import Row, Seen, Written
from vlinstruct.media.images import ImageLimits
from vlinstruct.media.load import MediaSettings
from vlinstruct.mini.world import FIRST_QUESTION
from vlinstruct.model import Model
from vlinstruct.serving import run as running
from vlinstruct.serving.app import ServeSettings
from vlinstruct.serving.gate import GateSettings, loopback_hosts
from vlinstruct.settings import GenerationSettings
from vlinstruct.values import Failed

from .conftest import DESK, HOSTILE, PHONE, OpenWindow, Window

if TYPE_CHECKING:
    from playwright.sync_api import Page
else:
    expect = pytest.importorskip("playwright.sync_api").expect

KEY = "clé secrète"


class Talker(Puppet):
    """Answers what a test says, and keeps the sizes of the pictures that it saw."""

    def __init__(
        self, answer: Callable[[str], str] = lambda prompt: "a red star", sure: float = 0.4, **steps: Any
    ) -> None:
        super().__init__(**steps)
        self.answer, self.sure, self.sizes = answer, sure, list[tuple[int, int]]()

    def see(self, media: Sequence[Any]) -> list[Seen | Failed]:
        self.sizes += [medium.size for medium in media]
        return super().see(media)

    def write(self, rows: Sequence[Row], settings: GenerationSettings) -> list[Written | Failed]:
        super().write(rows, settings)
        return [Written(text=self.answer(row.prompt), token_nll=(self.sure,)) for row in rows]

    def knows(self, seen: Seen) -> bool:
        return False


@contextmanager
def page_of(model: Talker, name: str = "talker", media: MediaSettings | None = None, **gate: Any) -> Iterator[str]:
    settings = GateSettings(hosts=loopback_hosts("127.0.0.1"), **gate)
    served = ServeSettings(name=name, gate=settings, media=media or MediaSettings())
    with serving(Model(model), served) as url:
        yield url.removesuffix("v1")


def encoded(picture: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


def file(content: bytes = b"", name: str = "a.png", kind: str = "image/png") -> Any:
    return {"name": name, "mimeType": kind, "buffer": content or encoded(make_picture())}


def hand_over(page: Page, event: str, *files: Any) -> None:
    """Drops files on the page, or pastes them."""
    script = """([event, files]) => {
        const transfer = new DataTransfer();
        for (const {name, mimeType, buffer} of files) {
            const bytes = Uint8Array.from(atob(buffer), (c) => c.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type: mimeType}));
        }
        const told = {bubbles: true, cancelable: true};
        const made = event === "paste" ? new ClipboardEvent(event, {...told, clipboardData: transfer})
                                       : new DragEvent(event, {...told, dataTransfer: transfer});
        return document.getElementById("drop").dispatchEvent(made);
    }"""
    texts = [{**one, "buffer": base64.b64encode(one["buffer"]).decode()} for one in files]
    assert page.evaluate(script, [event, texts]) is False, "left to the browser, which would show the file itself"


def ask(page: Page, question: str = "star color plz", *, num_before: int = 0) -> None:
    page.get_by_label("Question or instruction").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#asked > li")).to_have_count(num_before + 1)


def sound(opened: Window, *, width: int = DESK) -> None:
    assert opened.problems == []
    assert opened.width() == width


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_that_is_handed_over_is_answered_twice_side_by_side(event: str, window: OpenWindow) -> None:
    model = Talker(lambda prompt: "What is the colour of the star?" if "ewrite" in prompt else f"answers {len(prompt)}")
    with page_of(model) as address, window(address, may_load=address) as opened:
        page = opened.page
        page.wait_for_selector("#model:visible")
        assert (page.title(), page.locator("#model").inner_text()) == ("talker · vlinstruct", "talker")
        hand_over(page, event, file(), file(name="b.png"))
        expect(page.locator("#file-note")).to_contain_text("others are left out")
        ask(page)
        left, right = page.locator(".side").all()
        assert "answers" in left.inner_text()
        assert "answers" in right.inner_text()
        assert abs(left.bounding_box()["y"] - right.bounding_box()["y"]) < 1  # type: ignore[index]
        expect(page.locator(".notice")).to_contain_text("do not trust what it says")
        expect(page.locator("#told")).to_contain_text("As typed: answers")
        ask(page, "and the shape?", num_before=1)
        shown = page.locator("#asked summary h2")
        assert shown.all_inner_texts() == ["and the shape?", "star color plz"]
        assert [entry.get_attribute("open") for entry in page.locator("#asked details").all()] == ["", None]
        sound(opened)


def test_the_keyboard_alone_does_it(window: OpenWindow) -> None:
    with page_of(Talker()) as address, window(address, may_load=address) as opened:
        page = opened.page
        page.on("filechooser", lambda chooser: None)  # now: the browser must know before the key is pressed
        page.wait_for_selector("#model:visible")
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(file())
        expect(page.locator("#question")).to_be_focused()
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two")
        page.keyboard.press("Enter")
        page.wait_for_selector("#asked summary")
        assert page.locator("#asked h2").inner_text() == "one\ntwo"
        page.keyboard.type("three")  # over the old question, which is selected
        page.keyboard.press("Enter")
        expect(page.locator("#asked > li")).to_have_count(2)
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.querySelectorAll('#asked summary')[1]"):
                break
        page.keyboard.press("Enter")
        assert page.locator("#asked details[open]").count() == 2
        while page.evaluate("document.activeElement.textContent") != "Ask about this again":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("[document.activeElement.id, document.activeElement.value]") == ["question", "one\ntwo"]
        sound(opened)


def test_who_has_no_picture_of_minis_world_gets_one(window: OpenWindow) -> None:
    model = Talker()
    with page_of(model) as address, window(address, may_load=address) as opened:
        assert opened.page.locator("#example").is_hidden()
    model.identity = replace(model.identity, name="mini")
    with page_of(model) as address, window(address, may_load=address) as opened:
        opened.page.get_by_role("button", name="Take one").click()
        expect(opened.page.locator("#question")).to_have_value(FIRST_QUESTION)  # none had been typed
        ask(opened.page, "what is there?")
        opened.page.get_by_role("button", name="Take one").click()
        expect(opened.page.locator("#question")).to_have_value("what is there?")
        expect(opened.page.locator("#asked")).to_contain_text("example.png")
        sound(opened)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_accessible_light_and_dark_and_fits_every_width(width: int, dark: bool, window: OpenWindow) -> None:
    with page_of(Talker()) as address, window(address, width=width, dark=dark, may_load=address) as opened:
        assert opened.findings() == []
        opened.page.set_input_files("#file", file())
        ask(opened.page)
        ask(opened.page, num_before=1)
        assert opened.findings() == []
        assert opened.page.locator(".side").nth(1).bounding_box()["width"] > 250  # type: ignore[index]
        sound(opened, width=width)
    with page_of(Talker(), api_key=KEY) as address, window(address, width=width, dark=dark, may_load=address) as opened:
        assert opened.findings() == []
        sound(opened, width=width)


def test_hostile_words_are_words(window: OpenWindow) -> None:
    for hostile in HOSTILE:
        sayable = hostile.replace("\ud800", "\ufffd")
        name = sayable.replace("\x00", "")
        with (
            page_of(Talker(lambda prompt, said=sayable: said), name=sayable) as address,
            window(address, width=PHONE, may_load=address) as opened,
        ):
            page = opened.page
            page.wait_for_selector("#model:visible")
            hand_over(page, "drop", file(name=name))
            ask(page, name[:5000])
            assert page.title() != "run"
            assert page.locator("script").count() == 2
            assert page.locator("#asked img").count() == 1
            assert not set("\u202e\u2066\u200f\x1b\x00") & set(page.locator("body").inner_text())
            sound(opened, width=PHONE)


def test_the_key_is_asked_for_and_kept_nowhere(window: OpenWindow) -> None:
    with page_of(Talker(), api_key=KEY) as address, window(address, may_load=address) as opened:
        page = opened.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        assert asked == [address]
        assert page.locator("#ask-form").is_hidden()
        page.get_by_label("Key of this server").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#key-problem")).not_to_be_empty()
        expect(page.locator("#key-problem")).to_contain_text("not the key")
        assert [problem for problem in opened.problems if "401" not in problem] == []
        opened.problems.clear()
        page.get_by_label("Key of this server").fill(KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-form:visible")
        page.set_input_files("#file", file())
        ask(page)
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert KEY not in page.content()
        sound(opened)
        page.reload()
        assert page.locator("#ask-form").is_hidden()


def test_a_server_that_ends_in_the_middle_is_told_and_the_question_is_kept(
    window: OpenWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_GRACE_S", 1)
    free = threading.Event()
    with ExitStack() as server:
        address = server.enter_context(page_of(Talker(on_write=lambda rows: free.wait(20) and None)))
        with window(address, may_load=address) as opened:
            page = opened.page
            page.set_input_files("#file", file())
            page.get_by_label("Question or instruction").fill("still there?")
            page.keyboard.press("Enter")
            page.wait_for_selector("#cancel:visible")
            server.close()
            free.set()
            expect(page.locator("#problem")).not_to_be_empty()
            page.keyboard.press("Enter")
            expect(page.locator("#problem")).to_contain_text("Is it still running?")
            expect(page.locator("#cancel")).to_be_hidden()
            assert page.locator("#question").input_value() == "still there?"
            assert page.locator("#preview").is_visible()


def test_a_busy_server_is_asked_again_when_it_says(window: OpenWindow) -> None:
    with page_of(Talker()) as address, window(address, may_load=address) as opened:
        page = opened.page
        refusals = [429, 429]

        def answer(route: Any) -> None:
            if refusals:
                route.fulfill(status=refusals.pop(), headers={"Retry-After": "1"}, json={"error": {"message": "busy"}})
            else:
                route.continue_()

        page.route("**/v1/optimize", answer)
        page.set_input_files("#file", file())
        page.get_by_label("Question or instruction").fill("what?")
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_contain_text("busy")
        expect(page.locator("#progress")).to_contain_text("asking again in 1 s")
        page.keyboard.type(" and the next one")
        page.wait_for_selector("#asked summary")
        assert page.locator("#asked h2").inner_text() == "what?"
        page.keyboard.type("!")  # what was typed meanwhile is not typed over
        assert page.locator("#question").input_value() == "what? and the next one!"
        refusals += [429]
        page.get_by_label("Question or instruction").fill("and now?")
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_contain_text("busy")
        page.keyboard.press("Escape")
        expect(page.locator("#progress")).to_have_text("Cancelled.")
        assert page.locator("#asked > li").count() == 1
        assert page.locator("#cancel").is_hidden()


def test_a_picture_is_scaled_down_only_where_the_server_takes_no_larger_one(window: OpenWindow) -> None:
    model = Talker()
    limits = MediaSettings(images=ImageLimits(max_pixels=600_000))
    with (
        page_of(model, media=limits, max_body_bytes=1024 * 1024) as address,
        window(address, may_load=address) as opened,
    ):
        page = opened.page
        page.set_input_files("#file", file(encoded(make_picture(400, 300))))
        ask(page)
        assert (model.sizes.pop(), page.locator("#file-note").inner_text()) == ((400, 300), "")
        hand_over(page, "drop", file(encoded(make_picture(1200, 900))))
        page.evaluate("document.getElementById('ask-form').requestSubmit()")  # before it was read
        expect(page.locator("#asked > li")).to_have_count(2)
        width, height = model.sizes.pop()
        assert abs(width / height - 4 / 3) < 0.01
        assert 300_000 < width * height <= 600_000
        expect(page.locator("#file-note")).to_contain_text("Scaled down to")
        expect(page.locator("#file-note")).to_contain_text("0.6 megapixels")
        page.set_input_files("#file", file(encoded(make_picture(520, 520))))  # 800 kB
        ask(page, num_before=2)
        assert model.sizes.pop() == (520, 520)
        expect(page.locator("#file-note")).to_contain_text("Sent as JPEG: the server takes at most 1 MiB")
        sound(opened)


def test_what_is_no_picture_is_refused_in_words_and_what_only_the_server_reads_is_sent(window: OpenWindow) -> None:
    with page_of(Talker()) as address, window(address, may_load=address) as opened:
        page = opened.page
        ask_button = page.get_by_role("button", name="Ask", exact=True)
        ask_button.click()
        expect(page.locator("#problem")).to_have_text("Choose a picture first.")
        hand_over(page, "drop", file(b"words", "notes.txt", "text/plain"))
        expect(page.locator("#problem")).to_have_text("notes.txt is no picture.")
        hand_over(page, "drop")
        expect(page.locator("#problem")).to_contain_text("Only files")
        hand_over(page, "drop", file(b"\x89PNG nothing", "broken.png"))
        expect(page.locator("#file-note")).to_contain_text("cannot show")
        ask_button.click()
        expect(page.locator("#problem")).to_have_text("Type a question or an instruction.")
        page.get_by_label("Question or instruction").fill("what?")
        assert opened.problems == []
        ask_button.click()
        expect(page.locator("#problem")).to_contain_text("refuses this")
        opened.problems.clear()  # the browser's own line about status 400
        hand_over(page, "drop", file(encoded(make_picture(), "TIFF"), "scan.tif", "image/tiff"))
        ask(page)
        expect(page.locator("#problem")).to_have_text("")
        sound(opened)
