"""How much of its codebook an image tokenizer uses while it is trained.

In: the codes of each step. Out: the share of all codes that occur in the latest steps, and the
entropy of their frequencies, in bits and as a perplexity (two to the power of that: how many codes,
used alike, would be as hard to guess).
"""

from collections import deque

import numpy as np
import torch

from unimodal.eval.reconstruction import code_usage

DRAWS = 20  # for each code of the codebook: so many latest codes are looked at


class CodeUsage:
    """The latest codes, as many as tell a share."""

    def __init__(self, num_codes: int) -> None:
        self.num_codes = num_codes
        self._latest: deque[np.ndarray] = deque()
        self._drawn = 0

    def add(self, codes: torch.Tensor) -> None:
        """Take the codes of a step, int of any shape, in the place of the oldest ones."""
        self._latest.append(codes.detach().flatten().cpu().numpy())
        self._drawn += codes.numel()
        while self._drawn - len(self._latest[0]) >= DRAWS * self.num_codes:
            self._drawn -= len(self._latest.popleft())

    @property
    def is_settled(self) -> bool:
        """Return whether enough codes were drawn to judge by."""
        return self._drawn >= DRAWS * self.num_codes

    def reports(self) -> dict[str, float]:
        """Return what is logged; nothing before the first step."""
        if not self._latest:
            return {}
        found = code_usage(self._latest, self.num_codes)
        return {
            f"usage_{name}": float(found[name]) for name in ("share", "entropy_bits", "perplexity")
        }

    def line(self) -> str:
        """Say it in one line."""
        found = self.reports()
        return (
            f"code usage: {found['usage_share']:.3f} of {self.num_codes:,} codes in the latest "
            f"{self._drawn:,}, entropy {found['usage_entropy_bits']:.2f} bits, perplexity "
            f"{found['usage_perplexity']:.0f}"
        )

    def problem(self, min_usage: float) -> str:
        """Return a warning where the share is below `min_usage`, else ""."""
        if not self.is_settled or self.reports()["usage_share"] >= min_usage:
            return ""
        return (
            f"warning: {self.line()}; min_usage is {min_usage}: images are too few or too much "
            "alike, or model.levels make more codes than they need"
        )
