"""Chromium without a window, where one is installed: pages as people see them, and use them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server")


def screenshot(url: str, folder: Path, size: tuple[int, int], dark: bool = False) -> np.ndarray:
    """Return what a window of so many pixels shows, uint8 (H, W, 3)."""
    file = folder / f"{size[0]}x{size[1]}{'_dark' * dark}.png"
    look = ["--force-dark-mode"] if dark else []
    said = _run(url, folder, *look, f"--window-size={size[0]},{size[1]}", f"--screenshot={file}")
    assert file.exists(), said.stderr
    return np.asarray(Image.open(file).convert("RGB"))


def document(url: str, folder: Path) -> str:
    """Return the HTML of a page after its scripts have run."""
    return _run(url, folder, "--dump-dom").stdout


@contextmanager
def driven() -> Iterator[Any]:
    """Yield a browser that playwright drives; skip where one of the two is missing."""
    reason = "needs playwright: pip install 'unimodal[browser]'"
    driver = pytest.importorskip("playwright.sync_api", reason=reason)
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=[*FLAGS])
        yield browser
        browser.close()


def _program() -> str:
    """Return where the browser is; skip where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs one of {', '.join(NAMES)}")
    return program


def _run(url: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the browser, its files in the folder; skip where there is none."""
    own = (f"--user-data-dir={folder}/user", "--virtual-time-budget=2000")
    return subprocess.run(
        [_program(), *FLAGS, *own, *words, url], capture_output=True, text=True, timeout=120
    )
