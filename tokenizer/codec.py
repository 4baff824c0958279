"""What turns pixels into codes or latents and back: the interface of every image tokenizer."""

from typing import Protocol

import torch

from .grid import Grid


class Geometry(Protocol):
    """Which grid of codes belongs to which size of image: the codec alone knows it. Holds no
    weights.
    """

    @property
    def patch(self) -> int:
        """Both sides of an image are multiples of it, in pixels."""
        ...

    @property
    def default_grid(self) -> Grid:
        """Return the grid of an image of the size that the codec is made for."""
        ...

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of an image of so many pixels; ValueError for sides that will not do."""
        ...

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what the codes of a grid stand for."""
        ...


class Codec(Protocol):
    """Pixels <-> codes, or latents, of an image."""

    @property
    def num_codes(self) -> int:
        """The number of different codes; 0 where images become latents."""
        ...

    @property
    def latent_width(self) -> int:
        """The numbers of a latent at each place of the grid; 0 where images become codes."""
        ...

    @property
    def num_groups(self) -> int:
        """How many codes stand at each place of the grid."""
        ...

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels of which a code is the mixed-radix number, the lowest digit first; () where
        codes are numbers of a table.
        """
        ...

    @property
    def decodes(self) -> bool:
        """Whether codes can be decoded: some published tokenizers come without a decoder."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Return which grid belongs to which size."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of configuration and weights: what codes carry to say whose they are."""
        ...

    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes, int64 (B, n, groups), of images float32 (B, 3, H, W) in [-1, 1]; or
        their latents, float32 (B, n, latent_width), of mean 0 and variance 1 in each channel.
        """
        ...

    def decode(self, content_BnX: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images, float32 (B, 3, H, W) in [-1, 1], of codes or latents that fill the
        grid.
        """
        ...

    def code_vectors(self, codes_nG: torch.Tensor) -> torch.Tensor:
        """Return vectors of codes int64 (n, groups), float32 (n, D), about as large as numbers from
        -1 to 1: similar codes have similar ones.
        """
        ...
