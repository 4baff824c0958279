"""Statistics of a batch that is spread over the ranks of a data-parallel run.

One process, and many that hold its latent vectors between them, then learn the same. Without
torch.distributed these functions return what they are given.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_left_out = False


@contextmanager
def left_out(is_left_out: bool = True) -> Iterator[None]:
    """Add nothing of this rank to totals meanwhile: it takes part in them, and has no image."""
    global _left_out
    before, _left_out = _left_out, is_left_out
    try:
        yield
    finally:
        _left_out = before


def is_left_out() -> bool:
    """Return whether this rank's latent vectors stand for no image."""
    return _left_out


def total(x: Tensor) -> Tensor:
    """Return the sum of x over all ranks.

    Gradients pass it: where a data-parallel engine averages gradients, they are those of one
    process with the whole batch.
    """
    x = x * 0 if _left_out else x  # and not zeros: gradients are added up over all ranks too
    return _Total.apply(x) if _num_ranks() > 1 else x


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
