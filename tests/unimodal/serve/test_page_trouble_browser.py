"""The web page in Chromium where something is wrong or blocked: it says so, and goes on."""

import json
from typing import Any

import pytest
from api_server import Served, serving
from chat_page import ChatPage

from unimodal.model import Model

pytestmark = pytest.mark.browser
KEY = "0123456789abcdef-of-a-test"
BLOCKED = """for (const name of ['sessionStorage', 'localStorage', 'indexedDB']) {
  const get = () => { throw new DOMException('denied', 'SecurityError'); };
  Object.defineProperty(window, name, { get });
}"""


def test_a_server_with_keys_is_asked_with_one(browser: Any, shipped: Model) -> None:
    with serving(shipped, KEY, memory_bytes=2**28) as keyed:
        context = browser.new_context()
        page = context.new_page()
        page.goto(keyed.url.removesuffix("v1"))
        field = page.get_by_label("API key", exact=True)
        field.fill("wrong")
        field.press("Enter")
        page.get_by_text("The server does not know this key.").wait_for()
        field.fill(KEY)
        field.press("Enter")
        page.locator("body[data-ready]").wait_for(state="attached")
        chat = ChatPage(page)
        chat.ask("draw a red circle")
        assert len(chat.drawn()) == 1
        page.reload()
        page.locator("body[data-ready]").wait_for(state="attached")
        assert not page.locator("#key-dialog").is_visible(), "it lasts until the page is closed"
        assert page.evaluate("localStorage.getItem('unimodal-key')") is None
        context.close()


def test_a_wrong_key_leaves_the_remembered_one(browser: Any, shipped: Model) -> None:
    with serving(shipped, KEY, memory_bytes=2**28) as keyed:
        context = browser.new_context()
        page = context.new_page()
        page.goto(keyed.url.removesuffix("v1"))
        field, remember = page.get_by_label("API key", exact=True), page.get_by_label("Remember it")
        field.fill(KEY)
        remember.check()
        field.press("Enter")
        page.locator("body[data-ready]").wait_for(state="attached")
        page.locator("#change-key").click()
        for given, said in (
            ("wrong", "The server does not know this key."),
            ("ключ", "An API key has only Latin letters, digits and signs, without spaces."),
        ):
            field.fill(given)
            field.press("Enter")
            page.get_by_text(said).wait_for()
        page.get_by_role("button", name="Not now").click()
        assert page.evaluate("localStorage.getItem('unimodal-key')") == KEY
        ChatPage(page).ask("draw a red circle")
        assert page.locator("figure.drawn").count() == 1, "the key before still holds"
        context.close()


def test_errors_are_sentences_with_a_way_out(chat: ChatPage) -> None:
    chat.set(seed="0.5")
    chat.send("draw a red circle")
    problem = "“0.5”: a whole number from 0 to 9007199254740991 is wanted."
    assert chat.page.locator("#settings-problem").inner_text() == problem
    assert chat.page.evaluate("document.activeElement.name") == "seed" and chat.asked() == []
    chat.set(seed="1")
    chat.ask("draw a red circle")
    card = chat.page.locator(".problem-card")
    assert card.count() == 0
    chat.page.route("**/v1/chat/completions", lambda route: route.abort())
    chat.ask("make it blue")
    said = "The server does not answer. See whether it still runs, then try again."
    assert card.locator("p").inner_text() == said
    chat.page.unroute("**/v1/chat/completions")
    chat.button("Try again").click()
    chat.page.locator("figure.drawn").nth(1).wait_for()


@pytest.mark.parametrize(
    ("fields", "wrong", "problem"),
    [({"guidance": "5000"}, "guidance", "“5000”: a number from 0 to 1000 is wanted."),
     ({"negative_prompt": "blue"}, "negative_prompt",
      "“blue”: a guidance other than 1, with words to leave out, is wanted.")],
)  # fmt: skip
def test_what_the_server_would_refuse_is_said_before(
    chat: ChatPage, fields: dict[str, str], wrong: str, problem: str
) -> None:
    """The model that ships has a guidance of 1 of its own, which leads away from nothing."""
    chat.set(**fields)
    chat.send("draw a red circle")
    assert chat.page.locator("#settings-problem").inner_text() == problem
    assert chat.page.evaluate("document.activeElement.name") == wrong and chat.asked() == []
    field = chat.page.locator(f"[name={wrong}]")
    assert field.get_attribute("aria-describedby") == "settings-problem"
    chat.set(guidance="2")
    assert field.get_attribute("aria-describedby") is None
    assert chat.page.locator("#settings-problem").is_hidden()
    chat.ask("draw a red circle")
    assert len(chat.drawn()) == 1


def test_settings_of_drawings_are_no_part_of_a_request_for_words(chat: ChatPage) -> None:
    """The server refuses what would have no effect; the fields keep their values."""
    sent: list[dict] = []
    chat.page.on("request", lambda one: one.post_data and sent.append(json.loads(one.post_data)))
    chat.set(guidance="2")
    for answer in ("text", "image"):
        chat.button("Settings").click()
        chat.page.locator("select[name=modalities]").select_option(answer)
        chat.page.locator("#settings-button").click()
        chat.ask("draw a red circle")
    words, image = sent
    assert words["modalities"] == ["text"] and "guidance" not in words
    assert image["modalities"] == ["image"] and image["guidance"] == 2
    assert len(chat.drawn()) == 1


def test_a_browser_that_blocks_storage_has_the_page(browser: Any, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(BLOCKED)
    chat = ChatPage(page)
    page.goto(served.url.removesuffix("v1"))
    page.locator("body[data-ready]").wait_for(state="attached")
    assert "This browser keeps no history here" in page.locator("#toast").inner_text()
    chat.set(seed="3")
    chat.ask("draw a red circle")
    assert len(chat.drawn()) == 1 and chat.wrong == []
    chat.button("Theme").click()
    context.close()
