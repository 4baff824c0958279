"""The objectives of learning from rewards, as functions of tensors.

Letters: P prompts, G replies to each (a group), M choices of all replies, R replies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL_STD = 1e-4  # added to a group's standard deviation, so that equal rewards give 0


def advantages(rewards_PG: Tensor, normalise: bool) -> Tensor:
    """Return how much better each reply is than its group, (P, G).

    The reward less the group's mean, over the group's standard deviation where `normalise` is true
    (DeepSeekMath, arXiv:2402.03300, sec. 4.1.2); without that it is the advantage of Dr. GRPO
    (arXiv:2503.20783, sec. 3.2).
    """
    # From the first reply's on: a sum of equal rewards, divided, may be another in its last bit.
    above_PG = rewards_PG - rewards_PG[:, :1]
    centred_PG = above_PG - above_PG.mean(dim=1, keepdim=True)
    if not normalise:
        return centred_PG
    return centred_PG / (above_PG.std(dim=1, keepdim=True) + SMALL_STD)


def clipped(
    log_p_M: Tensor, old_M: Tensor, advantage_M: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate of each choice, which is to be maximised, and whether the clip
    took its gradient away, bool (M,).

    With the ratio r = p / p_old it is min(r A, clip(r, 1 - low, 1 + high) A): PPO (Schulman et al.,
    arXiv:1707.06347, eq. 7), with two bounds as DAPO has them (arXiv:2503.14476, eq. 10).
    """
    ratio_M = (log_p_M - old_M).exp()
    free_M = ratio_M * advantage_M
    bound_M = ratio_M.clamp(1 - low, 1 + high) * advantage_M
    return torch.minimum(free_M, bound_M), bound_M < free_M


def divergence(log_p_M: Tensor, start_M: Tensor) -> Tensor:
    """Return the estimate of KL(p | start) at each choice: s / p - log(s / p) - 1.

    It is unbiased and never negative: k3 of Schulman ("Approximating KL Divergence", 2020,
    http://joschu.net/blog/kl-approx.html), and eq. 4 of DeepSeekMath (arXiv:2402.03300).
    """
    log_ratio_M = start_M - log_p_M
    return log_ratio_M.exp() - log_ratio_M - 1


def critical(entropy_n: Tensor, share: float | None, rest_weight: float) -> Tensor:
    """Return the weight of each choice of one reply: 1 for the `share` of the largest entropy (of
    equal ones the earlier), and rest_weight for the others; None: 1 for all.

    The rule of the forking tokens (arXiv:2506.01939, eq. 5), within each reply.
    """
    if share is None:
        return torch.ones_like(entropy_n)
    weights_n = torch.full_like(entropy_n, rest_weight)
    order_n = entropy_n.argsort(descending=True, stable=True)
    weights_n[order_n[: num_critical(len(entropy_n), share)]] = 1.0
    return weights_n


def num_critical(num_choices: int, share: float) -> int:
    """Return how many choices of a reply are critical: at least one."""
    return max(1, round(share * num_choices))


def preference_loss(log_p_R: Tensor, start_R: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the loss of each pair of replies, the better before the worse, and its margin, (R/2,).

    -log sigmoid(margin), where margin = beta ((log p(w) - log start(w)) - (log p(l) - log
    start(l))): DPO (Rafailov et al., arXiv:2305.18290, eq. 7).
    """
    ratio_R2 = (log_p_R - start_R).unflatten(0, (-1, 2))
    margin = beta * (ratio_R2[:, 0] - ratio_R2[:, 1])
    return -F.logsigmoid(margin), margin
