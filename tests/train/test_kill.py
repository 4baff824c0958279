"""Runs that are killed at any instant go on as if they had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_runs

from unimodal.config import save
from unimodal.data.loader import LoaderConfig
from unimodal.train.initial import ShapeConfig
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig

RUNS, IN_A_SAVE, STEPS, EVERY = 20, 8, 40, 2
TIMES = ("data_wait_s", "data_waits_s", "step_s", "tokens_per_s", "flops_per_s", "memory_gb")
COUNTS = ("documents", "bad_documents")  # of a process, not of a run


@pytest.fixture(scope="module")
def recipe(shards: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file of a small run with averaged weights and Muon."""
    folder = tmp_path_factory.mktemp("kill")
    config = replace(
        tiny_runs.recipe(folder / "run", shards, tokenizer, STEPS),
        model=ShapeConfig(
            width=128, num_layers=2, num_heads=2, num_kv_heads=1, head_width=64, mlp_width=256
        ),
        loader=LoaderConfig(sequence_length=256, batch_rows=2, window_rows=8),
        optimizer=OptimizerConfig(lr=3e-3, muon_lr=1e-2, ema_decay=0.9),
        loop=LoopConfig(save_every_steps=EVERY),
    )
    save(config, folder / "lm.yaml")
    return folder / "lm.yaml"


def begin(recipe: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "unimodal", "train", "lm", str(recipe), f"output={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def losses(output: Path) -> list[dict]:
    """What must be equal bit by bit."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES + COUNTS}
        for line in lines
    ]


def killed(recipe: Path, output: Path, seed: int, running_s: float, in_a_save: bool) -> bool:
    """Begin a run, kill it, and let the same command end it; whether a save was cut off."""
    chance = random.Random(seed)
    process = begin(recipe, output)
    if in_a_save:
        new = output / f".new_step_{EVERY * chance.randint(1, STEPS // EVERY):08d}"
        while not new.exists() and process.poll() is None:
            pass
        time.sleep(chance.random() * 1e-3)
    else:
        while not (output / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(1e-3)
        time.sleep(chance.random() * running_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut_off = bool(list(output.glob(".new_step_*")))
    finish(begin(recipe, output))
    return cut_off


@pytest.mark.slow
def test_runs_that_are_killed_resume_to_the_same_losses(recipe: Path) -> None:
    whole = recipe.parent / "whole"
    finish(begin(recipe, whole))
    expected = losses(whole)
    assert len(expected) == STEPS
    running_s = sum(json.loads(line)["step_s"] for line in
                    (whole / "metrics.jsonl").read_text().splitlines())  # fmt: skip

    def one(number: int) -> bool:
        output = recipe.parent / f"killed_{number}"
        return killed(recipe, output, number, running_s, number < IN_A_SAVE)

    with ThreadPoolExecutor(2) as threads:
        cut_off = list(threads.map(one, range(RUNS)))
    for number in range(RUNS):
        assert losses(recipe.parent / f"killed_{number}") == expected, f"run {number}"
    assert sum(cut_off) >= 5, f"{sum(cut_off)} saves were cut off"
    print(f"{RUNS} runs killed, {sum(cut_off)} of them inside a save")
