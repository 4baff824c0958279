"""Jacobi decoding draws several codes in a pass: the image that its seed draws one by one.

A code is F^-1(u): the distribution at its place, given the codes before it, inverted at a number u
that is a function of the seed and the place alone (sampling.py). So the image solves a triangular
system of equations, x_n = F^-1(u_n; x_1 ... x_n-1), and any drafts of it can be checked:

1. Behind the codes that are drawn stand drafts of the next ones.
2. A pass reads all of them and gives the distribution at each of their places and at the one
   behind, and with the places' own u a code for each of them.
3. From the left, codes are right as long as the drafts before them were: those are drawn, at least
   one in a pass.
4. The codes behind are the next drafts: a step of Jacobi's iteration (Song et al.,
   arXiv:2002.03629, alg. 1; of language models, Santilli et al., arXiv:2305.10427). Further ones
   are those of the image before, which an edit mostly keeps, as long as it has had half of the
   codes right; else they are sampled from the last distribution with the u of their own places.

Requests that draw together share a pass, and each token of it costs: the more of them, the fewer
drafts each has, down to none. What is drawn depends on no draft: a source of chance that draft and
check share stands in place of the test of speculative sampling (Daliri et al., arXiv:2408.07978,
call this drafter-invariant), which keeps a few more drafts and draws another image.

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

Found = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Pass:
    """A Pass holds the drafts of one request, and the numbers in [0, 1) that sample its codes.

    places: int64 (m + 1,), which of the tokens read predict the codes. rows: int64 (m,), the drafts
    as rows of the codes' slice. uniform: float64, the number of each code that is not drawn yet.
    before: int64, their rows in the image before, if there is one and it was mostly right. most:
    how many next drafts there are at most; the last code of an image never needs one.
    """

    places: np.ndarray
    rows: np.ndarray
    uniform: np.ndarray
    before: np.ndarray | None
    most: int
    guidance: Scale

    @property
    def uniform_behind(self) -> np.ndarray:
        """Return the numbers of the places behind those that are predicted, as many as may have
        drafts.
        """
        return self.uniform[len(self.places) :][: self.most]

    def checked(self, sampled_n: np.ndarray, guessed_k: np.ndarray) -> Found:
        """Return the rows of the codes that are drawn, and those of the next drafts.

        sampled_n: the rows that the places predict, int64 (m + 1,). guessed_k: those of the places
        behind, if they are distributed as the last of them, int64 (most,) or more.
        """
        m, known = len(self.rows), min(len(self.places) + self.most, len(self.uniform))
        behind = guessed_k if self.before is None else self.before[m + 1 :]
        rows_K = np.concatenate([sampled_n, behind])[:known]
        wrong = np.flatnonzero(rows_K[:m] != self.rows)
        num = 1 + (int(wrong[0]) if len(wrong) else m)
        return rows_K[:num], rows_K[num : min(num + self.most, len(self.uniform) - 1)]


def draw_by_drafts(head: "NextCode", drawing: Drawing, tokens: "CodeTokens", most: int) -> Draw:
    """Draw with at most `most` drafts in a pass; return the image."""
    sampling, size = drawing.sampling, drawing.grid.size
    branches = branches_of(sampling)
    settings = sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
    uniform_N, before_N = tokens.uniform(), head.rows_before(drawing)
    codes_N, done, forget, right = np.zeros(size, np.int64), 0, 0, 0
    pending = [drawing.opened]
    rows = np.zeros(0, np.int64) if before_N is None else before_N[: min(most, size - 1)]
    while done < size:
        now = min(most, max(drawing.room() - 1, 0))
        rows = rows[:now]
        drafts = [tokens.of(done + k, code) for k, code in enumerate(head.code_of_rows(rows))]
        groups = [pending, *drafts]
        address = [one for k, ids in enumerate(groups) for one in tokens.address(done + k, ids)]
        read = Read([one for ids in groups for one in ids], address=address, forget=forget)
        places = np.cumsum([len(ids) for ids in groups]) - 1
        before_n = None if before_N is None or 2 * right < done else before_N[done:]
        arg = Pass(places, rows, uniform_N[done:], before_n, now, sampling.scale)
        drawn, rows = yield Ask(
            dict.fromkeys(branches, read), check_drafts, settings, arg, done, len(read.ids),
            tokens.image(codes_N) if done else None, np.arange(size) < done,
        )  # fmt: skip
        forget = sum(map(len, drafts[len(drawn) - 1 :]))
        codes_N[done : done + len(drawn)] = head.code_of_rows(drawn)
        if before_N is not None:
            right += int((before_N[done : done + len(drawn)] == drawn).sum())
        done += len(drawn)
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
    lengths = [*map(len, places)]
    last_R = np.cumsum(lengths) - 1
    uniform_M = np.concatenate([one.uniform[: len(one.places)] for one in args])
    uniform_RK = np.zeros((len(args), max(one.most for one in args)))
    for uniform_K, one in zip(uniform_RK, args, strict=True):
        uniform_K[: len(one.uniform_behind)] = one.uniform_behind
    sampled_M1 = _inverted(p_MC, uniform_M[:, None])
    guessed_RK = _inverted(p_MC[last_R], uniform_RK)
    sampled = np.split(sampled_M1[:, 0], last_R[:-1] + 1)
    return [one.checked(*rows) for one, *rows in zip(args, sampled, guessed_RK, strict=True)]


def _inverted(p_MC: Tensor, uniform_MK: np.ndarray) -> np.ndarray:
    return invert(p_MC, torch.from_numpy(uniform_MK).to(p_MC.device)).cpu().numpy()
