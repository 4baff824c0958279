"""A run of the language model that stopped after some steps, and what it gives without a stop."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import exact, recipe

from unimodal.config import save
from unimodal.train import lm
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig

STEPS, ALL = 3, 6


@pytest.fixture(scope="module")
def stopped(shards: Path, tokenizer: Path, tmp_path_factory) -> LmRun:
    """A run of three steps, as it was after them."""
    config = recipe(tmp_path_factory.mktemp("stopped") / "run", shards, tokenizer, STEPS)
    lm.train(config)
    return config


@pytest.fixture(scope="module")
def whole(stopped: LmRun, tmp_path_factory) -> list[tuple]:
    """What the same run gives when it takes six steps without a stop."""
    output = tmp_path_factory.mktemp("whole") / "run"
    lm.train(replace(stopped, output=output, schedule=ScheduleConfig(ALL, 1)))
    return exact(output)


@pytest.fixture
def run(stopped: LmRun, tmp_path: Path) -> LmRun:
    """A copy of the run, to be gone on with to the sixth step."""
    shutil.copytree(stopped.output, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"  # as if it had been begun there
    save(replace(stopped, output=tmp_path / "run"), path)
    return replace(stopped, output=tmp_path / "run", schedule=ScheduleConfig(ALL, 1))
