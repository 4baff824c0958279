"""NLVR's three boxes as three images, and more of them: `python -m unimodal.data.nlvr_boxes`.

    python -m unimodal.data.nlvr_boxes nlvr-dev.tar shards/nlvr --colours --held-out 0.1
    python -m unimodal.data.nlvr_boxes nlvr-test.tar shards/nlvr_test

In: a shard of NLVR (Suhr et al. 2017), samples of a 400 x 100 .png and a .json of sentence, label
and identifier. Out: shards whose samples have a .png a box and the same .json, with the sentence as
a question of yes or no beside it, and without `structured_rep`, which describes the image and is
never read here.

With `colours` each sample is there six times: black, yellow and blue change places in the pixels
and in the sentence alike, which leaves true what was true, and every other sample has each box
mirrored, unless its sentence speaks of left or right. With `held_out` that share of the sentences,
each with all its images, goes as it is into OUTPUT_held_out.
"""

import argparse
import hashlib
import io
import json
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image

from unimodal.tokenizer.pixels import open_image

from .shards import Shard, ShardWriter

SIZE = (400, 100)  # pixels, width and height of NLVR's images
STARTS, BOX = (0, 150, 300), 100  # where boxes begin, and their side
GROUND = np.array((211, 211, 211), np.float32)
INKS = {"black": (0, 0, 0), "yellow": (255, 255, 0), "blue": (0, 153, 255)}
NAMES = tuple(INKS)
OF_COLOUR = re.compile("|".join(NAMES), re.IGNORECASE)
ASKED = "Is this true?"
OF_SIDES = re.compile("left|right", re.IGNORECASE)


def boxes(image_HW3: np.ndarray, side: int) -> list[np.ndarray]:
    """Return the three boxes of an image, uint8 (side, side, 3) each."""
    if image_HW3.shape[:2] != SIZE[::-1]:
        height, width = image_HW3.shape[:2]
        raise ValueError(
            f"an image of {width} x {height} pixels: NLVR's are of {SIZE[0]} x {SIZE[1]}"
        )
    cut = [Image.fromarray(image_HW3[:, start : start + BOX]) for start in STARTS]
    return [np.asarray(one.resize((side, side), Image.Resampling.LANCZOS)) for one in cut]


def recoloured(image_HW3: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Return the image with black, yellow and blue drawn in the colours of `order`.

    The linear map that takes each ink, less the ground, to its new one takes every mixture of ink
    and ground along: the soft edges of shapes.
    """
    before_33, after_33 = (
        np.array([INKS[name] for name in names], np.float32) - GROUND for names in (NAMES, order)
    )
    drawn_HW3 = GROUND + (image_HW3 - GROUND) @ np.linalg.solve(before_33, after_33)
    return np.rint(drawn_HW3.clip(0, 255)).astype(np.uint8)


def renamed(sentence: str, order: tuple[str, ...]) -> str:
    """Return the sentence with the names of `order` for black, yellow and blue."""
    new = dict(zip(NAMES, order, strict=True))
    return OF_COLOUR.sub(lambda found: new[found[0].lower()], sentence)


def write(
    source: Path, output: Path, side: int = 64, colours: bool = False, held_out: float = 0.0
) -> None:
    """Write the boxes of a shard of NLVR into the folder `output`, and those held out beside it."""
    with ShardWriter(output) as learned, ShardWriter(Path(f"{output}_held_out")) as apart:
        for key, image_HW3, fields in _samples(source):
            if _share(str(fields["identifier"]).split("-")[0]) < held_out:
                apart.write_files(key, _files(boxes(image_HW3, side), fields))
                continue
            orders = list(permutations(NAMES)) if colours else [NAMES]
            for number, order in enumerate(orders):
                cut = boxes(recoloured(image_HW3, order) if colours else image_HW3, side)
                words = renamed(str(fields["sentence"]), order)
                name = f"{key}-{number}" if colours else key
                if colours and _share(name) < 0.5 and not OF_SIDES.search(words):
                    cut = [box[:, ::-1] for box in cut]
                learned.write_files(name, _files(cut, fields | {"sentence": words}))


def _samples(source: Path) -> Iterator[tuple[str, np.ndarray, dict[str, object]]]:
    """Yield the keys, pixels and fields of a shard of NLVR."""
    shard = Shard(source)
    for number in range(len(shard)):
        sample = shard.sample(number)
        place = f"{source}, key {sample.key}"
        fields = {name: sample.fields.get(name) for name in ("sentence", "label", "identifier")}
        if missing := [name for name, value in fields.items() if value is None]:
            raise ValueError(f"{place}: no {' and no '.join(missing)}")
        if len(sample.image_files) != 1:
            raise ValueError(f"{place}: {len(sample.image_files)} images, and one is wanted")
        image = open_image(sample.files[sample.image_files[0]]).image
        yield sample.key, np.asarray(image.convert("RGB")), fields


def _files(cut: list[np.ndarray], fields: dict[str, object]) -> dict[str, bytes]:
    """Return the files of a sample: an image a box, its fields, and what is asked of them."""
    files = {f"{at}.png": _png(box) for at, box in enumerate(cut)}
    question = f"{str(fields['sentence']).rstrip('.')}. {ASKED}"
    answer = "yes" if str(fields["label"]).lower() == "true" else "no"
    asked = {**fields, "question": question, "answer": answer}
    return files | {"json": json.dumps(asked).encode()}


def _png(image_HW3: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_HW3).save(stream, "PNG")
    return stream.getvalue()


def _share(name: str) -> float:
    """Return a number from 0 to 1 that a name alone decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def main() -> None:
    """Write shards as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m unimodal.data.nlvr_boxes")
    parser.add_argument("source", type=Path, help="a shard of NLVR")
    parser.add_argument("output", type=Path, help="the folder of the new shards")
    parser.add_argument("--side", type=int, default=64, help="pixels of a box's side")
    parser.add_argument("--colours", action="store_true", help="six times, colours changed")
    parser.add_argument("--held-out", type=float, default=0.0, help="share of sentences apart")
    options = parser.parse_args()
    write(options.source, options.output, options.side, options.colours, options.held_out)


if __name__ == "__main__":
    main()
