"""How the codes of a image are laid out: what a tokenizer returns beside them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """`height` rows of `width` codes, in reading order."""

    height: int
    width: int

    @property
    def size(self) -> int:
        """The number of codes."""
        return self.height * self.width
