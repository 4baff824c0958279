"""What is measured in processes of their own, which import what training imports and no more.

`call("first_batch", folder, ...)` runs `first_batch` of this file in a fresh process; what it
returns comes back as JSON.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data.loader import LoaderConfig
from unimodal.data.windows import LoaderState
from unimodal.sequence import Batch

from .inputs import loader, scenes, tokenizers

CODE = """
import json, sys
from benchmarks import cold
print(json.dumps(getattr(cold, sys.argv[1])(*map(json.loads, sys.argv[2:]))))
"""


def call(function: str, *arguments: Any) -> dict[str, Any]:
    """The result of a function of this file in a fresh process, and `whole_s`: what all of it
    took.
    """
    words = [sys.executable, "-c", CODE, function, *map(json.dumps, arguments)]
    homes = map(str, Path(__file__).resolve().parents[2:0:-1])  # the repository and tests/
    path = os.pathsep.join([*homes, *filter(None, sys.path)])
    began = time.perf_counter()
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
    whole_s = time.perf_counter() - began
    done.check_returncode()
    return {**json.loads(done.stdout), "whole_s": whole_s}


def first_batch(folder: str, state: dict[str, Any], window_rows: int) -> dict[str, Any]:
    """Make the first batch from a LoaderState: seconds to each of its stages, and its digest."""
    began = time.perf_counter()
    tokenizers()
    read_s = time.perf_counter() - began
    made = loader(scenes(folder), LoaderConfig(window_rows=window_rows), LoaderState(**state))
    indexed_s = time.perf_counter() - began
    with closing(iter(made)) as batches:
        batch, _ = next(batches)
        batch_s = time.perf_counter() - began
    return {
        "tokenizers_s": read_s,
        "index_s": indexed_s - read_s,
        "rows_s": batch_s - indexed_s,
        "batch_s": batch_s,
        "digest": digest(batch),
    }


def reach(folder: str, state: dict[str, Any], window_rows: int) -> dict[str, Any]:
    """Plan from a LoaderState and read the samples of its first row, as they are stored:
    seconds.
    """
    tokenizers()  # the peer needs none to be where it is
    began = time.perf_counter()
    made = loader(scenes(folder), LoaderConfig(window_rows=window_rows), LoaderState(**state))
    indexed_s = time.perf_counter() - began
    row = made.planner.window(made.state).row(made.state.row)
    planned_s = time.perf_counter() - began
    keys = [made.row_builder._sample(place)[0].key for place in row]
    reach_s = time.perf_counter() - began
    return {"index_s": indexed_s, "plan_s": planned_s - indexed_s, "reach_s": reach_s, "keys": keys}


def memory(folder: str, rows: int, window_rows: int) -> dict[str, Any]:
    """Private bytes of this process, which plans, and of its worker, which makes rows: after half
    of so many rows, and after all.
    """
    config = LoaderConfig(window_rows=window_rows)
    made = loader(scenes(folder), config, workers=1)
    hashes, found = hashlib.sha256(), {}
    with closing(iter(made)) as batches:
        for number, (batch, _) in enumerate(islice(batches, rows // config.batch_rows), start=1):
            hashes.update(digest(batch).encode())
            if number in (rows // config.batch_rows // 2, rows // config.batch_rows):
                (worker,) = active_children()
                found = {
                    "half_bytes": found.get("worker_bytes"),
                    "worker_bytes": private_bytes(worker.pid or 0),
                    "planner_bytes": private_bytes("self"),
                }
    return {**found, "digest": hashes.hexdigest()}


def private_bytes(process: int | str) -> int:
    """Memory that a process (its number, or "self") alone has written: neither the page cache's nor
    anybody else's.
    """
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = re.search(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE)
    assert found, "Linux lists it"
    return int(found[1]) * 1024


def digest(batch: Batch) -> str:
    """SHA-256 of all that a batch holds."""
    found = hashlib.sha256()
    for name in sorted(Batch.tensors()):
        tensor = getattr(batch, name)
        found.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
    found.update(repr(batch.spans).encode())
    return found.hexdigest()
