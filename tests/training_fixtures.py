"""What tests of training share: data of tiny runs, and two ranks that last."""

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from pair import Pair

    from unimodal.train.run import LmRun


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 conversations in two shards."""
    from tiny_runs import write_conversations

    return write_conversations(tmp_path_factory.mktemp("shards"), samples=60, shard_samples=40)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained image tokenizer of 64 codes."""
    from tiny_runs import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def head_run(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Callable[[str], "LmRun"]:
    """Return a function that trains the run of a head (head_runs.HEAD_RUNS), once."""

    @cache
    def trained(head: str) -> "LmRun":
        from head_runs import HEAD_RUNS

        from unimodal.train import lm

        folder, how = tmp_path_factory.mktemp(head), HEAD_RUNS[head]
        run = how.recipe(folder / "run", shards, how.tokenizer(folder / "tokenizer"), 50)
        lm.train(run)
        return run

    return trained


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Pair"]:
    """Two ranks, on which functions are called."""
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed: the extra `train`")
    from launching import environment
    from pair import Pair

    found = Pair(tmp_path_factory.mktemp("pair"), environment())
    yield found
    found.stop()
