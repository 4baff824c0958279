"""Two ranks under ZeRO against the same run in one process."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from unimodal.train.ranks import Ranks

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from zero_cases import Case, made, steps

HERE = Path(__file__).resolve().parent
LIMIT_S = 240
CASES = [
    Case(stage=3),
    Case(stage=3, tied=False),
    Case(stage=3, accumulation=4),
    Case(stage=3, tied=False, accumulation=4, recompute=True, average=0.5),
    Case(stage=3, recompute=True),
    Case(stage=2, accumulation=4),
    Case(stage=1, tied=False, average=0.5),
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


def compared(tmp_path: Path, cases: list[Case]) -> None:
    """Each case on two ranks gives the reports that one process gives."""
    out = tmp_path / "reports.json"
    texts = [json.dumps(asdict(case)) for case in cases]
    done = launched(HERE / "zero_cases.py", [str(out), *texts])
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(out.read_text())
    for case, text in zip(cases, texts, strict=True):
        twin = Case(**{**asdict(case), "stage": None, "compile": False})
        expected = steps(made(twin, Ranks()), twin)
        for step, (ours, single) in enumerate(zip(found[text], expected, strict=True)):
            assert ours.keys() == single.keys()
            for name in ours:
                assert ours[name] == pytest.approx(single[name], rel=1e-5, abs=1e-5), (
                    f"{name} of step {step} in {text}"
                )


def test_two_ranks_take_the_steps_of_one_process(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    compared(tmp_path, CASES)
