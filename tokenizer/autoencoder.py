"""The image tokenizer: an autoencoder whose latent vectors are quantized to codes, or left as they
are.

In: images float32 (B, 3, H, W) in [-1, 1]; what H and W may be, the autoencoder says. Out: codes
int64 (B, n, G), G groups of them at each place, or latents float32 (B, n, D); and their Grid.

    images -> encoder -> z_BDhw -> quantizer -> codes_BnG, vectors_BhwD -> decoder -> images

The autoencoders are in autoencoders/, the quantizers in quantizers/; a TokenizerConfig names one of
each, or latents (latents.py) in the quantizer's place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from . import stored_weights
from .autoencoders.canvas import Canvas
from .grid import Grid
from .initial import normal
from .latents import Latents, image_noise
from .quantizers.quantizer import Quantized, Quantizer
from .stored_weights import CONFIG, WEIGHTS
from .tokenizer_config import TokenizerConfig as TokenizerConfig
from .tokenizer_config import all_problems, config_json, read_shape


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
        if problems := list(all_problems(config)):
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
        return stored_weights.hash_of(config_json(self.config), self)

    @property
    def num_bytes(self) -> int:
        """Return about how many bytes `save` writes."""
        return stored_weights.num_bytes(self)

    def save(self, directory: Path) -> None:
        """Write weights and config into a directory; see stored_weights.py."""
        stored_weights.write(directory, config_json(self.config), self)

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
            # Codes alone may lack a decoder; that of patches of pixels has no weights.
            decodes = shape.is_continuous or any(name.startswith("decoder.") for name in tensors)
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
