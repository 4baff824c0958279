"""Intervals where items belong together: several questions about one image are no independent ones.

In: for each item its cluster and what it adds to some sums (right answers, questions). Out: an
`Estimate` of a statistic of the summed sums, its interval by the jackknife that leaves out one
cluster at a time (Efron & Stein 1981, Ann. Stat. 9, 586-596, eq. 1.2).

A share (accuracy, F1) takes Wilson's interval at the number of independent answers that would have
the same variance (the effective sample size: Korn & Graubard 1998, Surv. Methodol. 24, 193-201), so
that it stays within 0 and 1, and shrinks to no point where all answers are right.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..intervals import Z_95, Estimate, jackknife, unmeasured, wilson

Addend = tuple[str, Sequence[float]]
"""The cluster of an item, and what it adds to each sum."""
Statistic = Callable[[np.ndarray], float | None]
"""A function of the sums; None: they say nothing (a division by zero)."""


def ratio(sums: np.ndarray) -> float | None:
    """Return the first sum over the second."""
    return float(sums[0] / sums[1]) if sums[1] else None


def of_clusters(addends: Iterable[Addend], statistic: Statistic = ratio) -> Estimate:
    """Return any statistic with its interval; of one cluster without one."""
    items = list(addends)
    if not items:
        return unmeasured()
    sums_KS = _summed(items)
    total_S = sums_KS.sum(axis=0)
    value = statistic(total_S)
    if value is None:
        return unmeasured(len(items))
    without = [statistic(total_S - cluster_S) for cluster_S in sums_KS]
    known = [one for one in without if one is not None]
    if len(sums_KS) == 1 or len(known) < len(without):
        return Estimate(value, None, None, len(items))
    return replace(jackknife(value, known), n=len(items))


def share_of_clusters(addends: Iterable[Addend], statistic: Statistic = ratio) -> Estimate:
    """Return a statistic that lies between 0 and 1 with Wilson's interval."""
    items = list(addends)
    found = of_clusters(items, statistic)
    if found.value is None or found.low is None or found.high is None:
        return found
    p = min(max(found.value, 0.0), 1.0)  # sums of floats may leave 1 + 1e-16
    deviation = (found.high - found.low) / 2 / Z_95
    num_clusters = len({cluster for cluster, _ in items})
    varies = deviation > 1e-12 and 0 < p < 1
    n = p * (1 - p) / deviation**2 if varies else num_clusters
    low, high = wilson(p, n)
    return Estimate(p, low, high, len(items))


def mean_of_clusters(addends: Iterable[tuple[str, float]]) -> Estimate:
    """Return the mean of values from 0 to 1, given as (cluster, value)."""
    return share_of_clusters((cluster, (value, 1.0)) for cluster, value in addends)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Return an estimate times a number of more than 0."""
    value, low, high = (
        None if one is None else one * factor
        for one in (estimate.value, estimate.low, estimate.high)
    )  # fmt: skip
    return Estimate(value, low, high, estimate.n)


def _summed(items: Sequence[Addend]) -> np.ndarray:
    """Return the sums of each cluster, float64 (clusters, sums)."""
    numbers = {cluster: at for at, cluster in enumerate(dict.fromkeys(one for one, _ in items))}
    sums_KS = np.zeros((len(numbers), len(items[0][1])))
    np.add.at(sums_KS, [numbers[cluster] for cluster, _ in items], [added for _, added in items])
    return sums_KS
