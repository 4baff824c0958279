"""The image tokenizer: an autoencoder whose latent vectors are quantized to codes, or left as they
are.

In: images float32 (B, 3, H, W) in [-1, 1]; what H and W may be, the autoencoder says. Out: codes
int64 (B, n, G), G groups of them at each place, or latents float32 (B, n, D); and their Grid.

    images -> encoder -> z_BDhw -> quantizer -> codes_BnG, vectors_BhwD -> decoder -> images

The autoencoders are in autoencoders/, the quantizers in quantizers/; a TokenizerConfig names one of
each, or latents (latents.py) in the quantizer's place.
"""

import json
from collections.abc import Iterable, Iterator
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
from .autoencoders.pixels import PixelsConfig
from .autoencoders.queries import QueriesConfig
from .grid import Grid
from .initial import normal
from .latents import Latents, LatentsConfig, image_noise
from .quantizers.config import FsqConfig, QuantizerConfig
from .quantizers.quantizer import Quantized, Quantizer
from .stored_config import of_tree
from .stored_weights import CONFIG, WEIGHTS

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


@dataclass(frozen=True)
class Reconstruction:
    """What training sees of a batch of images."""

    images_BCHW: torch.Tensor | None
    """Not bounded; None without a decoder."""
    quantized: Quantized


class ImageTokenizer(nn.Module):
    """Encodes images as codes or latents, and decodes these as images."""

    def __init__(self, config: TokenizerConfig, seed: int = 0, decodes: bool = True):
        """Draw the weights, a pure function of (config, seed): see `initial_weight`.

        `decodes` False: there is no decoder. Codes that are learned from features alone get one
        later. ValueError names everything that is wrong with the config.
        """
        super().__init__()
        if problems := list(_all_problems(config)):
            raise ValueError("; ".join(problems))
        self.config, autoencoder = config, config.autoencoder
        if config.is_continuous:
            self.quantizer: Quantizer = config.build_latents()
        else:
            self.quantizer = config.quantizer.build(seed)
        self.encoder = autoencoder.encoder(self.quantizer.encoded_width)
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
    def latent_width(self) -> int:
        """Return the numbers of a latent at each place; 0 where images become codes."""
        return self.config.latent_width

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
        return self.quantizer.code_vectors(codes_nG)

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

    def forward(self, images_BCHW: torch.Tensor, step: int = 0) -> Reconstruction:
        """Return reconstructions for training; gradients pass as the quantizer says.

        step: what the noise on latents depends on, beside the images.
        """
        quantized = self._quantized(images_BCHW, step)
        if self.decoder is None:
            return Reconstruction(None, quantized)
        return Reconstruction(self.decoder(quantized.vectors.movedim(-1, 1)), quantized)

    @torch.inference_mode()
    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes of images, int64 (B, n, G) in reading order, or their latents, float32
        (B, n, D), and their grid.

        Images are float32 (B, 3, H, W) in [-1, 1]; ValueError for sides that will not do.
        """
        shape = tuple(images_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images of shape {shape}: (B, 3, H, W) is needed")
        grid = self.config.grid_of(*shape[2:])
        made = self._quantized(images_BCHW)
        if isinstance(self.quantizer, Latents):
            return self.quantizer.scaled(made.vectors).flatten(1, 2), grid
        return made.codes, grid

    @torch.inference_mode()
    def decode(self, content_BnX: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images of codes or latents, float32 (B, 3, H, W) in [-1, 1].

        Codes are int64 (B, n, G), of several scales all or the coarser ones; latents are float32
        (B, n, D). ValueError where they do not fill the grid, or are no codes, and without a
        decoder.
        """
        if self.decoder is None:
            raise ValueError(
                "this image tokenizer has codes and no decoder yet: train one on its codes, by"
                " `weights` and `freeze_codes` of `unimodal train tokenizer`"
            )
        self.config.size_of(grid)  # ValueError for a grid of another autoencoder
        vectors_BhwD = self._vectors(content_BnX, grid)
        # In channels' own order: convolutions would copy their weights into the other at each call.
        z_BDhw = vectors_BhwD.movedim(-1, 1).contiguous()
        return self.decoder(z_BDhw).clamp(-1, 1)  # the range of a pixel

    def _vectors(self, content_BnX: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return what the decoder reads, float32 (B, h, w, D), of codes or latents."""
        what = "latents" if self.latent_width else "codes"
        shape, per_place = tuple(content_BnX.shape), self.latent_width or self.num_groups
        if len(shape) != 3 or shape[1] not in grid.counts or shape[2] != per_place:
            each = f"{per_place} numbers each" if self.latent_width else f"{per_place} groups"
            raise ValueError(f"{what} of shape {shape} do not fill {grid} with {each}")
        if isinstance(self.quantizer, Latents):
            if not content_BnX.isfinite().all():
                raise ValueError("latents are not finite: the weights that made them are damaged")
            return self.quantizer.unscaled(content_BnX.unflatten(1, (grid.height, grid.width)))
        return self.quantizer.decode(content_BnX, grid)

    def _quantized(self, images_BCHW: torch.Tensor, step: int | None = None) -> Quantized:
        """Return what the quantizer makes of images. step: see `forward`; None: without noise."""
        z_BhwD = self.encoder(images_BCHW).movedim(1, -1)
        if isinstance(self.quantizer, Latents) and self.training and step is not None:
            shape = (*z_BhwD.shape[1:3], self.quantizer.width)
            return self.quantizer(z_BhwD, image_noise(images_BCHW, step, shape))
        return self.quantizer(z_BhwD)

    def measure_latents(self, images: Iterable[torch.Tensor]) -> None:
        """Measure the mean and the variance of each channel of the latents on batches of images,
        by which latents are scaled from now on; ValueError where there are no images.
        """
        assert isinstance(self.quantizer, Latents), "codes are not scaled"
        with torch.inference_mode():
            self.quantizer.measure(self._quantized(images_BCHW).vectors for images_BCHW in images)

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of config and weights: codes carry it to say whose they are."""
        return stored_weights.hash_of(_config_json(self.config), self)

    @property
    def num_bytes(self) -> int:
        """Return about how many bytes `save` writes."""
        return stored_weights.num_bytes(self)

    def save(self, directory: Path) -> None:
        """Write weights and config into a directory; see stored_weights.py."""
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
