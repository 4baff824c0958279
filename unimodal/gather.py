"""A gather takes rows by their places; its gradient comes back by places too.

torch adds up what comes back row by row, as if each were taken often. Here nearly all are taken
once: what comes back to a row is taken from where it went.

Letters: N rows, M rows that are taken, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, eq=False)
class Gather:
    """A Gather knows where rows are taken from, and where each went."""

    from_M: Tensor
    """int64: the row that each place takes."""
    to_N: Tensor
    """int64: the last place where a row went and counts; 0 where there is none."""
    unused_U: Tensor
    """int64: the rows that went nowhere that counts."""
    more_K: Tensor
    """int64: further places where rows went that `to_N` sends elsewhere."""

    @classmethod
    def of(cls, from_M: Tensor, counts_M: Tensor, num: int) -> "Gather":
        """Return that of `num` rows; counts_M: bool, which of those taken are looked at: nothing
        comes back from others.
        """
        places_K = counts_M.nonzero()[:, 0]
        to_N = torch.full((num,), -1)
        to_N.numpy()[from_M[places_K].numpy()] = places_K.numpy()  # of several the last, always
        more_K = places_K[to_N[from_M[places_K]] != places_K]
        unused_U = (to_N < 0).nonzero()[:, 0]
        return cls(from_M, to_N.clamp_(min=0), unused_U, more_K)

    def reversed(self) -> "Gather":
        """Return what takes rows back from where they went, each of which went to one place.

        Raise ValueError where one went nowhere, or to several.
        """
        if len(self.unused_U) or len(self.more_K):
            raise ValueError("a row went to no place, or to several")
        is_filling_M = torch.ones(len(self.from_M), dtype=torch.bool)
        is_filling_M[self.to_N] = False
        return Gather(self.to_N, self.from_M, is_filling_M.nonzero()[:, 0], self.more_K)

    def to(self, device: torch.device) -> "Gather":
        """Return the same on a device."""
        return Gather(*(one.to(device) for one in vars(self).values()))

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Return the rows that are taken, (M, D)."""
        return _Taken.apply(x_ND, self)


class _Taken(torch.autograd.Function):
    @staticmethod
    def forward(context, x_ND: Tensor, gather: Gather) -> Tensor:  # noqa: ANN001
        context.gather = gather
        return x_ND.index_select(0, gather.from_M)

    @staticmethod
    @once_differentiable
    def backward(context, grad_MD: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        gather = context.gather
        grad_ND = grad_MD.index_select(0, gather.to_N).index_fill_(0, gather.unused_U, 0)
        if len(gather.more_K):
            more_KD = grad_MD.index_select(0, gather.more_K)
            grad_ND.index_add_(0, gather.from_M[gather.more_K], more_KD)
        return grad_ND, None
