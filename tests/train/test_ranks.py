"""Ranks wait for one another as long as work takes, and do once what one of them can do for all."""

import functools
import http.server
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
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

ranks = connect(4)

def work():
    if ranks.is_first:
        time.sleep(10)  # more than twice as long as anybody waits for an answer
    return ranks.rank

assert ranks.together(work) == ranks.rank
order = []
assert ranks.in_turn(lambda: time.monotonic()) > 0

def fails():
    time.sleep(5 * ranks.rank)
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
print("done", ranks.rank)
"""


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


@pytest.fixture
def served(shards: Path) -> Iterator[tuple[str, Counter]]:
    """The shards behind HTTP: (their address, how often each was asked for)."""
    asked: Counter[str] = Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            super().do_GET()

        def log_message(self, *words: object) -> None:
            pass

    make = functools.partial(Handler, directory=str(shards))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_shards_are_fetched_once_for_all_ranks(
    served: tuple[str, Counter], tokenizer: Path, tmp_path: Path, pair: Pair
):
    pytest.importorskip("aiohttp", reason="needs the extra `remote`")
    address, asked = served
    config = recipe(tmp_path / "run", tmp_path, tokenizer, 1)
    source = SourceConfig(f"{address}/shard-{{000000..000001}}.tar")
    config = replace(
        config,
        sources={"scenes": source},
        held_out=HeldOutConfig({"scenes": source}, rows=1, every_steps=1),
        loader=replace(config.loader, sequence_length=512, batch_rows=2),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(launching.ROOT / "configs" / "zero3.json", timeout_s=100),
    )
    save(config, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    assert len(metrics(tmp_path / "run")) == 1
    assert asked == {"/shard-000000.tar": 1, "/shard-000001.tar": 1}
