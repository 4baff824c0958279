"""The `causal_levels` head predicts a code level by level, each from those before it.

A small network beside the transformer sees the hidden vector, and of each level before the one in
hand an embedding of its value:

    x_k = W h + e_k + sum_{j < k} E_j[v_j],   x <- x + MLP(RMSNorm(x)), NUM_BLOCKS times,
    p(v_k | h, v_1 .. v_{k-1}) = softmax(T_k RMSNorm(x_k)).

So any distribution over codes can be learned, exactly normalised. In training all levels are
computed at once, in drawing one after another, without another pass of the transformer. It is an
autoregressive head over the bits of a token, as BAR's masked-bit head is (arXiv:2602.09024), with
the running sum of NADE for what is known (Uria et al., arXiv:1605.02226, eq. 2 and 3).

Letters: M targets, D width, K levels that are known, J levels whose logits are asked for, W width
of the network, n values of a level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture
from ..transformer import RMSNorm
from .levels import LevelsHead

NUM_BLOCKS = 2


class Block(nn.Module):
    """A Block adds to the residual stream what an MLP makes of it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(width, eps)
        self.widen = nn.Linear(width, 2 * width, bias=False)
        self.narrow = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_MJW: Tensor) -> Tensor:
        """Return the residual stream after this block, in the same shape."""
        return x_MJW + self.narrow(F.gelu(self.widen(self.norm(x_MJW))))


class CausalLevels(LevelsHead):
    """CausalLevels score each level given those before it, at half of the model's width."""

    def __init__(self, architecture: Architecture) -> None:
        """Make the network; raise ValueError where the levels do not make the codes."""
        super().__init__(architecture)
        D, eps = architecture.transformer.width, architecture.transformer.norm_eps
        W, L, S = max(1, D // 2), len(self.levels.counts), self.levels.num_rows
        self.project = nn.Linear(D, W, bias=False)
        self.values = nn.Embedding(S, W)
        self.places = nn.Parameter(torch.empty(L, W))
        self.blocks = nn.ModuleList(Block(W, eps) for _ in range(NUM_BLOCKS))
        self.norm = RMSNorm(W, eps)
        self.table = nn.Parameter(torch.empty(S, W))
        self.num_targets = (D * W + L * NUM_BLOCKS * 4 * W * W + S * W) // D

    def logits(self, hidden_MD: Tensor, known_MK: Tensor, first: int) -> list[Tensor]:
        """Return the logits of levels first .. K, each given the known ones before it."""
        wanted = slice(first, known_MK.shape[1] + 1)
        vectors_MKW = self.values(self.levels.rows(known_MK))
        # Before level k stand k levels: the sum over none is zero.
        sums_MJW = F.pad(vectors_MKW.cumsum(dim=1), (0, 0, 1, 0))[:, wanted]
        x_MJW = self.project(hidden_MD)[:, None] + sums_MJW + self.places[wanted]
        for block in self.blocks:
            x_MJW = block(x_MJW)
        x_JMW = self.norm(x_MJW).transpose(0, 1)
        return [
            F.linear(x_MW, self.table[rows])
            for x_MW, rows in zip(x_JMW, self.levels.slices[wanted], strict=True)
        ]
