"""The best of several drawings, and boxes that say where things go, on the page in Chromium."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from api_server import CHAT, Served, pixels, serving
from chat_page import PHONE, ChatPage, opened
from other_architectures import with_boxes

import unimodal
from unimodal.model import Model

pytestmark = pytest.mark.browser
PROMPT = "draw a red circle and a blue star"
BOXES = ["a red circle, 6, 13, 32, 38", "a star, 35, 32, 58, 58"]


@pytest.fixture(scope="module")
def boxed(shipped: Model) -> Iterator[Served]:
    with serving(with_boxes(shipped), requests_a_minute=100_000, memory_bytes=2**28) as found:
        yield found


def best_of(chat: ChatPage, count: str) -> None:
    chat.button("Settings").click()
    chat.page.get_by_label("Candidates").select_option(count)
    chat.page.locator("#settings-button").click()


def told(served: Served) -> dict[str, Any]:
    """What the API answers to the same request."""
    body = {"messages": [{"role": "user", "content": PROMPT}], "seed": 5, "candidates": 4,
            "others": True}  # fmt: skip
    status, answer = served.ask(CHAT, body)
    assert status == 200
    return answer["choices"][0]


def url_of(choice: dict[str, Any]) -> str:
    return choice["message"]["images"][0]["image_url"]["url"]


def test_it_is_off_until_it_is_chosen(chat: ChatPage) -> None:
    bodies: list[dict[str, Any]] = []
    chat.page.on(
        "request", lambda one: bodies.append(one.post_data_json) if one.post_data else None
    )
    chat.ask("draw a red circle")
    assert "candidates" not in bodies[0] and bodies[0]["stream"]
    assert chat.page.locator(".verdict").count() == chat.page.locator(".others").count() == 0


def test_the_best_is_that_of_a_chat_and_the_others_are_there(
    chat: ChatPage, served: Served, shipped: Model
) -> None:
    chat.set(seed="5")
    best_of(chat, "4")
    assert chat.page.locator("#summary").inner_text() == "seed 5, best of 4"
    chat.ask(PROMPT)
    choice = told(served)
    (url,) = chat.drawn()
    assert url == url_of(choice)
    reply = unimodal.Chat(shipped, seed=5, candidates=4)(PROMPT)
    assert np.array_equal(pixels(url), np.asarray(reply.images[0]))
    verdict = chat.page.locator(".verdict").inner_text()
    assert verdict.startswith("Best of 4.")
    assert all(lack in verdict for lack in choice["unsatisfied"])
    status = chat.page.locator("#status").inner_text()
    said = f"{reply.text} " if reply.text else ""
    assert status == f"Answer: {said}One image drawn, seed {choice['seed']}. {verdict}"
    others = chat.page.locator(".others img")
    assert [one.get_attribute("src") for one in others.all()] == [*map(url_of, choice["others"])]
    for one, other in zip(others.all(), choice["others"], strict=True):
        assert one.get_attribute("alt").startswith(f"Candidate with seed {other['seed']}, which ")
    assert not others.first.is_visible(), "they are folded away"
    chat.page.reload()
    chat.page.locator("body[data-ready]").wait_for(state="attached")
    assert chat.drawn() == [url] and chat.page.locator(".verdict").inner_text() == verdict


def test_another_can_be_kept_with_the_keyboard_alone(chat: ChatPage, served: Served) -> None:
    chat.set(seed="5")
    best_of(chat, "4")
    chat.ask(PROMPT)
    choice, keys = told(served), chat.page.keyboard
    chat.page.locator(".others summary").focus()
    keys.press("Enter")
    keys.press("Tab")
    label = f"Keep the drawing with seed {choice['others'][0]['seed']} instead"
    assert chat.page.evaluate("document.activeElement.ariaLabel") == label
    keys.press("Enter")
    chat.page.get_by_text(f"seed {choice['others'][0]['seed']}", exact=True).wait_for()
    assert chat.drawn() == [url_of(choice["others"][0])]
    first = chat.page.locator(".others img").first
    first.wait_for()
    assert first.get_attribute("src") == url_of(choice)
    back = f"Keep the drawing with seed {choice['seed']} instead"
    assert chat.page.evaluate("document.activeElement.ariaLabel") == back, "the focus stays"
    said = chat.page.locator("#status").inner_text()
    assert said.startswith(f"Kept instead: the drawing with seed {choice['others'][0]['seed']}.")
    best_of(chat, "")
    sent: list[dict[str, Any]] = []
    chat.page.on("request", lambda one: sent.append(one.post_data_json) if one.post_data else None)
    chat.ask("what do you see?")
    shown = sent[0]["messages"][1]["images"][0]["image_url"]["url"]
    assert shown == url_of(choice["others"][0]), "the conversation goes on from what was kept"
    assert chat.page.get_by_role("button", name="Keep the drawing").count() == 0


def test_what_cannot_be_checked_is_drawn_once_and_said(chat: ChatPage) -> None:
    chat.set(seed="3")
    best_of(chat, "2")
    chat.ask("make me happy")
    note = "Drawn once: these words name nothing that can be asked about."
    if chat.drawn():
        assert chat.page.locator(".note").inner_text() == note
    assert chat.page.locator(".verdict").count() == 0
    chat.button("Settings").click()
    chat.page.locator("select[name=modalities]").select_option("text")
    assert "an answer that may be an image is wanted" in chat.page.locator(
        "#settings-problem").inner_text()  # fmt: skip


def test_a_trial_is_stopped_within_a_step(chat: ChatPage, served: Served) -> None:
    best_of(chat, "8")
    chat.send(PROMPT)
    chat.page.get_by_text("Drawing 8, to keep the best.").wait_for()
    chat.page.keyboard.press("Escape")
    chat.page.get_by_text("Stopped.").first.wait_for()
    served.wait_for_rest()
    assert chat.drawn() == []


def test_boxes_are_for_models_that_take_them(browser: Any, shipped: Model) -> None:
    for takes_boxes in (False, True):
        model = with_boxes(shipped, takes_boxes)
        with serving(model, memory_bytes=2**28) as served, opened(browser, served) as chat:
            assert chat.page.locator("#place").is_hidden() != takes_boxes


def test_boxes_are_dragged_and_written(browser: Any, boxed: Served, shipped: Model) -> None:
    reply = unimodal.Chat(with_boxes(shipped), seed=5)(PROMPT, boxes=BOXES)
    with opened(browser, boxed) as chat:
        chat.set(seed="5")
        page = chat.page
        chat.button("Say where things go").click()
        area = page.locator("#canvas").bounding_box()
        scale = area["width"] / 64
        page.mouse.move(area["x"] + 6 * scale, area["y"] + 38 * scale)
        page.mouse.down()
        page.mouse.move(area["x"] + 32 * scale, area["y"] + 13 * scale, steps=3)
        page.mouse.up()
        assert page.evaluate("document.activeElement.ariaLabel") == "Thing of box 1"
        page.keyboard.type("a red circle")
        sides = [page.get_by_label(f"{side} of box 1").input_value()
                 for side in ("Left", "Top", "Right", "Bottom")]  # fmt: skip
        assert sides == ["6", "13", "32", "38"]
        add = page.get_by_role("button", name="Add a box")
        add.focus()
        page.keyboard.press("Enter")
        chat.send(PROMPT)
        said = page.locator("#boxes-problem")
        assert said.inner_text() == "Say what is to stand in each box." and chat.asked() == []
        assert page.evaluate("document.activeElement.ariaLabel") == "Thing of box 2"
        for text in ("a star", "35", "32", "99", "58"):
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(text)
            page.keyboard.press("Tab")
        chat.words.press("Enter")
        assert "“right” is a number of pixels, from 0 to 64" in said.inner_text()
        page.get_by_label("Right of box 2").fill("58")
        assert page.locator("#canvas rect").count() == 2
        chat.words.press("Enter")
        page.locator("article.answer").wait_for()
        chat.wait()
        assert np.array_equal(pixels(chat.drawn()[0]), np.asarray(reply.images[0]))
        told = page.get_by_role("group", name="Where things go")
        assert told.locator("li").all_text_contents() == [
            "a red circle, from 6, 13 to 32, 38 of 64 by 64 pixels",
            "a star, from 35, 32 to 58, 58 of 64 by 64 pixels",
        ]
        assert page.locator("#placing").is_hidden() and page.locator("#boxes li").count() == 0
        page.reload()
        page.locator("body[data-ready]").wait_for(state="attached")
        page.locator("article.asked").hover()
        chat.button("Edit this message").click()
        page.get_by_role("textbox", name="The edited message").press("Enter")
        page.get_by_text("2 / 2").first.wait_for()
        chat.wait()
        assert len(chat.drawn()) == 1 and told.locator("li").count() == 2, "an edit keeps the boxes"


def test_both_on_a_telephone(browser: Any, boxed: Served) -> None:
    with opened(browser, boxed, PHONE) as chat:
        best_of(chat, "4")
        chat.button("Say where things go").click()
        for name in ("a red circle", "a star"):
            chat.button("Add a box").click()
            chat.page.keyboard.type(name)
        assert chat.is_as_wide_as_its_window()
        chat.ask(PROMPT + ", please" * 20)
        chat.page.locator(".others summary").click()
        assert chat.is_as_wide_as_its_window()
        small = "[...document.querySelectorAll('#main button, summary')].filter((one) =>"
        small += " one.offsetParent && one.getBoundingClientRect().height < 24).length"
        assert chat.page.evaluate(small) == 0
