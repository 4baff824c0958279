"""The `independent_levels` head predicts all levels of a code at once, by factorised logits.

The logit of a code is the sum of its levels' logits, each the product of the hidden vector with a
row for that value of that level. The softmax over all codes is then a product of one softmax for
each level,

    exp(sum_k a_k[v_k]) / sum_codes exp(sum_k a_k[v_k]) = prod_k exp(a_k[v_k]) / sum_v exp(a_k[v]),

so that 2^18 codes of 18 bits cost 36 logits. Given the hidden vector, levels are independent: what
they have to do with each other is learned only as far as the transformer has decided it. Where
drawings look torn by it, causal_levels.py is the other choice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture
from .levels import LevelsHead


class IndependentLevels(LevelsHead):
    """IndependentLevels score each level by itself; the weights are a row for each value."""

    def __init__(self, architecture: Architecture) -> None:
        """Make the table; raise ValueError where the levels do not make the codes."""
        super().__init__(architecture)
        self.num_targets = self.levels.num_rows
        self.table = nn.Parameter(torch.empty(self.num_targets, architecture.transformer.width))

    def logits(self, hidden_MD: Tensor, known_MK: Tensor, first: int) -> list[Tensor]:
        """Return the logits of levels first .. K; the values of other levels change nothing."""
        wanted = self.levels.slices[first : known_MK.shape[1] + 1]
        rows = slice(wanted[0].start, wanted[-1].stop)
        logits_MS = F.linear(hidden_MD, self.table[rows])
        return list(logits_MS.split([one.stop - one.start for one in wanted], dim=1))
