"""Pairs of images to choose from: of the same prompt, one of A and one of B.

In: two folders in GenEval's layout, of the same prompts. Out: `Pairs`, every image of which was
opened, and for each voter an order and sides that follow from the seed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.tokenizer.pixels import open_image

from ..geneval.folder import Drawn, read_folder
from ..geneval.prompts import Prompt, prompts_hash
from ..geneval.scoring import DRAWING, UNKNOWN
from ..report import progress

A, B = "a", "b"


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt, A's and B's."""

    id: str
    """As GenEval names images: 00012/0003."""
    prompt: Prompt
    files: dict[str, Path]
    """By A and B."""


@dataclass(frozen=True)
class Pairs:
    """All pairs, and what they are of."""

    pairs: tuple[Pair, ...]
    recipe: dict[str, Any]
    largest_side: int
    """Of any image, in pixels."""


def read_pairs(
    a: Path, b: Path, names: tuple[str, str], prompts: Sequence[Prompt], seed: int
) -> Pairs:
    """Return the pairs of two folders; ValueError where one is half-finished or of other prompts,
    and where an image is broken.
    """
    first, second = read_folder(a, prompts), read_folder(b, prompts)
    if first.samples != second.samples:
        raise ValueError(
            f"{a} has {first.samples} images of each prompt and {b} {second.samples}: draw as many"
        )
    pairs = tuple(
        Pair(id, prompt, {A: file, B: other})
        for (id, prompt, file), (_, _, other) in zip(first.images(), second.images(), strict=True)
    )
    opened = {A: _opened(pairs, A), B: _opened(pairs, B)}
    recipe = {
        "evaluation": "arena", "a": names[0], "b": names[1], "prompts": prompts_hash(prompts),
        "pairs": len(pairs), "samples_per_prompt": first.samples, "seed": seed,
        **_drawn(A, first), **_drawn(B, second),
        "a_images": opened[A][0], "b_images": opened[B][0],
    }  # fmt: skip
    return Pairs(pairs, recipe, max(side for _, side in opened.values()))


def order(pairs: Sequence[Pair], seed: int, voter: str) -> list[Pair]:
    """Return the pairs in the order in which a voter sees them."""
    return sorted(pairs, key=lambda pair: _number(seed, voter, pair.id, "order"))


def left_of(pair: Pair, seed: int, voter: str) -> str:
    """Return which of A and B a voter sees on the left."""
    return (A, B)[_number(seed, voter, pair.id, "side") % 2]


def _number(seed: int, *words: str) -> int:
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *words]).encode()).digest())


def _drawn(side: str, drawn: Drawn) -> dict[str, Any]:
    """Return how a side's images were drawn, `unknown` where nobody recorded it."""
    return {f"{side}_{name}": drawn.recipe.get(name, UNKNOWN) for name in DRAWING}


def _opened(pairs: Sequence[Pair], side: str) -> tuple[str, int]:
    """Open every image of A or B; return the SHA-256 of all files and the largest side in pixels.

    ImageError names one that is broken.
    """
    found, largest = hashlib.sha256(), 0
    for pair in progress(pairs, f"images of {side.upper()}"):
        largest = max(largest, *open_image(pair.files[side]).image.size)
        found.update(hashlib.sha256(pair.files[side].read_bytes()).digest())
    return found.hexdigest(), largest
