"""What a run of its own shows: resuming, memory, waiting for data (see cold.py for the children).

The peer of resuming is webdataset, which must read every sample up to the one wanted. That it would
do so at the rate of its first samples is an extrapolation, and the table says so.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import webdataset

from unimodal.bundle import DEFAULT
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.data.windows import LoaderState, planned_rows
from unimodal.sequence import Batch

from .cold import call, digest
from .inputs import Sizes, loader, scenes
from .measured import Line, ratios, spread

FASTER, GROWTH, WAIT = 1000, 0.05, 0.01  # the bars
ROOT = Path(__file__).resolve().parents[2]
CUTS = (10, 1000)  # shards that the same samples are cut into


def resume(folder: Path, sizes: Sizes) -> list[Line]:
    """A cold process at a far document against fast-forwarding, repeat by repeat."""
    state, rows_there = uninterrupted(folder, sizes)
    again = call("first_batch", str(folder), asdict(state), sizes.window_rows)
    times = sizes.resume / max(1, state.units[0])
    ((length_groups, alone),) = state.taken
    taken = ((int(times * length_groups), int(times * alone)),)
    far = LoaderState(0, int(times * state.window), 0, taken, state.owed)
    peer_s: list[float] = []
    reached: list[dict[str, Any]] = []
    begun: list[dict[str, Any]] = []
    for _ in range(sizes.repeats):
        peer_s.append(fast_forward_s(folder, sizes.streamed) * sizes.resume / sizes.streamed)
        reached.append(call("reach", str(folder), asdict(far), sizes.window_rows))
        begun.append(call("first_batch", str(folder), asdict(far), sizes.window_rows))
    wrong = () if again["digest"] == rows_there else ("the rows are not those of one plan",)
    check = f"rows at document {sizes.compared:,} equal those of a plan from the start"
    peer = f"webdataset {spread(peer_s, ' s')}, extrapolated from {sizes.streamed:,} samples"

    def line(what: str, found: list[dict[str, Any]], field: str, *stages: str) -> Line:
        seconds = [one[f"{field}_s"] for one in found]
        within = (f", {name} {median(one[f'{name}_s'] for one in found):.3f}" for name in stages)
        faster = ratios(peer_s, seconds)
        return Line(
            f"document {sizes.resume:,}: {what}", spread(seconds, " s") + "".join(within), peer,
            spread(faster), f">= {FASTER:,}" if stages else "",
            median(faster) >= FASTER if stages else None, check, wrong,
        )  # fmt: skip

    return [
        line(
            "its row planned and read, after imports and tokenizers",
            reached,
            "reach",
            "index",
            "plan",
        ),
        line("first batch, after imports", begun, "batch", "tokenizers", "index", "rows"),
        line("first batch, whole process", begun, "whole"),
    ]


def uninterrupted(folder: Path, sizes: Sizes) -> tuple[LoaderState, str]:
    """Plan from the start; where a batch begins behind so many documents, and its digest."""
    made = loader(scenes(folder), LoaderConfig(window_rows=sizes.window_rows))
    places, documents, state = planned_rows(made.planner, made.planner.begin()), 0, made.state
    while documents < sizes.compared or state.row % made.config.batch_rows:
        row, state = next(places)
        documents += len(row)
    batch = [made.row_builder.build(row).row for row, _ in islice(places, made.config.batch_rows)]
    places.close()
    return state, digest(Batch.stack(batch))


def fast_forward_s(folder: Path, samples: int) -> float:
    """Seconds in which webdataset passes so many samples, over the shards again and again."""
    paths = [str(path) for path in find_shards(folder)]
    began = time.perf_counter()
    passed = 0
    while passed < samples:
        stream = webdataset.WebDataset(paths, shardshuffle=False)
        passed += sum(1 for _ in islice(stream, samples - passed))
    return time.perf_counter() - began


def memory(folder: Path, scratch: Path, sizes: Sizes) -> list[Line]:
    """The same samples in few and in many shards."""
    few, many = (
        call("memory", str(recut(folder, scratch / f"cut-{cut}", cut)), sizes.rows,
             sizes.window_rows)
        for cut in CUTS
    )  # fmt: skip
    wrong = () if few["digest"] == many["digest"] else ("the rows differ",)
    check = f"{sizes.rows} rows equal"

    def line(
        what: str, field: str, before: dict[str, Any], after: dict[str, Any], was: str, now: str
    ) -> Line:
        growth = after[now] / before[was] - 1
        return Line(
            what, _mb(after[now]), f"{field} {_mb(before[was])}", f"{growth:+.1%}",
            f"<= {GROWTH:+.0%}", growth <= GROWTH, check, wrong,
        )  # fmt: skip

    fewer, size = f"{CUTS[0]} shards", "worker_bytes"
    last = f"worker's private memory, {CUTS[1]:,} shards"
    return [
        line(last, fewer, few, many, size, size),
        line(f"{last}, {sizes.rows} rows", f"{sizes.rows // 2} rows", many, many, "half_bytes",
             size),
        line(f"planning process, {CUTS[1]:,} shards", fewer, few, many, "planner_bytes",
             "planner_bytes"),
    ]  # fmt: skip


def recut(folder: Path, target: Path, shards: int) -> Path:
    """The samples of a folder in so many shards, or a little fewer, in the same order."""
    source = [Shard(path) for path in find_shards(folder)]
    each = -(-sum(map(len, source)) // shards)
    with ShardWriter(target, max_samples=each) as writer:
        for shard in source:
            for number in range(len(shard)):
                sample = shard.sample(number)
                writer.write_files(sample.key, sample.files)
    return target


def wait(folder: Path, scratch: Path, sizes: Sizes) -> list[Line]:
    """The share of a training step in which it waits for its batch."""
    output, warm, threads = scratch / "run", 2, os.cpu_count() or 1
    settings = [
        f"sources.scenes.shards={folder}", f"tokenizer={DEFAULT}", f"output={output}",
        f"schedule.num_steps={sizes.steps}", "schedule.warmup_steps=1", "schedule.decay_steps=0",
        f"loop.num_threads={min(threads, 2)}",
    ]  # fmt: skip
    words = [sys.executable, "-m", "unimodal", "train", "lm", "configs/scenes_lm.yaml", *settings]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"training ended with {done.returncode}: {done.stderr[-2000:]}")
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    step_s = [step["step_s"] for step in steps[warm:]]
    share = sum(step["data_wait_s"] for step in steps[warm:]) / sum(step_s)
    worst = max(step["data_wait_s"] / step["step_s"] for step in steps[warm:])
    return [
        Line(f"waiting for data, {len(step_s)} steps of scenes_lm",
             f"{share:.3%} of a step of {spread(step_s, ' s')}, at worst {worst:.2%}",
             bar=f"<= {WAIT:.0%}", met=share <= WAIT)
    ]  # fmt: skip


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
