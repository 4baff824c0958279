"""What a set of questions about drawn images is: where they come from, and how they are scored."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..intervals import Estimate
from ..score import Prediction
from ..vqa.clusters import mean_of_clusters
from .question import Question


class Benchmark(ABC):
    """Reads the official questions, and makes scores of the answers' probabilities."""

    name: ClassVar[str]
    rules: ClassVar[str]
    """Whose rules, at which commit."""
    once: ClassVar[bool] = True
    """Whether a token that begins several words of an answer counts once."""
    cells: ClassVar[tuple[int, ...]] = (1,)
    """How many images a file may hold; the first is the default."""
    samples: ClassVar[int] = 1
    """How many files of each prompt there are officially; above 1 there may be others as many."""
    index: ClassVar[str | None] = None
    """The name of a JSON file {prompt: image} in the folder of images, where there is one."""

    @abstractmethod
    def prompts(self, data: Path) -> dict[str, str]:
        """Return what is to be drawn, by the id of each item, in order; ValueError as for
        `questions`.
        """

    def file_name(self, item: str, prompt: str, sample: int) -> str:
        """Return the name of the file in which an image of an item is looked for."""
        return f"{item}.png"

    @abstractmethod
    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return all questions; ValueError where files are not what they should be."""

    @abstractmethod
    def value(self, prediction: Prediction) -> float:
        """Return what one answer is worth by itself, from 0 to 1."""

    @abstractmethod
    def prompt_values(self, predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
        """Return what each item's prompt is worth, from 0 to 1, by the name of each score that is
        the mean of all prompts.
        """

    @abstractmethod
    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return scores of predictions, each with `p`: the probability of each answer."""


def mean_of_prompts(values: Iterable[float]) -> Estimate:
    """Return the mean of prompts' scores, each from 0 to 1, with an interval within these."""
    return mean_of_clusters((str(at), value) for at, value in enumerate(values))


def texts_of(pairs: Iterable[tuple[str, str]], data: Path) -> dict[str, str]:
    """Return the text of each item; ValueError where one has two texts, or there are none."""
    found: dict[str, str] = {}
    for item, text in pairs:
        if found.setdefault(item, text) != text:
            raise ValueError(f"{data}: {item} has two texts, {found[item]!r:.60} and {text!r:.60}")
    if not found:
        raise ValueError(f"{data} holds no prompts")
    return found


def grouped(predictions: Sequence[Prediction], *names: str) -> list[list[Prediction]]:
    """Return predictions that agree in the named entries together, in order."""
    found: dict[tuple[Any, ...], list[Prediction]] = {}
    for one in predictions:
        found.setdefault(tuple(one[name] for name in names), []).append(one)
    return list(found.values())
