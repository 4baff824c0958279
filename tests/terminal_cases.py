"""A conversation that is fed line by line, images for it, and the files that come of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from unimodal.chat import Chat
from unimodal.session import Session


def sample_image(size=(16, 24), seed=0) -> PILImage.Image:
    rng = np.random.default_rng(seed)
    return PILImage.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def session(drawing_model, tmp_path) -> Session:
    return Session(Chat(drawing_model), tmp_path / "out")


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def feed(session: Session, *lines: str) -> None:
    for line in lines:
        session._step(line)
