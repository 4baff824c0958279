"""Ask a model a benchmark's questions three times: as they are, without images, with wrong images.

In: a task, its items, and how to ask. Out: requests for `eval/run.py`, whose predictions hold the
question, what is expected and the answer: all that judging needs.

The wrong image of an item is that of the next in a seeded round of all distinct ones, so that each
image serves as often as before, and none for its own question. An item beside whose images there is
no other set of as many is not asked so.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unimodal.document import Document, Image, Part, Text
from unimodal.sampling import Sampling

from ..answer import Answer
from ..run import Evaluator, Turn, Turns
from ..score import Prediction
from .item import Item
from .mmmu import PLACE
from .pictures import Pictures, name_of
from .task import Task

SEEN, BLIND, SHUFFLED = PASSES = ("seen", "blind", "shuffled")
PLACES = re.compile(r"\{question\}|\{options\}")
Images = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Asked:
    """A question as one of the passes asks it."""

    item: Item
    asked: str
    images: Images

    @property
    def id(self) -> str:
        """Return the pass and the item's id."""
        return f"{self.asked}/{self.item.id}"


class VqaEvaluator(Evaluator[Asked]):
    """Asks all questions in all passes, greedily and for words alone."""

    def __init__(
        self, task: Task, items: Sequence[Item], pictures: Pictures, template: str, seed: int,
        sampling: Sampling, passes: Sequence[str] = PASSES,
    ) -> None:  # fmt: skip
        """Raise ValueError where the template has no place for the question."""
        check_template(template, task)
        self.name, self._task, self._items, self._pictures = task.name, task, items, pictures
        self._template, self._seed, self._sampling = template, seed, sampling
        self._passes = passes

    def requests(self) -> Iterator[Asked]:
        """Yield the questions of each pass: as they are, without images, with wrong ones."""
        return (one for one in self._all() if one.asked in self._passes)

    def _all(self) -> Iterator[Asked]:
        yield from (Asked(item, SEEN, item.images) for item in self._items)
        yield from (Asked(item, BLIND, ()) for item in self._items)
        wrong = wrong_images(self._items, self._seed)
        for item, images in zip(self._items, wrong, strict=True):
            if images is not None:
                yield Asked(item, SHUFFLED, images)

    def turns(self, request: Asked) -> Turns:
        """Show the images where the question has its places for them, or before it."""
        images = [
            Image(pixels=self._pictures.pixels(image), role="user") for image in request.images
        ]
        document = Document(tuple(placed(self.prompt(request.item), images)))
        yield Turn(document, self._sampling, "text")

    def score(self, request: Asked, answer: Answer) -> Prediction:
        """Return the answer with all that judging needs."""
        item = request.item
        return {
            "item": item.id, "pass": request.asked, "kind": item.kind, "group": item.group,
            "prompt": self.prompt(item), "expected": item.expected, "answer": answer.text,
        }  # fmt: skip

    def prompt(self, item: Item) -> str:
        """Return the words of an item's prompt, places of images among them."""
        options = self._task.told_options(item.expected)
        # Not str.format: a question may hold braces.
        parts = {"{question}": item.question, "{options}": options}
        return PLACES.sub(lambda found: parts[found[0]], self._template).strip()


def check_template(template: str, task: Task) -> None:
    """Raise ValueError where a prompt lacks the question or the options, or needs none."""
    wanted = ["{question}", *(["{options}"] if task.has_options else [])]
    if missing := [place for place in wanted if place not in template]:
        raise ValueError(f"the prompt {template!r} has no {' and no '.join(missing)}")
    if not task.has_options and "{options}" in template:
        raise ValueError(
            f"the prompt {template!r} has a place for options, and {task.name} has none"
        )


def wrong_images(items: Sequence[Item], seed: int) -> list[Images | None]:
    """Return for each item the images of another, as many; None where there are no others."""
    sets = {tuple(map(name_of, item.images)): item.images for item in items}
    following: dict[tuple[str, ...], Images] = {}
    for count in {len(names) for names in sets}:
        ring = [names for names in sets if len(names) == count]
        ring.sort(key=lambda names: _shuffled(names, seed))
        if len(ring) > 1:
            following |= {names: sets[ring[(at + 1) % len(ring)]] for at, names in enumerate(ring)}
    return [following.get(tuple(map(name_of, item.images))) for item in items]


def sample(items: Sequence[Item], count: int | None, seed: int) -> list[Item]:
    """Return a seeded choice of at least `count` items in their order: whole groups, so that what
    is scored together stays together. None: all.
    """
    if count is None or count >= len(items):
        return list(items)
    groups: dict[str, int] = {}
    for item in items:
        groups[item.group] = groups.get(item.group, 0) + 1
    chosen, total = set(), 0
    for group in sorted(groups, key=lambda one: _shuffled((one,), seed)):
        if total >= count:
            break
        chosen.add(group)
        total += groups[group]
    return [item for item in items if item.group in chosen]


def placed(prompt: str, images: Sequence[Image]) -> Iterator[Part]:
    """Yield a prompt's words and images in order; places of images that are not shown vanish."""
    numbers = [int(number) for number in PLACE.findall(prompt)]
    yield from (image for at, image in enumerate(images, 1) if at not in numbers)
    shown: set[int] = set()
    for at, piece in enumerate(PLACE.split(prompt)):
        if at % 2 == 0:
            if piece.strip():
                yield Text(piece, role="user")
        elif (number := int(piece)) <= len(images) and number not in shown:
            shown.add(number)
            yield images[number - 1]


def greedy(sampling: Sampling, max_tokens: int, seed: int) -> Sampling:
    """Return how answers are sampled: the likeliest token always, so many at most."""
    return replace(sampling, text_temperature=0.0, max_text_tokens=max_tokens, seed=seed % 2**64)


def _shuffled(names: Sequence[str], seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{'/'.join(names)}".encode()).digest()
