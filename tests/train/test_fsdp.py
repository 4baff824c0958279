"""Two ranks under FSDP2 against the same run in one process, and beside ZeRO."""

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pair import Pair

from unimodal.train.checkpoint import EMA, MASTER, Checkpoint
from unimodal.train.ranks import Ranks

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from zero_cases import HALF, Case, made, run, steps

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = [Case(fsdp=True, tied=False, accumulation=2, ema_decay=0.5)]
CASES = [
    Case(fsdp=True, recompute=True, accumulation=4),
    Case(fsdp=True, factorised=True, addresses=True, residual_lambdas=True),
    Case(fsdp=True, head="flow", addresses=True, recompute=True, ema_decay=0.5),
    Case(fsdp=True, head="scale", addresses=True, tied=False),
    Case(fsdp=True, head="causal_levels"),
    Case(fsdp=True, tower="trained", accumulation=4),
    Case(fsdp=True, tower="frozen"),
    Case(fsdp=True, sequence_parallel=2, head="masked", addresses=True),
    Case(fsdp=True, compile=True),
]


def alone(case: Case) -> list[dict]:
    """The steps of the same case in one process."""
    twin = replace(case, stage=None, fsdp=False, compile=False, sequence_parallel=1)
    return steps(made(twin, Ranks()), twin)


def same(ours: list[dict], expected: list[dict]) -> None:
    assert len(ours) == len(expected) > 0
    for step, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            close = pytest.approx(other[name], rel=1e-5, abs=1e-5)
            assert one[name] == close, f"{name} of step {step}"


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES)]
)
def test_two_ranks_under_fsdp_take_the_steps_of_one_process(pair: Pair, case: Case) -> None:
    same(pair(run, asdict(case)), alone(case))
