"""Small models of all published families, shared by the tests of each."""

import shutil
from pathlib import Path

import pytest
from published_families import MAKERS

import unimodal
from unimodal.model import Model


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="session")
def models(directories: dict[str, Path]) -> dict[str, Model]:
    return {name: unimodal.load(directory) for name, directory in directories.items()}


@pytest.fixture
def copied(directories: dict[str, Path], tmp_path: Path) -> Path:
    """A Janus that a test may damage."""
    return Path(shutil.copytree(directories["janus"], tmp_path / "copy"))
