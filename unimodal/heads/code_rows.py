"""A head of code rows scores codes by their rows of the output table; it has no weights.

Within an image only a code can stand, so the softmax is over the codes alone, in training as in
drawing, and only their slice of the output table is multiplied.

Letters: M targets or places, B rows of all branches, D width, V rows of the table, C those of its
slice that holds the codes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture
from ..cross_entropy import Targets
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
        args: Sequence[tuple[object, float | None]],
    ) -> Tensor:
        """Return the logits to sample from, float32 (M, C), -inf where an id is no code.

        Arguments after the first two, and errors, are those of `guided`.
        """
        logits_BC = self.products(hidden_BD, table_VD)
        return self.codes_alone(guided(logits_BC, num_branches, args))

    def products(self, hidden_BD: Tensor, table_VD: Tensor) -> Tensor:
        """Return the products of hidden vectors with the rows of the slice, (B, C)."""
        if self.rows is not None:
            return self.rows(hidden_BD)
        return F.linear(hidden_BD, table_VD[self.first : self.last])

    def codes_alone(self, logits_MC: Tensor) -> Tensor:
        """Return the logits of codes, -inf where other ids lie between them."""
        if self.allowed is None:
            return logits_MC
        return logits_MC.masked_fill(~self.allowed.to(logits_MC.device), -torch.inf)
