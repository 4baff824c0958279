"""A question of a benchmark, as a task reads it from the official files."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Item:
    """One question with its images and what tells whether an answer is right."""

    id: str
    """Unlike any other's of the task."""
    question: str
    """The words that take the place of {question} in the prompt; '<image 2>' stands for the second
    image where the images stand within it, else they come first."""
    images: tuple[Any, ...]
    """As the data name them: a path inside the folder of images, or contents."""
    expected: dict[str, Any]
    """What the task's `judge` wants to know, as JSON."""
    kind: str
    """The category by which scores are divided."""
    group: str
    """Items of one group share an image or a sentence: samples and intervals keep them together."""
