"""Images over HTTP: the pixels of a Chat, and the same bytes in every way to ask for them."""

import base64
import hashlib
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, pixels, png
from PIL import Image

import unimodal
from unimodal.codec import ImageCodec
from unimodal.events import Event
from unimodal.generation import Generation
from unimodal.model import Model

PROMPT = "draw a red circle"


def sha256(text: str) -> str:
    return hashlib.sha256(base64.b64decode(text)).hexdigest()


def images(answer: tuple[int, dict]) -> list[str]:
    status, body = answer
    assert status == 200, body
    return [one["b64_json"] for one in body["data"]]


def test_the_openai_client_draws_what_a_chat_draws(served: Served, shipped: Model) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    answer = client.images.generate(
        model="tiny", prompt=PROMPT, n=2, size="64x64", response_format="b64_json",
        extra_body={"seed": 5, "guidance": 2.0},
    )  # fmt: skip
    num_planned = 0
    for number, one in enumerate(answer.data):
        reply = unimodal.Chat(shipped, seed=5 + number, guidance=2.0)(PROMPT, modality="image")
        assert np.array_equal(pixels(one.b64_json), np.asarray(reply.images[0]))
        assert (one.revised_prompt or "") == reply.text.strip()
        num_planned += len(shipped.text_tokenizer.encode(reply.text))
    assert answer.size == "64x64" and answer.output_format == "png"
    drawn = 2 * (shipped.sequencer.layout.length(shipped.grid) + 1)
    assert answer.usage.output_tokens == drawn + num_planned
    assert answer.usage.input_tokens == answer.usage.input_tokens_details.text_tokens > 5


def test_a_seed_means_the_same_alone_and_among_strangers(served: Served, monkeypatch) -> None:
    """All are in work together: no step is taken before the last one waits."""
    asked = {"prompt": PROMPT, "seed": 7, "guidance": 3}
    alone = images(served.ask(IMAGES, asked))
    words = {"messages": [{"role": "user", "content": "hello"}], "seed": 3}
    others = [
        (IMAGES, {"prompt": "draw two blue stars", "seed": 8}),
        (IMAGES, {"prompt": PROMPT, "seed": 9, "guidance": 1, "n": 2}),
        (CHAT, words | {"modalities": ["text"], "temperature": 1}),
        (EDITS, {"prompt": "make it blue", "image": data_url(png()), "seed": 2}),
    ]
    loop, step, all_wait = served.server.loop, Generation.step, threading.Event()
    together: list[int] = []

    def stepped(generation: Generation) -> list[Event]:
        assert all_wait.wait(60)
        together.append(loop.num_working)
        return step(generation)

    monkeypatch.setattr(Generation, "step", stepped)
    with ThreadPoolExecutor() as clients:
        answers = [clients.submit(served.ask, *one) for one in [(IMAGES, asked), *others]]
        while loop.num_working + loop.num_waiting < 6:
            time.sleep(0.01)
        all_wait.set()
    assert [one.result()[0] for one in answers] == [200] * 5 and max(together) == 6
    assert sha256(images(answers[0].result())[0]) == sha256(alone[0])


def test_drafts_give_the_same_bytes_in_fewer_steps(served: Served, monkeypatch) -> None:
    asked = {"prompt": PROMPT, "seed": 7, "guidance": 3}
    steps, step = [], Generation.step
    monkeypatch.setattr(Generation, "step", lambda own: steps.append(1) or step(own))
    one, taken = images(served.ask(IMAGES, asked | {"drafts": 1})), len(steps)
    steps.clear()
    assert images(served.ask(IMAGES, asked)) == one, "as many as the model that ships has"
    assert len(steps) < 0.8 * taken


def test_json_and_forms_give_the_same_bytes(small: Served) -> None:
    files = [png(seed=1), png(seed=2)]
    settings = {"prompt": "put both together", "seed": 11, "guidance": 2.5, "n": 2}
    urls = [data_url(one) for one in files]
    references = [{"image_url": one} for one in urls]
    fields = [(name, str(value)) for name, value in settings.items()]
    ways = [
        images(small.ask(EDITS, settings | {"image": urls})),
        images(small.ask(EDITS, settings | {"images": references})),
        images(small.form(EDITS, [*fields, *(("image[]", one) for one in files)])),
        images(small.form(EDITS, [("image", files[0]), *fields, ("image", files[1])])),
    ]
    assert len(set(ways[0])) == 2 and ways == [ways[0]] * 4
    drawn = images(small.ask(IMAGES, settings)), images(small.form(IMAGES, fields))
    assert drawn[0] == drawn[1] != ways[0]


def test_a_given_image_is_encoded_once_for_all_drawings(small: Served, monkeypatch) -> None:
    encoded: list[int] = []
    encode = ImageCodec.encode

    def counting(codec: ImageCodec, images: list) -> list:
        encoded.append(sum(image.codes is None for image in images))
        return encode(codec, images)

    monkeypatch.setattr(ImageCodec, "encode", counting)
    given = [data_url(png(seed=seed)) for seed in (1, 2)]
    asked = {"prompt": "draw a red circle", "image": given, "seed": 1, "n": 3, "candidates": 2}
    drawn = images(small.ask(EDITS, asked))
    assert len(drawn) == 3 and sum(encoded) == 2


def test_the_openai_client_edits_by_a_form(served: Served, shipped: Model) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    file = png((96, 64), seed=3)
    answer = client.images.edit(
        image=("a.png", file, "image/png"), prompt="make it blue", extra_body={"seed": 4}
    )
    reply = unimodal.Chat(shipped, seed=4)("make it blue", [io.BytesIO(file)], modality="image")
    assert np.array_equal(pixels(answer.data[0].b64_json), np.asarray(reply.images[0]))
    note, why = answer.model_extra["notes"]
    assert note.startswith("image 0: resized and cropped from 96 x 64 to 64 x 64 pixels")
    assert why == "the edit has 64x64 pixels: this model draws no others"


def test_a_stream_shows_the_image_while_it_is_drawn(served: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    events = list(
        client.images.generate(
            model="tiny", prompt=PROMPT, stream=True, partial_images=3, extra_body={"seed": 6}
        )
    )
    kinds = [f"image_generation.{kind}" for kind in ["partial_image"] * 3 + ["completed"]]
    assert [event.type for event in events] == kinds
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    shown = [pixels(event.b64_json) for event in events]
    grey = [int((one == 128).all(-1).sum()) // 64 for one in shown]  # patches of 8 x 8
    late = [due - one for due, one in zip([48, 32, 16, 0], grey, strict=True)]
    assert all(0 <= one <= 8 for one in late), "shares of the drawing, or what a pass drew beyond"
    answer = served.ask(IMAGES, {"prompt": PROMPT, "seed": 6})
    (whole,) = images(answer)
    (planned,) = (one.get("revised_prompt") for one in answer[1]["data"])
    assert getattr(events[-1], "revised_prompt", None) == planned
    assert events[-1].b64_json == whole and events[-1].usage.total_tokens > 70


def test_a_file_says_where_it_comes_from(small: Served, tiny_model: Model) -> None:
    status, body = small.ask(IMAGES, {"prompt": PROMPT})
    assert status == 200
    (drawn,) = body["data"]
    noted = Image.open(io.BytesIO(base64.b64decode(drawn["b64_json"]))).info
    assert noted == {
        "Software": "unimodal",
        "unimodal:model": tiny_model.hash,
        "unimodal:prompt-sha256": hashlib.sha256(PROMPT.encode()).hexdigest(),
        "unimodal:seed": str(drawn["seed"]),
    }
    again = images(small.ask(IMAGES, {"prompt": PROMPT, "seed": drawn["seed"]}))
    other = images(small.ask(IMAGES, {"prompt": PROMPT}))
    assert again == [drawn["b64_json"]] != other, "without a seed there is another one each time"


@pytest.mark.parametrize("names", [("image",), ("image[]", "image[]")])
def test_what_open_webui_sends_to_edit(small: Served, names: tuple[str, ...]) -> None:
    """As its router writes a form with aiohttp, whose texts name their type (open-webui #20639)."""
    texts = {"model": "tiny", "prompt": PROMPT, "n": "1", "size": "16x24"}
    form = b"".join(
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; "
        b'name="%b"\r\n\r\n%b\r\n' % (name.encode(), text.encode())
        for name, text in (texts | {"response_format": "b64_json"}).items()
    )
    for number, name in enumerate(names):
        form += (
            b"--b\r\nContent-Type: image/png\r\nContent-Disposition: form-data; "
            b'name="%b"; filename="%d.png"\r\n\r\n' % (name.encode(), number)
        ) + png(seed=number) + b"\r\n"  # fmt: skip
    kind = "multipart/form-data; boundary=b"
    status, _, answer = small.send("POST", EDITS, form + b"--b--\r\n", Content_Type=kind)
    assert status == 200 and len(json.loads(answer)["data"]) == 1


def test_models_and_settings_that_are_one(small: Served, tiny_model: Model) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=small.url, api_key="none", max_retries=0)
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id) == model
    assert model.id == "tiny" and model.model_extra["hash"] == tiny_model.hash
    # What Open WebUI sends for an image.
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "n": 1,
        "size": "16x24",
        "response_format": "b64_json",
    }
    assert len(images(small.ask(IMAGES, body))) == 1
    usual = {"quality": "auto", "background": "opaque", "output_format": "png", "user": "ann",
             "moderation": None, "style": None}  # fmt: skip
    assert len(images(small.ask(IMAGES, body | usual))) == 1
    assert json.loads(small.get("/health")[1])["status"] == "ok"
