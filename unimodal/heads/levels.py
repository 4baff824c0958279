"""A head of levels predicts a code by the levels of its quantizer, and needs no row for any code.

Codes stand in reading order, each predicted from those before it, as with next_code; they enter by
a LevelEmbedder. What a code's levels know of each other is the subclass's: nothing in
independent_levels.py, those before it in causal_levels.py. Either way the probability of a code is
the product of those of its levels, so it is exact and sums to 1 over all codes.

Letters: N hidden vectors, M targets, R requests, B branches of requests, D width, V rows of the
output table, L levels, K levels that are known, n values of a level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..architecture import Architecture
from ..code_levels import CodeLevels
from ..embedder import ImageEmbedder, LevelEmbedder
from ..sampling import log_probability, pick
from ..sequence import IMAGE, Batch
from .head import Draw, Drawing, ImageHead, guided, targets_of
from .next_code import NextCodeInputs, draw_in_order


class LevelsHead(ImageHead):
    """A LevelsHead scores codes level by level; a subclass gives the logits of the levels."""

    code_rows, in_order = False, True
    follows = (*ImageHead.follows, "guidance_interval")

    def __init__(self, architecture: Architecture) -> None:
        """Raise ValueError where the levels do not make the codes."""
        super().__init__(architecture)
        self.inputs = NextCodeInputs()
        self.levels = CodeLevels.of(architecture.image.levels, architecture.vocabulary)

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder by which codes enter as the sum of their levels."""
        return LevelEmbedder(architecture)

    def logits(self, hidden_MD: Tensor, known_MK: Tensor, first: int) -> list[Tensor]:
        """Return the logits (M, n) of each of the levels first .. K, counted from 0.

        known_MK: int64, the values of the K levels before the last of these.
        """
        raise NotImplementedError

    def forward(
        self, hidden_ND: Tensor, table_VD: Tensor, batch: Batch, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the cross entropy of the codes, the sum of that of their levels."""
        at_M, weights_M = targets_of(batch, IMAGE)
        values_ML = self.levels.values(self.levels.codes(batch.labels.flatten()[at_M]))
        # log p(code) = sum_k log p(level k | levels before k): the chain rule.
        losses_LM = [
            F.cross_entropy(logits_Mn.float(), values_M, reduction="none")
            for logits_Mn, values_M in zip(
                self.logits(hidden_ND[at_M], values_ML[:, :-1], 0), values_ML.unbind(1), strict=True
            )
        ]
        losses_M = torch.stack(losses_LM).sum(dim=0)
        return (scale * weights_M * losses_M).sum(), losses_M.detach()

    def log_probability(
        self, hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of codes; see ImageHead.log_probability.

        Both are sums over levels. Where levels depend on those before them, the entropy is that
        given the levels of this code: its mean over codes is the entropy of the code (Cover and
        Thomas, Elements of Information Theory, theorem 2.5.1).
        """
        values_ML = self.levels.values(self.levels.codes(ids_M))
        logits = self.logits(hidden_MD, values_ML[:, :-1], 0)
        found = [log_probability(*one) for one in zip(logits, values_ML.unbind(1), strict=True)]
        log_p_LM, entropy_LM = zip(*found, strict=True)
        return torch.stack(log_p_LM).sum(dim=0), torch.stack(entropy_LM).sum(dim=0)

    def draw(self, drawing: Drawing) -> Draw:
        """Draw code by code; see draw_in_order."""
        return draw_in_order(drawing, pick_levels, len(self.levels.counts))


def pick_levels(
    head: LevelsHead,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[list[float], float | None]],
) -> list[int]:
    """Sample the levels of the next code of each request, one after another; a `look`.

    hidden: (R, 1, D) for each branch; with two, the second is the unconditional one. settings:
    temperature, top k, top p, each of them for the values of one level. args: for each request the
    uniform numbers in [0, 1) that sample its levels, and the guidance scale, which applies to the
    logits of each level. Raise ValueError where logits are not finite.
    """
    last_BD = torch.cat([branch_R1D[:, -1] for branch_R1D in hidden])
    uniform_RL = torch.tensor([u for u, _ in args], dtype=torch.float64, device=last_BD.device)
    values_RK = torch.empty(len(args), 0, dtype=torch.int64, device=last_BD.device)
    for level in range(len(head.levels.counts)):
        known_BK = values_RK.repeat(len(hidden), 1)
        (logits_Bn,) = head.logits(last_BD, known_BK, level)
        logits_Rn = guided(logits_Bn, len(hidden), args)
        values_R = pick(logits_Rn, uniform_RL[:, level], *settings)
        values_RK = torch.cat([values_RK, values_R[:, None]], dim=1)
    return head.levels.numbers(values_RK).tolist()
