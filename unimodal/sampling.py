"""How the next id is picked from logits: settings, distribution, noise, guidance.

Letters: B requests, V ids of a choice.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
    """Draw from the fewest likeliest codes that hold this share of the probability, in (0, 1]; None: all."""
    guidance: float | None = None
    """Classifier-free guidance of pictures: None or 1 is off, above 1 follows the request more closely."""
    seed: int = 0
    """The noise of the reply, 0 .. 2^64 - 1."""
    max_text_tokens: int = 256
    """The most text tokens of a reply; it ends there."""
    max_pictures: int = 4
    """The most pictures of a reply."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be a number of at least 0, got {getattr(self, name)!r}"
            for name in ("text_temperature", "image_temperature", "guidance")
            if not (name == "guidance" and self.guidance is None) and not _number(getattr(self, name))
        ]
        for name, least in (("image_top_k", 1), ("seed", 0), ("max_text_tokens", 1), ("max_pictures", 0)):
            value = getattr(self, name)
            if not (name == "image_top_k" and value is None) and not (type(value) is int and value >= least):
                problems.append(f"{name} must be a whole number of at least {least}, got {value!r}")
        if type(self.seed) is int and self.seed >= 2**64:
            problems.append(f"seed must be below 2^64, got {self.seed}")
        if self.image_top_p is not None and not (_number(self.image_top_p) and 0 < self.image_top_p <= 1):
            problems.append(f"image_top_p must be above 0 and at most 1, got {self.image_top_p!r}")
        if problems:
            raise ValueError("sampling: " + "; ".join(problems))

    @property
    def guided(self) -> bool:
        """Whether drawing needs the unconditional branch."""
        return self.guidance is not None and self.guidance != 1


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale_B1: Tensor) -> Tensor:
    """Logits pushed away from the unconditional ones (arXiv:2207.12598, eq. 6, with scale = 1 + w)."""
    return unconditional_BV + scale_B1 * (conditional_BV - unconditional_BV)


def noise(seed: int, position: int) -> float:
    """The number in [0, 1) that picks the id at `position` of a reply: counter-based, so nothing else matters."""
    bits = np.random.Philox(key=seed, counter=[position, 0, 0, 0]).random_raw()
    return (int(bits) >> 11) * 2.0**-53


def pick(
    logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Ids, int64 (B,), by the inverse of the cumulative distribution at `uniform_B`; temperature 0: the likeliest.

    An id of probability 0 is never picked: the cumulative distribution does not rise there.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    cumulative_BV = probabilities(logits_BV, temperature, top_k, top_p).cumsum(dim=-1)
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def probabilities(
    logits_BV: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What ids are drawn from, float64 (B, V): temperature, then the top k, then the top p of what is left.

    top_k keeps exactly that many ids (of equals the lower ones); top_p the fewest whose share is at least top_p.
    """
    logits_BV = logits_BV.double()
    # Less the maximum, so that no temperature, however small, overflows.
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
