"""A head of code rows scores codes by their rows of the output table; it has no weights.

Within an image only a code can stand, so the softmax is over the codes alone, in training as in
drawing, and only their slice of the output table is multiplied.

Letters: M targets or places, B rows of all branches, R requests, n vectors of a request, D width, V
rows of the table, C those of its slice that holds the codes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..cross_entropy import Targets
from ..products import Snapshot, is_plain, linear
from ..sampling import Scale
from ..sequence import IMAGE, Batch
from .head import ImageHead, guided, targets_of


class CodeRowsHead(ImageHead):
    """A CodeRowsHead predicts codes as ids; a subclass says where they stand and how it draws."""

    follows = (*ImageHead.follows, "guidance_interval")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        vocabulary = architecture.vocabulary
        self.code_of_id, self.num_ids = vocabulary.code_of_id, vocabulary.size
        self.first, self.last = vocabulary.code_slice
        self.num_targets = self.last - self.first
        self.rows: nn.Module | None = None  # in place of the slice of the table (see int8.py)
        self._packed: tuple[Callable[[Tensor], Tensor], Snapshot] | None = None
        # Where other ids lie between the codes, they are left out of every distribution.
        allowed = self.code_of_id[self.first : self.last] >= 0
        self.allowed = None if allowed.all() else torch.from_numpy(allowed)

    def targets(self, batch: Batch, scale: float, sliced: bool = True) -> Targets:
        """Return the batch's codes as rows of the output table; see ImageHead.targets."""
        at_M, weights_M = targets_of(batch, IMAGE)
        labels_M = batch.labels.flatten()[at_M]
        if not sliced:
            return Targets(at_M, labels_M, scale * weights_M, 0, self.num_ids)
        return Targets(
            at_M, labels_M, scale * weights_M, self.first, self.last, allowed_R=self.allowed
        )

    def logits(
        self,
        hidden_BD: Tensor,
        table_VD: Tensor,
        num_branches: int,
        args: Sequence[tuple[object, Scale]],
    ) -> Tensor:
        """Return the logits to sample from, float32 (M, C), -inf where an id is no code.

        Arguments after the first two, and errors, are those of `guided`.
        """
        logits_BC = self.products(hidden_BD, table_VD)
        return self.codes_alone(guided(logits_BC, num_branches, args))

    def logits_at(
        self,
        hidden: Sequence[Tensor],
        table_VD: Tensor,
        places: Sequence[np.ndarray],
        guidance: Sequence[Scale],
    ) -> Tensor:
        """Return the logits to sample from of several places of each request, float32 (M, C).

        hidden: (R, n, D) for each branch, in the order of `branches_of`. places: which of the n
        vectors of each request, int64 (m,); M is the sum of their numbers. guidance: the scale of
        each request.
        """
        counts = [len(one) for one in places]
        rows_M = torch.from_numpy(np.repeat(np.arange(len(places)), counts)).to(table_VD.device)
        places_M = torch.from_numpy(np.concatenate(places)).to(table_VD.device)
        hidden_BD = torch.cat([branch_RnD[rows_M, places_M] for branch_RnD in hidden])
        scales = [(None, one) for one, m in zip(guidance, counts, strict=True) for _ in range(m)]
        return self.logits(hidden_BD, table_VD, len(hidden), scales)

    def pack(self, table_VD: Tensor, packed: Callable[[Tensor], Tensor]) -> None:
        """Take a function that multiplies vectors (B, D) by the slice of a table as it is now; it
        is used without gradients, as long as the table's numbers do not change.
        """
        self._packed = packed, Snapshot(table_VD)

    def products(self, hidden_BD: Tensor, table_VD: Tensor) -> Tensor:
        """Return the products of hidden vectors with the rows of the slice, (B, C)."""
        if self.rows is not None:
            return self.rows(hidden_BD)
        if self._packed is not None and is_plain(hidden_BD):
            packed, of = self._packed
            if of.matches(table_VD):
                return packed(hidden_BD)
        return linear(hidden_BD, table_VD[self.first : self.last])

    def codes_alone(self, logits_MC: Tensor) -> Tensor:
        """Return the logits of codes, -inf where other ids lie between them."""
        if self.allowed is None:
            return logits_MC
        return logits_MC.masked_fill(~self.allowed.to(logits_MC.device), -torch.inf)
