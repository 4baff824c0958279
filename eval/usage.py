"""How much of a codebook images use, and how many bits an image takes.

In: the codes of each image, int64 (n, G), G groups of codes at each of n places. Out: numbers, and
scores with 95 % intervals. Each group has frequencies of its own.

Intervals are z times the jackknife's standard error, an image left out at a time: Efron and Stein
1981, Ann. Stat. 9, 586-596. They say how much a number depends on which images were taken, not how
many codes more images would use.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

from .intervals import Estimate, jackknife, mean, unmeasured

NAMES = ("share", "entropy_bits", "perplexity")


def code_usage(codes: Sequence[np.ndarray], num_codes: int) -> dict[str, float | int]:
    """Return how many codes occur in arrays of codes, and their share of all; the entropy of their
    frequencies in bits, and its perplexity: as many codes that are used alike.
    """
    return usage_of(_counts(codes, num_codes))


def usage_of(counts_C: np.ndarray) -> dict[str, float | int]:
    """Return the same, of how often each code occurs, int (C,)."""
    p = counts_C[counts_C > 0] / counts_C.sum()
    entropy_bits = float(abs((p * np.log2(p)).sum()))
    return {
        "num_codes": len(counts_C),
        "distinct": int((counts_C > 0).sum()),
        "share": float((counts_C > 0).mean()),
        "entropy_bits": entropy_bits,
        "perplexity": 2**entropy_bits,
        "drawn": int(counts_C.sum()),
    }


def usage_scores(codes: Sequence[np.ndarray], num_codes: int) -> dict[str, Estimate]:
    """Return share, entropy and perplexity of `code_usage` with intervals; codes: of each image."""
    found, n = code_usage(codes, num_codes), len(codes)
    if n < 2:
        return {name: unmeasured(n) for name in NAMES}
    shares_n, bits_n = _without_each(codes, num_codes)
    share = _at_most_1(jackknife(float(found["share"]), shares_n))
    entropy = jackknife(float(found["entropy_bits"]), bits_n)
    assert entropy.low is not None and entropy.high is not None, "there are two images or more"
    perplexity = Estimate(float(found["perplexity"]), 2**entropy.low, 2**entropy.high, n)
    return dict(zip(NAMES, (share, entropy, perplexity), strict=True))


def _at_most_1(score: Estimate) -> Estimate:
    """Return a share whose interval ends where shares do: the jackknife's knows no bounds."""
    return score if score.high is None else replace(score, high=min(score.high, 1.0))


def group_scores(
    codes: Sequence[np.ndarray], num_codes: int, levels: Sequence[int]
) -> dict[str, dict[str, Estimate]]:
    """Return `usage` and `bin_entropy` of the least used group, and of each where there are more.

    codes: of each image, (n, G). levels: of a code's mixed-radix digits, the lowest first; for ()
    there is no `bin_entropy`.
    """
    num_groups = codes[0].shape[1]
    groups = [[one[:, group] for one in codes] for group in range(num_groups)]
    usage = [usage_scores(group, num_codes) for group in groups]
    least = _least(codes, num_codes)
    found = {"usage": usage[least]}
    if levels:
        found["bin_entropy"] = bin_entropy(groups[least], levels)
    if num_groups > 1:
        for number, group in enumerate(groups):
            found[f"usage_group_{number + 1}"] = usage[number]
            if levels:
                found[f"bin_entropy_group_{number + 1}"] = bin_entropy(group, levels)
    return found


def group_usage(codes: Sequence[np.ndarray], num_codes: int) -> dict[str, Any]:
    """Return `code_usage` of the least used group; codes: of each image, (n, G)."""
    least = _least(codes, num_codes)
    return code_usage([one[:, least] for one in codes], num_codes)


def bin_entropy(codes: Sequence[np.ndarray], levels: Sequence[int]) -> dict[str, Estimate]:
    """Return for each digit of the codes the entropy of its frequencies, as a share of the most
    that it could be: 1 where all levels are used alike.
    """
    radices = list(accumulate(levels, mul, initial=1))
    found = {}
    for number, (radix, level) in enumerate(zip(radices, levels, strict=False)):
        entropy = usage_scores([one // radix % level for one in codes], level)["entropy_bits"]
        found[f"level_{number + 1}"] = _at_most_1(_scaled(entropy, 1 / math.log2(level)))
    return found


def bits_per_pixel(
    codes: Sequence[np.ndarray], sizes: Sequence[tuple[int, ...]], num_codes: int
) -> dict[str, Estimate]:
    """Return how many bits a pixel takes: with as many for each code, and as many as the entropy of
    its group says; sizes: (height, width) of each image.
    """
    n, num_groups = len(codes), codes[0].shape[1]
    places = [
        len(one) / (height * width) for one, (height, width) in zip(codes, sizes, strict=True)
    ]
    fixed = mean([num_groups * math.log2(num_codes) * part for part in places])
    if n < 2:
        return {"fixed": fixed, "entropy": unmeasured(n)}
    groups = [[one[:, group] for one in codes] for group in range(num_groups)]
    bits = sum(code_usage(group, num_codes)["entropy_bits"] for group in groups)
    left_bits = np.sum([_without_each(group, num_codes)[1] for group in groups], axis=0)
    left_places = (sum(places) - np.array(places)) / (n - 1)
    entropy = jackknife(bits * sum(places) / n, (left_bits * left_places).tolist())
    return {"fixed": fixed, "entropy": entropy}


def _least(codes: Sequence[np.ndarray], num_codes: int) -> int:
    """Return the group that uses least of its codes."""
    groups = range(codes[0].shape[1])
    return min(groups, key=lambda g: (_counts([one[:, g] for one in codes], num_codes) > 0).sum())


def _without_each(codes: Sequence[np.ndarray], num_codes: int) -> tuple[list[float], list[float]]:
    """Return share and entropy of the codes of all images but one, for each of them.

    Of counts c that add up to N the entropy is log N - sum c log c / N.
    """
    counts = _counts(codes, num_codes)
    total, used, sum_bits = counts.sum(), (counts > 0).sum(), _c_log_c(counts).sum()
    shares_n, bits_n = [], []
    for one in codes:
        found, times = np.unique(one, return_counts=True)
        before, after = counts[found], counts[found] - times
        shares_n.append(float(used - (after == 0).sum()) / num_codes)
        rest_bits = sum_bits - (_c_log_c(before) - _c_log_c(after)).sum()
        rest = total - one.size
        bits_n.append(math.log2(rest) - float(rest_bits) / rest)
    return shares_n, bits_n


def _c_log_c(counts: np.ndarray) -> np.ndarray:
    return counts * np.log2(np.where(counts > 0, counts, 1))


def _counts(codes: Sequence[np.ndarray], num_codes: int) -> np.ndarray:
    return np.bincount(np.concatenate([one.reshape(-1) for one in codes]), minlength=num_codes)


def _scaled(score: Estimate, factor: float) -> Estimate:
    if score.value is None or score.low is None or score.high is None:
        return score
    return Estimate(score.value * factor, score.low * factor, score.high * factor, score.n)
