"""The web page in Chromium, as people use it: with the model that ships, at its own server."""

import base64
import io
import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from api_server import CHAT, Served, data_url, pixels, png
from chat_page import ChatPage
from PIL import Image

import unimodal
from unimodal.generation import Generation
from unimodal.model import Model

pytestmark = pytest.mark.browser
KEY = "0123456789abcdef-of-a-test"
EDITS = ("make it blue", "make it green", "make it red")


@pytest.fixture
def unhurried(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that draws an image in seconds, so that it can be seen at work."""
    step = Generation.step

    def slow(generation: Generation) -> list:
        time.sleep(0.05)
        return step(generation)

    monkeypatch.setattr(Generation, "step", slow)


def content(url: str) -> bytes:
    return base64.b64decode(url.partition("base64,")[2])


def test_a_drawing_is_that_of_the_api_and_of_a_chat(
    chat: ChatPage, served: Served, shipped: Model, unhurried: None
) -> None:
    chat.set(seed="7", guidance="2")
    chat.send("draw a red circle")
    drawing = chat.page.locator("figure.drawing")
    drawing.wait_for()
    assert drawing.get_by_role("progressbar").get_attribute("max") == "4"
    chat.wait()
    (url,) = chat.drawn()
    asked = {"messages": [{"role": "user", "content": "draw a red circle"}]}
    _, answer = served.ask(CHAT, asked | {"seed": 7, "guidance": 2})
    assert url == answer["choices"][0]["message"]["images"][0]["image_url"]["url"]
    (image,) = unimodal.Chat(shipped, seed=7, guidance=2.0)("draw a red circle").images
    assert np.array_equal(pixels(url), np.asarray(image))
    shown = chat.page.locator("figure.drawn img")
    assert (shown.bounding_box()["width"], shown.bounding_box()["height"]) == (256, 256)
    assert shown.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    assert shown.get_attribute("alt") == "Drawing for “draw a red circle”, seed 7"
    told = chat.page.locator("#status")
    assert re.fullmatch(r"Answer: (a plan: .*\. )?One image drawn, seed 7\.", told.inner_text())


def test_three_edits_are_shown_before_and_after(chat: ChatPage, shipped: Model) -> None:
    """Each turn is what a Chat with the same seed draws; then a question is answered in words."""
    chat.set(seed="20", guidance="1")
    terminal = unimodal.Chat(shipped, seed=20, guidance=1.0)
    expected = []
    for words in ("draw a big red circle", *EDITS):
        terminal.sampling = replace(terminal.sampling, seed=20)
        chat.ask(words)
        expected += terminal(words).images
    drawn = chat.drawn()
    assert len(drawn) == len(expected) == 4
    for url, image in zip(drawn, expected, strict=True):
        assert np.array_equal(pixels(url), np.asarray(image))
    figures = chat.page.locator("figure.drawn")
    for number in range(1, 4):
        figure = figures.nth(number)
        button = figure.get_by_role("button", name="Before and after")
        if button.get_attribute("aria-pressed") == "false":
            button.click()
        left, right = figure.locator("img").all()
        assert left.get_attribute("src") == drawn[number - 1]
        assert right.get_attribute("src") == drawn[number]
        boxes = left.bounding_box(), right.bounding_box()
        assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
        assert boxes[0]["width"] == boxes[1]["width"]
    assert figures.first.get_by_role("button", name="Before and after").count() == 0
    terminal.sampling = replace(terminal.sampling, seed=20)
    chat.ask("what do you see?")
    assert chat.said()[-1] == terminal("what do you see?").text != ""


def test_undo_redo_and_retry(chat: ChatPage) -> None:
    chat.page.get_by_role("button", name="draw a red circle").click()  # an example
    chat.wait()
    first = chat.drawn()
    chat.ask("draw a blue star")
    both = chat.drawn()
    chat.button("Undo the last turn").click()
    assert chat.asked() == ["draw a red circle"] and chat.drawn() == first
    chat.button("Redo the turn").click()
    assert chat.asked() == ["draw a red circle", "draw a blue star"] and chat.drawn() == both
    chat.button("Answer again, with another seed").click()
    chat.page.get_by_text("2 / 2").wait_for()
    chat.wait()
    again = chat.drawn()
    assert again[0] == both[0] and again[1] != both[1]
    seeds = chat.page.locator(".seed").all_inner_texts()
    assert len(set(seeds)) == 2
    chat.button("The version before").click()
    assert chat.drawn() == both
    for _ in range(2):
        chat.button("Undo the last turn").click()
    assert chat.asked() == [] and chat.page.get_by_text("What shall we draw?").is_visible()
    chat.button("Redo the turn").click()
    assert chat.asked() == ["draw a red circle"]


def test_redo_brings_back_what_was_undone(chat: ChatPage) -> None:
    chat.set(seed="1")
    chat.ask("draw a red circle")
    chat.ask("draw two blue stars")  # other seeds place them elsewhere
    chat.button("Answer again, with another seed").click()
    chat.page.get_by_text("2 / 2").wait_for()
    chat.wait()
    second = chat.drawn()
    chat.button("The version before").click()
    first = chat.drawn()
    assert first != second
    for num_turns in (1, 2):
        for _ in range(num_turns):
            chat.button("Undo the last turn").click()
        chat.page.reload()
        chat.page.locator("body[data-ready]").wait_for(state="attached")
        for _ in range(num_turns):
            chat.button("Redo the turn").click()
        assert chat.drawn() == first, num_turns
    chat.button("The next version").click()
    chat.button("Undo the last turn").click()
    chat.button("Redo the turn").click()
    assert chat.drawn() == second


def test_an_edited_message_is_a_branch_and_a_reload_keeps_all(chat: ChatPage) -> None:
    chat.ask("draw a red circle")
    chat.ask("what do you see?")
    old = chat.drawn(), chat.said()
    chat.page.locator("article.asked").first.hover()
    chat.page.get_by_role("button", name="Edit this message").first.click()
    field = chat.page.get_by_role("textbox", name="The edited message")
    field.fill("draw a yellow star")
    field.press("Enter")
    chat.page.get_by_text("2 / 2").wait_for()
    chat.wait()
    assert chat.asked() == ["draw a yellow star"]
    fresh = chat.drawn()
    chat.page.reload()
    chat.page.locator("body[data-ready]").wait_for(state="attached")
    assert chat.asked() == ["draw a yellow star"] and chat.drawn() == fresh
    chat.button("The version before").click()
    assert chat.asked() == ["draw a red circle", "what do you see?"]
    assert (chat.drawn(), chat.said()) == old
    chat.page.reload()
    chat.page.locator("body[data-ready]").wait_for(state="attached")
    assert (chat.drawn(), chat.said()) == old, "which branch was shown is kept"
    chat.button("New conversation").click()
    assert chat.asked() == []
    chat.page.locator("#conversations .row").click()
    assert (chat.drawn(), chat.said()) == old
    chat.page.locator("#conversations li").hover()
    chat.button("Delete “draw a red circle”").click()
    assert chat.asked() == [] and chat.page.locator("#conversations li").count() == 0
    chat.button("Undo").click()
    assert (chat.drawn(), chat.said()) == old


def test_a_conversation_that_is_deleted_while_it_is_answered_stays_away(
    chat: ChatPage, unhurried: None
) -> None:
    chat.send("draw a red circle")
    chat.page.locator("figure.drawing").wait_for()
    chat.page.locator("#conversations li").hover()
    chat.button("Delete “draw a red circle”").click()
    chat.page.locator("#toast").wait_for()
    chat.ask("what do you see?")
    chat.page.reload()
    chat.page.locator("body[data-ready]").wait_for(state="attached")
    assert chat.page.locator("#conversations .row").all_inner_texts() == ["what do you see?"]


def test_stop_ends_the_work_and_the_turn_is_no_part_of_the_talk(
    chat: ChatPage, served: Served, unhurried: None
) -> None:
    before = served.metric("cancelled_total")
    chat.send("draw two red circles")
    chat.page.locator("figure.drawing").wait_for()
    chat.button("Stop").click()
    chat.page.get_by_text("Stopped. The model takes no notice of this turn.").wait_for()
    served.wait_for_rest()
    assert served.metric("cancelled_total") == before + 1
    with chat.page.expect_request("**/v1/chat/completions") as request:
        chat.ask("draw a blue star")
    told = json.loads(request.value.post_data)["messages"]
    assert told == [{"role": "user", "content": "draw a blue star"}]
    chat.button("Try again").click()
    chat.wait()
    assert len(chat.drawn()) == 2


def test_a_download_is_the_file_with_its_provenance(chat: ChatPage, shipped: Model) -> None:
    chat.set(seed="5")
    chat.ask("draw a red circle")
    with chat.page.expect_download() as download:
        chat.button("Download this image").click()
    assert download.value.suggested_filename == "draw-a-red-circle-seed-5.png"
    file = download.value.path().read_bytes()
    assert file == content(chat.drawn()[0])
    noted = Image.open(io.BytesIO(file)).info
    assert (noted["unimodal:model"], noted["unimodal:seed"]) == (shipped.hash, "5")


def test_what_a_model_says_is_never_markup(chat: ChatPage) -> None:
    evil = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>"
    chunk = {"choices": [{"index": 0, "delta": {"content": evil}}], "seed": 1}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    kind = {"Content-Type": "text/event-stream"}
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, headers=kind))
    chat.ask(evil)
    assert chat.asked() == chat.said() == [evil]
    assert chat.page.locator("#thread img, #thread script").count() == 0
    assert "broken" not in chat.page.title().removeprefix(evil[:80])
    assert chat.wrong == []
    with pytest.raises(Exception, match="TrustedHTML"):
        chat.page.evaluate("document.body.innerHTML = '<p>text</p>'")
    assert len(chat.wrong) == 1 and "TrustedHTML" in chat.wrong.pop()


def test_an_image_stands_where_the_server_says(chat: ChatPage) -> None:
    """Positions count characters, and the strings of a browser some of these twice."""
    url = {"url": data_url(png())}
    image = {"type": "image_url", "index": 0, "position": 2, "image_url": url}
    deltas = [{"content": "\U0001f534:"}, {"images": [image]}, {"content": "\U0001f535!"}]
    chunks = [{"choices": [{"index": 0, "delta": delta}], "seed": 1} for delta in deltas]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    kind = {"Content-Type": "text/event-stream"}
    chat.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, headers=kind))
    chat.ask("one of each")
    assert chat.said() == ["\U0001f534:", "\U0001f535!"] and chat.drawn() == [url["url"]]
