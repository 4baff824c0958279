"""Chromium without a window, where one is installed: pages as people see them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server")


def screenshot(url: str, folder: Path, size: tuple[int, int], dark: bool = False) -> np.ndarray:
    """Return what a window of so many pixels shows, uint8 (H, W, 3); skip where no browser is."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs one of {', '.join(NAMES)}")
    file = folder / f"{size[0]}x{size[1]}{'_dark' * dark}.png"
    words = [
        program, *FLAGS, *(["--force-dark-mode"] if dark else []), f"--user-data-dir={folder}/user",
        f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=2000",
        f"--screenshot={file}", url,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert file.exists(), done.stderr
    return np.asarray(Image.open(file).convert("RGB"))
