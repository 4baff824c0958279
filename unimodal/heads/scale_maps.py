"""What is read of an image before a scale of it is drawn: what the codes so far show at its grid.

Tian et al., "Visual Autoregressive Modeling" (VAR, arXiv:2404.02905), alg. 1 and 2: the vectors of
the codes of each scale are enlarged to the last grid and added up; what they show is averaged over
the cells of the next scale's grid. All of this is linear in the vectors, so one matrix does it, for
vectors of any width.

Letters: c codes that are known, m places of the next scale, h x w places of the last one.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.scales import larger, smaller

MAX_SCALES = 32


def check_scales(grid: Grid) -> None:
    """Raise ValueError for a grid that an image cannot be drawn on scale by scale."""
    if not grid.scales:
        raise ValueError(
            f"a grid of {grid.height} x {grid.width} codes of one scale: the head scale reads"
            " several, of an image tokenizer with model.quantizer.scales"
        )
    if len(grid.scales) > MAX_SCALES:
        raise ValueError(f"{len(grid.scales)} scales: the head scale has at most {MAX_SCALES}")
    if len(set(grid.scales)) < len(grid.scales):
        sides = ", ".join(f"{rows} x {columns}" for rows, columns in grid.scales)
        raise ValueError(
            f"the scales of an image of {grid.height} x {grid.width} codes are {sides}: each needs"
            " more rows or columns than the one before; take larger images, or an image tokenizer"
            " with fewer scales (model.quantizer.scales)"
        )


def scale_after(grid: Grid, count: int) -> int:
    """Return the number of the scale, from 1, that follows the first `count` codes; 0 behind the
    last one.
    """
    return 0 if count == grid.size else grid.counts.index(count) + 2 if count else 1


def sides_after(grid: Grid, count: int) -> tuple[int, int]:
    """Return (rows, columns) at which the first `count` codes are read: those of the scale that
    follows, or of the last one where they are all.
    """
    return grid.scales[scale_after(grid, count) - 1]


@lru_cache(512)
def shown(grid: Grid, count: int, device: torch.device) -> Tensor:
    """Return the matrix, float32 (m, c), that makes of the vectors of the first `count` codes what
    is read before the next scale; the sum of all at the last grid where there is no next one.
    """
    # Kept for training too, wherever it is first asked for.
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = sides_after(grid, count)
        if not count:
            return torch.zeros(rows * columns, 0, device=device)
        whole = grid.height, grid.width
        known = grid.scales[: grid.counts.index(count) + 1]
        sizes = [rows * columns for rows, columns in known]
        total_1hwc = torch.zeros(1, *whole, count)
        for scale, own_nc in zip(known, torch.eye(count).split(sizes), strict=True):
            # Alg. 2: f <- f + interpolate(lookup(r_k), h, w).
            total_1hwc += larger(own_nc.unflatten(0, scale)[None], whole)
        return smaller(total_1hwc, (rows, columns)).flatten(0, 2).to(device)


@lru_cache(512)
def places(grid: Grid) -> np.ndarray:
    """Return (row, column) of the last grid where the middle of each code's cell lies, int64
    (size, 2): tokens of all scales that stand for one part of the image stand at one place.
    """
    found = [
        (2 * np.indices(sides).reshape(2, -1).T + 1) * (grid.height, grid.width) // 2 // sides
        for sides in grid.scales
    ]
    return np.concatenate(found).astype(np.int64)
