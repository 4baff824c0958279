"""The web page in Chromium with the keyboard, and as those have it who hear it."""

import re

import pytest
from chat_page import ChatPage

pytestmark = pytest.mark.browser
FOCUSED = "document.activeElement.ariaLabel"


def test_with_the_keyboard_alone(chat: ChatPage) -> None:
    page, keys = chat.page, chat.page.keyboard
    for _ in range(20):
        keys.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "skip":
            break
    keys.press("Enter")
    assert page.evaluate("document.activeElement.id") == "words"
    keys.type("draw a red circle")
    keys.press("Shift+Enter")
    keys.type("please")
    assert chat.words.input_value() == "draw a red circle\nplease"
    keys.press("Enter")
    page.locator("figure.drawing").wait_for()
    keys.press("Escape")
    page.locator(".stopped").wait_for()
    keys.press("ArrowUp")
    assert page.evaluate("document.activeElement.value") == "draw a red circle\nplease"
    keys.press("Escape")
    assert page.evaluate("document.activeElement.title").startswith("Edit this message")
    keys.press("Enter")
    keys.press("Control+A")
    keys.type("draw a blue star")
    keys.press("Enter")
    page.locator("figure.drawn").wait_for()
    assert chat.asked() == ["draw a blue star"]
    names = []
    for _ in range(40):  # backwards through all that can be reached
        keys.press("Shift+Tab")
        names.append(page.evaluate(
            "(document.activeElement.ariaLabel ?? document.activeElement.innerText ?? '').trim()"
        ))  # fmt: skip
        if names[-1].startswith("Answer again"):
            break
    assert "" not in names[:-1] and names[-1].startswith("Answer again"), names
    keys.press("Enter")
    page.locator("article.answer").get_by_text("2 / 2").wait_for()
    chat.wait()
    focused = page.evaluate("document.activeElement.ariaLabel")
    assert focused.startswith("Answer again"), "the focus stays where it was"


def test_the_focus_goes_on_where_a_button_has_nothing_more_to_do(chat: ChatPage) -> None:
    page, keys = chat.page, chat.page.keyboard
    chat.ask("draw a red circle")
    chat.button("Answer again, with another seed").click()
    page.get_by_text("2 / 2").wait_for()
    chat.wait()
    chat.button("The version before").focus()
    for place, focused in (("1 / 2", "The next version"), ("2 / 2", "The version before")):
        keys.press("Enter")
        page.get_by_text(place).wait_for()
        assert page.evaluate(FOCUSED) == focused
    chat.button("Undo the last turn").focus()
    for focused in ("Redo the turn", "Undo the last turn"):
        keys.press("Enter")
        assert page.evaluate(FOCUSED) == focused


def test_everything_has_a_name_and_the_page_has_its_regions(chat: ChatPage) -> None:
    chat.ask("draw a red circle")
    chat.ask("make it blue")
    chat.button("Settings").click()
    seen = chat.page.locator("body").aria_snapshot()
    unnamed = re.findall(r"- (?:button|textbox|combobox|img|link|progressbar)(?: \[.*\])?:?$",
                         seen, re.MULTILINE)  # fmt: skip
    assert unnamed == [], seen
    for region in ('complementary "Conversations"', "main", 'form "Your message"',
                   'region "Conversation"', 'heading "You" [level=2]', 'group "Settings of',
                   'heading "Answer" [level=2]', "status"):  # fmt: skip
        assert f"- {region}" in seen, region
