"""Checkpoints at a URL: written whole, and gone on from where a run's folder is gone."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from tiny_runs import exact, metrics, recipe
from tokenizer_runs import captions, tiny_run
from train_files import history

from unimodal import load
from unimodal.train import lm
from unimodal.train import tokenizer as tokenizer_run
from unimodal.train.checkpoint import Checkpoint, found
from unimodal.train.loop import LoopConfig
from unimodal.train.mirror import LIST, Mirror
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.steps import Steps

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, ALL = 6, 8
HANG_S = 4
RANK = "rank_00000_of_00001.safetensors"


def files() -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("memory")


@pytest.fixture(scope="module")
def config(shards: Path, tokenizer: Path, tmp_path_factory) -> LmRun:
    """A run of six steps, with checkpoints after four and six, here and at a URL."""
    output = tmp_path_factory.mktemp("mirror") / "run"
    found = recipe(output, shards, tokenizer, STEPS, save_every_steps=2)
    found = replace(found, loop=replace(found.loop, mirror=f"memory://{uuid4().hex}/mine"))
    lm.train(found)
    return found


@pytest.fixture(scope="module")
def longer(config: LmRun, tmp_path_factory) -> LmRun:
    """The run of eight steps that was never stopped, and has no mirror."""
    output = tmp_path_factory.mktemp("longer") / "run"
    loop = replace(config.loop, mirror=None)
    found = replace(config, output=output, schedule=ScheduleConfig(ALL, 1), loop=loop)
    lm.train(found)
    return found


@pytest.fixture
def elsewhere(config: LmRun, tmp_path: Path) -> LmRun:
    """The run on another machine, whose folder is empty, with a copy of the mirror."""
    url = f"memory://{uuid4().hex}/copy"
    files().copy(config.loop.mirror, url, recursive=True)
    loop = replace(config.loop, mirror=url)
    return replace(config, output=tmp_path / "run", schedule=ScheduleConfig(ALL, 1), loop=loop)


def names(url: str | None) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in files().ls(url, detail=False))


def spoil(url: str) -> None:
    content = bytearray(files().cat_file(url))
    content[-100] ^= 1
    files().pipe_file(url, bytes(content))


def test_what_is_there_is_what_is_here(config: LmRun):
    assert names(config.loop.mirror) == ["bundle", "step_00000004", "step_00000006"]
    for path in found(config.output):
        there = f"{config.loop.mirror}/{path.name}"
        assert names(there) == sorted([LIST, "run", *(one.name for one in path.iterdir())])
        assert files().cat_file(f"{there}/{RANK}") == (path / RANK).read_bytes()
    assert load(f"{config.loop.mirror}/bundle").hash == load(config.output / "bundle").hash


def test_a_run_goes_on_in_an_empty_folder(elsewhere: LmRun, longer: LmRun, capsys):
    lm.train(elsewhere)
    said = " ".join(capsys.readouterr().err.split())
    assert f"has no checkpoint: step_00000006 was fetched from {elsewhere.loop.mirror}" in said
    assert exact(elsewhere.output) == exact(longer.output)
    assert "output" in [line[1] for line in history(elsewhere.output)]
    one, two = (Checkpoint(found(run.output)[-1]) for run in (elsewhere, longer))
    assert one.shapes and all(one.whole(name).equal(two.whole(name)) for name in one.shapes)
    assert names(elsewhere.loop.mirror) == ["bundle", "step_00000006", "step_00000008"]


def test_a_copy_that_was_cut_off_is_none(elsewhere: LmRun, longer: LmRun):
    files().rm(f"{elsewhere.loop.mirror}/step_00000006/{LIST}")
    lm.train(elsewhere)
    assert exact(elsewhere.output) == exact(longer.output)
    assert LIST in names(f"{elsewhere.loop.mirror}/step_00000008")


def test_a_damaged_copy_is_named_and_the_one_before_is_taken(elsewhere: LmRun, tmp_path, capsys):
    mirror = Mirror(str(elsewhere.loop.mirror), tmp_path / "one")
    spoil(f"{elsewhere.loop.mirror}/step_00000006/{RANK}")
    mirror.fetch_newest()
    assert f"step_00000006 is damaged: {RANK} is not what was sent" in capsys.readouterr().err
    assert [path.name for path in found(tmp_path / "one")] == ["step_00000004"]
    spoil(f"{elsewhere.loop.mirror}/step_00000004/run/metrics.jsonl")
    with pytest.raises(ValueError, match="no checkpoint of memory.* run/metrics.jsonl is not what"):
        Mirror(str(elsewhere.loop.mirror), tmp_path / "two").fetch_newest()
    assert found(tmp_path / "two") == []


@pytest.mark.parametrize("name", ["../evil.json", "run/../evil.json", "run/lock_1.json", "/a.json"])
def test_a_list_names_no_other_place(elsewhere: LmRun, tmp_path: Path, name: str):
    for step in ("step_00000004", "step_00000006"):
        path = f"{elsewhere.loop.mirror}/{step}/{LIST}"
        listed = json.loads(files().cat_file(path))
        listed[name] = listed[RANK]
        files().pipe_file(path, json.dumps(listed).encode())
    with pytest.raises(ValueError, match="which is no file of a checkpoint"):
        Mirror(str(elsewhere.loop.mirror), tmp_path / "run").fetch_newest()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_here_counts_before_those_there(elsewhere: LmRun, config: LmRun):
    """And those there that are newer, of steps that will be taken anew, are removed."""
    shutil.copytree(config.output, elsewhere.output)
    shutil.rmtree(elsewhere.output / "step_00000006")
    lm.train(replace(elsewhere, schedule=ScheduleConfig(5, 1)))
    assert names(elsewhere.loop.mirror) == ["bundle", "step_00000004", "step_00000005"]


def test_a_mirror_that_fails_ends_the_run_and_no_checkpoint(elsewhere: LmRun, monkeypatch):
    monkeypatch.setattr("unimodal.remote.WAITS_S", ())
    kind = type(files())
    put_file = kind.put_file

    def full(self, here, there, *more, **words):
        if "step_00000008" in str(there):
            raise OSError("no room")
        return put_file(self, here, there, *more, **words)

    monkeypatch.setattr(kind, "put_file", full)
    with pytest.raises(OSError, match="step_00000008/.* cannot be written: OSError: no room"):
        lm.train(elsewhere)
    assert found(elsewhere.output)[-1].name == "step_00000008"
    monkeypatch.setattr(kind, "put_file", put_file)
    lm.train(replace(elsewhere, schedule=ScheduleConfig(ALL + 1, 1)))
    assert names(elsewhere.loop.mirror)[-1] == "step_00000009"


@pytest.mark.parametrize("slow, status", [("put_file", 0), ("take", 1)])
def test_an_upload_takes_longer_than_a_step_may(
    elsewhere: LmRun, monkeypatch, slow: str, status: int
):
    """And a step that takes as long ends the process, so that the watch is there."""
    kind, take = type(files()), Steps.take
    put_file = kind.put_file

    def late(work, *more, **words):
        if slow == "take" or more[1].endswith(RANK):
            time.sleep(1.5 * HANG_S)
        return work(*more, **words)

    if slow == "put_file":
        monkeypatch.setattr(kind, "put_file", partialmethod(partial(late, put_file)))
    else:
        monkeypatch.setattr(Steps, "take", partialmethod(partial(late, take)))
    one = replace(elsewhere, loop=replace(elsewhere.loop, hang_s=HANG_S))
    child = os.fork()  # which the watch may end
    if child == 0:
        with contextlib.suppress(BaseException):
            lm.train(one)
            os._exit(0)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert found(elsewhere.output)[-1].name == f"step_0000000{ALL if status == 0 else STEPS}"


def test_secrets_are_refused_before_anything_begins():
    said = LoopConfig(mirror="s3://key:word@bucket/run").problems()
    assert len(said) == 1 and said[0].startswith("mirror: its URL holds a password")
    assert "word@" not in said[0]
    assert LoopConfig(mirror="gs://bucket/run").obstacles()[0].endswith("pip install gcsfs")


def test_a_run_of_an_image_tokenizer_has_a_mirror_too(tmp_path: Path):
    loop = LoopConfig(num_threads=1, save_every_steps=2, mirror=f"memory://{uuid4().hex}/mine")
    config = tiny_run(tmp_path, captions(24, (16, 16)), 2, loop=loop)
    tokenizer_run.train(config)
    assert names(loop.mirror) == ["step_00000002", "tokenizer"]
    shutil.rmtree(config.output)
    tokenizer_run.train(replace(config, schedule=ScheduleConfig(3, 1)))
    assert [line["step"] for line in metrics(config.output)] == [0, 1, 2]
    finished = config.output / "tokenizer"
    assert names(f"{loop.mirror}/tokenizer") == sorted(path.name for path in finished.iterdir())
