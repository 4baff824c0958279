"""The shipped model's words end by themselves, whatever image it is shown."""

from collections import Counter
from dataclasses import replace

import numpy as np
from real_input.try_it import IMAGES, images

from unimodal.bundle import DEFAULT, load
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.generation import stream
from unimodal.tokenizer.pixels import fit, open_image

ASKED = ("what do you see?", "how many objects are there?", "describe this picture in detail")
SIDE = 64


def odd_images() -> list[np.ndarray]:
    """Return images that no world of ours makes: noise, flat pages, ramps, stripes, checks."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    across, down = np.meshgrid(ramp, ramp)
    stripes, checks = (across // 16) % 2 * 255, (across // 8 + down // 8) % 2 * 255
    grey = [np.full((SIDE, SIDE), level, np.uint8) for level in (0, 127, 255)]
    shown = [np.repeat(one[..., None], 3, 2) for one in (*grey, across, down, stripes, checks)]
    shown += [np.stack([across, down, across[::-1]], 2)]
    shown += [rng.integers(0, high, (SIDE, SIDE, 3), np.uint8) for high in (32, 128, 256)]
    return [one.astype(np.uint8) for one in shown]


def test_greedy_words_about_any_image_end() -> None:
    """Without anything that forbids repetition; images of other programs are shown too."""
    model = load(DEFAULT)
    others = [fit(open_image(IMAGES / one["file"]).image, model.canvas) for one in images()]
    shown = [Document((Image(np.asarray(one), role="user"),)) for one in (*odd_images(), *others)]
    asked = [
        Document((*document.parts, Text(text, role="user")))
        for document in model.codec.encode_documents(shown)
        for text in ASKED
    ]
    greedy = replace(model.sampling, text_temperature=0.0)
    ends = Counter(e.end for e in stream(model, asked, greedy) if isinstance(e, ReplyDone))
    assert ends == {"stop": 3 * (11 + 42)}
