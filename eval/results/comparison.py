"""Two results compared item by item: which differences are real.

In: two `Result`s of the same items. Out: a report (scores, recipe, predictions) whose scores are
differences, B's less A's, with a row of tests and a sentence for each.

1. Both must have asked the same (`items.asked`) and judged alike; whatever else of their recipes
   differs is told.
2. Each part has its overall row, the mean of its kinds (vqa: of its items), and a row for each
   kind. Intervals are bootstrapped over prompts; p-values are of exchanged labels (paired.py).
3. A difference is real when its p-value, corrected by Holm over all overall rows or over all
   kinds, is below 0.05 and its interval leaves 0 out.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..geneval.rules import Rules
from ..geneval.scoring import name_of
from ..intervals import Estimate
from ..score import recipe
from .items import ALL, OVERALL, Item, asked, is_macro, items
from .paired import RESAMPLES, bootstrap, cluster_sums, exchange_p, holm, interval
from .stored import Result, names_of

LEVEL = 0.05
JUDGING = (
    "evaluation", "task", "rules", "scorer", "detector", "each_token_once", *Rules().json(),
)  # fmt: skip
NOT_TOLD = ("commit", "machine", "system", "python", "versions", "batch_size", "intervals")
Pair = tuple[Item, Item]


@dataclass(frozen=True)
class Row:
    """The difference of B and A in one part or kind, and how sure it is."""

    part: str
    kind: str
    a: float
    b: float
    difference: Estimate
    prompts: int
    p: float
    is_exact: bool
    p_corrected: float = 1.0

    @property
    def is_real(self) -> bool:
        """Tell whether chance and the number of rows are no explanation."""
        low, high = self.difference.low, self.difference.high
        apart = low is not None and high is not None and (low > 0 or high < 0)
        return apart and self.p_corrected < LEVEL

    @property
    def label(self) -> str:
        """Return part and kind in words."""
        return _spaced(f"{self.part} / {self.kind}")

    def words(self, names: tuple[str, str]) -> str:
        """Say whether the difference is real, and how large it is."""
        d = self.difference
        by = "one prompt alone, no interval" if d.low is None else f"{d.low:+.3f} to {d.high:+.3f}"
        told = f"{self.a:.3f} -> {self.b:.3f}, {d.value:+.3f} ({by}), p {told_p(self.p_corrected)}"
        if self.is_real:
            higher = names[1] if (d.value or 0) > 0 else names[0]
            return f"{self.label}: {higher} is higher: {told}"
        return f"{self.label}: no difference is shown: {told}"

    def json(self, names: tuple[str, str]) -> dict[str, Any]:
        """Return the row as the file holds it."""
        return {
            "part": self.part, "kind": self.kind, "a": self.a, "b": self.b,
            "difference": self.difference.json(), "prompts": self.prompts, "p": self.p,
            "p_is_exact": self.is_exact, "p_corrected": self.p_corrected, "real": self.is_real,
            "words": self.words(names),
        }  # fmt: skip


def told_p(p: float) -> str:
    """Return a p-value in words."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True)
class Comparison:
    """All rows of two results, and what of their recipes differs."""

    a: Result
    b: Result
    hashes: Mapping[str, str]
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    seed: int
    resamples: int

    @cached_property
    def names(self) -> tuple[str, str]:
        """Return a short name for each result."""
        first, second = names_of([self.a.path, self.b.path])
        return first, second

    def differing(self) -> dict[str, tuple[Any, Any]]:
        """Return what the recipes hold under a key, where they differ."""
        keys = [key for key in {**self.a.recipe, **self.b.recipe} if key not in NOT_TOLD]
        both = {key: (self.a.recipe.get(key), self.b.recipe.get(key)) for key in keys}
        return {key: (a, b) for key, (a, b) in both.items() if a != b}

    @property
    def settings(self) -> dict[str, Any]:
        """Return how the two were compared."""
        return {
            "intervals": "bootstrap of prompts, percentiles", "resample_seed": self.seed,
            "resamples": self.resamples, "level": LEVEL, "correction": "holm",
        }  # fmt: skip

    def words(self) -> list[str]:
        """Say which differences are real, a sentence each, and in which rows none is shown."""
        real = [row.words(self.names) for row in self.rows if row.is_real]
        if all(a.value == b.value for a, b in self.pairs):
            return [f"all {len(self.pairs)} pairs of items are worth the same"]
        others: dict[str, list[str]] = {}
        for row in self.rows:
            if not row.is_real:
                others.setdefault(_spaced(row.part), []).append(_spaced(row.kind))
        told = "; ".join(f"{part}: {', '.join(kinds)}" for part, kinds in others.items())
        return [*real, *([f"no difference is shown in {told}"] if others else [])]

    def report(self) -> dict[str, Any]:
        """Return scores (the differences), tests, recipe and the pairs of items."""
        scores: dict[str, dict[str, Estimate]] = {}
        for row in self.rows:
            scores.setdefault(f"{row.part}_difference", {})[row.kind] = row.difference
        return {
            "scores": scores,
            "tests": [row.json(self.names) for row in self.rows],
            "words": self.words(),
            "recipe": recipe(**self._recipe()),
            "predictions": [
                {
                    "part": a.part, "kind": a.kind, "id": a.key, "group": a.cluster,
                    "a": a.value, "b": b.value, "value": b.value - a.value,
                }
                for a, b in self.pairs
            ],
        }  # fmt: skip

    def _recipe(self) -> dict[str, Any]:
        """Return the recipe: what both share, where they differ, how they were compared; both."""
        differing = self.differing()
        shared = {
            name: value
            for name, value in self.a.recipe.items()
            if name not in differing and name not in NOT_TOLD
        }
        apart = {
            f"{side}_{name}": both[k]
            for name, both in differing.items()
            for k, side in enumerate("ab")
        }
        return {
            **shared, **self.hashes, "evaluation": "compare", "task": self.a.evaluation,
            "a_name": self.names[0], "b_name": self.names[1], **apart, **self.settings,
            "a": self.a.recipe, "b": self.b.recipe,
        }  # fmt: skip


def compare(a: Result, b: Result, seed: int, resamples: int = RESAMPLES) -> Comparison:
    """Return the comparison of two results; ValueError where they did not ask or judge the same."""
    if a.path.resolve() == b.path.resolve():
        raise ValueError(f"{a.path} is given twice: compare two results")
    _check_judging(a, b)
    hashes = _same_hashes(a, b)
    pairs = _paired(a, b)
    parts: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs:
        parts.setdefault(pair[0].part, {}).setdefault(pair[0].kind, []).append(pair)
    rows = [
        row
        for part, kinds in parts.items()
        for row in _rows(part, kinds, is_macro(a), seed, resamples)
    ]
    corrected = _corrected(rows)
    return Comparison(a, b, hashes, corrected, pairs, seed, resamples)


def _check_judging(a: Result, b: Result) -> None:
    for name in JUDGING:
        if a.recipe.get(name) != b.recipe.get(name):
            raise ValueError(
                f"{a.path} and {b.path} are not scored alike: {name} {a.recipe.get(name)} and "
                f"{b.recipe.get(name)}; score both by the same rules first"
            )


def _same_hashes(a: Result, b: Result) -> dict[str, str]:
    """Return the hashes of what was asked; ValueError, with both, where they differ.

    What one of them does not know (the images behind another program's answers) is not compared.
    """
    first, second = asked(a), asked(b)
    both = [name for name in first if name in second]
    for name in both:
        if first[name] != second[name]:
            raise ValueError(
                f"{a.path} and {b.path} did not ask the same: {name} {first[name]} and "
                f"{second[name]}; only answers to the same items can be paired"
            )
    if not both:
        raise ValueError(
            f"{a.path} and {b.path} did not ask the same: one knows {', '.join(first)}, the other "
            f"{', '.join(second)}; only answers to the same items can be paired"
        )
    return {name: first[name] for name in both}


def _paired(a: Result, b: Result) -> list[Pair]:
    """Return the items of A with those of B; ValueError where one lacks some."""
    both = [items(a), items(b)]
    if a.recipe.get("rewriter") != b.recipe.get("rewriter"):  # whom a part's name names
        part = name_of({"detector": a.recipe["detector"]})
        both = [[replace(item, part=part) for item in some] for some in both]
    first, second = ({(item.part, item.key): item for item in some} for some in both)
    for one, other, path in ((first, second, b.path), (second, first, a.path)):
        if missing := [key for key in one if key not in other]:
            told = ", ".join(" ".join(dict.fromkeys(key)) for key in missing[:3])
            raise ValueError(
                f"{path} lacks {len(missing)} of {len(one)} predictions, such as {told}: it is "
                "half-finished or of other items; run the same evaluation again"
            )
    return [(item, second[key]) for key, item in first.items()]


def _rows(
    part: str, kinds: Mapping[str, Sequence[Pair]], macro: bool, seed: int, resamples: int
) -> list[Row]:
    """Return the overall row of a part, and one for each kind where there are several."""
    each = [_row(part, kind, pairs, seed, resamples) for kind, pairs in kinds.items()]
    rows = [row for row, _ in each]
    if list(kinds) == [ALL]:
        return [replace(rows[0], kind=OVERALL)]
    if not macro:
        every = [pair for pairs in kinds.values() for pair in pairs]
        whole, _ = _row(part, OVERALL, every, seed, resamples)
        return [whole, *rows]
    overall = _mean_of_kinds(part, kinds, rows, [replicates for _, replicates in each], seed)
    return [overall, *rows]


def _row(
    part: str, kind: str, pairs: Sequence[Pair], seed: int, resamples: int
) -> tuple[Row, np.ndarray]:
    """Return the row of pairs whose items count alike, and its bootstrap replicates."""
    rng = _rng(seed, part, kind)
    sums_C, sizes_C = _clusters(pairs)
    replicates = bootstrap(sums_C, sizes_C, rng, resamples)
    a, b = (math.fsum(pair[k].value for pair in pairs) / len(pairs) for k in (0, 1))
    low, high = interval(replicates) if len(sums_C) > 1 else (None, None)
    p, is_exact = exchange_p(sums_C, rng)
    estimate = Estimate(b - a, low, high, len(pairs))
    return Row(part, kind, a, b, estimate, len(sums_C), p, is_exact), replicates


def _mean_of_kinds(
    part: str,
    kinds: Mapping[str, Sequence[Pair]],
    rows: Sequence[Row],
    replicates: Sequence[np.ndarray],
    seed: int,
) -> Row:
    """Return the row of the unweighted mean of kinds, whose prompts are drawn kind by kind."""
    a, b = (math.fsum(getattr(row, side) for row in rows) / len(rows) for side in ("a", "b"))
    least, prompts = min(row.prompts for row in rows), sum(row.prompts for row in rows)
    low, high = interval(np.mean(replicates, axis=0)) if least > 1 else (None, None)
    n = sum(len(pairs) for pairs in kinds.values())
    # An item weighs 1/(kinds * items of its kind); times the lcm that is a whole number.
    common = math.lcm(*(len(pairs) for pairs in kinds.values()))
    weighed = [_clusters(pairs)[0] * (common // len(pairs)) for pairs in kinds.values()]
    p, is_exact = exchange_p(np.concatenate(weighed), _rng(seed, part, OVERALL))
    return Row(part, OVERALL, a, b, Estimate(b - a, low, high, n), prompts, p, is_exact)


def _clusters(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return each cluster's sum of differences and number of items, both float64 (clusters,)."""
    return cluster_sums((a.cluster, b.value - a.value) for a, b in pairs)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with their p-values corrected: overall rows together, kinds together."""
    found = list(rows)
    for of_kinds in (False, True):
        places = [at for at, row in enumerate(rows) if (row.kind != OVERALL) == of_kinds]
        ps = holm([rows[at].p for at in places])
        for at, p in zip(places, ps, strict=True):
            found[at] = replace(rows[at], p_corrected=p)
    return found


def _rng(seed: int, part: str, kind: str) -> np.random.Generator:
    """Return the generator of a row, which depends on no other row."""
    return np.random.default_rng([seed, zlib.crc32(f"{part}/{kind}".encode())])
