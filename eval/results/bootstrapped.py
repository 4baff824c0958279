"""Bootstrap intervals of a result's scores, which stand in its file beside the closed forms.

In: a report of an evaluation. Out: for each part and kind of its items (items.py) the limits
between which 95 % of the means of 10,000 samples of whole prompts lie (Efron & Tibshirani 1993, An
Introduction to the Bootstrap, ch. 8 and 13.3), and for each part those of its overall score.

Tables print the closed forms (intervals.py): of few prompts a bootstrap is too narrow, and it is a
point where all answers are right. It is a check of them that assumes nothing of how answers vary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .items import OVERALL, Item, has_items, is_macro, items
from .paired import RESAMPLES, bootstrap, cluster_sums, interval
from .stored import Result

SEED = 0  # of the samples: a report is a function of its predictions
INTERVALS = f"closed forms; bootstrap: percentiles of {RESAMPLES} samples of prompts, seed {SEED}"

Limits = dict[str, list[float] | None]


def bootstrapped(report: dict[str, Any], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return `{"bootstrap": {part: {kind: [low, high]}}}`; nothing for a report without items, as
    of a distance between sets.

    A kind of one prompt alone has None in place of limits, and so has a mean of kinds with it.
    """
    result = Result(Path("the result"), report["scores"], report["recipe"], report["predictions"])
    if not result.predictions or not has_items(result):
        return {}
    parts: dict[str, dict[str, list[Item]]] = {}
    for item in items(result):
        parts.setdefault(item.part, {}).setdefault(item.kind, []).append(item)
    macro = is_macro(result)
    return {"bootstrap": {part: _limits(kinds, macro, resamples) for part, kinds in parts.items()}}


def _limits(kinds: dict[str, list[Item]], macro: bool, resamples: int) -> Limits:
    """Return the limits of a part's overall score and of each of its kinds.

    macro: whether the overall score is the mean of the kinds, whose prompts are drawn kind by kind.
    """
    rng = np.random.default_rng(SEED)
    each = {kind: _replicates(members, rng, resamples) for kind, members in kinds.items()}
    if macro:
        told = [one for one in each.values() if one is not None]
        whole = np.mean(told, axis=0) if len(told) == len(each) else None
    else:
        every = [item for members in kinds.values() for item in members]
        whole = _replicates(every, rng, resamples)
    return {
        kind: None if one is None else list(interval(one))
        for kind, one in {OVERALL: whole, **each}.items()
    }


def _replicates(
    members: Sequence[Item], rng: np.random.Generator, resamples: int
) -> np.ndarray | None:
    """Return the means of samples of whole prompts, or None where there is one prompt alone."""
    sums_C, sizes_C = cluster_sums((item.cluster, item.value) for item in members)
    return bootstrap(sums_C, sizes_C, rng, resamples) if len(sums_C) > 1 else None
