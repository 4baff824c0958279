"""The web page of `unimodal serve` in a browser, and what a person does on it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api_server import Served

PHONE = (390, 844)
DROP = """([content, name, kind]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type: 'image/png' }));
  if (kind === 'paste') {
    document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: given, bubbles: true }));
    return;
  }
  for (const step of ['dragenter', 'dragover', 'drop']) {
    const event = new DragEvent(step, { dataTransfer: given, bubbles: true, cancelable: true });
    document.getElementById('main').dispatchEvent(event);
  }
}"""


class ChatPage:
    """The page as it is open in one window; `page` is playwright's, `wrong` what the browser found
    wrong with it.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self.wrong.append(said.text) if is_wrong(said) else None)

    @property
    def words(self) -> Any:
        """The message field."""
        return self.page.get_by_role("textbox", name="Message", exact=True)

    def button(self, name: str) -> Any:
        """The last button whose name begins so."""
        return self.page.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).last

    def send(self, words: str) -> None:
        """Write a message and send it."""
        self.words.fill(words)
        self.words.press("Enter")

    def ask(self, words: str) -> None:
        """Send a message and wait for its answer."""
        num_answers = self.page.locator("article.answer").count()
        self.send(words)
        self.page.locator("article.answer").nth(num_answers).wait_for()
        self.wait()

    def wait(self) -> None:
        """Wait until no answer is in work, and the page shows it."""
        self.page.locator("#send").wait_for()
        self.page.locator("article[aria-busy=true]").wait_for(state="detached")

    def set(self, **fields: str) -> None:
        """Fill fields of the settings."""
        panel = self.page.locator("#settings")
        is_hidden = panel.is_hidden()
        if is_hidden:
            self.button("Settings").click()
        for name, value in fields.items():
            panel.locator(f"input[name={name}]").fill(value)
        if is_hidden:
            self.page.locator("#settings-button").click()

    def asked(self) -> list[str]:
        """The messages of the branch that is shown."""
        return self.page.locator("article.asked .words").all_inner_texts()

    def said(self) -> list[str]:
        """The words of all answers."""
        return self.page.locator("article.answer .words").all_inner_texts()

    def drawn(self) -> list[str]:
        """The data: URLs of all drawings, the latest state of each."""
        found = self.page.locator("figure.drawn .picture:last-child img")
        return [one.get_attribute("src") for one in found.all()]

    def is_as_wide_as_its_window(self) -> bool:
        """Whether nothing scrolls to the side."""
        whole = "document.documentElement.scrollWidth <= innerWidth"
        thread = "document.getElementById('scroller')"
        return self.page.evaluate(f"{whole} && {thread}.scrollWidth <= {thread}.clientWidth")


@contextmanager
def opened(
    browser: Any, served: Served, size: tuple[int, int] = (1200, 860), dark: bool = False
) -> Iterator[ChatPage]:
    """Open the page; when the block ends, no request may have left the server, nothing may have
    been refused by the page's policy, and no script may have failed.
    """
    origin = served.url.removesuffix("v1")
    look = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=look, color_scheme="dark" if dark else "light")
    context.set_default_timeout(20_000)
    requests: list[str] = []
    context.on("request", lambda one: requests.append(one.url))
    page = context.new_page()
    chat = ChatPage(page)
    page.goto(origin)
    page.locator("body[data-ready]").wait_for(state="attached")
    yield chat
    context.close()
    foreign = [url for url in requests if not url.startswith((origin, "data:", f"blob:{origin}"))]
    assert requests and foreign == []
    assert chat.wrong == []


def is_wrong(said: Any) -> bool:
    """Whether the console tells of a fault of the page; answers such as 400 are part of tests."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")
