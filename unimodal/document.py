"""What shards hold, the chat speaks and evaluators ask with: an ordered list of texts and
images.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from unimodal.tokenizer.grid import Grid

MAX_WEIGHT = 1e6  # sums of more would lose the others, and soon be infinite
ROLES = (None, "system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """A piece of text; `weight` is the loss weight of its targets (0: context, not learned
    from).
    """

    text: str
    role: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        check(self.role, self.weight)


@dataclass(frozen=True, eq=False)
class Image:
    """A image as pixels (uint8 (H, W, 3)), or as codes (int (n,)) with their grid and
    tokenizer's hash.
    """

    pixels: np.ndarray | None = None
    codes: np.ndarray | None = None
    grid: Grid | None = None
    tokenizer_hash: str | None = None
    role: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        check(self.role, self.weight)
        if self.pixels is None and self.codes is None:
            raise ValueError("a Image needs pixels or codes")
        if self.pixels is not None and (
            self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3
        ):
            raise ValueError(
                f"pixels are uint8 (H, W, 3), not {self.pixels.dtype} {self.pixels.shape}"
            )
        if self.codes is not None:
            if self.grid is None or self.tokenizer_hash is None:
                raise ValueError("codes come with their grid and the hash of their tokenizer")
            if self.codes.shape != (self.grid.size,):
                raise ValueError(f"{self.codes.shape} codes do not fill a grid of {self.grid}")


Part = Text | Image


@dataclass(frozen=True)
class Document:
    """Parts in reading order; neighbours with the same role are one turn of a conversation."""

    parts: tuple[Part, ...]

    def turns(self) -> list[tuple[str | None, list[Part]]]:
        """(role, parts) of each turn in order."""
        return [
            (role, list(parts)) for role, parts in groupby(self.parts, key=lambda part: part.role)
        ]


def check(role: str | None, weight: float) -> None:
    """ValueError for a role that is none, or a weight that is not from 0 to MAX_WEIGHT."""
    if role not in ROLES:
        raise ValueError(f"role {role!r}: one of {ROLES}")
    if not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"weight {weight}: a number from 0 to {MAX_WEIGHT:,.0f}")
