"""Candidates over HTTP: the best of several drawings, with what was asked about it."""

import base64
from typing import Any

import numpy as np
import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, pixels, png

from unimodal.chat import Chat
from unimodal.checks import checks_of
from unimodal.model import Model

PROMPT = "draw two red circles and a star"
RESPONSES = "/v1/responses"


def answered(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    status, body = answer
    assert status == 200, body
    return body


def test_the_kept_images_are_those_of_a_chat(small: Served, tiny_model: Model) -> None:
    body = answered(small.ask(IMAGES, {"prompt": PROMPT, "seed": 5, "n": 2, "candidates": 3}))
    for number, one in enumerate(body["data"]):
        chat = Chat(tiny_model, candidates=3, seed=5 + 3 * number)
        reply = chat(PROMPT, modality="image")
        assert np.array_equal(pixels(one["b64_json"]), np.asarray(reply.images[0]))
        assert one["seed"] == reply.seed and body["notes"][number] == reply.notes[0]
        asked = [(check["question"], check["answer"]) for check in one["checks"]]
        assert asked == [(check.question, check.answer) for check in checks_of(PROMPT)]
        assert all(0 < check["probability"] < 0.5 for check in one["checks"])
        assert one["unsatisfied"] == ["two red circles", "a star"]
        alone = answered(small.ask(IMAGES, {"prompt": PROMPT, "seed": one["seed"]}))["data"][0]
        assert base64.b64decode(alone["b64_json"]) == base64.b64decode(one["b64_json"])
        assert "checks" not in alone and "unsatisfied" not in alone
    one = answered(small.ask(IMAGES, {"prompt": PROMPT, "seed": 5}))
    spent = [of["usage"]["output_tokens"] for of in (one, body)]
    assert spent[1] == 6 * spent[0], "all candidates are paid for"
    small.wait_for_rest()


def test_json_and_forms_and_edits_have_candidates(small: Served) -> None:
    settings = {"prompt": "add a red star", "seed": 11, "candidates": 3}
    url = data_url(png((16, 24)))
    fields = [(name, str(value)) for name, value in settings.items()]
    by_json = answered(small.ask(EDITS, settings | {"image": url}))
    by_form = answered(small.form(EDITS, [*fields, ("image", png((16, 24)))]))
    assert by_json["data"] == by_form["data"] and by_json["data"][0]["checks"]


def test_a_chat_has_candidates(small: Served, drawing_model: Model, tiny_model: Model) -> None:
    talk = {"messages": [{"role": "user", "content": PROMPT}], "seed": 2, "candidates": 3}
    (choice,) = answered(small.ask(CHAT, talk | {"modalities": ["image"]}))["choices"]
    reply = Chat(tiny_model, candidates=3, seed=2)(PROMPT, modality="image")
    url = choice["message"]["images"][0]["image_url"]["url"]
    assert np.array_equal(pixels(url), np.asarray(reply.images[0]))
    assert choice["seed"] == reply.seed and len(choice["checks"]) == 2


def test_what_cannot_be_judged_is_drawn_once(small: Served) -> None:
    asked = {"prompt": "make it blue", "seed": 4}
    with_ = answered(small.ask(IMAGES, asked | {"candidates": 4}))
    assert with_["notes"] == ["drawn once: these words name nothing that can be asked about"]
    without = answered(small.ask(IMAGES, asked))
    assert with_["data"] == without["data"] and with_["usage"] == without["usage"]
    assert without == answered(small.ask(IMAGES, asked | {"candidates": 1})) | {
        "created": without["created"]
    }


@pytest.mark.parametrize(
    ("path", "body", "way_out"),
    [
        (IMAGES, {"prompt": PROMPT, "candidates": 9}, "from 1 to 8"),
        (IMAGES, {"prompt": PROMPT, "candidates": 0}, "from 1 to 8"),
        (IMAGES, {"prompt": PROMPT, "candidates": 2, "stream": True}, "leave stream or candidates"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": PROMPT}], "candidates": 2,
             "modalities": ["text"]},
            "leave candidates or modalities out",
        ),
        (RESPONSES, {"input": PROMPT, "candidates": 2}, "what can be is 1"),
    ],
)  # fmt: skip
def test_candidates_that_there_are_not(small: Served, path: str, body: dict, way_out: str) -> None:
    status, answer = small.ask(path, body)
    assert status == 400 and answer["error"]["param"] == "candidates"
    assert way_out in answer["error"]["message"]
