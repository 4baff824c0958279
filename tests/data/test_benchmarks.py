"""The benchmarks of data run on tiny inputs, and their checks see what is not exact."""

import mmap
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import cold, jpegs, plans, processes, readers
from benchmarks.cold import call, first_batch, private_bytes
from benchmarks.inputs import QUICK, loader, real, scenes, write_scenes
from benchmarks.measured import Line, interleaved, spread, table
from PIL import Image

from unimodal.data.loader import LoaderConfig
from unimodal.data.packing import pack
from unimodal.data.shards import Shard, find_shards
from unimodal.data.windows import Window, WindowPlanner

SAMPLES = 60
SIZES = replace(
    QUICK, samples=SAMPLES, repeats=1, window_rows=8, streamed=100, resume=10_000, compared=150
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), SAMPLES, shard_samples=20, workers=1)


def test_lines_of_packing(folder: Path) -> None:
    found = plans.lines("scenes", scenes(folder), None, 1024, SIZES)
    assert [line.met for line in found[:3]] != [None] * 3 and found[3].met is None
    assert not any(line.wrong for line in found)
    assert float(found[0].ours) > 0.9 and found[0].ratio == ""


@pytest.fixture(scope="module")
def planned(folder: Path) -> tuple[WindowPlanner, list[Window]]:
    planner = loader(scenes(folder), LoaderConfig(window_rows=8)).planner
    return planner, plans.planned(planner, 3)


def test_units_that_stand_twice_or_nowhere_are_seen(
    planned: tuple[WindowPlanner, list[Window]],
) -> None:
    planner, (first, *others) = planned
    assert plans.misplaced(planner, [first, *others]) == []
    row = first.rows[0]
    doubled = replace(first, rows=[[*row[:-1], row[0]], *first.rows[1:]])
    lost = replace(first, rows=[row[1:], *first.rows[1:]])
    for window in (doubled, lost):
        (found, *_) = plans.misplaced(planner, [window, *others])
        assert found == "window 0: units are placed twice or not at all"
    full = replace(first, rows=[sum(first.rows, [])])
    assert "window 0: a row is too full" in plans.misplaced(planner, [full, *others])


def test_units_that_a_pass_gives_twice_and_wrong_lengths_are_seen(
    planned: tuple[WindowPlanner, list[Window]],
) -> None:
    planner, (first, *others) = planned
    items_n5 = first.items_n5.copy()
    items_n5[1] = items_n5[0]
    wrong = plans.misplaced(planner, [replace(first, items_n5=items_n5), *others])
    assert f"scenes: pass 0 gives unit {items_n5[0, 2]} twice" in wrong
    assert f"scenes: pass 0 lacks unit {first.items_n5[1, 2]}" in wrong
    longer = replace(first, lengths_n=first.lengths_n + 1)
    assert "scenes: lengths are not those of the index" in plans.misplaced(planner, [longer])


def test_first_fit_decreasing_is_right() -> None:
    lengths_n = np.array([6, 5, 5, 4, 3, 2])
    rows = plans.first_fit_decreasing(lengths_n, 10)
    assert rows == [[0, 3], [1, 2], [4, 5]]
    random_n = np.random.default_rng(0).integers(1, 100, 500)
    rows = plans.first_fit_decreasing(random_n, 128)
    assert sorted(sum(rows, [])) == list(range(500))
    assert max(random_n[row].sum() for row in rows) <= 128
    assert -(-random_n.sum() // 128) <= len(rows) <= 1.02 * len(pack(random_n, 128))


def test_lines_of_reading(folder: Path) -> None:
    streaming, ordered, index = readers.lines("scenes", folder, None, SIZES)
    assert not streaming.wrong and not ordered.wrong and "60 samples" in ordered.check
    assert index.met is None


def test_a_changed_byte_or_a_lost_sample_is_seen(folder: Path) -> None:
    paths = find_shards(folder)
    ours = list(readers.parsed(paths))
    assert readers.different(ours, readers.streamed(paths)) == []
    key, files = ours[7]
    name = next(iter(files))
    flipped = files[name][:-1] + bytes([files[name][-1] ^ 1])
    changed = [*ours[:7], (key, {**files, name: flipped}), *ours[8:]]
    assert readers.different(changed, ours) == [f"sample 7: {key} here, {key} there"]
    assert readers.different(ours[:-1], ours) == [f"sample 59: None here, {ours[-1][0]} there"]


def test_a_cold_start_gives_the_rows_of_an_uninterrupted_plan(folder: Path) -> None:
    state, digest = processes.uninterrupted(folder, SIZES)
    assert state.units[0] + state.row > 100
    found = call("first_batch", str(folder), asdict(state), 8)
    assert found["digest"] == digest and found["whole_s"] > found["batch_s"] > 0
    ((length_groups, alone),) = state.taken
    other = replace(state, taken=((length_groups, alone + 1),))
    assert first_batch(str(folder), asdict(other), 8)["digest"] != digest


def test_lines_of_resuming(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(function: str, *arguments: Any) -> dict[str, Any]:
        return {**getattr(cold, function)(*arguments), "whole_s": 9.0}

    monkeypatch.setattr(processes, "call", here)
    lines = processes.resume(folder, SIZES)
    assert len(lines) == 3 and not any(line.wrong for line in lines)
    assert "extrapolated from 100 samples" in lines[0].peer


def test_recut_shards_hold_the_same_samples(folder: Path, tmp_path: Path) -> None:
    recut = find_shards(processes.recut(folder, tmp_path / "many", 30))
    assert len(recut) == 30 and all(len(Shard(path)) == 2 for path in recut)
    before = list(readers.parsed(find_shards(folder)))
    assert readers.different(readers.parsed(recut), before) == []


def test_private_memory_is_that_which_is_written() -> None:
    before, size = private_bytes("self"), 32_000_000
    with mmap.mmap(-1, size) as fresh:  # an array may lie in memory that was freed before
        assert private_bytes("self") - before < 0.1 * size
        fresh.write(b"1" * size)
        assert private_bytes("self") - before > 0.9 * size


def test_alike_images_and_others() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8))
    assert jpegs.psnr_db(noise, noise) == float("inf")
    assert jpegs.psnr_db(noise, noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) < 12
    content = jpegs.jpeg(jpegs.mosaic([noise] * 9))
    line = jpegs.compared("of noise", [content], 1)
    assert line.met is not None and "PSNR" in line.check


def test_the_table_says_what_is_missed_and_what_is_wrong(tmp_path: Path) -> None:
    lines = [Line("a", "1", met=False, bar=">= 2"), Line("b", "2", check="all", wrong=("one",))]
    rows = table(lines).split("\n")
    assert rows[2] == "| a | 1 |  |  | >= 2 | **no** |  |"
    assert rows[3] == "| b | 2 |  |  |  |  | **no**: one |"
    assert spread([0.001, 0.002, 0.004], " ms", 1e3) == "2 ms (1 to 4)"
    with pytest.raises(FileNotFoundError, match="no nlvr in shared/data"):
        real(tmp_path)


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    seconds = interleaved(2, lambda: turns.append("a"), lambda: turns.append("b"))
    assert turns == ["a", "b", "b", "a", "a", "b"] and [len(one) for one in seconds] == [2, 2]
