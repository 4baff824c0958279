"""Write the icons themselves as shards: each once in each style, on white.

A sample is `.png` and `.json`: `caption` (the icon's name in words), `icon`, `category`, `style`.
So an image tokenizer learns from them, and `eval tokenizer --probe category --probe-apart icon`
asks what its codes know.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..folder import claim
from ..shards import ShardWriter
from .icons import STYLES
from .table import Things

CLAIM = "icons.json"


def write_icon_shards(things: Things, output: Path) -> int:
    """Write shards of all icons into the folder `output`, and return how many samples they hold.

    ValueError where the folder holds something else.
    """
    claim(output, CLAIM, {"digest": things.digest})
    with ShardWriter(output) as writer:
        for number, icon in enumerate(things.icons):
            for style, pixels_HW4 in zip(STYLES, things.pixels_SNHW4[:, number], strict=True):
                known = {
                    "caption": icon.name.replace("-", " "), "icon": icon.name,
                    "category": icon.category, "style": style,
                }  # fmt: skip
                files = {"png": _on_white(pixels_HW4), "json": json.dumps(known).encode()}
                writer.write_files(f"{number:06d}_{style}", files)
    return len(things.icons) * len(STYLES)


def _on_white(pixels_HW4: np.ndarray) -> bytes:
    """Return a PNG of premultiplied RGBA, uint8 (H, W, 4), on white: P + 255 - A."""
    colour_HW3, opacity_HW1 = pixels_HW4[..., :3], pixels_HW4[..., 3:]
    stream = io.BytesIO()
    Image.fromarray(colour_HW3 + (255 - opacity_HW1)).save(stream, "PNG")
    return stream.getvalue()
