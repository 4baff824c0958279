"""The image tokenizer: an autoencoder whose latent vectors are quantized to codes.

In: images float32 (B, 3, H, W) in [-1, 1]; what H and W may be, the autoencoder says. Out: codes
int64 (B, n, G), G groups of them at each place, and their Grid.

    images -> encoder -> z_BDhw -> quantizer -> codes_BnG, vectors_BhwD -> decoder -> images

The autoencoders are in autoencoders/, the quantizers in quantizers/; a TokenizerConfig names one of
each.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from . import stored_weights
from .autoencoders.autoencoder import AutoencoderConfig
from .autoencoders.canvas import Canvas
from .autoencoders.convolutions import ConvolutionsConfig
from .autoencoders.patches import PatchesConfig
from .autoencoders.queries import QueriesConfig
from .grid import Grid
from .initial import normal
from .quantizers.config import FsqConfig, QuantizerConfig
from .quantizers.quantizer import Quantized, Quantizer
from .stored_config import of_tree
from .stored_weights import CONFIG, WEIGHTS

AUTOENCODERS = ("patches", "convolutions", "queries")


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
        return replace(found, quantizer=self.quantizer.spelled_out)

    @property
    def codes(self) -> Quantizer:
        """Return a quantizer without weights: how many codes and groups there are, and where."""
        return _codes(self.quantizer)

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
        return [f"{' and '.join(given)}: give one of them"] if len(given) > 1 else []


@lru_cache
def _codes(config: QuantizerConfig) -> Quantizer:
    with torch.device("meta"):
        return config.build(seed=0)


@dataclass(frozen=True)
class Reconstruction:
    """What training sees of a batch of images."""

    images_BCHW: torch.Tensor | None
    """Not bounded; None without a decoder."""
    quantized: Quantized


class ImageTokenizer(nn.Module):
    """Encodes images as codes, and decodes codes as images."""

    def __init__(self, config: TokenizerConfig, seed: int = 0, decodes: bool = True):
        """Draw the weights, a pure function of (config, seed): see `initial_weight`.

        `decodes` False: there is no decoder. Codes that are learned from features alone get one
        later. ValueError names everything that is wrong with the config.
        """
        super().__init__()
        if problems := list(_all_problems(config)):
            raise ValueError("; ".join(problems))
        self.config, autoencoder = config, config.autoencoder
        self.quantizer = config.quantizer.build(seed)
        self.encoder = autoencoder.encoder(self.quantizer.width)
        self.decoder = autoencoder.decoder(self.quantizer.width) if decodes else None
        with torch.no_grad():
            for part, network in (("encoder", self.encoder), ("decoder", self.decoder)):
                named = network.named_parameters(part) if network is not None else ()
                for name, parameter in named:
                    parameter.copy_(initial_weight(name, tuple(parameter.shape), seed))

    @property
    def patch(self) -> int:
        """Return how many pixels both sides of an image must be a multiple of."""
        return self.config.patch

    @property
    def num_codes(self) -> int:
        """Return how many different codes there are in each group."""
        return self.quantizer.num_codes

    @property
    def num_groups(self) -> int:
        """Return how many codes stand at each place of the grid."""
        return self.quantizer.num_groups

    @property
    def levels(self) -> tuple[int, ...]:
        """Return the levels of which a code is the mixed-radix number; () where it is none."""
        return self.quantizer.levels

    @property
    def decodes(self) -> bool:
        """Return whether there is a decoder."""
        return self.decoder is not None

    def code_vectors(self, codes_nG: torch.Tensor) -> torch.Tensor:
        """Return the vectors of codes int64 (n, G), float32 (n, D)."""
        return self.quantizer.decode(codes_nG[None], Grid(1, len(codes_nG)))[0, 0]

    @property
    def last_weight(self) -> torch.Tensor | None:
        """Return the weight of the decoder's last layer (3, C, 3, 3), which paints all pixels; None
        without a decoder.
        """
        if self.decoder is None:
            return None
        return next(one for one in self.decoder.modules() if isinstance(one, Canvas)).out.weight

    @property
    def geometry(self) -> TokenizerConfig:
        """Return which grid belongs to which size of image."""
        return self.config

    def forward(self, images_BCHW: torch.Tensor) -> Reconstruction:
        """Return reconstructions for training; gradients pass as the quantizer says."""
        quantized = self._quantized(images_BCHW)
        if self.decoder is None:
            return Reconstruction(None, quantized)
        return Reconstruction(self.decoder(quantized.vectors.movedim(-1, 1)), quantized)

    @torch.inference_mode()
    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes of images, int64 (B, n, G) in reading order, and their grid.

        Images are float32 (B, 3, H, W) in [-1, 1]; ValueError for sides that will not do.
        """
        shape = tuple(images_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images of shape {shape}: (B, 3, H, W) is needed")
        grid = self.config.grid_of(*shape[2:])
        return self._quantized(images_BCHW).codes, grid

    @torch.inference_mode()
    def decode(self, codes_BnG: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images of codes, float32 (B, 3, H, W) in [-1, 1].

        Codes are int64 (B, n, G); ValueError where they do not fill the grid, or are no codes, and
        without a decoder.
        """
        if self.decoder is None:
            raise ValueError(
                "this image tokenizer has codes and no decoder yet: train one on its codes, by"
                " `weights` and `freeze_codes` of `unimodal train tokenizer`"
            )
        self.config.size_of(grid)  # ValueError for a grid of another autoencoder
        if codes_BnG.shape[1:] != (grid.size, self.num_groups):
            raise ValueError(
                f"codes of shape {tuple(codes_BnG.shape)} do not fill {grid} with"
                f" {self.num_groups} groups"
            )
        vectors_BhwD = self.quantizer.decode(codes_BnG, grid)
        return self.decoder(vectors_BhwD.movedim(-1, 1)).clamp(-1, 1)  # the range of a pixel

    def _quantized(self, images_BCHW: torch.Tensor) -> Quantized:
        return self.quantizer(self.encoder(images_BCHW).movedim(1, -1))

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of config and weights: codes carry it to say whose they are."""
        return stored_weights.hash_of(_config_json(self.config), self)

    @property
    def num_bytes(self) -> int:
        """Return about how many bytes `save` writes."""
        return stored_weights.num_bytes(self)

    def save(self, directory: Path) -> None:
        """Write weights (float32 safetensors) and config into a directory."""
        stored_weights.write(directory, _config_json(self.config), self)

    @classmethod
    def load(cls, directory: Path) -> "ImageTokenizer":
        """Read what `save` wrote, in evaluation mode; ValueError names the file at fault."""
        config, weights = directory / CONFIG, directory / WEIGHTS
        for file in (config, weights):
            if not file.is_file():
                raise ValueError(f"{directory} holds no image tokenizer: there is no {file.name}")
        shape = read_shape(config)
        try:
            tensors = load_file(str(weights))
            decodes = any(name.startswith("decoder.") for name in tensors)
            tokenizer = cls(shape, decodes=decodes)
            tokenizer.load_state_dict(tensors)
        except (SafetensorError, RuntimeError) as error:  # cut or foreign; of another shape
            raise ValueError(f"{weights} is damaged or belongs to another: {error}") from error
        except ValueError as error:
            raise ValueError(f"{config} describes no image tokenizer: {error}") from error
        return tokenizer.eval()


def initial_weight(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return the float32 tensor a parameter starts from: a pure function of its arguments.

    Scales of norms are one and biases zero. Kernels are normal with variance 1 / inputs (LeCun et
    al., "Efficient BackProp", 1998, sec. 4.6), but the last one of each residual block is zero.
    """
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith((".bias", ".second.weight")):  # a block begins as the identity
        return torch.zeros(shape)
    return normal(seed, name, shape, std=prod(shape[1:]) ** -0.5)


def _all_problems(section: Any) -> Iterator[str]:
    yield from section.problems()
    for one in fields(section):
        if is_dataclass(value := getattr(section, one.name)):
            yield from _all_problems(value)


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


def _config_json(config: TokenizerConfig) -> str:
    """Return a config as text, which the hash of a tokenizer begins with: flat where it can be, so
    that tokenizers keep their hash.
    """
    tree: dict[str, Any] = {"quantizer": _given(config.quantizer)}
    for name in AUTOENCODERS:
        if (section := getattr(config, name)) is not None:
            tree[name] = _given(section)
    autoencoder, levels = config.autoencoder, config.codes.levels
    plain = replace(config.quantizer, fsq=None) == QuantizerConfig()
    if isinstance(autoencoder, PatchesConfig) and plain:
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
