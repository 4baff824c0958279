"""The simulated useful share of a run, against what is known in closed form."""

import math
from dataclasses import replace

import pytest

from unimodal.train.plan.assumptions import Assumptions
from unimodal.train.plan.faults import Faults, Job

EVEN = Assumptions(noise=0, slow_share=0)
CASES = [  # GPUs, seconds of a step, a stall, a restart; hours between failures of a GPU
    (64, 4.0, 30.0, 600.0, 5_000.0),
    (1024, 1.0, 20.0, 900.0, 50_000.0),
    (4096, 2.0, 5.0, 300.0, 20_000.0),
    (4096, 0.5, 120.0, 1800.0, 10_000.0),  # a restart takes a fifth of the time between failures
]


def kept(interval_s: float, stall_s: float, restart_s: float, mean_s: float) -> float:
    """Useful time over all time, by Daly's complete model: T_w = M e^(R/M) (e^((t+d)/M) - 1) T_s/t.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22 (2006), 303-312.
    """
    repeated = math.expm1((interval_s + stall_s) / mean_s) * math.exp(restart_s / mean_s)
    return interval_s / (mean_s * repeated)


def optimum_s(stall_s: float, mean_s: float) -> float:
    """Daly's higher-order estimate; its first factor is Young's sqrt(2 d M).

    J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications
    of the ACM 17 (1974), 530-531.
    """
    ratio = math.sqrt(stall_s / (2 * mean_s))
    return math.sqrt(2 * stall_s * mean_s) * (1 + ratio / 3 + ratio**2 / 9) - stall_s


@pytest.mark.parametrize(("ranks", "step_s", "stall_s", "restart_s", "mtbf_h"), CASES)
def test_the_share_is_that_of_dalys_model(
    ranks: int, step_s: float, stall_s: float, restart_s: float, mtbf_h: float
):
    """At a tenth of the best interval, at it, and at ten times it, within four standard errors."""
    assumed = replace(EVEN, restart_s=restart_s, mtbf_h=mtbf_h)
    mean_s = mtbf_h * 3600 / ranks
    faults = Faults(Job(ranks, step_s, stall_s, 0), assumed)
    for factor in (0.1, 1, 10):
        every = round(factor * optimum_s(stall_s, mean_s) / step_s)
        found = faults.share(every)
        expected = kept(every * step_s, stall_s, restart_s, mean_s)
        assert 0 < found.error < 0.005
        assert found.share == pytest.approx(expected, abs=4 * found.error)


@pytest.mark.parametrize(("ranks", "step_s", "stall_s", "restart_s", "mtbf_h"), CASES)
def test_the_best_interval_is_youngs_and_dalys(
    ranks: int, step_s: float, stall_s: float, restart_s: float, mtbf_h: float
):
    """The optimum is flat: what is found loses less than 0.2 % of the time to Daly's."""
    assumed = replace(EVEN, restart_s=restart_s, mtbf_h=mtbf_h)
    mean_s = mtbf_h * 3600 / ranks
    best = Faults(Job(ranks, step_s, stall_s, 0), assumed).best()
    optimum = optimum_s(stall_s, mean_s)
    assert best.every_steps * step_s == pytest.approx(optimum, rel=0.3)
    lost = kept(optimum, stall_s, restart_s, mean_s)
    lost -= kept(best.every_steps * step_s, stall_s, restart_s, mean_s)
    assert 0 <= lost < 0.002


def test_a_checkpoint_counts_once_it_is_written():
    """Until it is whole a failure loses it too: as if each start took so much longer."""
    assumed = replace(EVEN, restart_s=100.0, mtbf_h=10_000.0)
    faults = Faults(Job(1000, 2.0, 1.0, 400.0), assumed)
    found = faults.share(500)
    assert found.share == pytest.approx(kept(1000.0, 1.0, 500.0, 36_000.0), abs=4 * found.error)
    # The next save waits for it, so more frequent ones are not to be had.
    assert faults.share(10).share < faults.share(200).share
    assert faults.best().every_steps >= 200


@pytest.mark.parametrize("ranks", [1, 8, 512, 4096])
def test_a_step_waits_for_the_last_rank(ranks: int):
    """The largest of W exponential delays is H_W = 1 + 1/2 + ... + 1/W times their mean."""
    assumed = replace(EVEN, noise=0.01)
    harmonic = sum(1 / rank for rank in range(1, ranks + 1))
    assert Faults(Job(ranks, 1.0, 0, 0), assumed).noise - 1 == pytest.approx(
        0.01 * harmonic, abs=0.01 * 4 * 1.3 / math.sqrt(256)
    )


def test_slow_gpus_slow_a_run_until_it_starts_again():
    """With one of a thousand GPUs a tenth slower, that many starts are: 1 - (1 - p)^W."""
    assumed = replace(EVEN, slow_share=1e-3, slow_by=0.1, restart_s=0.0)
    faults = Faults(Job(1000, 1.0, 0.01, 0), assumed)
    slow = 1 - (1 - 1e-3) ** 1000
    found = faults.share(100)
    mean_s = 180_000.0
    expected = (1 - slow) * kept(100.0, 0.01, 0, mean_s)
    expected += slow * kept(110.0, 0.01, 0, mean_s) / 1.1
    assert found.share == pytest.approx(expected, abs=5 * found.error + 1e-3)
    assert found.share < Faults(Job(1000, 1.0, 0.01, 0), EVEN).share(100).share - 0.05


def test_equal_seeds_give_equal_failures():
    job = Job(512, 1.0, 5.0, 20.0)
    assert Faults(job, Assumptions()).best() == Faults(job, Assumptions()).best()
    assert Faults(job, Assumptions(), seed=1).share(50) != Faults(job, Assumptions()).share(50)
