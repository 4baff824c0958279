"""What every autoencoder's config says of it: its sizes, its encoder and its decoder."""

from typing import ClassVar

from torch import nn

from ..grid import Grid


class AutoencoderConfig:
    """The shape of an autoencoder: images, float (B, 3, H, W) <-> latents, float (B, D, h, w)."""

    decoder_fields: ClassVar[tuple[str, ...]] = ()
    """Which fields shape the decoder alone: codes of others can be learned from by another one."""

    @property
    def patch(self) -> int:
        """Return how many pixels a side of an image must be a multiple of."""
        raise NotImplementedError

    @property
    def default_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels of what a model draws unless it is told another: 64 a
        side, or the next lower multiple of the patch.
        """
        side = self.patch * max(1, 64 // self.patch)
        return side, side

    @property
    def encoding_numbers(self) -> int:
        """Return about how many numbers a latent vector's share of encoding holds at once."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        raise NotImplementedError

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of latents of an image of so many pixels; ValueError for sides that are
        no whole patches.
        """
        if height % self.patch or width % self.patch or height < 1 or width < 1:
            raise ValueError(
                f"{width} x {height} pixels are no whole {self.patch}-pixel patches: both sides"
                f" must be multiples of {self.patch}"
            )
        return Grid(height // self.patch, width // self.patch)

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what a grid of latents stands for."""
        return grid.height * self.patch, grid.width * self.patch

    def encoder(self, width: int) -> nn.Module:
        """Return the module images (B, 3, H, W) -> latents of `width` numbers (B, D, h, w)."""
        raise NotImplementedError

    def decoder(self, width: int) -> nn.Module:
        """Return the module quantized latents (B, D, h, w) -> images, not bounded, (B, 3, H, W)."""
        raise NotImplementedError


def below(config: AutoencoderConfig, **least: int) -> list[str]:
    """Return a sentence for each named value of a config that is below its bound."""
    return [
        f"{name} {getattr(config, name)}: at least {bound}"
        for name, bound in least.items()
        if getattr(config, name) < bound
    ]
