"""How much of its codebook an image tokenizer uses while it is trained.

In: the codes of each step. Out: the share of all codes that occur in the latest steps, and the
entropy of their frequencies, in bits and as a perplexity (two to the power of that: how many codes,
used alike, would be as hard to guess).
"""

from collections import deque

import numpy as np
import torch

from unimodal.eval.usage import usage_of

DRAWS = 20  # for each code of the codebook: so many latest codes are looked at


class CodeUsage:
    """The latest codes, as many as tell a share; each group of codes has frequencies of its own."""

    def __init__(self, num_codes: int, num_groups: int = 1) -> None:
        self.num_codes, self.num_groups = num_codes, num_groups
        self._latest: deque[np.ndarray] = deque()
        # Counted as codes come and go: twenty for each of 2^18 codes are 40 MB to walk each step.
        self._counts_GC = np.zeros((num_groups, num_codes), np.int64)
        self._drawn = 0  # of each group

    def add(self, codes_BnG: torch.Tensor) -> None:
        """Take the codes of a step, int (B, n, G), in the place of the oldest ones."""
        self._latest.append(codes_BnG.detach().flatten(0, -2).cpu().numpy())
        self._count(self._latest[-1], 1)
        while self._drawn - len(self._latest[0]) >= DRAWS * self.num_codes:
            self._count(self._latest.popleft(), -1)

    def _count(self, codes_NG: np.ndarray, times: int) -> None:
        """Count codes once more, or once less (-1)."""
        self._drawn += times * len(codes_NG)
        for counts_C, codes_N in zip(self._counts_GC, codes_NG.T, strict=True):
            np.add.at(counts_C, codes_N, times)

    @property
    def is_settled(self) -> bool:
        """Return whether enough codes were drawn to judge by."""
        return bool(self._latest) and self._drawn >= DRAWS * self.num_codes

    def reports(self) -> dict[str, float]:
        """Return what is logged, the group that uses least of its codes; nothing before the first
        step.
        """
        if not self._latest:
            return {}
        found = min(map(usage_of, self._counts_GC), key=lambda one: one["share"])
        return {
            f"usage_{name}": float(found[name]) for name in ("share", "entropy_bits", "perplexity")
        }

    def line(self) -> str:
        """Say it in one line."""
        found = self.reports()
        whose = f" in the least used of {self.num_groups} groups" if self.num_groups > 1 else ""
        return (
            f"code usage{whose}: {found['usage_share']:.3f} of {self.num_codes:,} codes in the "
            f"latest {self._drawn:,}, entropy {found['usage_entropy_bits']:.2f} bits, perplexity "
            f"{found['usage_perplexity']:.0f}"
        )

    def problem(self, min_usage: float) -> str:
        """Return a warning that names the share of unused codes, where the used ones are below
        `min_usage`, else "".
        """
        if not self.is_settled or (share := self.reports()["usage_share"]) >= min_usage:
            return ""
        return (
            f"warning: {self.line()}; {1 - share:.1%} are unused, and min_usage is {min_usage}: "
            "images are too few or too much alike, or model.quantizer makes more codes than they "
            "need"
        )
