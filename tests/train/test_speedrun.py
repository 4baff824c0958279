"""The speedrun, shrunk: from an empty disk to a bundle that chats and a table of its scores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import unimodal
from unimodal.command import main as unimodal_command
from unimodal.train.speedrun import commands, main

PERFORM = """
import signal, sys
from unimodal.train.speedrun import perform
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without it
perform([sys.executable, *sys.argv[1:]])
"""
# Like a training run: it ends the step in hand and then writes a checkpoint.
SLOW_TO_STOP = """
import signal, sys, time
from pathlib import Path
came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
Path("began").touch()
while not came:
    time.sleep(0.01)
time.sleep(float(sys.argv[1]))
Path("checkpoint").touch()
sys.exit(3)
"""


def test_shrunk_speedrun(tmp_path: Path) -> None:
    """Its commands one after another, and once more: what is done stays done."""
    for command in 2 * commands(tmp_path, 0.002):
        unimodal_command(command, standalone_mode=False)
    assert "| drawing" in (tmp_path / "scores.md").read_text()
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) >= {"drawing", "questions", "captions", "edits"}
    assert unimodal.load(tmp_path / "lm" / "bundle").card["hours"] > 0


@pytest.mark.slow
def test_speedrun_in_processes_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unimodal.train.speedrun", "--scale", "0.002"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "| drawing" in done.stdout and "minutes; chat with it" in done.stdout


def test_help() -> None:
    done = CliRunner().invoke(main, ["-h"])
    assert done.exit_code == 0 and "--scale" in done.output


def test_whole_speedrun_trains_what_its_recipes_say(tmp_path: Path) -> None:
    verbs = [tuple(words[:2]) for words in commands(tmp_path, 1.0)]
    assert verbs == [
        ("data", "scenes"),
        ("train", "tokenizer"),
        ("data", "scenes"),
        ("data", "encode"),
        ("train", "lm"),
        ("eval", "scenes"),
        ("chat", "--model"),
    ]


def interrupted(directory: Path, seconds: float) -> subprocess.Popen:
    """`perform` after Ctrl-C, with a command that takes `seconds` to stop."""
    (directory / "child.py").write_text(SLOW_TO_STOP)
    root = str(Path(__file__).parents[2])
    running = subprocess.Popen(
        [sys.executable, "-c", PERFORM, "child.py", str(seconds)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (directory / "began").exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to both
    return running


def test_ctrl_c_waits_for_the_checkpoint(tmp_path: Path) -> None:
    running = interrupted(tmp_path, 1.0)
    _, said = running.communicate(timeout=60)
    assert (tmp_path / "checkpoint").exists()
    assert running.returncode == 3 and "run this again to go on" in said


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    running = interrupted(tmp_path, 600.0)
    assert running.stderr is not None and "once more" in running.stderr.readline()
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=60) == 130
    assert not (tmp_path / "checkpoint").exists()
    running.stderr.close()
