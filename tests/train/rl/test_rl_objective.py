"""The objective against enumeration, closed forms and numbers by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unimodal.document import Document, Text
from unimodal.kernels import attention
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Batch, Row
from unimodal.train.learner import TOTAL
from unimodal.train.rl.learner import DpoLearner, GrpoLearner
from unimodal.train.rl.objective import (
    advantages,
    clipped,
    critical,
    divergence,
    preference_loss,
)
from unimodal.train.rl.replay import Replay
from unimodal.train.rl.run import DpoConfig, GrpoConfig
from unimodal.train.rl.samples import Sample, Scores

ASKED = Document((Text("draw two red circles", role="user"),))


def one_word(model: Model) -> tuple[Replay, np.ndarray]:
    """A policy of one choice: a reply of one text token; and the ids that it may choose."""
    replay = Replay(model, Sampling(max_text_tokens=1), "text")
    stop = model.sequencer.layout.stops[0]
    replay(ASKED, [(int(np.flatnonzero(model.text_tokenizer.spelled)[0]), stop)])
    return replay, np.flatnonzero(replay.masks[0])


def every_reply(model: Model, replay: Replay, ids: np.ndarray) -> list[Sample]:
    """Every reply that there is, with the reward of its id: its sine."""
    stop = model.sequencer.layout.stops[0]
    made = replay(ASKED, [(int(token), stop) for token in ids])
    return [Sample("words", one, math.sin(float(one.ids_n[0])), 0.0) for one in made]


def probabilities(model: Model, ids: np.ndarray) -> torch.Tensor:
    """The policy's distribution over these ids, straight from the transformer."""
    prompt = model.sequencer.prompt(ASKED)
    batch = Batch.stack([Row.pack([prompt], len(prompt), 0)])
    attend = attention(batch.doc, batch.block, batch.private)
    hidden_BTD = model.transformer.hidden_states(batch, batch.positions, attend)
    logits_V = F.linear(hidden_BTD[0, -1], model.transformer.output_table())
    return logits_V[torch.from_numpy(ids)].softmax(-1)


def gradients(model: Model, value: torch.Tensor) -> list[torch.Tensor]:
    parameters = [*model.transformer.parameters()]
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_the_gradient_is_that_of_the_expected_reward(tiny_model: Model, baseline: float) -> None:
    """Every reply there is, weighed by its probability: sum_a p(a) (R(a) - b) grad log p(a) is the
    gradient of sum_a p(a) R(a), whatever the baseline b (Williams, 1992, theorem 1).
    """
    replay, ids = one_word(tiny_model)
    samples = every_reply(tiny_model, replay, ids)
    p = probabilities(tiny_model, ids)
    rewards = torch.tensor([one.reward for one in samples])
    exact = gradients(tiny_model, (p * rewards).sum())
    weighed = [
        replace(one, advantage=len(samples) * float(chance) * (one.reward - baseline))
        for one, chance in zip(samples, p.detach(), strict=True)
    ]
    learner = GrpoLearner(GrpoConfig(mean="replies"), tiny_model.transformer, replay.masks)
    norms = learner.norms(weighed)
    parts = [learner(weighed[::2], norms), learner(weighed[1::2], norms)]
    found = gradients(tiny_model, -sum(part[TOTAL] for part in parts))
    assert max(float(one.abs().max()) for one in exact) > 1e-3
    for ours, expected in zip(found, exact, strict=True):
        assert torch.allclose(ours, expected, atol=2e-6)


def test_entropy_and_divergence_are_those_of_the_whole_distribution(tiny_model: Model) -> None:
    replay, ids = one_word(tiny_model)
    samples = every_reply(tiny_model, replay, ids)
    p = probabilities(tiny_model, ids).detach()
    learner = GrpoLearner(GrpoConfig(), tiny_model.transformer, replay.masks)
    with torch.no_grad():
        learner(samples, None)
    log_p = torch.tensor([float(one.log_p_n[0]) for one in learner.scored])
    entropies = [float(one.entropy_n[0]) for one in learner.scored]
    assert torch.allclose(log_p, p.log(), atol=1e-5)
    assert entropies == pytest.approx([float(-(p * p.log()).sum())] * len(ids), rel=1e-5)
    other = torch.randn(len(ids), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    exact = float((p * (p.log() - other)).sum())
    assert float((p * divergence(p.log(), other)).sum()) == pytest.approx(exact, rel=1e-4)
    assert bool((divergence(p.log(), other) >= 0).all())


def test_old_log_probabilities_are_those_of_now_where_none_are_recorded(tiny_model: Model) -> None:
    replay, ids = one_word(tiny_model)
    samples = [replace(one, advantage=one.reward) for one in every_reply(tiny_model, replay, ids)]
    learner = GrpoLearner(GrpoConfig(), tiny_model.transformer, replay.masks)
    with torch.no_grad():
        learner(samples, None)
    recorded = [replace(s, old=o) for s, o in zip(samples, learner.scored, strict=True)]
    moved = [
        replace(s, old=Scores(s.old.log_p_n - 0.5, s.old.entropy_n)) for s in recorded if s.old
    ]
    norms = learner.norms(samples)
    found = [learner(some, norms) for some in (samples, recorded, moved)]
    assert found[0][TOTAL].item() == pytest.approx(float(found[1][TOTAL]), abs=1e-6)
    grads = [gradients(tiny_model, one[TOTAL])[0] for one in found[:2]]
    assert torch.allclose(*grads, atol=1e-6)
    # The ratio e^0.5 exceeds 1.2: replies that were better lose their gradient, and only those.
    better, taught = (
        sum(map(has, samples)) for has in (lambda one: one.reward > 0, lambda one: one.reward != 0)
    )
    assert float(found[2]["clip_share"]) == pytest.approx(better / taught)


@pytest.mark.parametrize("num", [2, 3, 5, 6, 7, 9, 12, 24])
def test_equal_rewards_have_no_advantage_at_all(num: int) -> None:
    rewards_PG = torch.tensor([0.1, 0.2, 0.37, 1 / 3, 1.0], dtype=torch.float64)[:, None]
    for normalise in (False, True):
        assert not advantages(rewards_PG.expand(5, num), normalise).any()


def test_advantages_by_hand() -> None:
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]])
    assert advantages(rewards_PG, False).tolist() == [[0.5, -0.5, -0.5, 0.5], [0.0] * 4]
    deviation = (4 * 0.25 / 3) ** 0.5
    expected = [0.5 / (deviation + 1e-4), -0.5 / (deviation + 1e-4)]
    found = advantages(rewards_PG, True)
    assert found[0, :2].tolist() == pytest.approx(expected, rel=1e-5)
    assert found[1].tolist() == [0.0] * 4, "equal rewards teach nothing"


def test_the_clip_by_hand() -> None:
    log_p = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    surrogate, is_clipped = clipped(
        log_p, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2, 0.3
    )
    assert surrogate.tolist() == pytest.approx([1.3, -1.5, 0.5, -0.8])
    assert is_clipped.tolist() == [True, False, False, True]


def test_critical_choices_are_those_of_the_largest_entropy() -> None:
    entropy = torch.tensor([0.1, 3.0, 2.0, 2.0])
    assert critical(entropy, 0.5, 0.25).tolist() == [0.25, 1.0, 1.0, 0.25]
    assert critical(entropy, None, 0.0).tolist() == [1.0] * 4
    assert critical(entropy[:1], 0.1, 0.0).tolist() == [1.0], "one at least"


def test_the_preference_loss_pulls_pairs_apart(tiny_model: Model) -> None:
    loss, margin = preference_loss(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0]), 0.5)
    assert margin.tolist() == [1.0]
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1.0))])
    replay, ids = one_word(tiny_model)
    every = every_reply(tiny_model, replay, ids)
    learner = DpoLearner(DpoConfig(), tiny_model.transformer, replay.masks)
    with torch.no_grad():
        learner(every[:4], None)
    scored = [
        replace(one, start_n=score.log_p_n, advantage=tells)
        for one, score, tells in zip(every, learner.scored, (1.0, 1.0, 0.0, 0.0), strict=False)
    ]
    out = learner(scored, learner.norms(scored))
    assert float(out[TOTAL]) == pytest.approx(math.log(2), rel=1e-5), "nothing has moved yet"
    p = probabilities(tiny_model, ids)
    # At the start the gradient is -beta / 2 (grad log p(w) - grad log p(l)) (eq. 7's gradient).
    expected = gradients(tiny_model, -0.05 * (p[0].log() - p[1].log()))
    for ours, exact in zip(gradients(tiny_model, out[TOTAL]), expected, strict=True):
        assert torch.allclose(ours, exact, atol=1e-6)


def test_replies_that_teach_nothing_are_not_computed(tiny_model: Model) -> None:
    """They count in what losses are divided by, and change nothing else."""
    replay, ids = one_word(tiny_model)
    every = every_reply(tiny_model, replay, ids)[:40]
    mixed = [replace(one, advantage=0.5 * (at < 10)) for at, one in enumerate(every)]
    calls: list[int] = []

    class Counting(GrpoLearner):
        def scores(self, packed):
            calls.append(len(packed.at_M))
            return super().scores(packed)

    learner = Counting(GrpoConfig(), tiny_model.transformer, replay.masks)
    all_of_them = Counting(GrpoConfig(entropy=1e-30), tiny_model.transformer, replay.masks)
    found, expected = (one(mixed, one.norms(mixed)) for one in (learner, all_of_them))
    assert calls == [10, 40]
    assert float(found[TOTAL]) == pytest.approx(float(expected[TOTAL]), rel=1e-6)
    grads = [gradients(tiny_model, one[TOTAL])[0] for one in (found, expected)]
    assert torch.allclose(*grads, atol=1e-8)
    still = [replace(one, advantage=0.0) for one in every]
    nothing = learner(still, learner.norms(still))
    assert float(nothing[TOTAL]) == 0.0
    assert all(not one.any() for one in gradients(tiny_model, nothing[TOTAL]))


@pytest.mark.parametrize("mean,expected", [("choices", 1 / 6), ("replies", 1 / 4)])
def test_how_choices_are_weighed(tiny_model: Model, mean: str, expected: float) -> None:
    """Two replies of 2 and of 4 choices; the weight of a choice of the first one."""
    replay = Replay(tiny_model, Sampling(max_text_tokens=8), "text")
    words = np.flatnonzero(tiny_model.text_tokenizer.spelled)
    stop = tiny_model.sequencer.layout.stops[0]
    made = replay(ASKED, [(*map(int, words[:count]), stop) for count in (1, 3)])
    assert [len(one) for one in made] == [2, 4]
    samples = [Sample("words", made[0], 1.0, 1.0), Sample("words", made[1], 0.0, 0.0)]
    learner = GrpoLearner(GrpoConfig(mean=mean), tiny_model.transformer, replay.masks)  # type: ignore[arg-type]
    out = learner(samples, learner.norms(samples))
    assert float(out[TOTAL]) == pytest.approx(-2 * expected)
