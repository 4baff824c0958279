"""The loss of packed rows against masked logits in float64, in micro-batches and by source."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch_of
from torch import Tensor

from unimodal.architecture import Architecture
from unimodal.attention import DenseAttention
from unimodal.sequence import IGNORE, Batch, span_mask
from unimodal.train.objectives import LossConfig, Losses, language, reported, target_weights
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

VOCABULARY = Vocabulary.new(300, 40)
FIRST = VOCABULARY.code_slice[0]
CONFIG = LossConfig(text=0.7, image=1.3, z=0.01)


def transformer(tied: bool = True, dtype: torch.dtype = torch.float64) -> UnifiedModel:
    shape = TransformerConfig(VOCABULARY.size, 32, 1, 2, 2, 16, 64, tied_head=tied)
    return UnifiedModel(Architecture(shape, VOCABULARY)).to(dtype)


def batch(seed: int = 0, low: int = 0, high: int = VOCABULARY.size, rows: int = 2) -> Batch:
    """Random ids from low .. high - 1, a document a row; a position in five is not learned."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(low, high, (rows, 50)))
    weights = torch.from_numpy(rng.uniform(0.5, 2, ids.shape) * (rng.random(ids.shape) > 0.2))
    labels = torch.where(weights > 0, ids.roll(-1, 1), IGNORE)
    source = torch.from_numpy(rng.integers(0, 3, ids.shape)).to(torch.int16)
    return batch_of(VOCABULARY, ids, labels, weights=weights, source=source)


def loss(model: UnifiedModel, of: Batch, config: LossConfig = CONFIG, **more) -> Losses:
    return language(model, of, config, **more)


def gradients(model: UnifiedModel, total: Tensor) -> list[Tensor]:
    model.zero_grad()
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    return [parameter.grad for parameter in model.parameters()]


def oracle(model: UnifiedModel, of: Batch, config: LossConfig) -> Tensor:
    """All logits, those that may not be at minus infinity."""
    attend = DenseAttention(span_mask(of.doc, of.block, of.private))
    logits_BTV = model.logits(model(model.embed(of.ids), of.positions, attend))
    total = logits_BTV.new_zeros(())
    for factor, codes in ((config.text, False), (config.image, True)):
        allowed_V = torch.arange(VOCABULARY.size).ge(FIRST) == codes
        allowed_V = allowed_V | (not config.sliced)
        log_z_BT = logits_BTV.masked_fill(~allowed_V, -math.inf).logsumexp(-1)
        chosen_BT = (of.labels != IGNORE) & (of.labels.ge(FIRST) == codes)
        picked_N = logits_BTV[chosen_BT].gather(-1, of.labels[chosen_BT][:, None])[:, 0]
        log_z_N, weights_N = log_z_BT[chosen_BT], of.weights[chosen_BT]
        sum_ = ((log_z_N - picked_N + config.z * log_z_N.square()) * weights_N).sum()
        total = total + factor * sum_ / weights_N.sum()
    return total


@pytest.mark.parametrize("sliced", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_equal_masked_logits(sliced: bool, tied: bool) -> None:
    model, config = transformer(tied), replace(CONFIG, sliced=sliced)
    mine, exact = loss(model, batch(), config), oracle(model, batch(), config)
    torch.testing.assert_close(mine.total, exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradients(model, mine.total), gradients(model, exact), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("sliced", [True, False])
def test_float32_is_near_masked_logits_in_float64(sliced: bool) -> None:
    model, config = transformer(dtype=torch.float32), replace(CONFIG, sliced=sliced)
    exact_model = transformer()
    exact_model.load_state_dict(model.state_dict())
    mine, exact = loss(model, batch(), config), oracle(exact_model, batch(), config)
    assert mine.total.item() == pytest.approx(exact.item(), rel=1e-6)
    for one, other in zip(gradients(model, mine.total), gradients(exact_model, exact), strict=True):
        assert (one - other).norm() < 3e-6 * other.norm()


def test_parts_add_up_to_the_whole() -> None:
    """Three micro-batches with unequal shares of the modalities, one of them without text."""
    micro_batches = [batch(1), batch(2, low=FIRST), batch(3, high=320)]
    joined = {
        name: torch.cat([getattr(part, name) for part in micro_batches]) for name in Batch.tensors()
    }
    whole = Batch(**joined, spans=((),) * len(joined["ids"]))
    model = transformer()
    weights = [target_weights(part) for part in micro_batches]
    assert weights[1]["text"] == 0 and weights[2]["image"] == 0
    norms = {name: sum(one[name] for one in weights) for name in ("text", "image")}
    assert norms == pytest.approx(target_weights(whole))
    names = ("a", "b", "c")
    losses = [loss(model, part, norms=norms, sources=names) for part in micro_batches]
    expected = loss(model, whole, sources=names)
    sums = {n: sum(one.sums[n].item() for one in losses) for n in losses[0].sums}
    assert reported(sums) == pytest.approx(expected.reports, rel=1e-12)
    added = [sum(one) for one in zip(*(gradients(model, p.total) for p in losses), strict=True)]
    torch.testing.assert_close(added, gradients(model, expected.total), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_a_batch_without_a_target_gives_zero_gradients(tied: bool) -> None:
    """Every parameter takes part in every step, on every rank."""
    empty = batch()
    nothing = torch.full_like(empty.labels, IGNORE)
    empty = batch_of(VOCABULARY, empty.ids, nothing, weights=torch.zeros_like(empty.weights))
    model = transformer(tied)
    found = loss(model, empty, norms={"text": 3.0, "image": 2.0})
    assert found.total.item() == 0 and "loss_text" not in found.reports
    assert all(gradient.count_nonzero() == 0 for gradient in gradients(model, found.total))
    assert loss(model, empty).total.item() == 0


def test_losses_are_reported_by_source() -> None:
    model, of = transformer(), batch()
    reports = loss(model, of, sources=("a", "b", "c")).reports
    for number, name in enumerate("abc"):
        here = replace(of, modality=of.modality * (of.source == number))
        alone = loss(model, here).reports
        for modality in ("text", "image"):
            for what in ("loss", "weight"):
                expected = alone[f"{what}_{modality}"]
                assert reports[f"{what}_{modality}/{name}"] == pytest.approx(expected, rel=1e-12)
    assert not any("/" in name for name in loss(model, of, sources=("a",)).reports)


def test_a_target_without_a_norm_is_seen() -> None:
    with pytest.raises(AssertionError, match="image targets, but"):
        loss(transformer(), batch(), norms={"text": 1.0, "image": 0.0})


def test_problems_of_settings() -> None:
    assert LossConfig(text=-1, z=math.nan).problems() == [
        "text -1: at least 0",
        "z nan: at least 0",
    ]
    assert LossConfig(0, 0).problems() == ["text and image are both 0: nothing would be learned"]
    assert LossConfig(sliced=False).problems() == []
