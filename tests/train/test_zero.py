"""Two ranks under ZeRO against the same run in one process."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from unimodal.hub.grow import Growth, grow
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.train.checkpoint import EMA, MASTER, Checkpoint
from unimodal.train.ranks import Ranks

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from checkpoints import save
from zero_cases import HALF, Case, made, steps

HERE = Path(__file__).resolve().parents[1]
LIMIT_S = 240
QUICK = [
    Case(stage=3, tied=False, accumulation=4, recompute=True, ema_decay=0.5),
    Case(stage=3, compile=True),
    Case(stage=2, accumulation=4),
]
CASES = [
    Case(stage=3),
    Case(stage=3, tied=False),
    Case(stage=3, accumulation=4),
    Case(stage=3, recompute=True),
    Case(stage=3, compile=True, tied=False),
    Case(stage=3, compile=True, accumulation=4, recompute=True),
    Case(stage=1, tied=False, ema_decay=0.5),
]


def launched(script: Path, arguments: list[str], ranks: int = 2) -> subprocess.CompletedProcess:
    """Run a script on ranks of this machine, each with one thread."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks),
        "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
        str(script), *arguments,
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)


def on_two_ranks(tmp_path: Path, cases: list[Case]) -> list[list[dict]]:
    """The reports of each step of each case."""
    out = tmp_path / "reports.json"
    texts = [json.dumps(asdict(case)) for case in cases]
    done = launched(HERE / "zero_cases.py", [str(out), *texts])
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(out.read_text())
    return [found[text] for text in texts]


def alone(case: Case) -> list[dict]:
    """The same in one process."""
    twin = replace(case, stage=None, compile=False)
    return steps(made(twin, Ranks()), twin)


def same(ours: list[dict], expected: list[dict]) -> None:
    assert len(ours) == len(expected) > 0
    for step, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            close = pytest.approx(other[name], rel=1e-5, abs=1e-5)
            assert one[name] == close, f"{name} of step {step}"


@pytest.mark.parametrize("cases", [QUICK, pytest.param(CASES, marks=pytest.mark.slow)])
def test_two_ranks_take_the_steps_of_one_process(tmp_path: Path, cases: list[Case]) -> None:
    for case, found in zip(cases, on_two_ranks(tmp_path, cases), strict=True):
        same(found, alone(case))


def test_a_checkpoint_goes_on_on_any_number_of_ranks(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    first = Case(stage=3, tied=False, ema_decay=0.5, save=two)
    whole = alone(replace(first, save=one))
    again = replace(first, save=None, resume=one)
    cases = [first, replace(again, resume=two), again, replace(again, stage=2)]
    found = on_two_ranks(tmp_path, cases)
    assert found[1] == found[0][HALF:], "the same ranks go on bit by bit"
    same(found[2], whole[HALF:])
    same(found[3], whole[HALF:])
    same(alone(replace(again, resume=two)), whole[HALF:])
    saves = [Checkpoint(Path(run) / "step_00000002") for run in (one, two)]
    for name in saves[0].shapes:
        for kind in (MASTER, EMA, "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(*(saved.whole(name, kind) for saved in saves))


@pytest.mark.parametrize("tied", [True, False])
def test_a_grown_vocabulary_trains_on_two_ranks(tmp_path: Path, tied: bool) -> None:
    save(tmp_path / "old", "qwen3", tied)
    image = ImageTokenizer(TokenizerConfig(levels=(4, 4, 4), encoder_width=8, decoder_width=8))
    grow(tmp_path / "old", image, tmp_path / "grown", Growth(grid=Grid(3, 2)))
    cases = [Case(stage=3, tied=tied, weights=str(tmp_path / "grown"), accumulation=2)]
    for case, found in zip(cases, on_two_ranks(tmp_path, cases), strict=True):
        same(found, alone(case))


def test_an_infinite_gradient_stops_every_engine_before_its_step(tmp_path: Path) -> None:
    cases = [Case(stage=3, spoil=2), Case(stage=2, spoil=2)]
    for found in [*on_two_ranks(tmp_path, cases), alone(cases[0])]:
        assert len(found) == 3
        assert "the gradient's norm of step 2 is" in found[-1]["stopped"]
        assert found[-1]["unchanged"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
