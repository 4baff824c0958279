"""The distribution that ids are drawn from, against one written out in plain Python."""

import math

import numpy as np
import pytest
import torch

from unimodal.sampling import Sampling, guide, noise, pick, probabilities


def oracle(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    """The same distribution, one id at a time."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    ranked = sorted(range(len(logits)), key=lambda k: (-weights[k], k))
    kept = ranked[:top_k]
    if top_p is not None:
        total, share, enough = sum(weights[k] for k in kept), 0.0, []
        for k in kept:
            enough.append(k)
            share += weights[k] / total
            if share >= top_p:
                break
        kept = enough
    total = sum(weights[k] for k in kept)
    return [weights[k] / total if k in kept else 0.0 for k in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 5, 100])
@pytest.mark.parametrize("top_p", [None, 0.1, 0.8])
def test_probabilities_equal_the_oracle(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (4, 30)).astype(np.float32)
    logits[1, 7:20] = logits[1, 3]  # ties
    logits[2, ::2] = -np.inf  # forbidden
    actual = probabilities(torch.from_numpy(logits), temperature, top_k, top_p)
    expected = [oracle(row.tolist(), temperature, top_k, top_p) for row in logits.astype(float)]
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-12)


def test_top_p_keeps_the_lower_of_equals() -> None:
    logits_BV = torch.tensor([[0.0, 1.0, 0.0, -torch.inf, 0.0, 1.0], [0.0] * 6])
    shares_BV = probabilities(logits_BV, 1.0, top_p=0.75)
    kept = [row.nonzero().flatten().tolist() for row in shares_BV]
    # Shares of the first row: e / (2 e + 3) = 0.32 twice and 0.12 three times.
    assert kept == [[0, 1, 5], [0, 1, 2, 3, 4]]
    one, less = math.e / (2 * math.e + 1), 1 / (2 * math.e + 1)
    expected = torch.tensor([[less, one, 0, 0, 0, one], [0.2] * 5 + [0]], dtype=torch.float64)
    torch.testing.assert_close(shares_BV, expected, rtol=1e-12, atol=0)


def test_top_k_keeps_exactly_k_of_equals() -> None:
    shares = probabilities(torch.zeros(1, 9), 1.0, top_k=4)[0]
    np.testing.assert_allclose(shares.numpy(), [0.25] * 4 + [0] * 5, atol=1e-15)


def test_picked_ids_follow_the_distribution() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (1, 12)))
    num = 20000
    uniform = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    picked = pick(logits.expand(num, -1), uniform, 0.7, 8, 0.95)
    counts = torch.bincount(picked, minlength=12).double()
    expected = probabilities(logits, 0.7, 8, 0.95)[0]
    assert (counts / num - expected).abs().max() <= 1 / num
    assert counts[expected == 0].sum() == 0


def test_extreme_noise_never_picks_a_forbidden_id() -> None:
    logits = torch.full((2, 6), -torch.inf)
    logits[:, 2:4] = torch.tensor([0.0, -30.0])
    uniform = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert pick(logits, uniform, 1.0, None, None).tolist() == [2, 3]
    assert pick(logits, uniform, 1e-300, None, None).tolist() == [2, 2]


def test_temperature_zero_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 0.0]])
    uniform = torch.tensor([0.99, 0.99], dtype=torch.float64)
    assert pick(logits, uniform, 0.0, None, None).tolist() == [1, 0]


def test_guidance_leads_away_from_the_unconditional() -> None:
    conditional, unconditional = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]])
    for scale, expected in ((0.0, [0.5, 3.0]), (1.0, [1.0, 2.0]), (3.0, [2.0, 0.0])):
        actual = guide(conditional, unconditional, torch.tensor([[scale]]))
        assert actual.tolist() == [expected]


def test_noise_depends_on_seed_and_position_alone() -> None:
    values = np.array([[noise(seed, at) for at in range(100)] for seed in range(30)])
    assert noise(3, 5) == values[3, 5]
    assert len(np.unique(values)) == values.size
    assert values.min() >= 0 and values.max() < 1
    # 3000 uniform numbers: mean 1/2 and variance 1/12, within four standard errors.
    assert abs(values.mean() - 0.5) < 4 * math.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / values.size)
    assert noise(2**64 - 1, 0) != noise(0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_temperature": -0.1}, "text_temperature -0.1: a number of at least 0"),
        ({"image_temperature": float("nan")}, "image_temperature nan"),
        ({"image_top_k": 0}, "image_top_k 0: None or a whole number"),
        ({"image_top_p": 0}, "image_top_p 0: None or a number above 0"),
        ({"image_top_p": 1.5}, "image_top_p 1.5"),
        ({"guidance": float("inf")}, "guidance inf"),
        ({"guidance": "high"}, "guidance 'high'"),
        ({"seed": -1}, "seed -1: a whole number"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
        ({"max_text_tokens": 0}, "max_text_tokens 0"),
        ({"max_images": 1.5}, "max_images 1.5"),
        ({"seed": -1, "guidance": -1}, "guidance -1: .*; seed -1"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
