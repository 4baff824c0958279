"""Cross entropy of the head, sliced by modality and in chunks, against whole logits.

In: hidden vectors, 60 % of which predict an image code. The peer multiplies all logits and calls
torch's cross_entropy. Memory is what torch holds at most beyond the inputs and the gradients, which
both must give. Exact: loss and gradients against masked logits in float64.
"""

import math
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from unimodal.cross_entropy import Targets, linear_cross_entropy
from unimodal.vocabulary import Vocabulary

from .measured import Line, interleaved, peak_bytes, ratios, spread
from .steps import Scale

TIME, MEMORY, SAME = 0.55, 1 / 50, 1e-6  # the bars
CODES = 0.6  # share of the targets


def inputs(
    vocabulary: Vocabulary, width: int, positions: int
) -> tuple[Tensor, Tensor, list[Targets]]:
    """hidden_ND, head_VD, and the targets of text and of images."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(positions, width, generator=generator).requires_grad_()
    head_VD = (0.02 * torch.randn(vocabulary.size, width, generator=generator)).requires_grad_()
    order_N = torch.randperm(positions, generator=generator)
    cut, code_slice = round((1 - CODES) * positions), vocabulary.code_slice

    def targets(at_M: Tensor, first: int, last: int) -> Targets:
        ids_M = torch.randint(first, last, at_M.shape, generator=generator)
        return Targets(at_M, ids_M, torch.full(at_M.shape, 1 / positions), first, last)

    parts = [targets(order_N[:cut], 0, vocabulary.num_words), targets(order_N[cut:], *code_slice)]
    return hidden_ND, head_VD, parts


def sliced(hidden_ND: Tensor, head_VD: Tensor, targets: list[Targets]) -> Tensor:
    """Ours."""
    return linear_cross_entropy(hidden_ND, head_VD, targets)[0]


def whole(hidden_ND: Tensor, head_VD: Tensor, targets: list[Targets]) -> Tensor:
    """The peer: over all ids."""
    labels_N = torch.empty(len(hidden_ND), dtype=torch.int64)
    for one in targets:
        labels_N[one.at_M] = one.ids_M
    return F.cross_entropy(hidden_ND @ head_VD.T, labels_N)


def masked(hidden_ND: Tensor, head_VD: Tensor, targets: list[Targets]) -> Tensor:
    """The oracle, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for one in targets:
        logits_MV = hidden_ND[one.at_M] @ head_VD.T
        rows_V = torch.arange(len(head_VD))
        logits_MV = logits_MV.masked_fill((rows_V < one.first) | (rows_V >= one.last), -math.inf)
        losses_M = F.cross_entropy(logits_MV, one.ids_M, reduction="none")
        total = total + (losses_M * one.weights_M).sum()
    return total


def apart(vocabulary: Vocabulary, width: int, positions: int) -> float:
    """How far loss and gradients are from the oracle's, as a share."""
    hidden_ND, head_VD, targets = inputs(vocabulary, width, positions)
    exact = [x.detach().double().requires_grad_() for x in (hidden_ND, head_VD)]
    total, oracle = sliced(hidden_ND, head_VD, targets), masked(*exact, targets)
    mine = [total, *torch.autograd.grad(total, (hidden_ND, head_VD))]
    theirs = [oracle, *torch.autograd.grad(oracle, exact)]
    pairs = zip(mine, theirs, strict=True)
    return max(float((a.detach() - b.detach()).norm() / b.detach().norm()) for a, b in pairs)


def lines(scale: Scale) -> list[Line]:
    """Time and memory."""
    hidden_ND, head_VD, targets = inputs(scale.vocabulary, scale.width, scale.loss_positions)

    def taking(loss: Callable[..., Tensor]) -> Callable[[], None]:
        def forward_and_backward() -> None:
            hidden_ND.grad = head_VD.grad = None
            loss(hidden_ND, head_VD, targets).backward()

        return forward_and_backward

    ours, theirs = taking(sliced), taking(whole)
    their_s, our_s = interleaved(scale.repeats, theirs, ours)
    share = ratios(our_s, their_s)
    beside = []
    for work in (ours, theirs):
        hidden_ND.grad = head_VD.grad = None
        peak, kept = peak_bytes(work)
        beside.append((peak - kept) / 1e6)
    distance = apart(scale.vocabulary, scale.width, scale.checked_positions)
    check = f"loss and gradients equal to masked float64 to {distance:.0e}"
    wrong = (check,) if distance > SAME else ()
    what = (
        f"cross entropy, {scale.loss_positions:,} positions, {CODES:.0%} codes, "
        f"{scale.vocabulary.size:,} ids, width {scale.width}"
    )
    return [
        Line(
            f"{what}: time", spread(our_s, " s"), f"whole logits {spread(their_s, ' s')}",
            spread(share), f"<= {TIME}", median(share) <= TIME, check, wrong,
        ),
        Line(
            f"{what}: memory beside the gradients", f"{beside[0]:,.0f} MB",
            f"whole logits {beside[1]:,.0f} MB", f"1/{beside[1] / beside[0]:.0f}",
            f"<= 1/{1 / MEMORY:.0f}", beside[0] <= MEMORY * beside[1],
        ),
    ]  # fmt: skip
