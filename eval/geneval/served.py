"""Draw GenEval's prompts with a model behind a server that speaks OpenAI's image generations.

In: a server, prompts, how many images of each. Out: the folder (folder.py), as `drawing.draw`
fills it; images that are there stay. Images come back inside the replies, as base64: a reply that
names an address is refused, for nothing is fetched.

OpenAI's protocol has no seed: another run draws other images, and the recipe says so.
"""

import base64
import binascii
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unimodal.atomic import write_bytes
from unimodal.tokenizer.pixels import ImageError, open_image
from unimodal.transcript import png_bytes

from ..answerers.endpoint import Endpoint
from ..predictions import PredictionsFile
from ..report import progress
from ..score import digest
from .drawing import MOST_SAMPLES, Rewriting
from .folder import DRAWN, id_of, sample_file, write_grid, write_prompt
from .prompts import Prompt, prompts_hash

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Painter:
    """A model that draws behind a server."""

    endpoint: Endpoint
    model: str
    size: str
    """Width and height in pixels as the server wants it, '1024x1024'."""
    asks_base64: bool = False
    """Whether to say `response_format`: older servers need it, OpenAI's models refuse it."""

    def image(self, text: str) -> Image.Image:
        """Return an image of a prompt; ValueError where the server sent none."""
        body = {"model": self.model, "prompt": text, "n": 1, "size": self.size}
        form = {"response_format": "b64_json"} if self.asks_base64 else {}
        reply = self.endpoint.post("images/generations", body | form)
        try:
            return open_image(base64.b64decode(_content(reply), validate=True)).image
        except (binascii.Error, ImageError) as error:
            raise ValueError(f"{self.endpoint.url}, {text!r}: no image came: {error}") from error

    def recipe(self) -> dict[str, Any]:
        """Return what is known of how images are drawn."""
        return {
            "model": self.model, "revision": UNKNOWN, "hash": UNKNOWN,
            "server": self.endpoint.url, "resolution": self.size, "seed": UNKNOWN,
        }  # fmt: skip


def draw_served(
    painter: Painter,
    prompts: Sequence[Prompt],
    root: Path,
    samples: int,
    rewriting: Rewriting | None = None,
    batch: int = 4,
) -> None:
    """Draw `samples` images of each prompt, those that are not there yet, `batch` at a time.

    ValueError where the folder holds images of other prompts, or drawn otherwise or by others.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"{samples} images of each prompt: give 1 to {MOST_SAMPLES}")
    texts = [prompt.text for prompt in prompts] if rewriting is None else list(rewriting.texts)
    recipe = {
        **painter.recipe(),
        "prompts": prompts_hash(prompts), "num_prompts": len(prompts),
        "rewriter": None if rewriting is None else rewriting.rewriter,
        "rewritten": None if rewriting is None else digest(rewriting.texts),
        "samples_per_prompt": samples,
    }  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    every = [(number, sample) for number in range(len(prompts)) for sample in range(samples)]
    files = {id_of(*one): sample_file(root, *one) for one in every}
    with PredictionsFile.of_images(root / DRAWN, recipe, files) as kept:
        for number, prompt in enumerate(prompts):
            write_prompt(root, number, prompt)
        missing = [one for one in every if id_of(*one) not in kept]
        with ThreadPoolExecutor(batch) as pool:
            for first in progress(range(0, len(missing), batch), "geneval"):
                some = missing[first : first + batch]
                images = pool.map(lambda one: painter.image(texts[one[0]]), some)
                for (number, sample), image in zip(some, images, strict=True):
                    write_bytes(sample_file(root, number, sample), png_bytes(image))
                    kept[id_of(number, sample)] = {"prompt": texts[number], "seed": UNKNOWN}
    for number in range(len(prompts)):
        write_grid(root, number, samples)


def _content(reply: dict[str, Any]) -> str:
    """Return the base64 of the first image in a reply."""
    try:
        content = reply["data"][0]["b64_json"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            "the server sent no image inside its reply, and nothing is fetched; --base64 asks for "
            f"it: {reply!r:.200}"
        ) from error
    if not isinstance(content, str):
        raise ValueError(f"an image is base64, not {content!r:.80}")
    return content
