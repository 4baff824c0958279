"""What turns pixels into codes and back: the interface of every image tokenizer."""

from typing import Protocol

import torch

from .grid import Grid


class Codec(Protocol):
    """Pixels <-> codes of an image; it alone knows which grid belongs to which size."""

    num_codes: int
    """The number of different codes."""
    num_groups: int
    """Codes at each place of the grid."""

    @property
    def patch(self) -> int:
        """Both sides of an image are multiples of it, in pixels."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of configuration and weights: what codes carry to say whose they are."""
        ...

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of an image of so many pixels; ValueError for sides that will not do."""
        ...

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what the codes of a grid stand for."""
        ...

    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes, int64 (B, n, groups), of images float32 (B, 3, H, W) in [-1, 1]."""
        ...

    def decode(self, codes_BnG: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images, float32 (B, 3, H, W) in [-1, 1], of codes that fill the grid."""
        ...
