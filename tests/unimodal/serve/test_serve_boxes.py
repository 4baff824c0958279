"""Boxes over HTTP: the pixels of a chat with the same boxes, or a refusal that says why."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, pixels, png, serving
from other_architectures import with_boxes
from PIL import Image

from unimodal.chat import Chat
from unimodal.model import Model

BOXES = ["a red circle, 1, 2, 8, 12", "a star, 8.5, 2, 16, 24"]
RESPONSES = "/v1/responses"


@pytest.fixture(scope="module")
def boxed(tiny_model: Model) -> Iterator[Served]:
    with serving(with_boxes(tiny_model), requests_a_minute=100_000) as found:
        yield found


def drawn(answer: tuple[int, dict[str, Any]]) -> np.ndarray:
    status, body = answer
    assert status == 200, body
    if "data" in body:
        return pixels(body["data"][0]["b64_json"])
    return pixels(body["choices"][0]["message"]["images"][0]["image_url"]["url"])


def test_the_pixels_are_those_of_a_chat(boxed: Served, tiny_model: Model) -> None:
    chat = Chat(with_boxes(tiny_model), seed=5, guidance=40.0)
    first = np.asarray(chat("draw this", (), "image", BOXES).images[0])
    second = np.asarray(chat("now here", (), "image", BOXES[:1]).images[0])
    asked = {"seed": 5, "guidance": 40.0}
    assert np.array_equal(first, drawn(boxed.ask(IMAGES, {"prompt": "draw this", "boxes": BOXES,
                                                          **asked})))  # fmt: skip
    user = {"role": "user", "content": "draw this", "boxes": BOXES}
    talk = asked | {"messages": [user], "modalities": ["image"]}
    status, body = boxed.ask(CHAT, talk)
    assert np.array_equal(first, drawn((status, body)))
    without = drawn(boxed.ask(CHAT, talk | {"messages": [user | {"boxes": None}]}))
    assert not np.array_equal(first, without)
    again = [user, body["choices"][0]["message"],
             {"role": "user", "content": "now here", "boxes": BOXES[:1]}]  # fmt: skip
    assert np.array_equal(second, drawn(boxed.ask(CHAT, talk | {"messages": again, "seed": 6})))
    alone = {"role": "user", "content": None, "boxes": BOXES}
    assert drawn(boxed.ask(CHAT, talk | {"messages": [alone]})).shape == (24, 16, 3)


def test_a_drawing_says_where_things_were_asked_for(boxed: Served) -> None:
    """By the hash of what was written, as people write it."""
    status, body = boxed.ask(IMAGES, {"prompt": "draw this", "boxes": BOXES, "seed": 5})
    assert status == 200
    image = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
    words = " ".join(["draw this", *BOXES])
    assert image.text["unimodal:prompt-sha256"] == hashlib.sha256(words.encode()).hexdigest()


def test_json_and_forms_mean_the_same(boxed: Served) -> None:
    settings = {"prompt": "add these", "seed": 3}
    url, fields = data_url(png((16, 24))), [(name, str(one)) for name, one in settings.items()]
    by_json = boxed.ask(EDITS, settings | {"image": url, "boxes": BOXES})
    for name in ("boxes", "boxes[]"):
        form = [*fields, ("image", png((16, 24))), *((name, box) for box in BOXES)]
        assert np.array_equal(drawn(by_json), drawn(boxed.form(EDITS, form)))


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        (IMAGES, {"prompt": "a", "boxes": ["a star, 1, 2, 3"]}, "boxes", "write a thing, then"),
        (IMAGES, {"prompt": "a", "boxes": ["a star, 0, 0, 17, 2"]}, "boxes", "0 to 16 and 0 to 24"),
        (IMAGES, {"prompt": "a", "boxes": BOXES * 9}, "boxes", "16 are the most"),
        (IMAGES, {"prompt": "a", "boxes": "a star, 0, 0, 9, 9"}, "boxes", "list"),
        (IMAGES, {"prompt": "a", "boxes": ["\ud800, 0, 0, 9, 9"]}, "boxes", "surrogate"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "boxes": ["a, b"]}]},
         "messages.0.boxes", "write a thing, then"),
        (CHAT, {"messages": [{"role": "system", "content": "a", "boxes": BOXES},
                             {"role": "user", "content": "a"}]},
         "messages.0.boxes", "of the user's messages"),
        (RESPONSES, {"input": "a", "boxes": BOXES}, "boxes", "Unknown parameter"),
    ],
)  # fmt: skip
def test_boxes_that_cannot_be(boxed: Served, path: str, body: dict, param: str, said: str) -> None:
    status, answer = boxed.ask(path, body)
    assert status == 400 and answer["error"]["param"] == param
    assert said in answer["error"]["message"]


def test_a_model_without_boxes_says_so(small: Served, boxed: Served) -> None:
    def bodies(boxes: list[str]) -> list[tuple[str, dict[str, Any]]]:
        message = {"role": "user", "content": "a", "boxes": boxes}
        return [(IMAGES, {"prompt": "a", "boxes": boxes}), (CHAT, {"messages": [message]})]

    for path, body in bodies(BOXES):
        status, answer = small.ask(path, body)
        assert status == 400 and answer["error"]["code"] == "unsupported_value"
        assert "was not trained on boxes" in answer["error"]["message"]
    for path, body in bodies([]):
        assert small.ask(path, body)[0] == 200, "none are asked for"
    told = [json.loads(served.get("/v1/models")[1])["data"][0]["settings"]
            for served in (small, boxed)]  # fmt: skip
    assert "boxes" not in told[0] and told[1]["boxes"] == 16
