"""The dtype of a run's matrix products: what the config says, or what its machines have."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from .ranks import Ranks

R = TypeVar("R", bound=Any)  # the config of a run, a dataclass that is Precise
WITHOUT = "no bfloat16 arithmetic here, which would take hundreds of times longer in software"


def has_bf16() -> bool:
    """Return whether this machine has a GPU, or a processor, with instructions for bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def has_fp8() -> bool:
    """Return whether this machine has a GPU with instructions for float8."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def in_float8(layers: nn.Module, emulate: bool = False) -> None:
    """Let the matrices inside `layers` be multiplied in float8, with a scale for each tensor and in
    both passes (Micikevicius et al., arXiv:2209.05433); parameters stay what they are.

    Those whose sides are no multiples of 16, which kernels need, stay in bfloat16. `emulate`: round
    to float8 and multiply in the parameters' dtype, where there is no such GPU.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    def fits(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not any(
            side % 16 for side in (module.in_features, module.out_features)
        )

    settings = Float8LinearConfig(emulate=emulate, pad_inner_dim=True)
    convert_to_float8_training(layers, module_filter_fn=fits, config=settings)


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
    if config.precision == "fp8" and not has_fp8():
        return [
            "precision fp8: needs a GPU with float8 arithmetic (compute capability 8.9 or higher, "
            "such as an H100), and here is none; give bf16 or auto"
        ]
    if config.precision == "fp8" and find_spec("torchao") is None:
        return ["precision fp8: torchao is not installed; pip install 'unimodal[gpu]'"]
    return []


def resolved(config: R, ranks: Ranks) -> R:
    """Return the config with the precision of this start: of `auto` bf16 where every rank has it.

    All ranks call it together.
    """
    if config.precision != "auto":
        return config
    found = ranks.all_gather("bf16" if has_bf16() else "fp32")
    return replace(config, precision="bf16" if set(found) == {"bf16"} else "fp32")
