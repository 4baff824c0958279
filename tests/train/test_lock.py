"""One process at a time goes on with a run; what a dead one has left is taken over."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from launching import environment
from tiny_runs import TINY, metrics, recipe
from train_files import command

from unimodal.config import save
from unimodal.train import lm, lock
from unimodal.train import tokenizer as image
from unimodal.train.checkpoint import found
from unimodal.train.lock import Holder, Lock, Locked, held
from unimodal.train.ranks import Ranks
from unimodal.train.schedule import ScheduleConfig

LIMIT_S = 120


def locks(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("lock_*"))


@pytest.fixture
def running(shards: Path, tokenizer: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A run that has saved something and goes on without end."""
    config = recipe(tmp_path / "run", shards, tokenizer, 100_000, save_every_steps=2)
    save(config, tmp_path / "lm.yaml")
    words = [sys.executable, "-m", "unimodal", "train", "lm", tmp_path / "lm.yaml"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, env=environment(), stdout=log, stderr=log)
    until = time.monotonic() + LIMIT_S
    while not found(tmp_path / "run"):
        assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def test_a_second_start_is_refused_before_it_touches_anything(
    running: subprocess.Popen, tmp_path: Path
):
    run = tmp_path / "run"
    (run / ".new_step_99999999").mkdir()  # what a start sweeps
    config = (run / "config.yaml").read_bytes()
    second = command("train", "lm", tmp_path / "lm.yaml", "loop.save_every_steps=3")
    assert second.returncode == 2 and "Traceback" not in second.stderr
    assert f"{run} is in use: process {running.pid} on " in second.stderr
    assert "stop that first, or give another output" in second.stderr
    assert (run / ".new_step_99999999").is_dir() and (run / "config.yaml").read_bytes() == config
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 75 and locks(run) == []
    steps = [line["step"] for line in metrics(run)]
    assert steps == list(range(len(steps)))


def test_what_a_killed_process_held_is_taken_over(running: subprocess.Popen, tmp_path: Path):
    run = tmp_path / "run"
    running.kill()
    running.wait()
    assert locks(run) == ["lock_00000001.json"]
    done = int(found(run)[-1].name.removeprefix("step_"))
    second = command("train", "lm", tmp_path / "lm.yaml", f"schedule.num_steps={done + 1}")
    assert second.returncode == 0, second.stderr
    assert f"{run}: taken over from process {running.pid} on " in second.stderr
    assert "waiting" not in second.stderr and locks(run) == []
    assert [line["step"] for line in metrics(run)] == list(range(done + 1))


def test_a_tokenizers_run_is_locked_too(shards: Path, tmp_path: Path):
    config = image.TokenizerRun(
        tmp_path / "run", str(shards), ScheduleConfig(2, 1), batch_images=4, model=TINY
    )
    with held(tmp_path / "run", Ranks()), pytest.raises(Locked, match="is in use"):
        image.train(config)
    image.train(config)
    assert locks(tmp_path / "run") == []


def test_what_is_refused_or_fails_gives_the_lock_back(
    shards: Path, tokenizer: Path, tmp_path: Path
):
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    lm.train(config)
    with pytest.raises(ValueError, match="another seed"):
        lm.train(replace(config, seed=1))
    assert locks(tmp_path / "run") == []


# --- other machines -----------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life each 50 ms, and none for 600."""
    for name, seconds in (("BEAT_S", 0.05), ("SILENT_S", 0.6), ("POLL_S", 0.02)):
        monkeypatch.setattr(lock, name, seconds)


def elsewhere(run: Path, beat: int = 0) -> Path:
    """The lock of a process on another machine, as it lies there."""
    run.mkdir(exist_ok=True)
    path = run / "lock_00000004.json"
    there = Holder("node7", 4242, "another boot", "123", "2026-01-01 00:00:00", beat)
    whole = run.with_name("beat.json")  # as a real one beats: never half written
    whole.write_text(json.dumps(vars(there)))
    whole.replace(path)
    return path


def test_a_lock_of_another_machine_is_alive_while_it_beats(tmp_path: Path, quick, capsys):
    path, ended = elsewhere(tmp_path), Event()

    def beats() -> None:
        for beat in range(10_000):
            elsewhere(tmp_path, beat)
            if ended.wait(0.1):
                return

    thread = Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(Locked, match="is in use: process 4242 on node7, since 2026-01-01"):
            Lock.take(tmp_path)
    finally:
        ended.set()
        thread.join()
    assert "locked by process 4242 on node7" in capsys.readouterr().err
    assert path.exists()


def test_a_lock_that_does_not_beat_is_taken_over(tmp_path: Path, quick, capsys):
    elsewhere(tmp_path)
    began = time.monotonic()
    mine = Lock.take(tmp_path)
    assert time.monotonic() - began >= 0.6
    assert locks(tmp_path) == ["lock_00000005.json"]
    assert "taken over from process 4242 on node7" in capsys.readouterr().err
    mine.release()
    assert locks(tmp_path) == []


def test_a_lock_that_is_given_back_meanwhile(tmp_path: Path, quick):
    path = elsewhere(tmp_path)
    thread = Thread(target=lambda: (time.sleep(0.2), path.unlink()))
    thread.start()
    began = time.monotonic()
    mine = Lock.take(tmp_path)
    assert time.monotonic() - began < 0.6
    thread.join()
    mine.release()


def test_a_file_without_a_holder_is_waited_for(tmp_path: Path, quick):
    """A process that was killed between making the file and writing into it."""
    (tmp_path / "lock_00000001.json").touch()
    Lock.take(tmp_path).release()
    assert locks(tmp_path) == []


def test_another_process_with_the_number_of_a_dead_one_is_not_it(tmp_path: Path, quick):
    """This process itself, as if it had begun at another time."""
    me = replace(Holder.me(), began="1")
    (tmp_path / "lock_00000001.json").write_text(json.dumps(vars(me)))
    taken = Lock.take(tmp_path)
    assert len(locks(tmp_path)) == 1
    taken.release()
    assert locks(tmp_path) == []


def test_of_many_that_come_at_once_one_has_it(tmp_path: Path, quick):
    """On a dead lock, which all of them find dead at about the same time."""
    for number in range(5):
        run = tmp_path / str(number)
        elsewhere(run)

        def take(_: int, run: Path = run) -> Lock | None:
            try:
                return Lock.take(run)
            except Locked:
                return None

        with ThreadPoolExecutor(8) as threads:
            taken = [one for one in threads.map(take, range(8)) if one is not None]
        assert len(taken) == 1 and len(locks(run)) == 1
        taken[0].check()
        taken[0].release()


def test_who_was_taken_for_dead_stops(shards: Path, tokenizer: Path, tmp_path: Path, quick):
    """A process that was frozen, and wakes when another has the run: it writes nothing more."""
    run = tmp_path / "run"
    config = recipe(run, shards, tokenizer, 10_000, save_every_steps=2)
    seen: list[bytes] = []

    def take_over() -> None:
        while not found(run):
            time.sleep(0.01)
        above = run / "lock_00000002.json"
        above.write_text(json.dumps(vars(Holder("node8", 1, "", "", "now"))))
        while not stopped.wait(0.01):
            pass
        seen.append(above.read_bytes())

    stopped = Event()
    thread = Thread(target=take_over)
    thread.start()
    try:
        with pytest.raises(Locked, match="was taken over by process 1 on node8"):
            lm.train(config)
    finally:
        stopped.set()
        thread.join()
    assert locks(run) == ["lock_00000002.json"] and seen
    assert len(metrics(run)) < 5_000


def test_a_save_of_a_lost_run_is_not_published(tmp_path: Path):
    import torch

    from unimodal.train.checkpoint import MASTER, ParameterShard
    from unimodal.train.saver import Saver

    mine = Lock.take(tmp_path)
    (tmp_path / "lock_00000009.json").write_text("{}")
    saver = Saver(tmp_path, Ranks(), 1, None, 60, mine.check)
    saver.save(1, {"data": None}, {"one": ParameterShard((3,), 0, {MASTER: torch.ones(3)})})
    with pytest.raises(Locked, match="was taken over by another process"):
        saver.wait()
    assert found(tmp_path) == []
    mine.release()
    assert locks(tmp_path) == ["lock_00000009.json"]


def test_a_lock_that_somebody_removed_comes_back(tmp_path: Path, quick):
    mine = Lock.take(tmp_path)
    mine.path.unlink()
    until = time.monotonic() + 5
    while not mine.path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(Locked):
        Lock.take(tmp_path)
    mine.release()


def test_a_lock_is_readable_by_all(tmp_path: Path):
    before = os.umask(0o022)
    try:
        mine = Lock.take(tmp_path)
    finally:
        os.umask(before)
    assert mine.path.stat().st_mode & 0o777 == 0o644
    held_by = json.loads(mine.path.read_text())
    assert held_by["process"] == os.getpid() and held_by["host"] and held_by["beat"] == 0
    mine.release()
