"""Candidates over HTTP: the best of several drawings, with what was asked about it."""

import asyncio
import base64
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, pixels, png, serving
from starlette.requests import Request

from unimodal.branches import Branches
from unimodal.candidates import Kept, choose, samplings_of
from unimodal.chat import Chat
from unimodal.checks import checks_of
from unimodal.document import Document, Text
from unimodal.model import Model
from unimodal.serve.errors import ApiError
from unimodal.serve.job import Job
from unimodal.serve.keys import Keys
from unimodal.serve.limits import Limits
from unimodal.serve.server import Server
from unimodal.serve.trial import Chosen, Trial
from unimodal.serve.work import Work

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


def test_the_others_are_told_where_they_are_asked_for(small: Served) -> None:
    """With the pixels, and the judgement, that each has alone."""
    asked = {"prompt": PROMPT, "seed": 5, "candidates": 3}
    (one,) = answered(small.ask(IMAGES, asked | {"others": True}))["data"]
    (plain,) = answered(small.ask(IMAGES, asked))["data"]
    assert plain == {name: value for name, value in one.items() if name != "others"}
    seeds = [other["seed"] for other in one["others"]]
    assert sorted([*seeds, one["seed"]]) == [5, 6, 7] and seeds == sorted(seeds)
    for other in one["others"]:
        alone = answered(small.ask(IMAGES, {"prompt": PROMPT, "seed": other["seed"]}))["data"][0]
        assert other["b64_json"] == alone["b64_json"]
        assert score(other) <= score(one) and other["unsatisfied"] == one["unsatisfied"]
    talk = {"messages": [{"role": "user", "content": PROMPT}], "modalities": ["image"]}
    talk |= {"seed": 5, "candidates": 3, "others": True}
    body = answered(small.ask(CHAT, talk))
    (choice,) = body["choices"]
    urls = [other["message"]["images"][0]["image_url"]["url"] for other in choice["others"]]
    assert [url.partition(",")[2] for url in urls] == [o["b64_json"] for o in one["others"]]
    vain = answered(small.ask(IMAGES, asked | {"prompt": "make it blue", "others": True}))
    assert vain["data"][0]["others"] == []
    status, answer = small.ask(IMAGES, {"prompt": PROMPT, "others": True})
    assert status == 400 and "ask for candidates," in answer["error"]["message"]


def test_who_has_left_is_not_judged_for(tiny_model: Model, monkeypatch) -> None:
    """A client goes when its candidates are drawn, and before they are compared."""
    compared: list[int] = []

    def comparing(model: Model, replies: list, checks: list) -> Kept:
        compared.append(len(replies))
        return choose(model, replies, checks)

    monkeypatch.setattr("unimodal.serve.loop.choose", comparing)
    server = Server(tiny_model, "tiny", Keys(()), Limits())
    document = Document((Text(PROMPT, role="user"),))

    async def ask(leaves: bool) -> list[Chosen]:
        has_left = asyncio.Event()

        async def receive() -> dict[str, str]:
            await has_left.wait()
            return {"type": "http.disconnect"}

        samplings, num_images = samplings_of(tiny_model.sampling, 2), server.loop.num_images
        jobs = [Job(document, one, "image", ("a client", "")) for one in samplings]
        work = Work(server, Request({"type": "http"}, receive), jobs)
        await work.begin()
        while server.loop.num_images < num_images + 2 or server.loop.num_working:
            await asyncio.sleep(0.01)
        if leaves:
            has_left.set()
            await asyncio.wait_for(work._watch, 10)
        return (await work.chosen(Trial.of(PROMPT, 2)))[0]

    server.loop.start()
    try:
        with pytest.raises(ApiError, match="the client has left"):
            asyncio.run(ask(leaves=True))
        (kept,) = asyncio.run(ask(leaves=False))
    finally:
        server.loop.stop()
    assert compared == [2] and kept.judgement is not None


def test_questions_have_no_memory_of_their_own(tiny_model: Model, monkeypatch) -> None:
    """All keys and values stay within the bound: those of replies, kept ones, and of questions."""
    allowed, held = 150_000, {True: [0], False: [0]}
    read = Branches.read
    with serving(tiny_model, memory_bytes=allowed) as found:
        own = found.server.loop._generation._branches

        def measured(branches: Branches, some: list, num: int | None = None) -> None:
            read(branches, some, num)
            asks = branches is not own
            held[asks].append(own.held_bytes + asks * branches.held_bytes)

        monkeypatch.setattr(Branches, "read", measured)
        bodies = [{"prompt": PROMPT, "seed": seed, "candidates": 3} for seed in (1, 2, 3)]
        with ThreadPoolExecutor() as clients:
            answers = [*clients.map(lambda body: found.ask(IMAGES, body), bodies)]
        assert [status for status, _ in answers] == [200] * 3
        assert found.metric("failed_total") == 0
    assert len(held[True]) == 1 + 3 * 3 * 2 and len(held[False]) > 3
    assert allowed / 2 < max(max(held[True]), max(held[False])) <= allowed
    with serving(tiny_model, memory_bytes=20_000) as found:
        status, answer = found.ask(IMAGES, bodies[0])
        assert status == 400 and "20,000 are allowed: ask for one" in answer["error"]["message"]
        assert answer["error"]["param"] == "candidates"
        assert found.ask(IMAGES, bodies[0] | {"candidates": 1})[0] == 200


def score(one: dict[str, Any]) -> float:
    return math.prod(check["probability"] for check in one["checks"])


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
