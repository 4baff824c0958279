"""A table of icons for the tests: the real one where the packages are, and a drawn one anywhere."""

from pathlib import Path

import pytest
from drawn_things import write_blocks

from unimodal.data.things.icons import Icon, read_icons
from unimodal.data.things.names import NAMES

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
