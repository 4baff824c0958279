"""What a set of questions about drawn images is: where they come from, and how they are scored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..score import Prediction
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

    @abstractmethod
    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return all questions; ValueError where files are not what they should be."""

    @abstractmethod
    def value(self, prediction: Prediction) -> float:
        """Return what one answer is worth by itself, from 0 to 1."""

    @abstractmethod
    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return scores of predictions, each with `p`: the probability of each answer."""


def grouped(predictions: Sequence[Prediction], *names: str) -> list[list[Prediction]]:
    """Return predictions that agree in the named entries together, in order."""
    found: dict[tuple[Any, ...], list[Prediction]] = {}
    for one in predictions:
        found.setdefault(tuple(one[name] for name in names), []).append(one)
    return list(found.values())
