"""KID: the squared maximum mean discrepancy of two sets of features, without bias.

Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv:1801.01401). In: features (n, C) and (m, C).
Out: the mean over random subsets with a 95 % interval, and how far the subsets spread. Of two sets
of one distribution it is 0 on average, whatever their sizes, and so as often negative.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..intervals import Z_95, Estimate, jackknife

SUBSETS, SUBSET_SIZE = 100, 1000  # as torch-fidelity and clean-fid take them
GROUPS = 20  # that are left out in turn for the interval


def kid(
    first_nC: np.ndarray, second_mC: np.ndarray, size: int, subsets: int = SUBSETS, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Return the mean over `subsets` random subsets of `size` images of each set, and the standard
    deviation of the subsets.

    The interval is a jackknife of all images, for subsets share images, and their spread is none.
    ValueError where a set has fewer than `size` images, or fewer than two.
    """
    n, m = len(first_nC), len(second_mC)
    if not 2 <= size <= min(n, m):
        raise ValueError(
            f"--kid-size {size}: subsets have 2 images at least, and at most the "
            f"{min(n, m)} of the smaller set"
        )
    rng = np.random.default_rng(seed)
    found = [
        mmd(first_nC[_drawn(rng, n, size)], second_mC[_drawn(rng, m, size)]) for _ in range(subsets)
    ]
    value, both = float(np.mean(found)), min(n, m)
    spread = Estimate(float(np.std(found)), None, None, subsets)
    groups = min(GROUPS, both // 2)
    if groups < 2:
        return Estimate(value, None, None, both), spread
    around = jackknife(value, _without_each(first_nC, second_mC, groups))
    assert around.high is not None, "two groups or more are left out"
    # The variance of both sets, and beside it that of the choice of subsets.
    half = math.hypot(around.high - value, Z_95 * float(np.std(found)) / math.sqrt(subsets))
    return Estimate(value, value - half, value + half, both), spread


def default_size(n: int, m: int) -> int:
    """Return the size of subsets where none is asked for: half of the smaller set at most."""
    return max(2, min(SUBSET_SIZE, min(n, m) // 2))


def mmd(first_nC: np.ndarray, second_mC: np.ndarray) -> float:
    """Return the unbiased squared MMD of two sets (eq. 4), pairs of an image with itself left
    out.
    """
    n, m = len(first_nC), len(second_mC)
    within = _within(first_nC) / (n * (n - 1)) + _within(second_mC) / (m * (m - 1))
    return float(within - 2 * kernel(first_nC, second_mC).mean())


def kernel(first_nC: np.ndarray, second_mC: np.ndarray) -> np.ndarray:
    """Return k(x, y) = (x . y / C + 1)^3 of each pair, float64 (n, m) (sec. 4)."""
    width = first_nC.shape[1]
    return (first_nC.astype(np.float64) @ second_mC.astype(np.float64).T / width + 1) ** 3


def _within(x_nC: np.ndarray) -> float:
    k_nn = kernel(x_nC, x_nC)
    return float(k_nn.sum() - np.trace(k_nn))


def _drawn(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    return rng.choice(n, size, replace=False)


def _without_each(first_nC: np.ndarray, second_mC: np.ndarray, groups: int) -> list[float]:
    """Return the MMD of both sets without each of so many groups, from sums of kernels of pairs of
    groups: no kernel is computed twice.
    """
    a = [first_nC[np.arange(len(first_nC)) % groups == g] for g in range(groups)]
    b = [second_mC[np.arange(len(second_mC)) % groups == g] for g in range(groups)]
    aa_GG, bb_GG, ab_GG = _sums(a, a), _sums(b, b), _sums(a, b)
    found = []
    for g in range(groups):
        kept = [h for h in range(groups) if h != g]
        n, m = (sum(len(side[h]) for h in kept) for side in (a, b))
        aa, bb, ab = (float(one[np.ix_(kept, kept)].sum()) for one in (aa_GG, bb_GG, ab_GG))
        found.append(aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m))
    return found


def _sums(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sums of kernels of each pair of groups; of a set with itself without pairs of an
    image with itself.
    """
    is_same = first is second
    return np.array([
        [_within(a) if is_same and g == h else kernel(a, b).sum() for h, b in enumerate(second)]
        for g, a in enumerate(first)
    ])  # fmt: skip
