"""The image tokenizer: an autoencoder whose latent vectors are rounded to codes.

In: images float32 (B, 3, H, W) in [-1, 1], H and W multiples of `patch`. Out: codes int64 (B, n,
1) and their Grid.

1. The encoder sees each patch with a frame of `margin` pixels around it and nothing else, so a code
   says what is in its place and equal patches have equal codes: that is what makes codes easy to
   predict.
2. FSQ rounds the latent vector of each patch to one code.
3. The decoder mixes neighbouring codes by residual 3 x 3 convolutions, and makes patches of pixels
   that a last convolution at full resolution joins.

Shapes: B images of C = 3 channels, H rows and W columns of pixels; h rows and w columns of patches;
D numbers a latent vector, as many as FSQ has levels.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F

from .grid import Grid
from .initial import normal
from .quantizer import FSQ

WEIGHTS, CONFIG = "tokenizer.safetensors", "tokenizer.json"
MAX_CODES = 2**14
NUM_GROUPS = 8  # of channels that are normalised together


@dataclass(frozen=True)
class TokenizerConfig:
    """The shape of an image tokenizer."""

    patch: int = 8
    """Pixels a side that one code stands for."""
    margin: int = 2
    """Pixels around a patch that its code may also know of."""
    levels: tuple[int, ...] = (8, 8, 8, 8)
    """Of FSQ; their product is the number of codes."""
    encoder_width: int = 256
    decoder_width: int = 128
    num_blocks: int = 4
    """Residual blocks of the decoder."""
    pixel_width: int = 16
    """Channels at full resolution."""

    @property
    def num_codes(self) -> int:
        """Return how many different codes there are."""
        return prod(self.levels)

    @property
    def default_grid(self) -> Grid:
        """Return the grid that a model draws unless it is told another."""
        return Grid(8, 8)  # 64 x 64 pixels at 8 pixels per code

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of an image of so many pixels; ValueError for sides that are no whole
        patches.
        """
        if height % self.patch or width % self.patch or height < 1 or width < 1:
            raise ValueError(
                f"{width} x {height} pixels are no whole {self.patch}-pixel patches: both sides"
                f" must be multiples of {self.patch}"
            )
        return Grid(height // self.patch, width // self.patch)

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what the codes of a grid stand for."""
        return grid.height * self.patch, grid.width * self.patch

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        least = {
            "patch": 1,
            "encoder_width": 1,
            "decoder_width": 8,
            "num_blocks": 0,
            "pixel_width": 1,
        }
        found = [
            f"{name} {getattr(self, name)}: at least {bound}"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if self.decoder_width % NUM_GROUPS:
            found.append(f"decoder_width {self.decoder_width}: a multiple of {NUM_GROUPS}")
        if not self.levels or min(self.levels) < 2:
            found.append(f"levels {self.levels}: at least one, each of at least 2")
        elif prod(self.levels) > MAX_CODES:
            codes = prod(self.levels)
            found.append(f"levels {self.levels} make {codes} codes: at most {MAX_CODES}")
        if not 0 <= self.margin <= self.patch:
            found.append(f"margin {self.margin}: from 0 to the patch's {self.patch}")
        return found


class Block(nn.Module):
    """Adds to x two 3 x 3 convolutions of x, normalised by groups of channels.

    Residual: He et al., arXiv 1512.03385, eq. 1. Group norm: Wu and He, arXiv 1803.08494.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(NUM_GROUPS, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Return as many channels as given, float (B, C, h, w)."""
        return x_BChw + self.second(F.silu(self.first(self.norm(x_BChw))))


class Encoder(nn.Module):
    """Turns each patch, with its margin and nothing else, into a latent vector."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        width = config.encoder_width
        self.patches = nn.Conv2d(
            3, width, config.patch + 2 * config.margin, stride=config.patch, padding=config.margin
        )
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.out = nn.Conv2d(width, len(config.levels), 1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, not yet bounded: float (B, D, h, w)."""
        x = self.patches(images_BCHW)
        for layer in self.hidden:
            x = x + layer(F.silu(x))
        return self.out(F.silu(x))


class Decoder(nn.Module):
    """Turns quantized vectors into images.

    Channels become pixels by sub-pixel convolution: Shi et al., arXiv 1609.05158, eq. 4.
    """

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        width, pixels = config.decoder_width, config.pixel_width
        self.enter = nn.Conv2d(len(config.levels), width, 1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.num_blocks))
        self.paint = nn.Conv2d(width, pixels * config.patch**2, 1)
        self.shuffle = nn.PixelShuffle(config.patch)
        self.join = nn.Conv2d(pixels, pixels, 3, padding=1)
        self.out = nn.Conv2d(pixels, 3, 3, padding=1)

    def forward(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        x = self.enter(z_BDhw)
        for block in self.blocks:
            x = block(x)
        x = self.shuffle(self.paint(x))
        x = x + self.join(F.silu(x))
        return self.out(F.silu(x))


class ImageTokenizer(nn.Module):
    """Encodes images as codes, and decodes codes as images."""

    def __init__(self, config: TokenizerConfig, seed: int = 0):
        """Draw the weights, a pure function of (config, seed): see `initial_weight`.

        ValueError names everything that is wrong with the config.
        """
        super().__init__()
        if config.problems():
            raise ValueError("; ".join(config.problems()))
        self.config = config
        self.encoder, self.quantizer, self.decoder = (
            Encoder(config),
            FSQ(config.levels),
            Decoder(config),
        )
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(initial_weight(name, tuple(parameter.shape), seed))

    @property
    def patch(self) -> int:
        """Return how many pixels a side one code stands for."""
        return self.config.patch

    @property
    def num_codes(self) -> int:
        """Return how many different codes there are."""
        return self.quantizer.num_codes

    num_groups = 1
    decodes = True

    @property
    def levels(self) -> tuple[int, ...]:
        """Return the levels of which a code is the mixed-radix number."""
        return self.config.levels

    def code_vectors(self, codes_n1: torch.Tensor) -> torch.Tensor:
        """Return the vectors of codes int64 (n, 1), float32 (n, D) in [-1, 1]."""
        return self.quantizer.decode(codes_n1[:, 0])

    @property
    def geometry(self) -> TokenizerConfig:
        """Return which grid belongs to which size of image."""
        return self.config

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return reconstructions for training, not bounded; gradients pass the rounding."""
        quantized_BhwD, _ = self.quantizer(self.encoder(images_BCHW).movedim(1, -1))
        return self.decoder(quantized_BhwD.movedim(-1, 1))

    @torch.inference_mode()
    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes of images, int64 (B, n, 1) in reading order, and their grid.

        Images are float32 (B, 3, H, W) in [-1, 1]; ValueError for sides of no whole patches.
        """
        self._check(images_BCHW)
        _, codes_Bhw = self.quantizer(self.encoder(images_BCHW).movedim(1, -1))
        grid = Grid(codes_Bhw.shape[1], codes_Bhw.shape[2])
        return codes_Bhw.reshape(len(images_BCHW), grid.size, 1), grid

    @torch.inference_mode()
    def decode(self, codes_Bn1: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images of codes, float32 (B, 3, H, W) in [-1, 1].

        Codes are int64 (B, n, 1); ValueError where they do not fill the grid, or are no codes.
        """
        if codes_Bn1.shape[1:] != (grid.size, 1):
            raise ValueError(f"codes of shape {tuple(codes_Bn1.shape)} do not fill {grid}")
        vectors_BhwD = self.quantizer.decode(codes_Bn1.reshape(-1, grid.height, grid.width))
        return self.decoder(vectors_BhwD.movedim(-1, 1)).clamp(-1, 1)  # the range of a pixel

    def _check(self, images_BCHW: torch.Tensor) -> None:
        shape = tuple(images_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % self.patch or shape[3] % self.patch:
            raise ValueError(
                f"images of shape {shape}: (B, 3, H, W) with sides of whole "
                f"{self.patch}-pixel patches"
            )

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of config and weights: codes carry it to say whose they are."""
        digest = hashlib.sha256(_config_json(self.config).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Return about how many bytes `save` writes."""
        return sum(4 * tensor.numel() for tensor in self.state_dict().values())

    def save(self, directory: Path) -> None:
        """Write weights (float32 safetensors) and config into a directory."""
        weights = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        (directory / WEIGHTS).write_bytes(save(weights))  # save_file's are its owner's alone
        (directory / CONFIG).write_text(_config_json(self.config) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "ImageTokenizer":
        """Read what `save` wrote, in evaluation mode; ValueError names the file at fault."""
        config, weights = directory / CONFIG, directory / WEIGHTS
        for file in (config, weights):
            if not file.is_file():
                raise ValueError(f"{directory} holds no image tokenizer: there is no {file.name}")
        try:
            fields = json.loads(config.read_text())
            tokenizer = cls(TokenizerConfig(**{**fields, "levels": tuple(fields["levels"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{config} describes no image tokenizer: {error}") from error
        try:
            tokenizer.load_state_dict(load_file(str(weights)))
        except (SafetensorError, RuntimeError) as error:  # cut or foreign; of another shape
            raise ValueError(f"{weights} is damaged or belongs to another: {error}") from error
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


def _config_json(config: TokenizerConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)
