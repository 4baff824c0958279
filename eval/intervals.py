"""Scores with 95 % intervals: a value, and how far it can be trusted.

In: counts of right answers, or measured values. Out: `Estimate(value, low, high, n)`. Every
interval has a closed form, so a report is a pure function of its predictions, and none of them
shrinks to a point when all or no answers are right:

1. a proportion: Wilson's score interval; of verdicts in clusters, of their effective number;
2. the mean of measured values (PSNR): the normal interval of the sample mean;
3. a weighted sum of independent estimates (the mean of the task means, a gain over a baseline):
   MOVER, which recovers each part's variance from its own interval, so that Wilson's limits carry
   over to the sum;
4. a ratio of independent estimates (a score divided by the tokenizer's ceiling): MOVER-R;
5. any other statistic of a set (an entropy, a Frechet distance): the jackknife.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal


@dataclass(frozen=True)
class Estimate:
    """Holds a measured value and its 95 % interval [low, high]; n is the number of samples."""

    value: float | None  # None: nothing was measured (n = 0) or a division by zero
    low: float | None
    high: float | None
    n: int

    def json(self) -> dict[str, float | int | None]:
        """Return the four fields as a dictionary, as the score files hold them."""
        return asdict(self)


def unmeasured(n: int = 0) -> Estimate:
    """Return the estimate of what could not be measured: n samples and no value."""
    return Estimate(None, None, None, n)


def proportion(num_right: int, n: int) -> Estimate:
    """Return the share of right answers with its score interval; unmeasured when n = 0.

    Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    assert 0 <= num_right <= n, f"{num_right} right answers of {n}"
    if n == 0:
        return unmeasured()
    low, high = wilson(num_right / n, n)
    return Estimate(num_right / n, low, high, n)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Return the limits of Wilson's interval of the share p of n samples, n any number above 0."""
    # (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
    scale = 1 + Z_95**2 / n
    centre = (p + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n**2)) / scale
    # exact at the ends, where rounding leaves 1e-17
    return (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)


def clustered_share(clusters: Sequence[Sequence[bool]]) -> Estimate:
    """Return the share of True among verdicts that come in clusters: images of the same prompt.

    Wilson's interval of as many independent verdicts as would have the share's variance: the ratio
    estimator's over whole clusters (Cochran 1977, Sampling Techniques, ch. 9A; Korn and Graubard
    1998, Surv. Methodol. 24, 193-201). Not more than there are; where all or none are True nothing
    tells how alike a cluster is, and each counts once. n counts verdicts.
    """
    rights = [sum(cluster) for cluster in clusters]
    sizes = [len(cluster) for cluster in clusters]
    n = sum(sizes)
    if n == 0:
        return unmeasured()
    p = sum(rights) / n
    # var(p) = sum_i (r_i - p m_i)^2 / (sum_i m_i)^2, and p (1 - p) / n' if n' were independent
    squares = math.fsum((r - p * m) ** 2 for r, m in zip(rights, sizes, strict=True))
    many = len(clusters) if p in (0, 1) else min(n, p * (1 - p) * n**2 / max(squares, 1e-12))
    low, high = wilson(p, many)
    return Estimate(p, low, high, n)


def share(verdicts: Sequence[bool]) -> Estimate:
    """Return the `proportion` of the verdicts that are True."""
    return proportion(sum(verdicts), len(verdicts))


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of values, +- z times its standard error; of one value without an interval.

    The normal quantile serves dozens of values and more; no score here rests on fewer.
    """
    n = len(values)
    if n == 0:
        return unmeasured()
    centre = math.fsum(values) / n
    if n == 1:
        return Estimate(centre, None, None, 1)
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    half = Z_95 * math.sqrt(variance / n)
    return Estimate(centre, centre - half, centre + half, n)


def jackknife(value: float, without: Sequence[float]) -> Estimate:
    """Return a statistic of n samples with its interval, from what it is without each of them, or
    without each of n equal groups of them.

    Efron and Stein 1981, Ann. Stat. 9, 586-596, eq. 1.2: the variance is (n - 1)/n times the sum
    of squared distances from the mean.
    """
    n = len(without)
    centre = math.fsum(without) / n
    squares = math.fsum((one - centre) ** 2 for one in without)
    half = Z_95 * math.sqrt((n - 1) / n * squares)
    return Estimate(value, value - half, value + half, n)


def weighted_sum(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Return sum_i w_i x_i of independent estimates; unmeasured when one of them is.

    MOVER: Zou, Huang & Zhang 2009, Comput. Stat. Data Anal. 53, 1080-1085 (with two parts and the
    weights 1 and -1 it is Newcombe's hybrid score interval of 1998).
    """
    assert len(parts) == len(weights), f"{len(parts)} parts and {len(weights)} weights"
    n = sum(part.n for part in parts)
    below, above, value = 0.0, 0.0, 0.0
    for part, weight in zip(parts, weights, strict=True):
        if part.value is None or part.low is None or part.high is None:
            return unmeasured(n)
        ends = sorted((weight * part.low, weight * part.high))
        value += weight * part.value
        below += (weight * part.value - ends[0]) ** 2
        above += (ends[1] - weight * part.value) ** 2
    return Estimate(value, value - math.sqrt(below), value + math.sqrt(above), n)


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean of estimates, however many samples each has (as GenEval does)."""
    if not parts:
        return unmeasured()
    return weighted_sum(parts, [1 / len(parts)] * len(parts))


def gain(score: Estimate, baseline: Estimate) -> Estimate:
    """Return score - baseline, as if independent (cautious when they share their samples)."""
    return weighted_sum([score, baseline], [1.0, -1.0])


def ratio(score: Estimate, ceiling: Estimate) -> Estimate:
    """Return score / ceiling, independent estimates; no interval when the ceiling's is too wide.

    MOVER-R: Newcombe 2016, Stat. Methods Med. Res. 25, 1774-1778.
    """
    if score.value is None or not ceiling.value:
        return unmeasured(score.n)
    value = score.value / ceiling.value
    if score.low is None or score.high is None or ceiling.low is None or ceiling.high is None:
        return Estimate(value, None, None, score.n)
    if 2 * ceiling.value <= ceiling.high:
        return Estimate(value, None, None, score.n)
    low = _ratio_limit(score.value, score.low, ceiling.value, ceiling.high, -1)
    high = _ratio_limit(score.value, score.high, ceiling.value, ceiling.low, +1)
    return Estimate(value, low, high, score.n)


def _ratio_limit(x: float, limit_x: float, y: float, limit_y: float, sign: int) -> float:
    # (xy + sign sqrt(x^2 y^2 - l u (2x - l)(2y - u))) / (u (2y - u)), l, u = limit_x, limit_y
    product, denominator = limit_x * (2 * x - limit_x), limit_y * (2 * y - limit_y)
    return (x * y + sign * math.sqrt((x * y) ** 2 - product * denominator)) / denominator
