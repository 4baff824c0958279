"""Code levels read a code as a mixed-radix number, so that tables need rows for levels alone.

A quantizer with the levels (n_1, ..., n_L) has n_1 * ... * n_L codes; a table of its levels has
n_1 + ... + n_L rows, those of the first level first. Here and in what uses it, a level's value is
its digit in the code: 0 .. n_k - 1.

Letters: L levels, S rows of a table of all levels.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from .vocabulary import Vocabulary


@dataclass(frozen=True)
class CodeLevels:
    """CodeLevels convert between ids of a vocabulary, codes, and the values of their levels.

    Raises ValueError where the levels do not multiply to the number of codes.
    """

    counts: tuple[int, ...]
    """How many values each level has, of the lowest digit first."""
    runs: tuple[tuple[int, int], ...]
    """The vocabulary's `code_runs`: (first id, count) of codes with consecutive ids."""

    def __post_init__(self) -> None:
        num_codes = sum(count for _, count in self.runs)
        if not self.counts or prod(self.counts) != num_codes:
            raise ValueError(f"levels {self.counts} do not make {num_codes} codes")

    @classmethod
    def of(cls, counts: tuple[int, ...], vocabulary: Vocabulary) -> "CodeLevels":
        """Return the levels of a vocabulary's codes."""
        return cls(counts, vocabulary.code_runs)

    @property
    def num_rows(self) -> int:
        """Return S, how many rows a table of all levels has."""
        return sum(self.counts)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Return which rows of a table are those of each level."""
        stops = [sum(self.counts[: k + 1]) for k in range(len(self.counts))]
        return tuple(
            slice(stop - count, stop) for stop, count in zip(stops, self.counts, strict=True)
        )

    def codes(self, ids: Tensor) -> Tensor:
        """Return the code of each id, int64 of their shape; -1 where an id is not a code."""
        return codes_of(ids, self.runs)

    def values(self, codes: Tensor) -> Tensor:
        """Return the values of the levels of codes, int64 (..., L)."""
        # A code is the mixed-radix number of its levels, the first one the lowest digit (FSQ,
        # arXiv:2309.15505, sec. 3.1).
        digits = zip(self._radices, self.counts, strict=True)
        return torch.stack([codes // radix % count for radix, count in digits], dim=-1)

    def numbers(self, values: Tensor) -> Tensor:
        """Return the codes, int64 (...), whose levels have these values (..., L)."""
        return (values * values.new_tensor(self._radices)).sum(dim=-1)

    def rows(self, values: Tensor) -> Tensor:
        """Return the rows of a table for the values of the first levels, int64 of their shape."""
        firsts = [rows.start for rows in self.slices[: values.shape[-1]]]
        return values + values.new_tensor(firsts)

    def sums(self, table_SD: Tensor) -> Tensor:
        """Return for each code the sum of its levels' rows of a table, (C, D)."""
        sums_ND, *others = (table_SD[rows] for rows in self.slices)
        for level_nD in others:  # of higher and higher digits
            sums_ND = (level_nD[:, None] + sums_ND).flatten(0, 1)
        return sums_ND

    @cached_property
    def _radices(self) -> tuple[int, ...]:
        return tuple(prod(self.counts[:k]) for k in range(len(self.counts)))


def codes_of(ids: Tensor, runs: tuple[tuple[int, int], ...]) -> Tensor:
    """Return the code of each id, int64 of their shape; -1 where an id is not a code.

    It needs no table of all ids. runs: a vocabulary's `code_runs`.
    """
    codes, before = torch.full_like(ids, -1), 0
    for first, count in runs:
        is_here = (ids >= first) & (ids < first + count)
        codes = torch.where(is_here, ids - first + before, codes)
        before += count
    return codes
