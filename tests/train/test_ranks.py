"""Ranks wait for one another as long as work takes, and do once what one of them can do for all."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import launching
import pytest
from pair import Pair
from tiny_runs import metrics, recipe

from unimodal.config import save
from unimodal.data.sources import SourceConfig
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.zero import EngineConfig

PATIENT = """
import sys, time
from unimodal.train.ranks import PeerFailure, connect

ranks = connect(8)  # a starved machine lets a rank wait for seconds

def work():
    if ranks.is_first:
        time.sleep(17)  # more than twice as long as anybody waits for an answer
    return ranks.rank

assert ranks.together(work) == ranks.rank
assert ranks.in_turn(lambda: time.monotonic()) > 0

def fails():
    time.sleep(9 * ranks.rank)
    if ranks.rank:
        raise ValueError("of rank 1")

try:
    ranks.together(fails)
except PeerFailure:
    assert ranks.is_first
except ValueError as error:
    assert str(error) == "of rank 1" and ranks.rank == 1
else:
    raise AssertionError("it failed on one rank")
sys.stdout.write(f"done {ranks.rank}\\n")  # one write, or those of two ranks mix
"""


@pytest.mark.slow
def test_work_may_take_longer_than_anybody_waits(tmp_path: Path):
    (tmp_path / "patient.py").write_text(PATIENT)
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0",
             "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path / "patient.py")],
        env=launching.environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line) == ["done 0", "done 1"]


def test_alone_there_is_nothing_to_wait_for():
    assert Ranks().together(lambda: 5) == 5 and Ranks().in_turn(lambda: 6) == 6
    with pytest.raises(KeyError):
        Ranks().together(lambda: {}["nothing"])


def test_shards_are_fetched_once_for_all_ranks(
    shards: Path, tokenizer: Path, tmp_path: Path, pair: Pair
):
    """By a command, which counts how often it is called."""
    count = tmp_path / "count"
    sources = {
        f"scenes_{n}": SourceConfig(f"pipe:echo {n} >> {count}; cat {shards}/shard-00000{n}.tar")
        for n in range(2)
    }
    config = recipe(tmp_path / "run", tmp_path, tokenizer, 1)
    config = replace(
        config,
        sources=sources,
        held_out=HeldOutConfig(sources, rows=1, every_steps=1),
        loader=replace(config.loader, sequence_length=512, batch_rows=2),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(launching.ROOT / "configs" / "zero3.json", timeout_s=100),
    )
    save(config, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    assert len(metrics(tmp_path / "run")) == 1
    assert sorted(count.read_text().split()) == ["0", "1"]
