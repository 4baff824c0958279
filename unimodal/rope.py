"""Rotary frequencies (arXiv:2104.09864), also of models whose context was stretched.

In: head width, theta and a `RopeScaling` or none. Out: radians a position of each pair of channels,
and a factor on cosines and sines. The arithmetic is that of `transformers`, in float32, so that
positions far out agree too.

Letters: h pairs of channels of a head.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KINDS = ("linear", "llama3", "yarn")


@dataclass(frozen=True)
class RopeScaling:
    """How positions beyond the original context are brought within it."""

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    """How many times longer the context became."""
    original_positions: int
    """The context before, in positions; `linear` does not ask for it."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_positions / low_freq_factor are stretched whole."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_positions / high_freq_factor stay."""
    beta_fast: float = 32.0
    """yarn: channels that turn more often than this in the original context stay."""
    beta_slow: float = 1.0
    """yarn: channels that turn less often than this are stretched whole."""
    truncate: bool = True
    """yarn: round the two bounds to whole channels."""
    attention_factor: float | None = None
    """yarn: factor on cosines and sines; None: 0.1 ln(factor) + 1."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: a number above 0"
            for name, value in vars(self).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        ]
        if self.factor < 1:
            found.append(f"factor {self.factor}: at least 1")
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
    """(radians a position, float32 (width / 2,); factor on cosines and sines)."""
    period_h = theta ** (torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    plain_h = 1.0 / period_h
    if scaling is None:
        return plain_h, 1.0
    if scaling.kind == "linear":  # position interpolation, arXiv:2306.15595, eq. 3
        return plain_h / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _by_wavelength(plain_h, scaling), 1.0
    return _by_parts(period_h, theta, scaling), attention_factor(scaling)


def attention_factor(scaling: RopeScaling) -> float:
    """What yarn multiplies cosines and sines with: sqrt(1 / t) of arXiv:2309.00071, eq. 22."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def _by_wavelength(plain_h: Tensor, scaling: RopeScaling) -> Tensor:
    """Long waves are stretched, short ones kept, those between mixed (arXiv:2407.21783, 3.4.2;
    the bounds are those of Llama 3.1's published code).
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelength_h = 2 * math.pi / plain_h
    kept_h = (scaling.original_positions / wavelength_h - low) / (high - low)
    mixed_h = (1 - kept_h) * plain_h / scaling.factor + kept_h * plain_h
    long_h = wavelength_h > scaling.original_positions / low
    short_h = wavelength_h < scaling.original_positions / high
    return torch.where(long_h, plain_h / scaling.factor, torch.where(short_h, plain_h, mixed_h))


def _by_parts(period_h: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Interpolation by parts (YaRN, arXiv:2309.00071, eq. 17 to 20)."""
    width = 2 * len(period_h)

    def channel(turns: float) -> float:
        """The pair that turns so often in the original context."""
        ratio = scaling.original_positions / (turns * 2 * math.pi)
        return width * math.log(ratio) / (2 * math.log(theta))

    first, last = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    spread = last - first or 0.001  # one channel at which it jumps
    pairs_h = torch.arange(len(period_h), dtype=torch.float32, device=period_h.device)
    kept_h = 1 - ((pairs_h - first) / spread).clamp(0, 1)  # gamma of eq. 18
    return 1.0 / (scaling.factor * period_h) * (1 - kept_h) + 1.0 / period_h * kept_h
