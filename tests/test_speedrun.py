"""The speedrun, shrunk: from an empty disk to a bundle that chats and a table of its scores."""

import json
import subprocess
import sys
from pathlib import Path

import unimodal
from unimodal.train.speedrun import commands


def test_shrunk_speedrun(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unimodal.train.speedrun", "--scale", "0.002"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "| drawing" in done.stdout and "minutes; chat with it" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert set(scores) >= {"drawing", "questions", "captions", "edits"}
    assert unimodal.load(tmp_path / "lm" / "bundle").card["hours"] > 0
    again = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr


def test_whole_speedrun_trains_what_its_recipes_say(tmp_path: Path) -> None:
    verbs = [tuple(words[:2]) for words in commands(tmp_path, 1.0)]
    assert verbs == [
        ("data", "scenes"),
        ("train", "tokenizer"),
        ("data", "scenes"),
        ("train", "lm"),
        ("eval", "scenes"),
        ("chat", "--model"),
    ]
