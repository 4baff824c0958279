"""Multiply vectors by the matrices of linear maps, without gradients in the faster of two ways.

torch multiplies float32 by MKL, which on processors that are not Intel's does without AVX-512.
oneDNN, which torch has too, does not. It takes microseconds more a call, and generates code for
each number of vectors that is new: some 0.5 ms, once.

Both stream a matrix faster that lies in memory column by column, the outputs of each input side by
side: `by_columns` lays it so. Its shape and its values stay, so all else is as it was.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 2**18  # multiplications; with fewer, MKL is as fast


class Linear(nn.Linear):
    """A Linear is a linear map whose products are those of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., in) times the weight, plus the bias, (..., out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return the products of vectors x (..., I) with the rows of a matrix, (..., O)."""
    if (
        torch.is_inference_mode_enabled()
        and x.numel() * weight_OI.shape[0] >= LEAST
        and x.dtype == weight_OI.dtype == torch.float32
        and x.device.type == "cpu"
        and _has_avx512()
        and not torch.is_autocast_enabled("cpu")
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return F.linear(x, weight_OI, bias_O)


@cache
def _has_avx512() -> bool:
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_supported()


def by_columns(weight_OI: Tensor) -> Tensor:
    """Return an equal matrix that lies in memory column by column."""
    return weight_OI.t().contiguous().t()
