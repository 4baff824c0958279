"""The dtype of a run's matrix products: what the config says, or what its machines have."""

from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch

from .ranks import Ranks

R = TypeVar("R", bound=Any)  # the config of a run, a dataclass that is Precise
WITHOUT = "no bfloat16 arithmetic here, which would take hundreds of times longer in software"


def has_bf16() -> bool:
    """Return whether this machine has a GPU, or a processor, with instructions for bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Precise(Protocol):
    """Anything that chooses a precision."""

    @property
    def precision(self) -> str:
        """Return the name of the choice."""
        ...


def obstacles(config: Precise) -> list[str]:
    """Return what this machine lacks, one sentence each."""
    if config.precision == "bf16" and not has_bf16():
        return [f"precision bf16: {WITHOUT}; leave it out"]
    return []


def resolved(config: R, ranks: Ranks) -> R:
    """Return the config with the precision of this start: of `auto` bf16 where every rank has it.

    All ranks call it together.
    """
    if config.precision != "auto":
        return config
    found = ranks.all_gather("bf16" if has_bf16() else "fp32")
    return replace(config, precision="bf16" if set(found) == {"bf16"} else "fp32")
