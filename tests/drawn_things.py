"""A table of icons that is drawn, for tests where the real packages are not."""

from pathlib import Path

import numpy as np

from unimodal.data.folder import write_json
from unimodal.data.things.icons import STYLES
from unimodal.data.things.names import NAMES
from unimodal.data.things.table import NOTES, PIXELS


def write_blocks(folder: Path, names: list[str]) -> Path:
    """Write a table of icons that are squares of random blocks, one of each name and style."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (len(STYLES), len(names), 4, 4, 4), np.uint8)
    blocks[..., 3] = 255
    pixels = blocks.repeat(8, axis=2).repeat(8, axis=3)
    kinds = {name: found.kind for name, found in NAMES.items()}
    icons = [
        {
            "name": name,
            "twin": name,
            "category": "Objects",
            "keywords": [name, kinds.get(name, "award")],
        }
        for name in names
    ]
    np.save(folder / PIXELS, pixels)
    write_json(folder / NOTES, {"digest": "test", "side": 32, "icons": icons})
    return folder
