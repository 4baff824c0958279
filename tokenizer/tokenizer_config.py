"""What an image tokenizer is made of, as its config says, and that config as JSON.

A TokenizerConfig names one autoencoder (autoencoders/) and one quantizer (quantizers/), or latents
(latents.py) in the quantizer's place.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .autoencoders.autoencoder import AutoencoderConfig
from .autoencoders.convolutions import ConvolutionsConfig
from .autoencoders.patches import PatchesConfig
from .autoencoders.pixels import PixelsConfig
from .autoencoders.queries import QueriesConfig
from .grid import Grid
from .latents import Latents, LatentsConfig
from .quantizers.config import FsqConfig, QuantizerConfig
from .quantizers.quantizer import Quantizer
from .stored_config import of_tree

AUTOENCODERS = ("patches", "convolutions", "queries", "pixels")


@dataclass(frozen=True)
class TokenizerConfig:
    """The shape of an image tokenizer: a quantizer, and one autoencoder."""

    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    patches: PatchesConfig | None = None
    """Patches that are encoded each for itself; the autoencoder where none is given."""
    convolutions: ConvolutionsConfig | None = None
    """A pyramid of convolutions."""
    queries: QueriesConfig | None = None
    """Learned queries, whose codes have no place in the image."""
    pixels: PixelsConfig | None = None
    """Patches of pixels as they are, without weights; their numbers are the latents."""
    latents: LatentsConfig | None = None
    """Continuous latents, and no quantizer."""

    @property
    def is_continuous(self) -> bool:
        """Return whether images become latents instead of codes."""
        return self.latents is not None or self.pixels is not None

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """Return the section that is given, or the default one."""
        given = [getattr(self, name) for name in AUTOENCODERS]
        return next((one for one in given if one is not None), PatchesConfig())

    @property
    def spelled_out(self) -> "TokenizerConfig":
        """Return the same shape with the sections that are the default where none is given."""
        has_autoencoder = any(getattr(self, name) is not None for name in AUTOENCODERS)
        found = self if has_autoencoder else replace(self, patches=PatchesConfig())
        if self.is_continuous:
            return found
        return replace(found, quantizer=self.quantizer.spelled_out)

    @property
    def codes(self) -> Quantizer:
        """Return a quantizer without weights: how many codes and groups there are, and where."""
        if self.is_continuous:
            with torch.device("meta"):
                return self.build_latents()
        return _codes(self.quantizer)

    def build_latents(self) -> Latents:
        """Return what stands in the quantizer's place."""
        if self.latents is not None:
            return Latents(self.latents.width, self.latents.kl)
        assert self.pixels is not None, "latents are asked for by one of two sections"
        return Latents(self.pixels.width, kl=None)

    @property
    def latent_width(self) -> int:
        """Return the numbers of a latent; 0 where images become codes."""
        return self.codes.width if self.is_continuous else 0

    @property
    def patch(self) -> int:
        """Return how many pixels both sides of an image must be a multiple of."""
        return self.autoencoder.patch

    @property
    def num_codes(self) -> int:
        """Return how many different codes there are in each group."""
        return self.codes.num_codes

    @property
    def levels(self) -> tuple[int, ...]:
        """Return the levels of which a code is the mixed-radix number; () where it is none."""
        return self.codes.levels

    @property
    def default_grid(self) -> Grid:
        """Return the grid that a model draws unless it is told another."""
        return self.grid_of(*self.autoencoder.default_size)

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of the codes of an image of so many pixels; ValueError for sides that
        will not do.
        """
        return self.codes.grid_of(self.autoencoder.grid_of(height, width))

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what the codes of a grid stand for."""
        return self.autoencoder.size_of(grid)

    def problems(self) -> list[str]:
        """Return what is wrong with the sections together, one sentence each."""
        given = [name for name in AUTOENCODERS if getattr(self, name) is not None]
        found = [f"{' and '.join(given)}: give one of them"] if len(given) > 1 else []
        if self.is_continuous and self.quantizer != QuantizerConfig():
            found.append("quantizer: there is none with latents or pixels; leave it out")
        if self.latents is not None and self.pixels is not None:
            found.append("latents: those of pixels are the pixels themselves; leave it out")
        return found


@lru_cache
def _codes(config: QuantizerConfig) -> Quantizer:
    with torch.device("meta"):
        return config.build(seed=0)


def all_problems(section: Any) -> Iterator[str]:
    yield from section.problems()
    for one in fields(section):
        if is_dataclass(value := getattr(section, one.name)):
            yield from all_problems(value)


def read_shape(path: Path) -> TokenizerConfig:
    """Return the shape that a tokenizer.json describes; ValueError names a file that does not."""
    try:
        tree = json.loads(path.read_text())
        if not isinstance(tree, dict):
            raise ValueError(f"expected keys and values, got {tree!r}")
        return of_tree(TokenizerConfig, _sections(tree) if "levels" in tree else tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} describes no image tokenizer: {error}") from error


def _sections(flat: dict[str, Any]) -> dict[str, Any]:
    """Return a flat config, as it was written when FSQ and patches were all there was, by its
    sections of today.
    """
    patches = {name: value for name, value in flat.items() if name != "levels"}
    return {"quantizer": {"fsq": {"levels": flat["levels"]}}, "patches": patches}


def config_json(config: TokenizerConfig) -> str:
    """Return a config as text, which the hash of a tokenizer begins with: flat where it can be, so
    that tokenizers keep their hash.
    """
    tree: dict[str, Any] = {"quantizer": _given(config.quantizer)}
    if config.is_continuous:
        del tree["quantizer"]
    for name in (*AUTOENCODERS, "latents"):
        if (section := getattr(config, name)) is not None:
            tree[name] = _given(section)
    autoencoder, levels = config.autoencoder, config.codes.levels
    plain = replace(config.quantizer, fsq=None) == QuantizerConfig()
    if isinstance(autoencoder, PatchesConfig) and plain and not config.is_continuous:
        if config.quantizer.fsq in (None, FsqConfig(levels=levels)):
            tree = {**asdict(autoencoder), "levels": levels}
    return json.dumps(tree, sort_keys=True)


def _given(section: Any) -> dict[str, Any]:
    """Return the values of a section that are not None, so that an option that comes later changes
    no hash.
    """
    values = {one.name: getattr(section, one.name) for one in fields(section)}
    return {
        name: _given(value) if is_dataclass(value) else value
        for name, value in values.items()
        if value is not None
    }
