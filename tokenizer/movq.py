"""MoVQ as Emu3 uses it: a VQGAN for video, of which an image is four equal frames.

Zheng et al., "MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation" (arXiv
2209.09002); Wang et al., "Emu3" (arXiv 2409.18869, sec. 2.2). Frames become one by convolutions in
time that see nothing later, so of the frames that come back, the first is the image and the others
need not be decoded. The spatial part sees each frame alone: it is computed once, not four times.

Letters: T frames; others as in pyramid.py.
"""

from dataclasses import dataclass
from functools import partial
from math import log2

import torch
from torch import nn
from torch.nn import functional as F

from .codebook import Codebook
from .published import PublishedTokenizer
from .pyramid import Decoder, Encoder, PyramidConfig, group_norm


@dataclass(frozen=True)
class MovqConfig(PyramidConfig):
    """The shape of a MoVQ; the defaults are Emu3's."""

    num_codes: int = 32768
    code_width: int = 4
    latent_width: int = 4
    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    attention: tuple[int, ...] = (3,)
    num_frames: int = 4
    """Frames that become one: a power of two."""
    most_side: int = 2288
    """Of 1024 x 1024 pixels at the authors' largest aspect ratio, 5."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = super().problems()
        if self.num_frames < 1 or not log2(self.num_frames).is_integer():
            found.append(f"num_frames {self.num_frames}: a power of two")
        if self.latent_width != self.code_width:  # both pass the same convolutions in time
            found.append(f"latent_width {self.latent_width}: code_width's {self.code_width}")
        return found


class SpatialNorm(nn.Module):
    """Group norm whose scale and shift are computed from the quantized vectors at each place."""

    def __init__(self, code_width: int, width: int):
        super().__init__()
        self.norm_layer = group_norm(width)
        self.conv_y, self.conv_b = (nn.Conv2d(code_width, width, 1) for _ in range(2))

    def forward(self, x_BCHW: torch.Tensor, vectors_BDhw: torch.Tensor) -> torch.Tensor:
        """Return x of the same shape, modulated: arXiv 2209.09002, eq. 4."""
        near = F.interpolate(vectors_BDhw, size=x_BCHW.shape[-2:], mode="nearest")
        return self.norm_layer(x_BCHW) * self.conv_y(near) + self.conv_b(near)


class CausalConv(nn.Module):
    """A convolution in time and space that sees zeros before the first frame and none after."""

    def __init__(self, width: int, out_width: int, kernel: tuple[int, int, int], stride: int = 1):
        super().__init__()
        self.conv = nn.Conv3d(width, out_width, kernel, stride=(stride, 1, 1))
        rows, columns = kernel[1] // 2, kernel[2] // 2
        self.padding = (columns, columns, rows, rows, 2, 0)

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return `out_width` channels; of the frames, one in `stride`."""
        return self.conv(F.pad(x_BCTHW, self.padding))


class FrozenBatchNorm(nn.Module):
    """Batch norm by the stored statistics alone: those of a batch would change the codes.

    Ioffe and Szegedy, arXiv 1502.03167, alg. 2.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return x of the same shape, normalised."""
        return F.batch_norm(x_BCTHW, self.running_mean, self.running_var, self.weight, self.bias)


class TimeBlock(nn.Module):
    """Adds to x two causal convolutions of x."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = FrozenBatchNorm(width), FrozenBatchNorm(width)
        self.conv1, self.conv2 = (CausalConv(width, width, (3, 3, 3)) for _ in range(2))

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return x of the same shape."""
        y = self.conv1(F.silu(self.norm1(x_BCTHW)))
        return x_BCTHW + self.conv2(F.silu(self.norm2(y)))


class VideoEncoder(Encoder):
    """Turns images into latent vectors, as if each were a film that stands still."""

    def __init__(self, config: MovqConfig):
        super().__init__(config)
        self.num_frames, width = config.num_frames, config.latent_width
        self.time_conv = _time_convs(config, (4, 3, 3), stride=2)
        self.time_res_stack = nn.ModuleList(TimeBlock(width) for _ in range(config.num_blocks))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, float (B, D, h, w)."""
        z_BDhw = super().forward(images_BCHW)
        z_BDThw = z_BDhw[:, :, None].expand(-1, -1, self.num_frames, -1, -1)
        for conv in self.time_conv:
            z_BDThw = F.silu(conv(z_BDThw))
        for block in self.time_res_stack:
            z_BDThw = block(z_BDThw)
        return z_BDThw[:, :, 0]


class VideoDecoder(Decoder):
    """Turns latent vectors, and the quantized ones that condition it, into first frames."""

    def __init__(self, config: MovqConfig):
        super().__init__(config, norm=partial(SpatialNorm, config.code_width))
        width = config.latent_width
        self.time_res_stack = nn.ModuleList(TimeBlock(width) for _ in range(config.num_blocks))
        self.time_conv = _time_convs(config, (3, 3, 3), stride=1)

    def forward(self, z_BDhw: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        return super().forward(self._first(z_BDhw), *map(self._first, condition))

    def _first(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """Return the first frame, (B, D, h, w), of what the convolutions in time make of a film of
        one frame. They look back alone, so the frames that follow it are never made.
        """
        z_BDThw = z_BDhw[:, :, None]
        for block in self.time_res_stack:
            z_BDThw = block(z_BDThw)
        for conv in self.time_conv:  # each after every frame was doubled: the first stays as it is
            z_BDThw = F.silu(conv(z_BDThw))
        return z_BDThw[:, :, 0]


def _time_convs(config: MovqConfig, kernel: tuple[int, int, int], stride: int) -> nn.ModuleList:
    """Return a convolution for each halving, or doubling, of the number of frames."""
    width = config.latent_width
    return nn.ModuleList(
        _TimeConv(width, kernel, stride) for _ in range(int(log2(config.num_frames)))
    )


class _TimeConv(nn.Module):
    """Holds a convolution under the name that stored weights have."""

    def __init__(self, width: int, kernel: tuple[int, int, int], stride: int):
        super().__init__()
        self.conv = CausalConv(width, width, kernel, stride)

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return as many channels."""
        return self.conv(x_BCTHW)


class Movq(PublishedTokenizer):
    """Encodes images as codes of Emu3's tokenizer, and decodes them."""

    kind = "movq"
    config_class = MovqConfig
    config: MovqConfig

    def _build(self) -> None:
        config = self.config
        self.encoder, self.decoder = VideoEncoder(config), VideoDecoder(config)
        kernel = (3, 1, 1)
        self.quant_conv = CausalConv(config.latent_width, config.code_width, kernel)
        self.post_quant_conv = CausalConv(config.code_width, config.latent_width, kernel)
        self.quantize = Codebook(config.num_codes, config.code_width)

    def _latents(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.quant_conv(self.encoder(images_BCHW)[:, :, None])[:, :, 0]

    def _images(self, vectors_BDhw: torch.Tensor) -> torch.Tensor:
        z_BDhw = self.post_quant_conv(vectors_BDhw[:, :, None])[:, :, 0]
        return self.decoder(z_BDhw, vectors_BDhw)
