"""Compute RoPE's frequencies (arXiv:2104.09864), also of models with an extended context.

In: head width, theta and a `RopeScaling` or None. Out: the radians per position of each pair of
channels, and a factor on cosines and sines. The arithmetic is that of `transformers`, in float32,
so that large positions agree with it too.

Letters: h pairs of channels of a head.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KINDS = ("linear", "llama3", "yarn", "longrope")
RopeKind = Literal["full", "local", "none"]  # of a layer


@dataclass(frozen=True)
class RopeScaling:
    """A RopeScaling says how frequencies change when a model's context is extended."""

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    factor: float
    """How many times longer the context has become."""
    original_positions: int
    """The original context, in positions; `linear` does not use it."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_positions / low_freq_factor are stretched by `factor`."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_positions / high_freq_factor are unchanged."""
    beta_fast: float = 32.0
    """yarn: channels that rotate more often than this in the original context are unchanged."""
    beta_slow: float = 1.0
    """yarn: channels that rotate less often than this are stretched by `factor`."""
    truncate: bool = True
    """yarn: whether the two bounds are rounded to whole channels."""
    attention_factor: float | None = None
    """yarn, longrope: the factor on cosines and sines; None: yarn's is 0.1 ln(factor) + 1,
    longrope's sqrt(1 + ln(factor) / ln(original_positions))."""
    factors: tuple[float, ...] = ()
    """longrope: how many times longer each pair's wavelength is within the original context."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: a number above 0"
            for name, value in vars(self).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        ]
        if self.factor < 1:
            found.append(f"factor {self.factor}: at least 1")
        if (self.kind == "longrope") != bool(self.factors) or any(one <= 0 for one in self.factors):
            found.append(
                f"factors {list(self.factors)}: numbers above 0 of longrope, and of it alone"
            )
        if self.low_freq_factor >= self.high_freq_factor:
            found.append(
                f"low_freq_factor {self.low_freq_factor}: below high_freq_factor"
                f" {self.high_freq_factor}"
            )
        if self.beta_slow >= self.beta_fast:
            found.append(f"beta_slow {self.beta_slow}: below beta_fast {self.beta_fast}")
        return found


def frequencies(
    width: int, theta: float, scaling: RopeScaling | None, device: torch.device | None = None
) -> tuple[Tensor, float]:
    """Return (radians per position, float32 (width / 2,); factor on cosines and sines)."""
    # arXiv:2104.09864, eq. 15: theta_i = theta^(-2i/d).
    period_h = theta ** (torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    plain_h = 1.0 / period_h
    if scaling is None:
        return plain_h, 1.0
    if scaling.kind == "linear":  # position interpolation, arXiv:2306.15595, eq. 3
        return plain_h / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _by_wavelength(plain_h, scaling), 1.0
    if scaling.kind == "longrope":  # LongRoPE, arXiv:2402.13753, eq. 3, with lambda_i given
        factors_h = torch.tensor(scaling.factors, device=device, dtype=torch.float32)
        return 1.0 / (factors_h * period_h), attention_factor(scaling)
    return _by_parts(period_h, theta, scaling), attention_factor(scaling)


def attention_factor(scaling: RopeScaling) -> float:
    """Return the factor of yarn or longrope on cosines and sines."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.kind == "longrope":  # of Phi-3's published code
        return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_positions))
    # YaRN, arXiv:2309.00071, eq. 22: sqrt(1 / t) = 0.1 ln(s) + 1.
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def _by_wavelength(plain_h: Tensor, scaling: RopeScaling) -> Tensor:
    """Return the frequencies of kind llama3: long waves stretched, short ones kept, others mixed.

    The formula is that of Llama 3.1's published code (model: arXiv:2407.21783).
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelength_h = 2 * math.pi / plain_h
    kept_h = (scaling.original_positions / wavelength_h - low) / (high - low)
    mixed_h = (1 - kept_h) * plain_h / scaling.factor + kept_h * plain_h
    long_h = wavelength_h > scaling.original_positions / low
    short_h = wavelength_h < scaling.original_positions / high
    return torch.where(long_h, plain_h / scaling.factor, torch.where(short_h, plain_h, mixed_h))


def _by_parts(period_h: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Return the frequencies of yarn: 'NTK-by-parts' interpolation (arXiv:2309.00071, sec. 3.2)."""
    width = 2 * len(period_h)

    def channel(turns: float) -> float:
        """Return the pair of channels that rotates `turns` times in the original context."""
        # arXiv:2309.00071, eq. 17, solved for the channel.
        ratio = scaling.original_positions / (turns * 2 * math.pi)
        return width * math.log(ratio) / (2 * math.log(theta))

    first, last = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    spread = last - first or 0.001  # the ramp is a step where both bounds are one channel
    pairs_h = torch.arange(len(period_h), dtype=torch.float32, device=period_h.device)
    kept_h = 1 - ((pairs_h - first) / spread).clamp(0, 1)  # gamma of eq. 18
    # eq. 20: h(theta) = (1 - gamma) theta / s + gamma theta
    return 1.0 / (scaling.factor * period_h) * (1 - kept_h) + 1.0 / period_h * kept_h
