"""Speculative Jacobi decoding draws several codes in a pass, from exactly the same distribution.

It is that of Teng et al. (arXiv:2410.01699, alg. 1), with the test of speculative sampling
(Leviathan et al., arXiv:2211.17192, sec. 2.3):

1. Behind the codes that are drawn stand drafts x_j, each sampled from a distribution q_j.
2. A pass reads all of them and gives p_j, the distribution of the code at each of their places and
   at the one behind, given those before it.
3. From the left, a draft is kept with the probability min(1, p_j(x_j) / q_j(x_j)). In place of the
   first that is not stands a sample of max(0, p_j - q_j), normalised: whatever stands there then is
   distributed as p_j. Where all are kept, the place behind them is sampled from its p.
4. The others are forgotten. The next drafts are sampled anew from the p of their places, and from
   the last known one where there is none; these are the next q.

All noise is a function of (seed, pass, place). At temperature 0 a p is all at the likeliest code:
the codes are those of drawing one by one, but for ties.

Letters: N codes of an image, R requests, M places whose codes a pass predicts, m drafts, C codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..sampling import Scale, invert, probabilities
from .head import Ask, Draw, Drawing, Read, branches_of

if TYPE_CHECKING:
    from .next_code import CodeTokens, NextCode

Found = tuple[np.ndarray, np.ndarray, Tensor]


@dataclass(frozen=True, eq=False)
class Pass:
    """A Pass holds the drafts of one request, and the numbers in [0, 1) that decide on them.

    places: int64 (m + 1,), which of the tokens read predict the codes. rows: int64 (m,), the drafts
    as rows of the codes' slice, and q: float64 (m, C), what they were sampled from. keep, replace
    and draft: float64, a number for each place that is not drawn yet, from the first of them on: it
    says whether a draft is kept, what comes in place of one, and what the next draft is. most: how
    many next drafts there are at most; the last place of an image never needs one.
    """

    places: np.ndarray
    rows: np.ndarray
    q: Tensor
    keep: np.ndarray
    replace: np.ndarray
    draft: np.ndarray
    most: int
    guidance: Scale

    def checked(self, p_MC: Tensor) -> Found:
        """Return the rows of the codes that are drawn, those of the next drafts, and their q."""
        m = len(self.rows)
        at_m, rows_m = torch.arange(m), torch.from_numpy(self.rows).to(p_MC.device)
        ratio_m = (p_MC[at_m, rows_m] / self.q[at_m, rows_m]).cpu().numpy()
        refused = np.flatnonzero(self.keep[:m] >= ratio_m)
        num = int(refused[0]) if len(refused) else m
        # arXiv:2211.17192, sec. 2.3: p'(x) = norm(max(0, p(x) - q(x))).
        rest_C = (p_MC[num] - self.q[num]).relu() if num < m else p_MC[num]
        (last,) = self._sampled(rest_C[None], self.replace[num : num + 1])
        first = num + 1  # of the places whose next drafts are wanted
        num_next = min(self.most, len(self.draft) - 1 - first)
        known = np.minimum(np.arange(first, first + max(num_next, 0)), m)
        q_nC = p_MC[torch.from_numpy(known).to(p_MC.device)]
        drafts = self._sampled(q_nC, self.draft[first : first + len(known)])
        return np.array([*self.rows[:num], last], np.int64), drafts, q_nC

    def _sampled(self, share_nC: Tensor, uniform_n: np.ndarray) -> np.ndarray:
        return invert(share_nC, torch.from_numpy(uniform_n).to(share_nC.device)).cpu().numpy()


def draw_by_drafts(head: "NextCode", drawing: Drawing, tokens: "CodeTokens", most: int) -> Draw:
    """Draw with at most `most` drafts in a pass; return the image."""
    sampling, size = drawing.sampling, drawing.grid.size
    branches = branches_of(sampling)
    settings = sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
    codes_N, done, forget, number = np.zeros(size, np.int64), 0, 0, 0
    pending = [drawing.opened]
    rows, q_mC = np.zeros(0, np.int64), torch.zeros(0, head.num_targets, dtype=torch.float64)
    while done < size:
        drafts = [tokens.of(done + k, code) for k, code in enumerate(head.code_of_rows(rows))]
        groups = [pending, *drafts]
        address = [one for k, ids in enumerate(groups) for one in tokens.address(done + k, ids)]
        read = Read([one for ids in groups for one in ids], address=address, forget=forget)
        keep, replace, draft = (drawing.noises(size, 3 * number + part)[done:] for part in range(3))
        places = np.cumsum([len(ids) for ids in groups]) - 1
        arg = Pass(places, rows, q_mC, keep, replace, draft, most, sampling.scale)
        drawn, rows, q_mC = yield Ask(
            dict.fromkeys(branches, read), check_drafts, settings, arg, done, len(read.ids),
            tokens.image(codes_N) if done else None, np.arange(size) < done,
        )  # fmt: skip
        forget = sum(map(len, drafts[len(drawn) - 1 :]))
        codes_N[done : done + len(drawn)] = head.code_of_rows(drawn)
        done, number = done + len(drawn), number + 1
        codes_N[done:] = codes_N[done - 1]
        pending = tokens.of(done - 1, int(codes_N[done - 1]))
    # The last ids are read together with what follows the image.
    yield Ask(dict.fromkeys(branches, Read(pending, forget=forget)), done=size)
    return tokens.image(codes_N)


def check_drafts(
    head: "NextCode",
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[Pass],
) -> list[Found]:
    """Check the drafts of each request and make its next ones; the `look` of an Ask.

    hidden: (R, n, D) for each branch, in the order of `branches_of`. settings: temperature, top k,
    top p. Raise ValueError where logits are not finite.
    """
    places = [one.places for one in args]
    logits_MC = head.logits_at(hidden, table_VD, places, [one.guidance for one in args])
    p_MC = probabilities(logits_MC, *settings)
    return [
        one.checked(p_mC) for one, p_mC in zip(args, p_MC.split([*map(len, places)]), strict=True)
    ]
