"""Zeros that take no memory before something is stored among them."""

import math
import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros of a shape without an empty side.

    On a CPU they take neither time nor memory at first: the system's pages are zeros, and come when
    they are written to. So there may be room for the longest replies, of which most are short. They
    are this process's own: a fork has a copy. Raise OSError where the system grants no such room.
    """
    if device.type != "cpu" or sys.platform == "win32":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared pages would come by reading them too
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=kind)
    if sys.platform == "linux":
        with suppress(OSError):  # of a kernel that has no huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)  # or one number could take 2 MiB
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def enlarged(stored: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of a larger shape that starts with `stored` and is zero elsewhere."""
    larger = zeros(shape, stored.dtype, stored.device)
    larger[tuple(map(slice, stored.shape))] = stored
    return larger
