"""Statistics of a batch that is spread over the ranks of a data-parallel run.

One process, and many that each hold as many latent vectors, then learn the same. Without
torch.distributed these functions return what they are given.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def total(x: Tensor) -> Tensor:
    """Return the sum of x over all ranks.

    Gradients pass it: where a data-parallel engine averages gradients, they are those of one
    process with the whole batch.
    """
    return _Total.apply(x) if _num_ranks() > 1 else x


def mean(x: Tensor) -> Tensor:
    """Return the mean of x over all ranks; gradients pass it as they pass `total`."""
    return total(x) / _num_ranks()


def copy_first(x: Tensor) -> None:
    """Write the values that the first rank has into x, in place."""
    if _num_ranks() > 1:
        dist.broadcast(x, src=0)


class _Total(torch.autograd.Function):
    """The sum over ranks, whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return _Total.forward(ctx, gradient)


def _num_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
