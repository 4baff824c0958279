"""Two ranks under ZeRO against the same run in one process."""

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pair import Pair
from tiny_tokenizers import of_patches

from unimodal.hub.grow import Growth, grow
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train.checkpoint import EMA, MASTER, Checkpoint

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from checkpoints import save
from zero_cases import HALF, Case, alone, run, same

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = [
    Case(stage=3, tied=False, accumulation=4, recompute=True, ema_decay=0.5),
    Case(stage=3, compile=True),
    Case(stage=2, accumulation=4),
    Case(stage=3, factorised=True, addresses=True, residual_lambdas=True, value_embeddings=True),
    Case(stage=3, factorised=True, tied=False, accumulation=2),
    Case(stage=3, head="independent_levels", addresses=True),
    Case(stage=3, head="causal_levels", tied=False, accumulation=2),
    Case(stage=3, head="masked", addresses=True, accumulation=2, ema_decay=0.5),
    Case(stage=3, head="flow", addresses=True, accumulation=4, recompute=True, ema_decay=0.5),
    Case(stage=3, head="scale", addresses=True, tied=False, accumulation=4, ema_decay=0.5),
    Case(stage=3, head="scale", factorised=True, recompute=True),
    Case(stage=3, tower="frozen", tied=False, accumulation=2, ema_decay=0.5),
    Case(stage=3, tower="trained", accumulation=4, ema_decay=0.5),
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


def together(pair: Pair, case: Case) -> list[dict]:
    """Return the reports of each step of two ranks."""
    return pair(run, asdict(case))


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES)]
)
def test_two_ranks_take_the_steps_of_one_process(pair: Pair, case: Case) -> None:
    same(together(pair, case), alone(case))


def test_a_checkpoint_goes_on_on_any_number_of_ranks(pair: Pair, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    first = Case(stage=3, tied=False, ema_decay=0.5, save=two)
    whole = alone(replace(first, save=one))
    again = replace(first, save=None, resume=one)
    cases = [first, replace(again, resume=two), again, replace(again, stage=2)]
    found = [together(pair, case) for case in cases]
    assert found[1] == found[0][HALF:], "the same ranks go on bit by bit"
    same(found[2], whole[HALF:])
    same(found[3], whole[HALF:])
    same(alone(replace(again, resume=two)), whole[HALF:])
    saves = [Checkpoint(Path(run) / "step_00000002") for run in (one, two)]
    for name in saves[0].shapes:
        for kind in (MASTER, EMA, "exp_avg", "exp_avg_sq"):
            # AdamW divides by the size of the gradient: where that is of rounding's, which the
            # order of sums decides, a part of an update of 1e-2 is rounding too.
            mine, theirs = (saved.whole(name, kind) for saved in saves)
            torch.testing.assert_close(mine, theirs, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_grown_vocabulary_trains_on_two_ranks(pair: Pair, tmp_path: Path, tied: bool) -> None:
    save(tmp_path / "old", "qwen3", tied)
    image = ImageTokenizer(of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8))
    grow(tmp_path / "old", image, tmp_path / "grown", Growth(grid=Grid(3, 2)))
    case = Case(stage=3, tied=tied, weights=str(tmp_path / "grown"), accumulation=2)
    same(together(pair, case), alone(case))


def test_an_infinite_gradient_stops_every_engine_before_its_step(pair: Pair) -> None:
    cases = [Case(stage=3, spoil=2), Case(stage=2, spoil=2)]
    for found in [*(together(pair, case) for case in cases), alone(cases[0])]:
        assert len(found) == 3
        assert "the gradient's norm of step 2 is" in found[-1]["stopped"]
        assert found[-1]["unchanged"]
