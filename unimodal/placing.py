"""Placing finds where a model goes by what it takes and what is free, before a weight is read."""

from collections.abc import Mapping

import torch

from . import weight_only
from .architecture import Architecture
from .memory import free_bytes
from .model import Weights
from .placement import AUTO, Device, Placement, devices_of, placed
from .unified import parameter_shapes


def kept_as(weights: Weights, asked: Device) -> Weights:
    """Return how layers are kept while they are read: on CPUs int8 is made of float32 (int8.py)."""
    on_cpu = all(one.type == "cpu" for one in devices_of(asked))
    return "fp32" if weights == "int8" and on_cpu else weights


def place(
    architecture: Architecture,
    asked: Device,
    dtype: torch.dtype,
    weights: Weights = "fp32",
    beside: int = 0,
) -> Placement:
    """Return where a model goes; beside: the bytes of its image tokenizer.

    Raise ValueError where less memory is free than weights alone take, or a device has no
    arithmetic for them.
    """
    devices, kept = devices_of(asked), kept_as(weights, asked)
    if kept != "fp32":
        weight_only.check(kept, devices)
    sizes = {
        name: weight_only.num_bytes(name, shape, dtype, kept)
        for name, shape in parameter_shapes(architecture).items()
    }
    free = {device: free_bytes(device) for device in devices}
    tied = architecture.transformer.tied_head
    found = placed(sizes, tied, free, asked == AUTO, beside)
    if found is None:
        raise ValueError(_too_large(sum(sizes.values()) + beside, dtype, kept, free))
    return found


def _too_large(
    needed: int, dtype: torch.dtype, weights: Weights, free: Mapping[torch.device, int]
) -> str:
    """Return what is said where no device, or not all of them together, have room."""
    name = str(dtype).removeprefix("torch.")
    ways = []
    if dtype.itemsize > 2:
        ways.append("dtype bfloat16 takes half as much")
    if weights != "int4":
        ways.append("weights int4 about a quarter of bfloat16's")
    more = "take a GPU with more, several (cuda:0,cuda:1), or a smaller model"
    there = ", ".join(f"{one / 1e9:.1f} GB are free on {device}" for device, one in free.items())
    kept = name if weights == "fp32" else f"{name} with layers in {weights}"
    ways.append(f"else {more}" if ways else more)
    return f"its weights take {needed / 1e9:.1f} GB as {kept}, and {there}: {'; '.join(ways)}"
