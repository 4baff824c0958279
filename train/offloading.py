"""Keep what a forward pass saves for its backward in the host's memory, bit for bit.

Parameters stay where they are: they are there anyway. Where layers compute again only their inputs
are saved, and these are what goes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Packed = Tensor | tuple[torch.device, Tensor]


@contextmanager
def offloading(enabled: bool = True) -> Iterator[None]:
    """Let forward passes in the block save activations in the host's memory, if enabled."""
    if not enabled:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def _pack(tensor: Tensor) -> Packed:
    if _is_parameter(tensor) or not tensor.is_floating_point():
        return tensor
    # With the same strides: kernels may add up in another order for others.
    pinned = tensor.is_cuda
    host = torch.empty_strided(
        tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu", pin_memory=pinned
    )
    return tensor.device, host.copy_(tensor)


def _unpack(packed: Packed) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    device, host = packed
    return host.to(device, non_blocking=True)


def _is_parameter(tensor: Tensor) -> bool:
    """Return whether a tensor is a parameter, which trains or not, or a view of one."""
    root = tensor if tensor._base is None else tensor._base
    return isinstance(root, torch.nn.Parameter) or (root.is_leaf and root.requires_grad)
