"""Take the pictures of the web page that docs/serving.md and docs/checked.md show.

    PYTHONPATH=.:tests .venv/bin/python tests/page_screenshots.py

The model that ships answers, each turn with SEED; nothing is chosen.
"""

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from api_server import Served, serving
from browser import driven
from chat_page import PHONE, ChatPage, opened
from PIL import Image

import unimodal

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDE, BEST = (1100, 800), (820, 860)
CHECKED = "draw two red circles and a blue star"
SEED = "0"
LATE_S = 0.02
EARLIER = ("draw two yellow stars", "draw a red circle")
TALK = ("draw a purple heart", "make it blue", "what do you see?")


def main() -> None:
    """Take all pictures."""
    model = unimodal.load()
    # Code by code, and each one late: or images are there before a picture can be taken of them.
    model = replace(model, sampling=replace(model.sampling, image_drafts=None))
    model.transformer.model.norm.register_forward_pre_hook(lambda *_: time.sleep(LATE_S))
    with driven() as browser, serving(model, name="unimodal") as served:
        for name, size, dark in (("light", WIDE, False), ("dark", WIDE, True),
                                 ("phone", PHONE, False)):  # fmt: skip
            take(browser, served, name, size, dark)
        take_best(browser, served)


def take_best(browser: Any, served: Served) -> None:
    """Let the page draw the best of four, and take a picture with the others."""
    with opened(browser, served, BEST) as chat:
        chat.set(seed=SEED)
        chat.page.locator("#settings-button").click()
        chat.page.locator("select[name=candidates]").select_option("4")
        chat.page.locator("#settings-button").click()
        chat.ask(CHECKED)
        chat.page.locator(".others summary").click()
        chat.page.locator("#scroller").evaluate("one => { one.scrollTop = one.scrollHeight; }")
        save(chat, "best")


def take(browser: Any, served: Served, name: str, size: tuple[int, int], dark: bool) -> None:
    """Hold the conversations and take a picture of what the page then shows."""
    with opened(browser, served, size, dark) as chat:
        chat.set(seed=SEED)
        for words in EARLIER:
            chat.ask(words)
            chat.page.locator("#new").evaluate("one => one.click()")
        for words in TALK:
            chat.ask(words)
        chat.set(seed="")
        if dark:
            begin_to_draw(chat)
        save(chat, name)


def save(chat: ChatPage, name: str) -> None:
    """Write what the page shows."""
    chat.page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(chat.page.screenshot(animations="disabled")))
    file = DOCS / f"page-{name}.png"
    shot.convert("RGB").save(file, optimize=True)
    print(f"{file.relative_to(DOCS.parent)}: {file.stat().st_size:,} bytes")


def begin_to_draw(chat: ChatPage) -> None:
    """Ask for a drawing, and stand still in the midst of it."""
    chat.set(seed="0", guidance="2")
    chat.send("draw four red circles")
    chat.page.locator("figure.drawing progress[value='2']").wait_for()


if __name__ == "__main__":
    main()
