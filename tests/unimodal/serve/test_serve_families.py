"""Other people's models over HTTP: small random ones, loaded as the command does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_models as made
import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, pixels, png, serving

import unimodal
from unimodal.model import Model
from unimodal.terminal import load_named
from unimodal.tokenizer.grid import Grid

LIMITS = {"requests_a_minute": 1000, "memory_bytes": 2**27}


def user(words: str, *images: str) -> dict[str, Any]:
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return {"role": "user", "content": [*shown, {"type": "text", "text": words}]}


def loaded(directory: Path) -> Model:
    return load_named(directory, "cpu", "fp32", None)


def test_janus_draws_answers_and_sees_what_it_drew(tmp_path: Path) -> None:
    """The same conversation as a Chat's, at the cost of its new turn alone."""
    model = loaded(made.save_janus(tmp_path / "janus", made.janus_model()))
    chat = unimodal.Chat(model, seed=3, max_text_tokens=6)
    with serving(model, **LIMITS) as served:
        messages = [user("a dog")]
        drawn = _answer(served, messages, 3, ["image"])
        (image,) = drawn["message"]["images"]
        expected = chat("a dog", modality="image")
        np.testing.assert_array_equal(pixels(image["image_url"]["url"]), expected.images[0])
        messages += [drawn["message"], user("what is this?", data_url(png((40, 20), 1)))]
        before = served.metric("tokens_read_total")
        said = _answer(served, messages, 4, ["text"])
        first = served.metric("tokens_read_total") - before
        messages += [said["message"], user("sure?")]
        again = _answer(served, messages, 5, ["text"])
        photo = tmp_path / "photo.png"
        photo.write_bytes(png((40, 20), 1))
        assert said["message"]["content"] == chat("what is this?", [photo], "text").text
        assert again["message"]["content"] == chat("sure?", modality="text").text
        # Two images of 36 vectors were read once.
        assert served.metric("tokens_read_total") - before - first < 36 < first
        status, refused = served.ask(
            CHAT, {"messages": [user("bluer", data_url(png()))], "modalities": ["image"]}
        )
        assert status == 400 and "draws from words alone" in refused["error"]["message"]
        status, best = served.ask(IMAGES, {"prompt": "a dog", "seed": 3, "candidates": 2})
        assert status == 200 and best["data"][0]["checks"][0]["question"] == "is there a dog?"
        files = {"prompt": "bluer", "image": data_url(png())}
        status, refused = served.ask(EDITS, files)
        assert status == 400 and "draws from words alone" in refused["error"]["message"]


def _answer(served: Served, messages: list[Any], seed: int, modalities: list[str]) -> Any:
    body = {"messages": messages, "seed": seed, "modalities": modalities}
    body |= {} if modalities == ["image"] else {"max_tokens": 6}
    status, answer = served.ask(CHAT, body)
    assert status == 200, answer
    notes = answer.get("notes", [])
    assert len(messages) == 1 or modalities == ["text"] or "latest message" in notes[0]
    return answer["choices"][0]


def test_a_request_to_draw_says_what_it_does_not_read(tmp_path: Path) -> None:
    model = loaded(made.save_janus(tmp_path / "janus", made.janus_model()))
    talk = [user("a dog"), {"role": "assistant", "content": "yes"}, user("a cat")]
    with serving(model, **LIMITS) as served:
        body = {"seed": 1, "modalities": ["image"]}
        status, answer = served.ask(CHAT, body | {"messages": talk})
        assert status == 200
        assert answer["notes"] == ["this model draws from the latest message alone"]
        _, alone = served.ask(CHAT, body | {"messages": talk[-1:]})
        assert answer["choices"] == alone["choices"] and answer["usage"] == alone["usage"]
        _, image = served.ask(IMAGES, {"prompt": "a cat", "seed": 1})
        url = alone["choices"][0]["message"]["images"][0]["image_url"]["url"]
        np.testing.assert_array_equal(pixels(url), pixels(image["data"][0]["b64_json"]))


def test_a_request_that_says_its_size_is_served(tmp_path: Path) -> None:
    """Lumina-mGPT draws what a Chat draws, from the latest message."""
    model = loaded(made.save_lumina(tmp_path / "lumina", made.lumina_model()))
    model = replace(model, grid=Grid(2, 4))
    with serving(model, **LIMITS) as served:
        status, image = served.ask(IMAGES, {"prompt": "a cat", "seed": 1, "size": "64x32"})
        assert status == 200, image
        (drawn,) = unimodal.Chat(model, seed=1)("a cat", modality="image").images
        np.testing.assert_array_equal(pixels(image["data"][0]["b64_json"]), drawn)
        status, refused = served.ask(IMAGES, {"prompt": "a cat", "size": "64x64"})
        assert status == 400 and "64x32" in refused["error"]["message"]


@pytest.mark.parametrize("name", ["chat", "chameleon"])
def test_a_model_that_reads_alone_answers_in_words(name: str, tmp_path: Path) -> None:
    if name == "chat":
        model = loaded(made.save_emu3(tmp_path / name, made.emu3_model(131072)))
    else:
        model = loaded(made.save_chameleon(tmp_path / name, made.chameleon_model()))
    with serving(model, **LIMITS) as served:
        messages = [user("what is this?", data_url(png((48, 40))))]
        status, answer = served.ask(CHAT, {"messages": messages, "max_tokens": 5, "seed": 2})
        assert status == 200 and "images" not in answer["choices"][0]["message"]
        photo = tmp_path / "photo.png"
        photo.write_bytes(png((48, 40)))
        chat = unimodal.Chat(model, seed=2, max_text_tokens=5)
        expected = chat("what is this?", [photo]).text
        assert (answer["choices"][0]["message"]["content"] or "").strip() == expected
        for path, body in ((CHAT, {"messages": messages, "modalities": ["image"]}),
                           (IMAGES, {"prompt": "a dog"})):  # fmt: skip
            status, refused = served.ask(path, body)
            assert status == 400 and "this model" in refused["error"]["message"]
        if name == "chat":  # whose authors take no longer images
            long = [user("what?", data_url(png((120, 20))))]
            status, refused = served.ask(CHAT, {"messages": long})
            assert status == 400 and "too long" in refused["error"]["message"]
