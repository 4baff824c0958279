"""The table of rendered icons: made once, mapped into memory by all who draw with it.

In: the icons and their SVG (icons.py). Out: a folder with

    things.json   the packages, the side in pixels, the digest, and every icon's names
    icons.npy     uint8 (styles, icons, side, side, 4): RGBA, premultiplied

1. resvg renders each icon on black and on white; where P is the premultiplied colour and A the
   opacity, black shows P and white shows P + 255 - A, which gives both (Porter and Duff 1984).
2. `Things` maps the table and cuts an icon to its visible box, for any width in pixels.

Costs: 4 ms an icon and style, 164 MB on disk at 128 pixels a side.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.atomic import write_bytes
from unimodal.tokenizer.pixels import open_image

from ..folder import write_json
from .icons import STYLES, Icon, read_icons
from .packages import PACKAGES

NOTES, PIXELS = "things.json", "icons.npy"
SIDE = 128  # pixels


def write_table(output: Path, packages: Path | None, side: int = SIDE) -> int:
    """Write the table of all icons into the folder `output`; return how many there are.

    ValueError where resvg-py is not installed or a package is missing.
    """
    _resvg()
    icons, svgs = read_icons(packages)
    pixels_SNHW4 = np.empty((len(STYLES), len(icons), side, side, 4), np.uint8)

    def fill(at: tuple[int, int]) -> None:
        style, number = at
        pixels_SNHW4[style, number] = rendered(svgs[number][style], side)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, np.ndindex(len(STYLES), len(icons))))
    digest = hashlib.sha256(pixels_SNHW4.tobytes()).hexdigest()[:16]
    output.mkdir(parents=True, exist_ok=True)
    (output / NOTES).unlink(missing_ok=True)  # it comes last: a table with it is whole
    write_bytes(output / PIXELS, _npy(pixels_SNHW4))
    write_json(output / NOTES, _notes(icons, side, digest))
    return len(icons)


def _notes(icons: Sequence[Icon], side: int, digest: str) -> dict[str, Any]:
    return {
        "packages": [f"{one.name}@{one.version} ({one.licence})" for one in PACKAGES],
        "side": side,
        "digest": digest,
        "icons": [asdict(icon) for icon in icons],
    }


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def rendered(svg: str, side: int) -> np.ndarray:
    """Render an SVG: uint8 (side, side, 4), RGBA, premultiplied."""
    to_png = _resvg()
    black_HW3, white_HW3 = (
        np.asarray(
            open_image(
                bytes(to_png(svg_string=svg, width=side, background=ground, skip_system_fonts=True))
            ).image,
            dtype=np.int16,
        )
        for ground in ("#000", "#fff")
    )
    alpha_HW1 = (255 - (white_HW3 - black_HW3)).max(axis=2, keepdims=True)
    premultiplied_HW3 = np.minimum(black_HW3, alpha_HW1)
    return np.concatenate([premultiplied_HW3, alpha_HW1], axis=2).astype(np.uint8)


def _resvg():
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ValueError(
            "icons are rendered by resvg-py, which is not installed: pip install unimodal[things]"
        ) from error
    return svg_to_bytes


class Things:
    """A table of rendered icons, read from the folder that `write_table` filled.

    ValueError where there is none or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            notes = json.loads((folder / NOTES).read_text())
            self.digest: str = notes["digest"]
            self.icons = [
                Icon(**one | {"keywords": tuple(one["keywords"])}) for one in notes["icons"]
            ]
            self.pixels_SNHW4: np.ndarray = np.load(folder / PIXELS, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no table of things ({error}): "
                f"write one by `unimodal data things {folder}`"
            ) from error
        if self.pixels_SNHW4.shape[:2] != (len(STYLES), len(self.icons)):
            raise ValueError(
                f"{folder}: {self.pixels_SNHW4.shape} drawings of {len(self.icons)} icons: "
                "remove the folder and write the table again"
            )
        self.numbers = {icon.name: number for number, icon in enumerate(self.icons)}
        self._cut: dict[tuple[str, str], np.ndarray] = {}

    def drawing(self, name: str, style: str) -> np.ndarray:
        """Return an icon cut to its visible box: uint8 (h, w, 4), RGBA, premultiplied."""
        key = name, style
        if key not in self._cut:
            whole_HW4 = self.pixels_SNHW4[STYLES.index(style), self.numbers[name]]
            seen_HW = whole_HW4[:, :, 3] > 16
            rows, columns = np.flatnonzero(seen_HW.any(1)), np.flatnonzero(seen_HW.any(0))
            self._cut[key] = np.ascontiguousarray(
                whole_HW4[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            )
        return self._cut[key]


@cache
def things_of(folder: Path) -> Things:
    """Return the table in a folder, read once a process."""
    return Things(folder)
