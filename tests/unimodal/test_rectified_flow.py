"""Rectified flow: its times, its noise, and solvers against an equation with a known answer."""

import math

import numpy as np
import pytest
import torch

from unimodal.rectified_flow import FlowConfig, Solver, mixed, solve

MEAN, STD = 1.5, 0.4  # of the data, one number with a normal distribution


def velocity(x: np.ndarray, t: float) -> np.ndarray:
    """Return E[data - noise | x_t = x], in closed form, for normal data and normal noise."""
    variance = t**2 * STD**2 + (1 - t) ** 2
    gain = (t * STD**2 - (1 - t)) / variance  # covariance of data - noise with x_t, over variance
    return MEAN + gain * (x - t * MEAN)


def end(x_0: np.ndarray) -> np.ndarray:
    """Return where the equation carries noise: here it keeps quantiles."""
    return MEAN + STD * x_0


def solved(solver: Solver, num_steps: int) -> tuple[float, int]:
    """Return the largest error of a solution, and how often it asked for a velocity."""
    x_0 = np.linspace(-2, 2, 9, dtype=np.float64)[:, None]
    times = FlowConfig().times(num_steps, 64)
    solving, asked = solve(x_0, [*map(np.float64, times)], solver), 0
    x, t = next(solving)
    while True:
        asked += 1
        try:
            x, t = solving.send(velocity(x, t))
        except StopIteration as stop:
            return float(np.abs(stop.value - end(x_0)).max()), asked


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_converge_with_their_order(solver: Solver, order: int) -> None:
    errors = [solved(solver, num_steps)[0] for num_steps in (32, 64, 128)]
    found = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert all(abs(one - order) < 0.15 for one in found), (errors, found)


def test_heun_asks_twice_but_for_its_last_step() -> None:
    assert solved("euler", 10)[1] == 10 and solved("heun", 10)[1] == 19
    assert solved("heun", 10)[0] < solved("euler", 19)[0] / 2


def test_one_step_of_euler_is_a_line() -> None:
    x_0 = np.array([[0.5]], np.float32)
    solving = solve(x_0, [0.0, 1.0], "euler")
    next(solving)
    with pytest.raises(StopIteration) as stop:
        solving.send(np.array([[2.0]], np.float32))
    assert stop.value.value == 2.5


def test_mixing_is_the_line_from_noise_to_data() -> None:
    noise, data = np.full((2, 3), 4, np.float32), np.full((2, 3), 8, np.float32)
    assert [mixed(noise, data, t)[0, 0] for t in (0.0, 0.25, 1.0)] == [4, 5, 8]


def test_times_are_logit_normal() -> None:
    flow = FlowConfig(time_mean=0.7, time_std=1.3)
    times = np.array([flow.noised((3, k), 64, (1, 1))[0] for k in range(2000)])
    logits = np.log(times / (1 - times))
    assert abs(logits.mean() - 0.7) < 0.1 and abs(logits.std() - 1.3) < 0.07


def test_noise_is_a_function_of_its_key() -> None:
    flow = FlowConfig()
    (time, noise), (again, same) = (flow.noised((1, 2, 3), 64, (50, 40)) for _ in range(2))
    assert time == again and np.array_equal(noise, same)
    assert not np.array_equal(noise, flow.noised((1, 2, 4), 64, (50, 40))[1])
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.05 and noise.dtype == np.float32


def test_larger_images_have_noisier_times() -> None:
    """Esser et al., eq. 23: where t_n was, the signal-to-noise of the mean is the same at t_m."""
    flow = FlowConfig(base_latents=64)
    assert FlowConfig().shifted(0.3, 256) == 0.3 == flow.shifted(0.3, 64)
    for t in (0.1, 0.5, 0.9):
        shifted = flow.shifted(t, 256)
        # sqrt(n) t / (1 - t), how well the mean of n places is known, is kept.
        assert shifted < t
        assert math.isclose(math.sqrt(256) * shifted / (1 - shifted), math.sqrt(64) * t / (1 - t))
    times = flow.times(4, 256)
    assert times[0] == 0 and times[-1] == 1 and times == sorted(times)
    assert torch.tensor(times).diff().diff().gt(0).all()


def test_problems_are_named() -> None:
    wrong = FlowConfig(patch=0, time_mean=math.nan, time_std=0.0, base_latents=0)
    assert len(wrong.problems()) == 4 and not FlowConfig().problems()
