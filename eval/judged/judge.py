"""A judge: looks at an image and says how probable it is that its answer begins with a word.

In: images, each with a question and the words that are of interest. Out: for each word the token
that begins it and the probability of that token as the first one of the answer. An answer that is
sampled would be another one each time; this is a number.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image as PILImage

YES = ("Yes", "yes", " yes", " Yes")
NO = ("No", "no", " no", " No")
KNOWN, COLOURS = "Is this image {}? Answer yes or no.", ("red", "blue", "yellow", "black")
ROUNDING = 1e-4  # by which a sum of half-precision probabilities may leave 1


@dataclass(frozen=True, eq=False)
class Look:
    """What a judge is asked about an image."""

    image: PILImage.Image
    question: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Begun:
    """How a word begins: its first token, and the probability of that."""

    token: str
    p: float


Begins = dict[str, Begun]
"""By word."""


class Judge(ABC):
    """A model that answers questions about images; numbers carry its name."""

    name: str
    """Of model and version."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what its answers depend on beside its name: hashes, versions; JSON."""

    @abstractmethod
    def look(self, asked: Sequence[Look]) -> list[Begins]:
        """Return how probably each of the words begins the answer; ValueError for no answer."""


def probability(begins: Begins, words: Sequence[str], once: bool, name: str) -> float:
    """Return the probability that an answer begins with one of the words.

    once: a token that begins several of them counts once; else as often, as GenEval 2's own script
    has it. ValueError where the sum is no probability.
    """
    found = [begins[word] for word in words]
    chosen = list({one.token: one for one in found}.values()) if once else found
    total = math.fsum(one.p for one in chosen)
    if not once and total > 1 + ROUNDING:
        raise ValueError(
            f"{name} begins several of {', '.join(map(repr, words))} with one token, whose "
            f"probability would count several times ({total:.3f}): give --each-token-once"
        )
    return checked(total, f"{name}, {words[0]!r}")


def checked(p: Any, place: str) -> float:
    """Return a number that is a probability; ValueError for any other."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1 + ROUNDING:
        raise ValueError(f"{place}: {p!r} is no probability; nothing is scored")
    return float(p)


def known_colours(judge: Judge) -> str:
    """Return how many questions about plain colours a judge answers right, as "8 of 8".

    A judge that was loaded wrongly, or that a server gives no images, still answers: by this it is
    told. Half of the questions are of the colour that is shown, half of the next one.
    """
    pairs = [(one, COLOURS[(at + step) % len(COLOURS)]) for at, one in enumerate(COLOURS)
             for step in (0, 1)]  # fmt: skip
    asked = [
        Look(PILImage.new("RGB", (64, 64), shown), KNOWN.format(said), YES + NO)
        for shown, said in pairs
    ]
    right = 0
    for (shown, said), begins in zip(pairs, judge.look(asked), strict=True):
        yes, no = (probability(begins, words, True, judge.name) for words in (YES, NO))
        right += (yes > no) == (shown == said)
    return f"{right} of {len(pairs)}"
