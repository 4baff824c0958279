"""Two ranks that share rows, each a part of their tokens, against one process that has them all."""

from dataclasses import asdict, replace
from importlib.util import find_spec

import pytest
from pair import Pair

from unimodal.train.ranks import Ranks

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from zero_cases import Case, made, run, steps, whole_batch

pytestmark = pytest.mark.usefixtures("one_thread")
SHARED = Case(stage=1, sequence_parallel=2, num_heads=4, num_kv_heads=2)
FLOW = replace(SHARED, stage=3, head="flow", addresses=True, length=18, ema_decay=0.5)
QUICK = [
    replace(SHARED, tied=False, num_kv_heads=1),
    replace(FLOW, accumulation=2, recompute=True),
]
CASES = [
    replace(SHARED, stage=3, accumulation=2),
    replace(SHARED, stage=2),
    replace(SHARED, stage=3, num_kv_heads=4, compile=True),
    replace(SHARED, stage=3, head="masked", addresses=True, accumulation=2),
    replace(SHARED, head="scale", addresses=True, factorised=True, length=36),
    replace(SHARED, stage=3, head="causal_levels", tied=False),
    replace(SHARED, stage=3, tower="trained", num_kv_heads=1),
    replace(SHARED, stage=3, tower="frozen", residual_lambdas=True),
]


def alone(case: Case) -> Case:
    """The same case of one process."""
    return replace(case, stage=None, fsdp=False, compile=False, sequence_parallel=1)


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
def test_two_ranks_share_rows_and_take_the_steps_of_one_process(pair: Pair, case: Case) -> None:
    whole, cut = whole_batch(0, case), case.length // 2
    assert (whole.doc[:, cut - 1] == whole.doc[:, cut]).any(), "a document lies in both parts"
    if case.head in ("masked", "flow", "scale"):
        sides = whole.block[:, cut - 1], whole.block[:, cut]
        assert ((sides[0] == sides[1]) & (sides[0] > 0)).any(), "so does a bidirectional span"
        private = whole.private[:, cut - 1] & whole.private[:, cut]
        assert private.any(), "of a private copy"
    same(pair(run, asdict(case)), steps(made(alone(case), Ranks()), alone(case)))
