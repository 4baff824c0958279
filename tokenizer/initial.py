"""Draw initial weights: numbers that depend on (seed, name) alone.

Neither the order of construction nor what else draws random numbers changes them, so a model that
is sharded over ranks starts from the same weights as one that is not.
"""

import hashlib

import numpy as np
import torch


def normal(seed: int, name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
    """Return normal float32 numbers of standard deviation `std` for the parameter `name`."""
    drawn = generator(seed, name).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(drawn * np.float32(std))


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a counter-based generator (Philox: Salmon et al., SC 2011), keyed by seed and name."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8")))
