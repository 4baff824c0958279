"""A request of the evaluation in the world of scenes, with what judges its answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unimodal.data.scenes.world import Scene
from unimodal.data.things.world import ThingScene
from unimodal.document import Text

from .answer import Answer
from .verdicts import Verdict

BLIND = "blind"  # the part of questions without their images


@dataclass(frozen=True, eq=False)
class SceneRequest:
    """One request with what tells whether its answer is right."""

    part: str  # one of PARTS, or BLIND
    number: int  # in the part
    kind: str
    prompt: str
    shown: Scene | ThingScene | None  # the image that comes before the prompt
    ideal: (
        Scene | ThingScene | None
    )  # a scene that a perfect image would show; None: words are wanted
    expected: Any
    judge: Callable[[Answer], Verdict]
    held_out_words: bool
    held_out_pair: bool
    image: np.ndarray | None = None  # that comes before the prompt, where it is no scene
    boxes: tuple[Text, ...] = ()  # that follow the prompt
    unseen: str | None = None  # what is held out: 'nothing'; 'words', 'phrasings'; 'icons', 'pairs'

    @property
    def id(self) -> str:
        """Return part and number; ids of a part sort as its requests do."""
        return f"{self.part}/{self.number:06d}"

    def blind(self) -> "SceneRequest":
        """Return the same request without its image."""
        return replace(self, part=BLIND, shown=None, image=None)
