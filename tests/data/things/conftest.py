"""A table of icons for the tests: the real one where the packages are, and a drawn one anywhere."""

from pathlib import Path

import numpy as np
import pytest

from unimodal.data.folder import write_json
from unimodal.data.things.icons import STYLES, Icon, read_icons
from unimodal.data.things.names import NAMES
from unimodal.data.things.table import NOTES, PIXELS

PACKAGES = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "things"


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return the folder of the icon packages; skip where they are not."""
    if not PACKAGES.is_dir():
        pytest.skip(f"{PACKAGES} is missing: it holds the icon packages of npm")
    return PACKAGES


@pytest.fixture(scope="session")
def real_icons(packages: Path) -> tuple[list[Icon], list[tuple[str, str]]]:
    """Return the icons of the packages and their SVG."""
    return read_icons(packages)


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """Return a table of all common icons and another one."""
    return write_blocks(tmp_path_factory.mktemp("things"), [*NAMES, "1st-place-medal"])


@pytest.fixture(scope="session")
def small_table(tmp_path_factory) -> Path:
    """Return a table of some common icons."""
    return write_blocks(tmp_path_factory.mktemp("few_things"), list(NAMES)[:40])


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
