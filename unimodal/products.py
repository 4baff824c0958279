"""Multiply vectors by the matrices of linear maps, without gradients in the fastest of three ways.

torch multiplies float32 by MKL, which on processors that are not Intel's does without AVX-512.
oneDNN, which torch has too, does not. It takes microseconds more a call, and generates code for
each number of vectors that is new: some 0.5 ms, once.

Both stream a matrix faster that lies in memory column by column, the outputs of each input side by
side: `by_columns` lays it so. Its shape and its values stay, so all else is as it was.

FBGEMM, which torch has on x86, multiplies float32 vectors by float16 matrices, adds up in float32,
and has the fastest kernels for few vectors. Weights are mostly published, and those of bundles are
written, in half precision: float16, with 11 bits, holds what a bfloat16 of 8 bits does, and half
the bytes are streamed.

Letters: O outputs, I inputs.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 2**18  # multiplications; with fewer, MKL is as fast
LOST = 2.0**-23  # of the sum of a matrix' magnitudes: what rounding in float32 may lose


class Linear(nn.Linear):
    """A Linear is a linear map whose products are those of `linear`, or of a packed copy."""

    _packed: "tuple[PackedLinear, Snapshot] | None" = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., in) times the weight, plus the bias, (..., out)."""
        if self._packed is not None and is_plain(x):
            packed, of = self._packed
            if of.matches(self.weight):
                return packed(x)
        return linear(x, self.weight, self.bias)

    def pack(self) -> None:
        """Make a packed copy, where float16 holds the weight."""
        if can_pack(self.weight):
            self._packed = PackedLinear.of(self), Snapshot(self.weight)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return the products of vectors x (..., I) with the rows of a matrix, (..., O)."""
    if (
        is_plain(x)
        and x.numel() * weight_OI.shape[0] >= LEAST
        and weight_OI.dtype == torch.float32
        and _has_avx512()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return F.linear(x, weight_OI, bias_O)


def is_plain(x: Tensor) -> bool:
    """Return whether vectors are float32 on a CPU, and neither differentiated nor cast."""
    return (
        torch.is_inference_mode_enabled()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _has_avx512() -> bool:
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_supported()


def by_columns(weight_OI: Tensor) -> Tensor:
    """Return an equal matrix that lies in memory column by column."""
    return weight_OI.t().contiguous().t()


class Snapshot:
    """A Snapshot tells whether a tensor is the one that was seen, and holds the same numbers."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._state = tensor, (tensor._version, tensor.data_ptr())

    def matches(self, tensor: Tensor | None) -> bool:
        """Return whether it is, and does."""
        mine = self._tensor
        return tensor is mine and (mine._version, mine.data_ptr()) == self._state


class PackedLinear:
    """A PackedLinear is one or more linear maps of the same vectors, as FBGEMM multiplies them."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        """Copy a matrix that can be packed, and a bias."""
        weight_OI, bias_O = weight_OI.detach(), None if bias_O is None else bias_O.detach()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight_OI, bias_O)

    @classmethod
    def of(cls, *linears: nn.Linear) -> "PackedLinear":
        """Return the maps in one; all have a bias, or none."""
        weight_OI = torch.cat([one.weight.detach() for one in linears])
        biases: list[Tensor] = [one.bias.detach() for one in linears if one.bias is not None]
        return cls(weight_OI, torch.cat(biases) if biases else None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the products of vectors x (..., I), (..., O), of all maps side by side."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self._packed)


@cache
def has_fbgemm() -> bool:
    """Return whether torch has FBGEMM's kernels."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@torch.no_grad()
def can_pack(weight_OI: Tensor) -> bool:
    """Return whether torch has the kernels, and float16 holds a matrix as float32 does."""
    if (
        not has_fbgemm()
        or weight_OI.dtype != torch.float32
        or weight_OI.device.type != "cpu"
        or weight_OI.is_inference()  # changes of its numbers are not seen
    ):
        return False
    # A bfloat16 below 2^-17 loses bits as float16; a matrix may have some of these.
    lost_OI = (weight_OI - weight_OI.half().float()).abs()
    return bool(lost_OI.sum() <= LOST * weight_OI.abs().sum())
