"""Entropies of codes that are made of independent bits, without a table of all codes.

In: the logits of each bit being one, for n vectors. Out: how uncertain the code of a vector is, on
average, and how uncertain the codes of all vectors together are, in nats. A quantizer is trained to
make the first small (each vector is near its code) and the second large (all codes are used):
Yu et al., MAGVIT-v2, arXiv:2310.05737, eq. 5.

Shapes: n vectors; K bits; F codes of a factor, that is of some of the bits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from . import ranks

TINY = 1e-30  # below every probability that counts: or else the slope of p log p at 0 is infinite


def mean_entropy(logits_nK: Tensor) -> Tensor:
    """Return E[H(p)], the mean entropy of the code of a vector, a scalar.

    Bits are independent, so the entropy of a code is the sum of theirs (BSQ, arXiv:2406.07548,
    sec. 4), each H(p) = -p log p - (1 - p) log(1 - p) = softplus(x) - x p for p = sigmoid(x).
    """
    return (F.softplus(logits_nK) - logits_nK * logits_nK.sigmoid()).sum(-1).mean()


def entropy_of_mean(logits_nK: Tensor, factor_bits: int) -> Tensor:
    """Return H(E[p]), the entropy of the mean distribution of codes over all ranks, a scalar.

    Each factor of `factor_bits` bits has the distribution of its own, and their entropies are
    added: exact for one factor, otherwise an upper bound, for it takes factors for independent.
    """
    count = ranks.total(logits_nK.new_tensor(float(len(logits_nK))))
    factors = logits_nK.split(factor_bits, dim=-1)
    means = [ranks.total(_sum(factor_nK)) / count for factor_nK in factors]
    return torch.stack(list(map(_entropy, means))).sum()


def _sum(logits_nK: Tensor) -> Tensor:
    """Return the probability of each code of a factor, added over vectors, float32 (2 ** K,).

    The codes of half of the bits have probabilities P (n, 2 ** (K/2)), those of the other half Q,
    and a code of both their product: the sum over vectors is the matrix product P^T Q. So
    2 ** 18 codes take 2 ** 18 numbers, not that many for each vector.
    """
    half = logits_nK.shape[1] // 2
    low_nF, high_nF = _products(logits_nK[:, :half]), _products(logits_nK[:, half:])
    return (high_nF.T @ low_nF).flatten()


def _products(logits_nK: Tensor) -> Tensor:
    """Return the probability of each code of a few bits, (n, 2 ** K), the first bit the lowest."""
    products_nF = logits_nK.new_ones(len(logits_nK), 1)
    for logit_n in logits_nK.unbind(1):
        logit_n1 = logit_n[:, None]
        zero_nF, one_nF = products_nF * (-logit_n1).sigmoid(), products_nF * logit_n1.sigmoid()
        products_nF = torch.cat([zero_nF, one_nF], dim=1)
    return products_nF


def _entropy(p_F: Tensor) -> Tensor:
    return -(p_F * (p_F + TINY).log()).sum()
