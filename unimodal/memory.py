"""Memory: how much of it is free on a device."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
UNKNOWN = 2**62  # where the system does not tell, the system itself will refuse


def free_bytes(device: torch.device, meminfo: Path = MEMINFO) -> int:
    """Return the bytes that are free on a device; UNKNOWN where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu" or not meminfo.exists():
        return UNKNOWN
    with meminfo.open() as lines:  # asked for each request: no more lines are read than are needed
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return UNKNOWN


def free_for_layers(devices: Sequence[torch.device]) -> int:
    """Return how many bytes are free for what each layer takes as much of as any other one, such as
    keys and values. devices: of each layer.
    """
    counts = Counter(devices)
    return min(free_bytes(one) * len(devices) // num for one, num in counts.items())
