"""Conversations over HTTP: what a Chat says and draws, at the cost of the new turn alone."""

import json
import threading
import time
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
from api_server import CHAT, IMAGES, Served, data_url, pixels, png, serving

import unimodal
from unimodal.model import Model


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def shown(content: bytes, words: str) -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": data_url(content)}}
    return [image, {"type": "text", "text": words}]


def test_the_openai_client_describes_an_image(served: Served, shipped: Model, tmp_path) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    file = tmp_path / "a.png"
    file.write_bytes(png(seed=5))
    asked = [user(shown(file.read_bytes(), "what do you see?"))]
    answer = client.chat.completions.create(model="tiny", messages=asked, seed=1)
    reply = unimodal.Chat(shipped, seed=1)("what do you see?", [file])
    (choice,) = answer.choices
    assert choice.message.content.strip() == reply.text != ""
    assert choice.finish_reason == "stop" and answer.usage.prompt_tokens > 76
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=asked, seed=1, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    told = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(told) == choice.message.content and len([one for one in told if one]) > 1
    assert chunks[-1].usage == answer.usage


def test_a_conversation_is_a_chat_and_costs_its_new_turn(served: Served, shipped: Model) -> None:
    """Draw, edit, edit, ask: what comes back is read as it was drawn."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    chat, messages, read = unimodal.Chat(shipped, seed=20), [], []
    turns = (("draw a big red circle", "image"), ("make it blue", "image"),
             ("make it green", "image"), ("what do you see?", "text"))  # fmt: skip
    for number, (words, modality) in enumerate(turns):
        messages.append(user(words))
        before = served.metric("tokens_read_total")
        answer = client.chat.completions.create(
            model="tiny", messages=messages, seed=20 + number, modalities=[modality],
            extra_body={"guidance": 1},
        )  # fmt: skip
        read.append(served.metric("tokens_read_total") - before)
        message = answer.choices[0].message
        chat.sampling = chat.sampling.__class__(
            **{**vars(chat.sampling), "guidance": 1.0, "seed": 20 + number}
        )
        reply = chat(words, modality=modality)
        assert (message.content or "").strip() == reply.text
        found = [pixels(one["image_url"]["url"]) for one in message.model_extra.get("images", ())]
        assert len(found) == len(reply.images) == (modality == "image")
        for mine, theirs in zip(found, reply.images, strict=True):
            assert np.array_equal(mine, np.asarray(theirs))
        messages.append(message.model_dump())
    assert max(read[1:3]) <= read[0] + 10, f"turns read {read} tokens: the later ones no more"


def test_partial_images_and_interleaved_words_stream(served: Served) -> None:
    body = {"messages": [user("draw a red circle")], "seed": 2, "modalities": ["image"]}
    _, whole = served.ask(CHAT, body)
    message = whole["choices"][0]["message"]
    (image,), plan = message["images"], message["content"] or ""
    assert (image["index"], image["position"]) == (0, len(plan))
    streamed = {"stream": True, "partial_images": 1}
    _, head, content = served.send(
        "POST", CHAT, json.dumps(body | streamed).encode(), Content_Type="application/json"
    )
    assert head["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == plan
    first, *words, partial, drawn, last = (sorted(delta) for delta in deltas)
    assert first == ["content", "role"] and all(one == ["content"] for one in words)
    assert (partial, drawn, last) == (["partial_images"], ["images"], [])
    assert deltas[-2]["images"] == [image]
    half = pixels(deltas[-3]["partial_images"][0]["image_url"]["url"])
    assert int((half == 128).all(-1).sum()) == 32 * 64


def test_words_and_images_come_back_in_their_order(drawing_model: Model) -> None:
    """Of a model that says ok and draws: its answer, sent back, is read as it was said."""
    with serving(drawing_model) as found:
        asked = {"messages": [user("draw")], "seed": 1}
        message = found.ask(CHAT, asked)[1]["choices"][0]["message"]
        assert message["content"] == "ok" and [one["position"] for one in message["images"]] == [2]
        beside = asked["messages"] + [message, user("again")]
        inside = [{"type": "text", "text": "ok"}, {"type": "image_url"} | {
            "image_url": message["images"][0]["image_url"]}]  # fmt: skip
        within = [*asked["messages"], {"role": "assistant", "content": inside}, user("again")]
        answers = [found.ask(CHAT, asked | {"messages": one})[1] for one in (beside, within)]
        assert answers[0]["usage"] == answers[1]["usage"]
        assert answers[0]["choices"] == answers[1]["choices"]


def test_who_leaves_stops_the_work(served: Served) -> None:
    """One leaves a stream at its first event, one leaves before its whole answer."""
    before = served.metric("cancelled_total")
    for stream in (True, False):
        body = {"prompt": "draw a red circle", "guidance": 3, "stream": stream}
        connection = HTTPConnection("127.0.0.1", served.port, timeout=30)
        more = {"partial_images": 3} if stream else {"n": 8}
        content = json.dumps(body | more)
        connection.request("POST", IMAGES, content, {"Content-Type": "application/json"})
        if stream:
            connection.getresponse().read(10)
        else:
            while not json.loads(served.get("/health")[1])["working"]:
                time.sleep(0.005)
        assert json.loads(served.get("/health")[1])["working"] > 0
        connection.close()
        connection.sock = None
        served.wait_for_rest()
    assert served.metric("cancelled_total") == before + 9


def test_health_answers_while_others_draw(served: Served) -> None:
    def draw() -> None:
        served.ask(IMAGES, {"prompt": "draw two red circles", "guidance": 3, "n": 4})

    thread, times, seen = threading.Thread(target=draw), [], []
    thread.start()
    while thread.is_alive():
        start = time.monotonic()
        seen.append(json.loads(served.get("/health")[1])["working"])
        times.append(time.monotonic() - start)
        time.sleep(0.01)
    assert max(seen) == 4 and sorted(times)[len(times) // 2] < 1, "it does not wait for the drawing"
