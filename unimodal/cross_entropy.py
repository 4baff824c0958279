"""Compute the cross entropy of an output table in chunks, so that logits are never whole.

In: hidden vectors, the output table, and tokens whose targets lie in a slice of the table's rows.
Out: the weighted sum of the losses, which can be differentiated once, and each target's loss.

1. The logits of a chunk of tokens are computed, and their losses.
2. The logits are overwritten by their gradient, which is multiplied into the gradients of the
   hidden vectors and of the table at once.
3. The backward pass returns these gradients, scaled.

So no logit is computed twice, and beside the two gradients there is memory for one chunk of logits
only: CHUNK_LOGITS numbers (67 MB in float32 on a CPU). Losses, gradients of logits and the sum of
the table's gradient are float32 at least, also under autocast. On a GPU with liger-kernel
(arXiv:2410.10989), its kernels do steps 1 and 2.

Letters: N hidden vectors, D width, V rows of the table; M targets of a `Targets`, R rows of its
slice, C targets of a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# How many logits a chunk holds, by the kind of device.
CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**26}
HAS_LIGER = find_spec("liger_kernel") is not None


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets are M targets, all among the rows `first` .. `last - 1` of the output table.

    at_M: int64, indices of the hidden vectors, in 0 .. N - 1.
    ids_M: int64, the targets as rows of the table.
    weights_M: the weight of each loss.
    allowed_R: bool, which rows of the slice the softmax covers; None: all.
    """

    at_M: Tensor
    ids_M: Tensor
    weights_M: Tensor
    first: int
    last: int
    allowed_R: Tensor | None = None


def linear_cross_entropy(
    hidden_ND: Tensor, table_VD: Tensor, targets: Sequence[Targets], z: float = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """Return the weighted sum of the losses, and each target's loss (M,) without a gradient.

    The sum is sum_m weight_m * (log Z_m - logit_m + z * log^2 Z_m) over all targets, where Z_m sums
    exp(logit) over the rows of m's slice; each loss is log Z_m - logit_m. z is the weight of the
    z-loss (PaLM, arXiv:2204.02311, sec. 5). The sum depends on both tensors even where there is no
    target: their gradients are then zeros, never None, so that every rank has them.
    """
    dtype = product_dtype(hidden_ND)
    wanted = torch.is_grad_enabled()
    with torch.autocast(hidden_ND.device.type, enabled=False):
        total, *losses = _Loss.apply(hidden_ND, table_VD, tuple(targets), z, dtype, wanted)
    return total, losses


def product_dtype(factor: Tensor) -> torch.dtype:
    """Return the dtype of matrix products with `factor`: autocast's where it is on, or its own."""
    device = factor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return factor.dtype


class _Loss(torch.autograd.Function):
    """_Loss is the autograd function of the sum; its forward pass computes the gradients too."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        table_VD: Tensor,
        targets: tuple[Targets, ...],
        z: float,
        dtype: torch.dtype,
        wanted: bool,
    ) -> tuple[Tensor, ...]:
        """Return the sum and the losses of each Targets."""
        needs = [needed and wanted for needed in ctx.needs_input_grad[:2]]
        made = _Pass(hidden_ND, table_VD, dtype, z, *needs)
        losses = [made.losses(one) for one in targets]
        ctx.mark_non_differentiable(*losses)
        ctx.save_for_backward(*made.gradients())
        return made.total, *losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients that the forward pass made, times that of the sum."""
        made = ctx.saved_tensors
        if d_total != 1:  # scaled in place: the table's gradient may take gigabytes
            made = [one if one is None else one.mul_(d_total) for one in made]
        return *made, None, None, None, None


class _Pass:
    """A _Pass goes over the targets once and accumulates the sum and its gradients."""

    def __init__(
        self,
        hidden_ND: Tensor,
        table_VD: Tensor,
        dtype: torch.dtype,
        z: float,
        needs_hidden: bool,
        needs_table: bool,
    ) -> None:
        """Start with zeros; matrices are multiplied in `dtype`."""
        full = torch.promote_types(dtype, torch.float32)
        self.dtypes = hidden_ND.dtype, table_VD.dtype
        self.hidden_ND, self.table_VD, self.z = hidden_ND.to(dtype), table_VD.to(dtype), z
        self.total = hidden_ND.new_zeros((), dtype=full)
        self.d_hidden_ND = torch.zeros_like(self.hidden_ND) if needs_hidden else None
        self.d_table_VD = torch.zeros_like(table_VD, dtype=full) if needs_table else None
        self.buffer = self.hidden_ND.new_empty(0)

    def losses(self, targets: Targets) -> Tensor:
        """Return the loss of each target, (M,), and add them to the sum and the gradients."""
        masked = targets.allowed_R is not None  # liger's kernel has no mask
        if HAS_LIGER and self.hidden_ND.is_cuda and len(targets.at_M) and not masked:
            return self._by_liger(targets)
        losses_M = self.total.new_zeros(len(targets.at_M))
        num_rows = targets.last - targets.first
        most = max(1, CHUNK_LOGITS[self.hidden_ND.device.type] // num_rows)
        for start in range(0, len(losses_M), most):
            chunk = slice(start, start + most)
            at_C, weights_C = targets.at_M[chunk], targets.weights_M[chunk].to(losses_M.dtype)
            label_C1 = (targets.ids_M[chunk] - targets.first)[:, None]
            rows = slice(targets.first, targets.last)
            losses_M[chunk] = self._chunk(
                at_C, label_C1, weights_C[:, None], rows, targets.allowed_R
            )
        return losses_M

    def _chunk(
        self,
        at_C: Tensor,
        label_C1: Tensor,
        weight_C1: Tensor,
        rows: slice,
        allowed_R: Tensor | None,
    ) -> Tensor:
        """Return the losses of a chunk, (C,), and add them to the sum and the gradients."""
        hidden_CD, table_RD = self.hidden_ND[at_C], self.table_VD[rows]
        logits_CR = self._space(len(at_C), len(table_RD))
        torch.mm(hidden_CD, table_RD.T, out=logits_CR)
        x_CR = logits_CR.to(self.total.dtype)
        if allowed_R is not None:
            x_CR.masked_fill_(~allowed_R.to(x_CR.device), -torch.inf)
        # log Z = peak + log sum exp(x - peak), which does not overflow.
        peak_C1, label_logit_C1 = x_CR.amax(-1, keepdim=True), x_CR.gather(-1, label_C1)
        x_CR.sub_(peak_C1).exp_()
        sum_C1 = x_CR.sum(-1, keepdim=True)
        log_z_C1 = peak_C1 + sum_C1.log()
        loss_C1 = log_z_C1 - label_logit_C1
        self.total += (weight_C1 * (loss_C1 + self.z * log_z_C1.square())).sum()
        if self.d_hidden_ND is not None or self.d_table_VD is not None:
            # The gradient by the logits x, with softmax(x) = exp(x - peak) / sum:
            # d/dx w (log Z - x_label + z log^2 Z) = w ((1 + 2 z log Z) softmax(x) - onehot(label))
            x_CR.mul_(weight_C1 * (1 + 2 * self.z * log_z_C1) / sum_C1)
            x_CR.scatter_add_(-1, label_C1, -weight_C1)
            self._spread(logits_CR.copy_(x_CR), at_C, hidden_CD, rows)
        return loss_C1[:, 0]

    def _spread(self, d_logits_CR: Tensor, at_C: Tensor, hidden_CD: Tensor, rows: slice) -> None:
        """Multiply a chunk's gradient of logits into the gradients of hidden vectors and table."""
        if self.d_hidden_ND is not None:
            self.d_hidden_ND[at_C] = d_logits_CR @ self.table_VD[rows]
        if self.d_table_VD is None:
            return
        d_rows_RD = self.d_table_VD[rows]
        if d_rows_RD.dtype == d_logits_CR.dtype:
            d_rows_RD.addmm_(d_logits_CR.T, hidden_CD)
        else:
            # A product in half precision is added to a sum in float32.
            d_rows_RD += d_logits_CR.T @ hidden_CD

    def _by_liger(self, targets: Targets) -> Tensor:
        """Do what `losses` does by the fused kernel of liger-kernel, on the rows of the slice."""
        from liger_kernel.ops.fused_linear_cross_entropy import fused_linear_cross_entropy_forward

        rows, weights_M = slice(targets.first, targets.last), targets.weights_M.float()
        # The kernel rounds weights to the logits' dtype. Most of them are equal, so they are
        # divided by the largest: 1 is exact in every dtype.
        most = weights_M.max().clamp(min=torch.finfo(torch.float32).tiny)
        losses_M, squares_M, _, _, d_hidden_MD, d_rows_RD, _ = fused_linear_cross_entropy_forward(
            self.hidden_ND[targets.at_M],
            self.table_VD[rows],
            targets.ids_M - targets.first,
            lse_square_scale=self.z,
            reduction="none",
            return_z_loss=True,
            accum_dtype=self.total.dtype,
            token_grad_output=weights_M / most,
            compute_gradients=self.d_hidden_ND is not None or self.d_table_VD is not None,
            weight_requires_grad=self.d_table_VD is not None,
        )
        self.total += (weights_M * losses_M).sum()
        if self.d_hidden_ND is not None:
            self.d_hidden_ND[targets.at_M] = d_hidden_MD.mul_(most)
        if self.d_table_VD is not None:
            self.d_table_VD[rows] += d_rows_RD.mul_(most)
        return losses_M - squares_M

    def _space(self, num_targets: int, num_rows: int) -> Tensor:
        """Return memory for (C, R) logits, the same each time: fresh memory of a CPU is slow."""
        if self.buffer.numel() < num_targets * num_rows:
            self.buffer = self.hidden_ND.new_empty(num_targets * num_rows)
        return self.buffer[: num_targets * num_rows].view(num_targets, num_rows)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the sum's gradients by the hidden vectors and by the table, in their dtypes."""
        made = (self.d_hidden_ND, self.d_table_VD)
        hidden, head = (
            one if one is None else one.to(dtype)
            for one, dtype in zip(made, self.dtypes, strict=True)
        )
        return hidden, head
