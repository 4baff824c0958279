"""What a run will write is counted before it begins: all ranks, all that is kept, the bundle."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import recipe

from unimodal.train import lm
from unimodal.train.checkpoint import EMA, MASTER, ParameterShard, found
from unimodal.train.finish import bundle_bytes
from unimodal.train.room import Room, state_bytes, steps_saved
from unimodal.train.saver import steps_kept
from unimodal.train.schedule import ScheduleConfig


def test_averaged_weights_and_moments_that_are_not_there_yet_are_counted() -> None:
    """Of a new run: master, two moments and an EMA; of one that goes on, what is there."""
    new = {"one": ParameterShard((10,), 0, {MASTER: torch.zeros(10)})}
    assert state_bytes(new, averaged=False) == 3 * 40
    assert state_bytes(new, averaged=True) == 4 * 40
    muon = {"one": ParameterShard((10,), 0, {MASTER: torch.zeros(10), "momentum": torch.zeros(10)})}
    assert state_bytes(muon, averaged=False) == 2 * 40
    muon["one"].tensors[EMA] = torch.zeros(10)
    assert state_bytes(muon, averaged=True) == 3 * 40


def test_steps_that_are_saved() -> None:
    assert steps_saved(0, 10, 4) == {4, 8, 10}
    assert steps_saved(8, 12, 4) == {12}
    assert steps_saved(7, 8, 4) == {8}
    assert steps_saved(10, 10, 4) == set()


def simulated(room: Room, there: set[int], coming: set[int]) -> int:
    """The most checkpoints that lie on the disk at once beside those that were there, found by
    saving one after another.
    """
    disk, most = set(there), 0
    for step in sorted(coming):
        most = max(most, len({*disk, step}) - len(there))  # the oldest is still there
        disk = steps_kept({*disk, step}, room.keep_newest, room.keep_every_steps)
    return most * room.checkpoint_bytes + room.bundle_bytes


@pytest.mark.parametrize("newest", [1, 2, 5])
@pytest.mark.parametrize("every", [None, 20, 100])
@pytest.mark.parametrize("start", [0, 10, 95, 100, 120])
def test_the_room_is_what_a_run_takes_at_most(newest: int, every: int | None, start: int) -> None:
    room = Room(1000, 7, newest, every)
    there = steps_kept(steps_saved(0, start, 10), newest, every)
    coming = steps_saved(start, 120, 10)
    assert room.needed_bytes(there, coming) == simulated(room, there, coming)


def test_the_bundle_of_another_dtype_is_counted(tmp_path: Path, shards: Path, tokenizer: Path):
    """What was counted is what lies there, but for the room that small files have."""
    from unimodal.bundle import ROOM_BYTES
    from unimodal.bundle_config import read_config
    from unimodal.tensors import find_tensors, weight_files

    bundle = lm.train(recipe(tmp_path / "run", shards, tokenizer, 1))
    shape = read_config(bundle / "config.json").architecture
    (path,) = weight_files(bundle)
    counted = bundle_bytes(shape, {}) - ROOM_BYTES
    assert counted == sum(one.stop - one.start for one in find_tensors(bundle).values())
    wide = {name: replace(one, dtype="F32") for name, one in find_tensors(bundle).items()}
    assert bundle_bytes(shape, wide) - ROOM_BYTES == 2 * counted
    rest = sum(one.stat().st_size for one in bundle.iterdir()) - counted
    assert 0 < rest < ROOM_BYTES


def test_a_disk_without_room_for_the_bundle_is_said_before_a_step(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    """30 MB hold every checkpoint, and not what is written at the end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        config = recipe(disk / "run", shards, tokenizer, 2, save_every_steps=1)
        with pytest.raises(OSError, match=r"needs 0.0\d+ GB more, .*the bundle 0.06\d GB, and the"):
            lm.train(config)
        assert not (disk / "run" / "metrics.jsonl").exists() and not found(disk / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_checkpoints_that_stay_are_counted(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred of them by keep_every_steps, though two of the newest are kept."""
    config = recipe(tmp_path / "run", shards, tokenizer, 2, save_every_steps=1)
    lm.train(config)
    one = sum(path.stat().st_size for path in found(tmp_path / "run")[-1].iterdir())
    usage = shutil.disk_usage(tmp_path)._replace(free=50 * one + 2 * 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    longer = replace(config, schedule=ScheduleConfig(1000, 1))
    longer = replace(longer, loop=replace(config.loop, keep_every_steps=1))
    with pytest.raises(OSError, match="keep fewer .*loop.keep_every_steps"):
        lm.train(longer)
