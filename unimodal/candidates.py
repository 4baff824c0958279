"""Candidates are replies to one request with seeds s, s + 1, ..., of which the best is kept.

1. All are drawn in one batch. Each has the pixels that its seed draws alone.
2. A reply is judged by its first image (checking.py), and the best of those with an image is kept;
   where none has one, it is the reply of the first seed.
3. What the model could not satisfy is said with the kept reply.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .checking import Judgement, best, judged, needed_bytes
from .checks import Check
from .document import Image, Part
from .events import Event, ImageProgress, ReplyDone
from .sampling import Sampling

if TYPE_CHECKING:
    from .model import Model

MAX_CANDIDATES = 8
UNCHECKED = "drawn once: these words name nothing that can be asked about"
NUM_SEEDS = 2**64


@dataclass(frozen=True)
class Kept:
    """A Kept says which candidate was kept, by its number from 0, and how all were judged."""

    number: int
    judgements: Mapping[int, Judgement]
    """By the candidate's number, of those with an image."""

    @property
    def judgement(self) -> Judgement | None:
        """Return how the kept one was judged; None: no candidate has an image."""
        return self.judgements.get(self.number)

    def said(self, sampling: Sampling, num: int) -> str:
        """Return this in words; `sampling` is that of the first candidate."""
        first, last, kept = (seed_of(sampling, n) for n in (0, num - 1, self.number))
        return f"seed {kept} is kept, of {first} to {last}: {self.judgement}"


def check_num(num: int) -> None:
    """Raise ValueError for a number of candidates that there cannot be."""
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= MAX_CANDIDATES:
        raise ValueError(f"candidates {num!r}: a whole number from 1 to {MAX_CANDIDATES} is wanted")


def seed_of(sampling: Sampling, number: int) -> int:
    """Return the seed of a candidate."""
    return (sampling.seed + number) % NUM_SEEDS


def samplings_of(sampling: Sampling, num: int) -> list[Sampling]:
    """Return the samplings of `num` candidates."""
    return [replace(sampling, seed=seed_of(sampling, number)) for number in range(num)]


def choose(model: "Model", replies: Sequence[Sequence[Part]], checks: Sequence[Check]) -> Kept:
    """Return which of some replies is kept; their images have codes or latents."""
    judgements = {
        number: judged(model, image, checks)
        for number, parts in enumerate(replies)
        if (image := _first_image(parts)) is not None
    }
    if not judgements:
        return Kept(0, {})
    return Kept([*judgements][best([*judgements.values()])], judgements)


def choice_bytes(model: "Model", replies: Sequence[Sequence[Part]], checks: Sequence[Check]) -> int:
    """Return the most bytes of keys and values that `choose` holds at once."""
    images = [image for parts in replies if (image := _first_image(parts)) is not None]
    return needed_bytes(model, images[0], checks) if images else 0  # they are of one size


def _first_image(parts: Sequence[Part]) -> Image | None:
    return next((part for part in parts if isinstance(part, Image)), None)


def best_of(
    model: "Model", events: Iterable[Event], checks: Sequence[Check], num: int
) -> Iterator[Event | Kept]:
    """Yield how far `num` candidates are, then which is kept, then the events of that one.

    events: those of all candidates, whose requests are numbered in the order of their seeds.
    """
    progress: dict[int, ImageProgress] = {}
    heard: dict[int, list[Event]] = {}
    done: dict[int, ReplyDone] = {}
    for event in events:
        if isinstance(event, ImageProgress):
            progress[event.request] = event
            yield _together(progress, num)
            continue
        heard.setdefault(event.request, []).append(event)
        if isinstance(event, ReplyDone):
            done[event.request] = event
    numbers = sorted(done)
    kept = choose(model, [done[number].parts for number in numbers], checks)
    yield kept
    yield from heard[numbers[kept.number]]


def _together(progress: dict[int, ImageProgress], num: int) -> ImageProgress:
    """Return how far all candidates are together; nobody knows yet what the image will be."""
    first = min(progress)
    total = progress[first].total * num
    return ImageProgress(first, sum(one.done for one in progress.values()), total)
