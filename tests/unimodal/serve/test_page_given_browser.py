"""Images that are given to the web page in Chromium: how they come, and what is said of them."""

import base64
import io
from typing import Any

import pytest
from api_server import CHAT, Served, png, serving
from chat_page import DROP, ChatPage, opened
from PIL import Image

from unimodal.model import Model

pytestmark = pytest.mark.browser
PASTE = """([field, words, content]) => {
  const given = new DataTransfer();
  if (words) given.setData('text/plain', words);
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  given.items.add(new File([bytes], 'image.png', { type: 'image/png' }));
  const what = { clipboardData: given, bubbles: true, cancelable: true };
  return !document.querySelector(field).dispatchEvent(new ClipboardEvent('paste', what));
}"""  # whether the page took it, and the browser does nothing of its own
DROP_ALL = """(named) => {
  const given = new DataTransfer();
  for (const [name, type, content] of named) given.items.add(new File([content], name, { type }));
  const what = { dataTransfer: given, bubbles: true, cancelable: true };
  document.getElementById('main').dispatchEvent(new DragEvent('drop', what));
}"""


def encoded(image: Image.Image, kind: str) -> str:
    """The bytes of a file of an image, in base64."""
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("kind", ["drop", "paste", "button"])
def test_a_given_image_is_seen_as_the_api_sees_it(
    chat: ChatPage, served: Served, kind: str
) -> None:
    file = png((128, 96), seed=5)
    encoded = base64.b64encode(file).decode()
    if kind == "button":
        given = {"name": "mine.png", "mimeType": "image/png", "buffer": file}
        chat.page.locator("#files").set_input_files(given)
    else:
        chat.page.evaluate(DROP, [encoded, "mine.png", kind])
    assert chat.page.locator("#given img").get_attribute("alt") == "mine.png"
    assert chat.page.locator("#drop").is_hidden()
    chat.set(seed="3")
    chat.ask("what do you see?")
    assert chat.page.locator("#given img").count() == 0
    url = f"data:image/png;base64,{encoded}"
    assert chat.page.locator("img.given").get_attribute("src") == url, "it is sent as it is"
    parts = [{"type": "image_url", "image_url": {"url": url}},
             {"type": "text", "text": "what do you see?"}]  # fmt: skip
    _, answer = served.ask(CHAT, {"messages": [{"role": "user", "content": parts}], "seed": 3})
    assert chat.said() == [answer["choices"][0]["message"]["content"].strip()]
    note = "Your image: resized and cropped from 128 x 96 to 64 x 64 pixels."
    assert chat.page.locator(".note").inner_text() == note


def test_what_is_no_image_is_refused_in_a_sentence(chat: ChatPage) -> None:
    chat.page.evaluate(DROP, [base64.b64encode(b"words").decode(), "words.png", "drop"])
    toast = chat.page.locator("#toast")
    toast.wait_for()
    assert toast.inner_text().startswith("words.png is no image that this browser can open.")


def test_several_that_are_no_images_are_all_told(chat: ChatPage) -> None:
    files = [["words.txt", "text/plain", "words"], ["broken.png", "image/png", "broken"]]
    chat.page.evaluate(DROP_ALL, files)
    toast = chat.page.locator("#toast")
    toast.wait_for()
    said = toast.inner_text().splitlines()
    assert [line.split(" is no image")[0] for line in said] == ["words.txt", "broken.png"]


@pytest.mark.parametrize(
    ("field", "words", "is_taken"),
    [("#words", "", True), ("#main", "copied words", True), ("#words", "copied words", False),
     ("[name=negative_prompt]", "", False), (".editor textarea", "", False)],
)  # fmt: skip
def test_a_paste_goes_where_it_is_meant(
    chat: ChatPage, field: str, words: str, is_taken: bool
) -> None:
    """Words that are copied with a picture of them stay words, and other fields keep theirs."""
    chat.ask("what do you see?")
    chat.words.press("ArrowUp")
    chat.page.locator(".editor textarea").wait_for()
    content = encoded(Image.new("RGB", (64, 64)), "PNG")
    assert chat.page.evaluate(PASTE, [field, words, content]) == is_taken
    given = chat.page.locator("#given li")
    if is_taken:
        given.wait_for()
    else:
        chat.page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
        assert given.count() == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_what_is_made_smaller_is_told_of_as_it_is(chat: ChatPage, mode: str) -> None:
    """An image of a kind that the page makes a PNG of has an alpha channel if something shines
    through it.
    """
    whole = Image.effect_noise((2048, 1024), 90).convert(mode)
    if mode == "RGBA":
        whole.putalpha(Image.linear_gradient("L").resize(whole.size))
    content = base64.b64decode(encoded(whole, "PNG"))
    given = {"name": "mine.apng", "mimeType": "image/apng", "buffer": content}
    chat.page.locator("#files").set_input_files(given)
    url = chat.page.locator("#given img").get_attribute("src")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
    assert (sent.size, sent.mode) == ((1024, 512), mode)
    chat.ask("what do you see?")
    laid = "Your image: transparency laid on white."
    resized = "Your image: resized and cropped from 1024 x 512 to 64 x 64 pixels."
    notes = chat.page.locator(".note").all_inner_texts()
    assert notes == [laid, resized][mode == "RGB" :]


def test_no_more_images_are_taken_than_a_message_may_have(browser: Any, shipped: Model) -> None:
    with serving(shipped, max_images=2) as small, opened(browser, small) as chat:
        file = base64.b64encode(png()).decode()
        for number in range(3):
            chat.page.evaluate(DROP, [file, f"{number}.png", "drop"])
            chat.page.locator("#given img").nth(min(number, 1)).wait_for()
        told = "2.png was left out: 2 images are the most."
        chat.page.get_by_text(told).wait_for()
        assert chat.page.locator("#given img").count() == 2
        chat.page.get_by_role("button", name="Remove 0.png").click()
        chat.page.evaluate(DROP, [file, "3.png", "drop"])
        chat.page.get_by_role("button", name="Remove 3.png").wait_for()


def test_long_conversations_are_cut_at_whole_turns(browser: Any, shipped: Model) -> None:
    with (
        serving(shipped, memory_bytes=2**28, max_images=2) as small,
        opened(browser, small) as chat,
    ):
        for colour in ("red", "blue", "green", "yellow"):
            chat.ask(f"draw a {colour} circle")
        assert len(chat.drawn()) == 4
        notice = "From here on the model no longer sees the oldest turn: its memory is full."
        assert chat.page.locator(".cut").all_inner_texts() == [notice]


def test_a_conversation_of_too_many_bytes_is_cut_too(browser: Any, shipped: Model) -> None:
    with (
        serving(shipped, memory_bytes=2**28, max_body_bytes=2_500) as small,
        opened(browser, small) as chat,
    ):
        for number in range(4):
            file = base64.b64encode(png((200, 200), seed=number)).decode()
            chat.page.evaluate(DROP, [file, f"{number}.png", "drop"])
            chat.page.locator("#given img").wait_for()
            chat.ask("what do you see?")
        assert chat.page.locator(".problem-card").count() == 0 and len(chat.said()) == 4
        notices = chat.page.locator(".cut").all_inner_texts()
        assert notices and all("no longer sees the oldest" in one for one in notices)
