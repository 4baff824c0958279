"""Three edits in a row, and two images compared, by openai's client, curl and the page: what comes
back is read as the world's own reader reads it.
"""

import io
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from api_server import Served, data_url, pixels
from chat_page import ChatPage
from PIL import Image

from unimodal.data.scenes.reading import read_scene
from unimodal.data.scenes.world import Background, Scene, SceneObject, render

TURNS = {
    "draw a large red circle and a small blue star": {"large red circle", "small blue star"},
    "make the circle green": {"large green circle", "small blue star"},
    "now remove the star": {"large green circle"},
    "make it purple": {"large purple circle"},
}
Ask = Callable[[list[dict[str, Any]], int], dict[str, Any]]
"""What answers messages with a seed: the assistant's message."""


def read(image_HW3: np.ndarray) -> set[str]:
    """The things in a drawing, as `read_scene` finds them."""
    found = read_scene(image_HW3)
    assert isinstance(found, Scene), found
    return {f"{one.size} {one.colour} {one.shape}" for one in found.objects}


def by_openai(served: Served) -> Ask:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)

    def ask(messages: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        answer = client.chat.completions.create(model="tiny", messages=messages, seed=seed)
        return answer.choices[0].message.model_dump()

    return ask


def by_curl(served: Served) -> Ask:
    if (program := shutil.which("curl")) is None:
        pytest.skip("there is no curl here")

    def ask(messages: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        body = json.dumps({"messages": messages, "seed": seed})
        head = ["-H", "Content-Type: application/json"]
        command = [program, "-sS", f"{served.url}/chat/completions", *head, "-d", "@-"]
        done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["choices"][0]["message"]

    return ask


@pytest.mark.parametrize("way", [by_openai, by_curl])
def test_three_edits_in_a_row_are_what_was_asked_for(served: Served, way: Callable) -> None:
    ask, messages = way(served), []
    for number, (words, things) in enumerate(TURNS.items()):
        messages.append({"role": "user", "content": words})
        message = ask(messages, 1 + number)
        (image,) = message["images"]
        assert read(pixels(image["image_url"]["url"])) == things
        messages.append(message)


@pytest.mark.parametrize("way", [by_openai, by_curl])
def test_two_images_are_compared(served: Served, way: Callable) -> None:
    ask = way(served)
    circle, star = (
        SceneObject("circle", "red", "medium", 0.3, 0.5),
        SceneObject("star", "blue", "small", 0.75, 0.5),
    )
    green = SceneObject("circle", "green", "medium", 0.3, 0.5)
    for after, said in (
        ([circle], "the blue star is gone."),
        ([green, star], "the red circle is green now."),
        ([circle, star], "there is no difference."),
    ):
        shown = [{"type": "image_url", "image_url": {"url": data_url(file_of(objects))}}
                 for objects in ([circle, star], after)]  # fmt: skip
        words = {"type": "text", "text": "what is different?"}
        message = ask([{"role": "user", "content": [*shown, words]}], 1)
        assert message["content"].strip() == said


def file_of(objects: list[SceneObject]) -> bytes:
    """A PNG of a scene on grey."""
    stream = io.BytesIO()
    scene = Scene(Background("plain", "grey"), tuple(objects))
    Image.fromarray(render(scene, 64)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.browser
def test_a_new_person_has_drawn_asked_and_edited_within_a_minute(chat: ChatPage) -> None:
    """By hand it takes longer to type; what the page and the model take is measured here."""
    began = time.monotonic()
    chat.set(seed="1")
    for words, things in TURNS.items():
        chat.ask(words)
        assert read(pixels(chat.drawn()[-1])) == things
    chat.ask("what do you see?")
    assert "purple circle" in chat.said()[-1]
    assert time.monotonic() - began < 60
