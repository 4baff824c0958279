"""How the codes or latents of an image are laid out: what a codec returns beside them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class Grid:
    """`height` rows of `width` codes in reading order; codes without rows are one row of all.

    With `scales`, (height, width) of each from coarse to fine, the codes of every scale follow one
    another (VAR, arXiv:2404.02905), and height and width are those of the last.
    """

    height: int
    width: int
    scales: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.scales and self.scales[-1] != (self.height, self.width):
            raise ValueError(f"scales {self.scales}: the last one is {self.height} x {self.width}")

    @property
    def size(self) -> int:
        """The number of codes."""
        return self.counts[-1]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many codes there are up to each scale: the first ones show the image coarsely."""
        return tuple(accumulate(height * width for height, width in self.scales or self._one))

    @cached_property
    def addresses(self) -> np.ndarray:
        """The row and column of each code within its scale, int64 (size, 2)."""
        scales = [np.indices(sides).reshape(2, -1).T for sides in self.scales or self._one]
        return np.concatenate(scales).astype(np.int64)

    @property
    def _one(self) -> tuple[tuple[int, int], ...]:
        return ((self.height, self.width),)
