"""The statistics of paired differences: intervals by the bootstrap, tests by exchange of labels.

In: for each cluster (the items of one prompt) the sum of its items' differences, and their number.
Out: replicates of the mean difference, its 95 % interval, a p-value.

1. `bootstrap` draws whole clusters with replacement and forms the ratio of sums each time
   (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 8); `interval` takes the 2.5 %
   and 97.5 % quantiles of the replicates (ch. 13.3).
2. `exchange_p` is the p-value of Fisher's randomization test: were both models alike, each
   cluster's difference would have either sign with the same chance. For yes/no scores it is counted
   exactly; with one item a prompt that is McNemar's exact test, a sign test on the items where the
   models disagree. Else the signs are drawn.
3. `holm` corrects p-values for their number (Holm 1979, Scand. J. Stat. 6, 65-70).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

RESAMPLES = 10_000
FLIPS = 20_000  # where signs are drawn: p-values are at least 1 / 20,001
MOST_WORK = 20_000_000  # additions of an exact count
CHUNK = 4_000_000  # numbers held at a time
SLACK = 1e-9  # by which sums of floats that are equal may differ


def cluster_sums(values: Iterable[tuple[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each cluster's values, both float64 (clusters,).

    values: each with the name of its cluster.
    """
    clusters: dict[str, list[float]] = {}
    for name, value in values:
        clusters.setdefault(name, []).append(value)
    return (
        np.array([math.fsum(one) for one in clusters.values()]),
        np.array([float(len(one)) for one in clusters.values()]),
    )


def bootstrap(
    sums_C: np.ndarray, sizes_C: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Return replicates of sum(sums) / sum(sizes), float64 (resamples,)."""
    clusters = len(sums_C)
    rows = max(1, min(resamples, CHUNK // clusters))
    found = []
    for start in range(0, resamples, rows):
        drawn_RC = rng.integers(clusters, size=(min(rows, resamples - start), clusters))
        found.append(sums_C[drawn_RC].sum(axis=1) / sizes_C[drawn_RC].sum(axis=1))
    return np.concatenate(found)


def interval(replicates_R: np.ndarray) -> tuple[float, float]:
    """Return the limits between which 95 % of the replicates lie."""
    low, high = np.quantile(replicates_R, [0.025, 0.975])
    return float(low), float(high)


def exchange_p(
    differences_C: np.ndarray, rng: np.random.Generator, flips: int = FLIPS
) -> tuple[float, bool]:
    """Return the two-sided p-value of the sum of the clusters' differences, and if it is exact.

    It is where the differences are whole numbers, few and small enough to count all signs.
    """
    moving_C = differences_C[np.abs(differences_C) > SLACK]
    if not len(moving_C):
        return 1.0, True
    whole_C = np.rint(moving_C).astype(np.int64)
    if np.array_equal(whole_C, moving_C):
        whole_C //= np.gcd.reduce(whole_C)
        if len(whole_C) * int(np.abs(whole_C).sum()) <= MOST_WORK:
            return _counted(whole_C), True
    return _drawn(moving_C, rng, flips), False


def _counted(whole_C: np.ndarray) -> float:
    """Return the share of all signs whose sum is as far from 0 as the one that was seen."""
    most = int(np.abs(whole_C).sum())
    chances = np.zeros(2 * most + 1)  # of each sum, -most to most
    chances[most] = 1.0
    reach = 0  # sums so far lie within -reach to reach
    for step in np.abs(whole_C).tolist():
        before = chances[most - reach : most + reach + 1] / 2
        chances[most - reach : most + reach + 1] = 0
        reach += step
        chances[most - reach : most + reach - 2 * step + 1] += before
        chances[most - reach + 2 * step : most + reach + 1] += before
    seen = abs(int(whole_C.sum()))
    return 1.0 if seen == 0 else min(1.0, 2 * math.fsum(chances[most + seen :]))


def _drawn(moving_C: np.ndarray, rng: np.random.Generator, flips: int) -> float:
    """Return the p-value of drawn signs; the seen ones count among them (Phipson & Smyth 2010,
    Stat. Appl. Genet. Mol. Biol. 9, art. 39).
    """
    seen, rows = abs(moving_C.sum()), max(1, CHUNK // len(moving_C))
    scale = np.abs(moving_C).sum()
    as_far = 0
    for start in range(0, flips, rows):
        signs_RC = rng.integers(2, size=(min(rows, flips - start), len(moving_C))) * 2 - 1
        as_far += int((np.abs(signs_RC @ moving_C) >= seen - SLACK * scale).sum())
    return (1 + as_far) / (1 + flips)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, in their order."""
    corrected, so_far = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        so_far = max(so_far, min(1.0, (len(ps) - rank) * ps[at]))
        corrected[at] = so_far
    return corrected
