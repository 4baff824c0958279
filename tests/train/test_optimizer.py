"""The norm that gradients are clipped to, and decay that is cautious."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unimodal.train.engine import Engine
from unimodal.train.learner import Learner
from unimodal.train.optimizer import OptimizerConfig, build, gradient_norm
from unimodal.train.schedule import ScheduleConfig


def test_the_norm_of_all_gradients_is_summed_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in ((300, 70), (4_001,), (1,))]
    gradients.append(torch.full((1_000,), 3e19))  # whose squares are beyond float32
    flat = np.concatenate([one.double().numpy().ravel() for one in gradients])
    norm = gradient_norm(gradients)
    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(np.sqrt((flat**2).sum()), rel=1e-14)


class Sum(Learner[torch.Tensor]):
    """A model whose gradient is its batch."""

    def __init__(self, num_weights: int) -> None:
        super().__init__()
        self.model, self.outside = torch.nn.Linear(num_weights, 1, bias=False), []

    def forward(
        self, micro_batch: torch.Tensor, norms: dict[str, float]
    ) -> dict[str, torch.Tensor]:
        loss = (self.model.weight[0] * micro_batch).sum()
        return {"total": loss, "loss": loss}


def test_a_step_logs_that_norm_and_clips_to_it() -> None:
    values = torch.randn(5_000, generator=torch.Generator().manual_seed(1))
    exact = float(np.linalg.norm(values.double().numpy()))
    learner, config = Sum(len(values)), OptimizerConfig()
    engine = Engine(learner, build(learner.model, config), ScheduleConfig(10), config.clip)
    seen = []
    engine.optimizers[0].register_step_pre_hook(
        lambda *_: seen.append(learner.model.weight.grad.double().norm())
    )
    _, norm = engine.step(0, [values], {})
    assert norm == pytest.approx(exact, rel=1e-14)
    assert float(seen[0]) == pytest.approx(config.clip, rel=1e-6)


def trained(config: OptimizerConfig, hidden: str | None) -> list[torch.Tensor]:
    """A matrix after each of 20 steps, with gradients that depend on the step alone."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False), torch.nn.Linear(5, 1))
    optimizers, found = build(model, config, hidden), []
    for step in range(20):
        model[0].weight.grad = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        for one in optimizers:
            one.step()
        found.append(model[0].weight.detach().clone())
    return found


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_cautious_decay_shrinks_what_the_update_shrinks_too(muon_lr: float | None) -> None:
    """The update of a step is what the step without decay does from the same weights and moments,
    which gradients alone decide.
    """
    config = OptimizerConfig(lr=0.02, muon_lr=muon_lr, weight_decay=0.5, cautious=True)
    hidden = None if muon_lr is None else "0."
    plain = trained(replace(config, weight_decay=0.0, cautious=False), hidden)
    torch.manual_seed(3)
    first = torch.nn.Linear(6, 5, bias=False).weight.detach()
    weights, decayed = first, 0
    for before, after, found in zip([first, *plain], plain, trained(config, hidden), strict=False):
        update = before - after
        shrinks = update * weights >= 0
        expected = weights - update - 0.02 * 0.5 * weights * shrinks
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        weights, decayed = found, decayed + int(shrinks.sum())
    assert 0 < decayed < 20 * weights.numel(), "some shrank and some did not"
    assert OptimizerConfig(cautious=True).problems() == [
        "cautious: it says when weights decay, and weight_decay is 0"
    ]
