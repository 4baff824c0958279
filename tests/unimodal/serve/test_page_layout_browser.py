"""The web page in Chromium in windows of all kinds, light and dark."""

import re
from typing import Any

import pytest
from api_server import Served
from chat_page import PHONE, ChatPage, opened

pytestmark = pytest.mark.browser


def test_nothing_scrolls_sideways_on_a_phone(browser: Any, served: Served) -> None:
    with opened(browser, served, PHONE) as chat:
        assert chat.is_as_wide_as_its_window(), "empty"
        chat.set(seed="20", guidance="1")
        chat.ask("draw a big red circle, " + "please, " * 20)
        assert chat.is_as_wide_as_its_window(), "a long title"
        chat.ask("draw a big red circle")
        chat.ask("make it blue")
        button = chat.button("Before and after")
        if button.get_attribute("aria-pressed") == "false":
            button.click()
        assert chat.page.locator("figure.drawn").last.locator("img").count() == 2
        assert chat.is_as_wide_as_its_window(), "before and after"
        chat.ask("w" * 300)
        assert chat.is_as_wide_as_its_window(), "a long word"
        chat.page.locator("#settings-button").click()
        assert chat.is_as_wide_as_its_window(), "settings"
        chat.page.locator("#settings-button").click()
        assert not chat.page.locator("#sidebar").is_visible()
        chat.button("Conversations").click()
        assert chat.page.locator("#sidebar").is_visible() and chat.is_as_wide_as_its_window()
        chat.page.keyboard.press("Escape")
        assert chat.page.evaluate("document.activeElement.id") == "open-sidebar"
        chat.page.locator("#sidebar").wait_for(state="hidden")
        small = "[...document.querySelectorAll('#main button')].filter((one) =>"
        small += " one.offsetParent && one.getBoundingClientRect().height < 24).length"
        assert chat.page.evaluate(small) == 0, "WCAG 2.2, 2.5.8: targets of 24 pixels"


@pytest.mark.parametrize("size", [(1280, 800), PHONE], ids=["desktop", "phone"])
def test_the_conversation_scrolls_and_not_the_page(
    browser: Any, served: Served, size: tuple[int, int]
) -> None:
    """Hidden headings behind the window made the page longer, which then scrolled into blank."""
    with opened(browser, served, size) as chat:
        for _ in range(5):
            chat.ask("draw a big red circle")
        inside = "document.getElementById('scroller')"
        assert chat.page.evaluate(f"{inside}.scrollHeight > {inside}.clientHeight")
        page = "document.documentElement.scrollHeight <= window.innerHeight"
        assert chat.page.evaluate(page)
        chat.page.mouse.move(size[0] / 2, size[1] - 60)
        chat.page.mouse.wheel(0, 2000)
        assert chat.page.evaluate("window.scrollY") == 0


def test_a_telephone_that_is_turned_closes_the_list(browser: Any, served: Served) -> None:
    with opened(browser, served, PHONE) as chat:
        chat.button("Conversations").click()
        assert chat.page.evaluate("document.getElementById('main').inert")
        chat.page.set_viewport_size({"width": PHONE[1], "height": PHONE[0]})
        chat.page.locator("#shade").wait_for(state="hidden")
        assert chat.page.evaluate("document.activeElement.id") == "new", "the focus stays there"
        chat.ask("draw a red circle")
        assert len(chat.drawn()) == 1
        chat.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        chat.page.locator("#sidebar").wait_for(state="hidden")
        chat.button("Conversations").click()
        chat.page.set_viewport_size({"width": PHONE[0], "height": 500})
        assert chat.page.locator("#sidebar").is_visible(), "a keyboard on the screen closes nothing"


@pytest.mark.parametrize("size", [(320, 256), (844, 390)], ids=["enlarged fourfold", "on its side"])
def test_a_low_window_has_room_for_the_conversation(
    browser: Any, served: Served, size: tuple[int, int]
) -> None:
    with opened(browser, served, size) as chat:
        chat.ask("draw a red circle")
        chat.page.locator("#settings-button").click()
        room = chat.page.locator("#scroller").bounding_box()
        box = chat.page.locator("#composer").bounding_box()
        assert room["height"] >= size[1] / 4
        assert box["y"] + box["height"] <= size[1], "nothing stands below the window"
        first = chat.page.locator("#settings select").first.bounding_box()
        assert box["y"] <= first["y"] and first["y"] + first["height"] <= box["y"] + box["height"]
        chat.page.locator("#reset").click()  # which scrolls there
        chat.page.locator("#settings-button").click()
        assert chat.is_as_wide_as_its_window()


def test_light_and_dark(browser: Any, served: Served) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"

    def is_dark(chat: ChatPage) -> bool:
        return max(map(int, re.findall(r"\d+", chat.page.evaluate(paper))[:3])) < 100

    for dark in (False, True):
        with opened(browser, served, dark=dark) as chat:
            assert is_dark(chat) == dark
            for theme, looks_dark in (("light", False), ("dark", True)):
                chat.button("Theme").click()
                assert chat.button("Theme").inner_text() == f"Theme: {theme}"
                assert is_dark(chat) == looks_dark
            chat.page.reload()
            assert is_dark(chat), "the choice is kept"
