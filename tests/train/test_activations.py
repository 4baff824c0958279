"""Less memory for activations, and the same gradients: offloading, and recomputing by a budget."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from zero_cases import Case, rows_of, shape, whole_batch

from unimodal.train import lm, offloading
from unimodal.train.learner import TOTAL, LanguageLearner
from unimodal.train.objectives import LossConfig
from unimodal.train.plan.memory import activation_bytes, recomputed_layers
from unimodal.train.ranks import Ranks
from unimodal.train.zero import EngineConfig
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel

pytestmark = pytest.mark.usefixtures("one_thread")
CASE = Case(factorised=True, addresses=True)
SHAPE = TransformerConfig(128, 64, 6, 4, 2, 16, 176)


def gradients(recompute: int, offload: bool) -> dict[str, Tensor]:
    learner = LanguageLearner(UnifiedModel(shape(CASE), 0, recompute), LossConfig(), ("only",))
    batch = rows_of(whole_batch(0, CASE), Ranks())
    with offloading.offloading(offload):
        total = learner(batch, learner.norms(batch))[TOTAL]
    total.backward()
    return {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recompute", [0, 1, 2])
@pytest.mark.parametrize("offload", [False, True])
def test_gradients_are_the_same_bits(recompute: int, offload: bool):
    ours, expected = gradients(recompute, offload), gradients(0, False)
    assert len(ours) > 10 and ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in expected)


def test_activations_go_and_parameters_stay(monkeypatch: pytest.MonkeyPatch):
    gone: list[int] = []
    kept: list[Tensor] = []
    pack = offloading._pack

    def noting(tensor: Tensor) -> offloading.Packed:
        packed = pack(tensor)
        if isinstance(packed, Tensor):
            kept.append(tensor)
        else:
            gone.append(tensor.nbytes)
        return packed

    monkeypatch.setattr(offloading, "_pack", noting)
    gradients(0, True)
    all_of_it = sum(gone)
    assert any(isinstance(one, torch.nn.Parameter) for one in kept)
    gone.clear()
    gradients(2, True)
    assert 0 < sum(gone) < 0.5 * all_of_it  # the inputs of layers, and what is behind them


def kept_bytes(recomputed: int) -> int:
    """Bytes that a forward pass of the layers keeps, parameters not counted."""
    from unimodal.attention import PackedAttention
    from unimodal.transformer import Transformer

    model = Transformer(SHAPE, recompute=recomputed)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        store = tensor.untyped_storage()
        if store.data_ptr() not in own:
            kept[store.data_ptr()] = store.nbytes()
        return tensor

    zeros = torch.zeros(2, 64, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model(model.embed(zeros), zeros, PackedAttention(zeros, zeros, zeros.bool()))
    del hidden
    return sum(kept.values())


def test_a_budget_recomputes_as_few_layers_as_keep_within_it():
    needed = [activation_bytes(SHAPE, 128, 4, layers) for layers in range(SHAPE.num_layers + 1)]
    met = set()
    for budget_bytes in range(min(needed), max(needed) + 1, 10_000):
        found = recomputed_layers(EngineConfig(activation_gb=budget_bytes / 1e9), SHAPE, 128, 4)
        assert needed[found] <= budget_bytes
        assert all(more > budget_bytes for more in needed[:found])
        met.add(found)
    assert met == {0, 2, 3, 4, 5, 6}  # one layer alone is whole in the backward pass: no gain
    counts = [kept_bytes(layers) for layers in range(SHAPE.num_layers + 1)]
    assert counts == sorted(counts, reverse=True) and counts[-1] < 0.3 * counts[0]


def test_without_a_budget_all_or_none():
    assert recomputed_layers(EngineConfig(), SHAPE, 128, 4) == 0
    assert recomputed_layers(EngineConfig(recompute=True), SHAPE, 128, 4) == SHAPE.num_layers


def test_what_cannot_be_is_told(shards: Path, tokenizer: Path, tmp_path: Path):
    from tiny_runs import recipe

    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    with pytest.raises(ValueError, match="1,024 tokens need .* even where every layer computes"):
        lm.train(replace(config, engine=EngineConfig(activation_gb=1e-6)))
    with pytest.raises(ValueError, match="without a GPU they are in the host's memory"):
        lm.train(replace(config, engine=EngineConfig(offload_activations=True)))
    said = EngineConfig(activation_gb=-1.0, recompute=True).problems()
    assert len(said) == 2 and "leave one of them out" in said[0]
    lm.train(replace(config, engine=EngineConfig(activation_gb=0.004)))
