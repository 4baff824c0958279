"""How the next id is picked from logits: settings, guidance, distribution, noise.

Letters: B requests, V ids of a choice.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_GUIDANCE = 1000  # far beyond any use, and far from numbers that overflow


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled. Raises ValueError, naming every problem at once."""

    text_temperature: float = 0.0
    """Divides the logits of text; 0 takes the likeliest id."""
    image_temperature: float = 1.0
    """Divides the logits of image codes; 0 takes the likeliest."""
    image_top_k: int | None = None
    """Draw from this many likeliest codes; None: from all."""
    image_top_p: float | None = None
    """Draw from the fewest likeliest codes with this share of the probability; None: from all."""
    guidance: float | None = None
    """Classifier-free guidance of images: None or 1 is off, more follows the request closer."""
    seed: int = 0
    """The noise of the reply, 0 .. 2^64 - 1."""
    max_text_tokens: int = 256
    """The most text tokens of a reply, which ends there."""
    max_images: int = 4
    """The most images of a reply."""

    def __post_init__(self) -> None:
        number = "a number of at least 0"
        checks = {
            "text_temperature": (_is_number(self.text_temperature), number),
            "image_temperature": (_is_number(self.image_temperature), number),
            "image_top_k": (
                self.image_top_k is None or _is_whole(self.image_top_k, 1),
                "None or a whole number of at least 1",
            ),
            "image_top_p": (
                self.image_top_p is None
                or (_is_number(self.image_top_p) and 0 < self.image_top_p <= 1),
                "None or a number above 0, up to 1",
            ),
            "guidance": (
                self.guidance is None
                or (_is_number(self.guidance) and self.guidance <= MAX_GUIDANCE),
                f"None or a number from 0 to {MAX_GUIDANCE}",
            ),
            "seed": (_is_whole(self.seed, 0) and self.seed < 2**64, "a whole number below 2^64"),
            "max_text_tokens": (_is_whole(self.max_text_tokens, 1), "a whole number from 1"),
            "max_images": (_is_whole(self.max_images, 0), "a whole number from 0"),
        }
        problems = [
            f"{name} {getattr(self, name)!r}: {wanted} is wanted"
            for name, (fine, wanted) in checks.items()
            if not fine
        ]
        if problems:
            raise ValueError("sampling: " + "; ".join(problems))

    @property
    def guided(self) -> bool:
        """Whether drawing needs the unconditional branch."""
        return self.guidance is not None and self.guidance != 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale_B1: Tensor) -> Tensor:
    """Logits led away from the unconditional ones (arXiv:2207.12598, eq. 6, scale = 1 + w)."""
    return unconditional_BV + scale_B1 * (conditional_BV - unconditional_BV)


def noise(seed: int, position: int) -> float:
    """The number in [0, 1) that picks the id at a position of a reply: a counter-based hash."""
    bits = np.random.Philox(key=seed, counter=[position, 0, 0, 0]).random_raw()
    return (int(bits) >> 11) * 2.0**-53


def pick(
    logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Ids, int64 (B,): where the cumulative distribution passes uniform_B (float64, [0, 1)).

    Temperature 0 takes the likeliest. An id of probability 0 is never picked: the cumulative
    distribution does not rise there.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    cumulative_BV = probabilities(logits_BV, temperature, top_k, top_p).cumsum(dim=-1)
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def probabilities(
    logits_BV: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What ids are drawn from, float64 (B, V): temperature, then top k, then top p of the rest.

    top_k keeps exactly that many ids, of equal ones the lower; top_p the fewest whose share is at
    least top_p.
    """
    logits_BV = logits_BV.double()
    # Less the maximum first, so that no temperature, however small, overflows.
    share_BV = ((logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    if top_k is None and top_p is None:
        return share_BV
    ranked_BV, order_BV = share_BV.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ranked_BV[:, top_k:] = 0
        ranked_BV /= ranked_BV.sum(dim=-1, keepdim=True)
    if top_p is not None:
        ranked_BV[ranked_BV.cumsum(dim=-1) - ranked_BV >= top_p] = 0
        ranked_BV /= ranked_BV.sum(dim=-1, keepdim=True)
    return torch.zeros_like(share_BV).scatter_(-1, order_BV, ranked_BV)
