"""Sampling picks the next id from logits: its settings, guidance, distribution and noise.

Letters: B requests, V ids of a choice.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from .rectified_flow import Solver

MAX_GUIDANCE = 1000  # far above useful values, and far below those that overflow
MAX_STEPS = 1000  # far above useful values
MAX_DRAFTS = 256  # far above useful values; each has a distribution over all codes
OF_HEADS = ("image_temperature", "image_top_k", "image_top_p", "image_steps", "image_solver",
            "image_drafts", "guidance_interval", "image_guidance")  # fmt: skip
"""The settings of a Sampling that only some image heads follow."""


@dataclass(frozen=True)
class Sampling:
    """A Sampling holds the settings of a reply. Raises SettingError, which names every problem."""

    text_temperature: float = 0.0
    """Divides the logits of text; at 0 the likeliest id is taken."""
    image_temperature: float = 1.0
    """Divides the logits of image codes; at 0 the likeliest code is taken."""
    image_top_k: int | None = None
    """Sample from this many likeliest codes; None: from all. Of heads that draw a code by its
    levels, both this and `image_top_p` choose among the values of each level."""
    image_top_p: float | None = None
    """Sample from the fewest likeliest codes with at least this probability; None: from all."""
    guidance: float | None = None
    """The scale of classifier-free guidance of images. None and 1 switch it off; larger values
    follow the request more closely."""
    image_guidance: float | None = None
    """The scale of guidance toward the images before a drawing, beside `guidance` toward the words,
    in a third branch that reads neither. None and 1, no guidance, and no images before it: there is
    no such branch."""
    negative: str | None = None
    """Words from which guidance leads drawings away: the second branch reads them in place of the
    user's latest ones. None: it reads none of the user's words."""
    image_steps: int | None = None
    """The steps in which a head that draws all of an image at once draws it; None: the head's own
    number."""
    image_drafts: int | None = None
    """How many codes `next_code` guesses and checks in one pass at most; the image is the one that
    the seed draws without it (heads/jacobi.py). None, and where `guidance_interval` lets guidance
    begin or end on the way: it draws code by code."""
    image_solver: Solver = "euler"
    """How `flow` takes a step: `heun` is more exact, and evaluates the model twice."""
    guidance_interval: tuple[float, float] | None = None
    """Between which times of a drawing guidance is used, from 0 at its beginning to 1 at its end:
    those of `flow`, and of heads of codes the share of them that is drawn; None: always."""
    seed: int = 0
    """The seed of the reply's noise, 0 .. 2^64 - 1."""
    max_text_tokens: int = 256
    """The most text tokens in a reply, which is ended there."""
    max_images: int = 4
    """The most images in a reply."""
    max_plan_tokens: int = 0
    """The most text tokens before the image where an image alone is asked for: models that were
    taught to plan in words draw worse without. 0: the image comes at once."""

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
            "image_guidance": (
                self.image_guidance is None
                or (_is_number(self.image_guidance) and self.image_guidance <= MAX_GUIDANCE),
                f"None or a number from 0 to {MAX_GUIDANCE}",
            ),
            "negative": (
                self.negative is None
                or (isinstance(self.negative, str) and bool(self.negative.strip()) and self.guided),
                "None, or words, and a guidance other than 1 with them,",
            ),
            "image_steps": (
                self.image_steps is None
                or (_is_whole(self.image_steps, 1) and self.image_steps <= MAX_STEPS),
                f"None or a whole number from 1 to {MAX_STEPS}",
            ),
            "image_drafts": (
                self.image_drafts is None
                or (_is_whole(self.image_drafts, 1) and self.image_drafts <= MAX_DRAFTS),
                f"None or a whole number from 1 to {MAX_DRAFTS}",
            ),
            "image_solver": (self.image_solver in get_args(Solver), " or ".join(get_args(Solver))),
            "guidance_interval": (
                self.guidance_interval is None or _is_interval(self.guidance_interval),
                "None or two numbers, 0 <= first < last <= 1,",
            ),
            "seed": (_is_whole(self.seed, 0) and self.seed < 2**64, "a whole number below 2^64"),
            "max_text_tokens": (_is_whole(self.max_text_tokens, 1), "a whole number from 1"),
            "max_images": (_is_whole(self.max_images, 0), "a whole number from 0"),
            "max_plan_tokens": (_is_whole(self.max_plan_tokens, 0), "a whole number from 0"),
        }
        problems = {
            name: f"{getattr(self, name)!r}: {wanted} is wanted"
            for name, (fine, wanted) in checks.items()
            if not fine
        }
        if problems:
            raise SettingError(problems)

    @property
    def guided(self) -> bool:
        """Return whether drawing needs the unconditional branch."""
        return self.guidance is not None and self.guidance != 1

    @property
    def scale(self) -> "Scale":
        """Return the scale of `guidance`, or with it that of `image_guidance` where drawing needs
        the branch of that.
        """
        if self.guidance is None or not self.guided or self.image_guidance in (None, 1):
            return self.guidance
        return self.guidance, self.image_guidance

    def guides(self, time: float) -> bool:
        """Return whether guidance is used at a time of a drawing, 0 to 1 (Kynkaanniemi et al.,
        arXiv:2404.07724, of diffusion).
        """
        first, last = self.guidance_interval or (0.0, 1.0)
        return self.guided and first <= time <= last

    def check(self, followed: Collection[str], head: str) -> None:
        """Raise SettingError for settings of OF_HEADS that an image head does not follow."""
        plain = {one.name: one.default for one in fields(self)}
        ignored = {
            name: f"{getattr(self, name)}: the image head {head} has none; leave it out"
            for name in OF_HEADS
            if name not in followed and getattr(self, name) != plain[name]
        }
        if ignored:
            named = ", no ".join(f"{name} {getattr(self, name)}" for name in ignored)
            raise SettingError(ignored, f"the image head {head} has no {named}: leave it out")


class SettingError(ValueError):
    """A SettingError says which settings of a Sampling are wrong, and why."""

    def __init__(self, problems: Mapping[str, str], said: str | None = None) -> None:
        """Take what is wrong, by the names of settings; said: the same in other words."""
        super().__init__(f"sampling: {said or _joined(problems.items())}")
        self.problems = dict(problems)

    def said(self, names: Mapping[str, str]) -> str:
        """Return what is wrong, where settings have other names and None is one not given."""
        told = ((names.get(name, name), why) for name, why in self.problems.items())
        return _joined((name, why.replace(": None or ", ": ").replace(": None, or ", ": "))
                       for name, why in told)  # fmt: skip


def _joined(problems: Iterable[tuple[str, str]]) -> str:
    return "; ".join(dict.fromkeys(f"{name} {why}" for name, why in problems))


Scale = float | tuple[float, float] | None
"""Of guidance, or of guidance toward words and toward images."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _is_interval(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(map(_is_number, value))
        and value[0] < value[1] <= 1
    )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def guide(conditional_BV: Tensor, unconditional_BV: Tensor, scale_B1: Tensor) -> Tensor:
    """Return the logits of classifier-free guidance; at scale 1 they are the conditional ones."""
    # arXiv:2207.12598, eq. 6, on logits, with scale = 1 + w.
    return unconditional_BV + scale_B1 * (conditional_BV - unconditional_BV)


def noise(seed: int, index: int, part: int = 0) -> float:
    """Return the uniform number in [0, 1) that samples the token `index` of a reply.

    part: which of several, where a token is sampled in parts.
    """
    return float(noises(seed, index, 1, part)[0])


def noises(seed: int, index: int, count: int, part: int = 0) -> np.ndarray:
    """Return `noise` of the `count` tokens from `index` on, float64 (count,).

    Each is a counter-based random number (Philox: Salmon et al., SC 2011) of (seed, index, part):
    the first of the four words of its counter.
    """
    counters = np.random.Philox(key=seed, counter=[index, part, 0, 0])
    bits = counters.random_raw(4 * count - 3)[::4]
    return (bits >> np.uint64(11)) * 2.0**-53  # the upper 53 bits, which a float64 holds exactly


def normal_noise(seed: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the normal noise, float32 of `shape`, of what begins at the token `index` of a reply.

    Its counters are no others' (see `noise`), and those of two tokens never meet.
    """
    philox = np.random.Philox(key=seed, counter=[0, index, 0, 1])
    return np.random.Generator(philox).standard_normal(shape, dtype=np.float32)


def check_finite(logits_BV: Tensor) -> None:
    """Raise ValueError where logits, float32, are not finite: then neither is their sum."""
    if not bool(logits_BV.sum().isfinite()):
        raise ValueError("the model's logits are not finite: its weights are damaged")


def pick(
    logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Return sampled ids, int64 (B,), by inverting the cumulative distribution at uniform_B.

    uniform_B: float64 in [0, 1). At temperature 0 the likeliest id is taken. An id of probability 0
    is never sampled: the cumulative distribution does not rise there.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    return invert(probabilities(logits_BV, temperature, top_k, top_p), uniform_B[:, None])[:, 0]


def invert(share_BV: Tensor, uniform_BK: Tensor) -> Tensor:
    """Return K ids that are sampled from each distribution, int64 (B, K), as `pick` does; share_BV:
    float64, of any sum above 0.
    """
    cumulative_BV = share_BV.cumsum(dim=-1)
    target_BK = uniform_BK * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_BK, right=True)


def log_probability(logits_BV: Tensor, ids_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return how likely each id is where `pick` samples at temperature 1 from everything.

    The results are the log-probability of each id and the entropy of its distribution, in nats,
    float32 (B,) both; they can be differentiated. Logits of ids that are not allowed are -inf.
    """
    log_share_BV = logits_BV.float().log_softmax(dim=-1)
    of_ids_B = log_share_BV.gather(-1, ids_B[:, None])[:, 0]
    # 0 log 0 = 0, where the product of its factors is no number.
    finite_BV = log_share_BV.masked_fill(log_share_BV == -torch.inf, 0)
    return of_ids_B, -(log_share_BV.exp() * finite_BV).sum(dim=-1)


def probabilities(
    logits_BV: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Return the distribution that ids are sampled from, float64 (B, V).

    Temperature is applied first, then top k, then top p of what is left. top_k keeps exactly that
    many ids, of equally likely ones the lower; top_p keeps the fewest ids whose probability is at
    least top_p. At temperature 0 the likeliest id has probability 1.
    """
    if temperature == 0:
        best_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits_BV, dtype=torch.float64).scatter_(-1, best_B1, 1)
    logits_BV = logits_BV.double()
    # The maximum is subtracted first, so that no temperature, however small, overflows.
    share_BV = ((logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    if top_k is None and top_p is None:
        return share_BV
    ranked_BV = _ranked(share_BV)
    if top_k is not None:
        ranked_BV[:, top_k:] = 0  # top k: Fan et al., arXiv:1805.04833
        share_BV = _likeliest(share_BV, ranked_BV)
    if top_p is not None:
        # Top p, nucleus sampling: Holtzman et al., arXiv:1904.09751, eq. 2 and 3. An id is dropped
        # where the likelier ones reach top_p already.
        ranked_BV[ranked_BV.cumsum(dim=-1) - ranked_BV >= top_p] = 0
        share_BV = _likeliest(share_BV, ranked_BV)
    return share_BV


def _ranked(share_BV: Tensor) -> Tensor:
    """Return each row from its largest to its smallest value."""
    if share_BV.device.type == "cpu":
        # NumPy sorts values alone, with vector instructions: 20 times as fast, where AVX-512 is, as
        # torch, which takes their places along.
        return torch.from_numpy(np.sort(share_BV.numpy())[:, ::-1].copy())
    return share_BV.sort(dim=-1, descending=True).values


def _likeliest(share_BV: Tensor, ranked_BV: Tensor) -> Tensor:
    """Return the distribution of the likeliest ids alone, of equally likely ones the lower.

    ranked_BV: the shares from the largest on, 0 behind those that stay; it is normalised too.
    """
    num_B1 = (ranked_BV > 0).sum(dim=-1, keepdim=True)
    least_B1 = ranked_BV.gather(-1, num_B1 - 1)
    above_BV, tied_BV = share_BV > least_B1, share_BV == least_B1
    room_B1 = num_B1 - above_BV.sum(dim=-1, keepdim=True)
    kept_BV = above_BV | (tied_BV & (tied_BV.cumsum(dim=-1) <= room_B1))
    sum_B1 = ranked_BV.sum(dim=-1, keepdim=True)
    ranked_BV /= sum_B1
    return share_BV.masked_fill(~kept_BV, 0) / sum_B1
