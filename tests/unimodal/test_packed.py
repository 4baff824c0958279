"""Packed layers: what the layers compute, from weights that float16 holds, and never stale."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import lively
from torch import Tensor, nn

import unimodal
from unimodal import packed as packing
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.bundle import load, save_bundle
from unimodal.cache import KVCache
from unimodal.document import Document, Text
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.packed import PackedTrunk
from unimodal.products import Linear, PackedLinear, can_pack
from unimodal.sampling import Sampling
from unimodal.transformer import Transformer, TransformerConfig, tokens_at

pytestmark = pytest.mark.skipif(
    not can_pack(torch.ones(1, 1)), reason="torch has no FBGEMM on this processor"
)
CONFIG = TransformerConfig(
    num_ids=50, width=48, num_layers=2, num_heads=4, num_kv_heads=2, head_width=16, mlp_width=80
)  # fmt: skip


def hidden(transformer: Transformer) -> Tensor:
    """Hidden vectors of two rows, without gradients."""
    ids_BT = torch.arange(14).view(2, 7)
    attend = DenseAttention(torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7))
    with torch.inference_mode():
        places_BT = torch.arange(7).expand(2, 7)
        return transformer(transformer.embed(ids_BT), places_BT, attend, ids_BT=ids_BT)


@pytest.mark.parametrize(
    "changed",
    [{}, {"qk_norm": True}, {"head_norms": True}, {"post_norm": True}, {"attention_bias": True},
     {"num_kv_heads": 4}, {"residual_lambdas": True}, {"value_embeddings": True}],
    ids=lambda one: next(iter(one), "plain"),
)  # fmt: skip
def test_packed_layers_compute_what_layers_do(changed: dict) -> None:
    transformer = lively(replace(CONFIG, **changed))
    expected = hidden(transformer)
    calls = []
    transformer.copy = PackedTrunk(transformer.model, transformer.config)
    for layer in transformer.model.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(hidden(transformer), expected, atol=2e-5, rtol=2e-5)
    assert not calls, "packed layers stood in for all"
    ids_1T = torch.arange(7)[None]
    attend = DenseAttention(torch.ones(1, 7, 7, dtype=torch.bool).tril())
    transformer(transformer.embed(ids_1T), ids_1T, attend, ids_BT=ids_1T).sum().backward()
    assert len(calls) == 2, "gradients are the layers'"


@pytest.mark.parametrize("changed", [{}, {"qk_norm": True}, {"post_norm": True}])
def test_the_last_layer_computes_what_is_looked_at(changed: dict) -> None:
    transformer = lively(replace(CONFIG, **changed))
    seen_BN = torch.tensor([[5, 6], [3, 4]])
    expected = tokens_at(hidden(transformer), seen_BN)
    transformer.copy = PackedTrunk(transformer.model, transformer.config)
    cache, queries = KVCache(transformer.config, batch=2, capacity=7), []
    cache.add(2)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries.append(q.shape[2])
        return cache(layer, q, k, v)

    with torch.inference_mode():
        slots = cache.append(7, lengths_B=np.array([7, 5]), seen_BN=seen_BN)
        ids_BT = torch.arange(14).view(2, 7)
        found = transformer(transformer.embed(ids_BT), slots, attend, seen_BN)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert queries == [7, 2], "of all tokens, then of those alone"


def double(transformer: Transformer) -> None:
    with torch.no_grad():
        transformer.model.layers[1].mlp.down_proj.weight.mul_(2)


def reload(transformer: Transformer) -> None:
    transformer.load_state_dict({k: 2 * v for k, v in transformer.state_dict().items()})


def replace_module(transformer: Transformer) -> None:
    attention = transformer.model.layers[0].self_attn
    attention.q_proj = nn.Sequential(attention.q_proj, nn.Tanh())


def replace_weight(transformer: Transformer) -> None:
    norm = transformer.model.layers[1].input_layernorm
    norm.weight = nn.Parameter(3 * norm.weight.detach())


def swap_data(transformer: Transformer) -> None:
    weight = transformer.model.layers[1].self_attn.v_proj.weight
    weight.data = weight.data.half().float() * 2


@pytest.mark.parametrize("change", [double, reload, replace_module, replace_weight, swap_data])
def test_packed_layers_are_never_stale(change: Callable[[Transformer], None]) -> None:
    transformer = lively(CONFIG)
    transformer.copy = PackedTrunk(transformer.model, transformer.config)
    before = hidden(transformer)
    change(transformer)
    found, transformer.copy = hidden(transformer), None
    assert torch.equal(found, hidden(transformer)) and not torch.allclose(found, before)


def test_what_float16_holds() -> None:
    torch.manual_seed(2)
    weight = torch.randn(64, 96) * 0.02
    half = weight.bfloat16().float()
    assert can_pack(half) and can_pack(weight.half().float()) and can_pack(torch.zeros(3, 4))
    assert not can_pack(weight), "float32 has more bits than float16"
    assert not can_pack(1e7 * half) and not can_pack(1e-6 * half), "beyond its range"
    assert not can_pack(half.double()) and not can_pack(half.bfloat16())
    with torch.inference_mode():
        assert not can_pack(half * 2), "changes of inference tensors are not seen"


def test_products_of_packed_maps_are_those_of_float64() -> None:
    torch.manual_seed(4)
    maps = [Linear(96, 64), Linear(96, 32)]
    for one in maps:
        one.weight = nn.Parameter(one.weight.detach().bfloat16().float())
    x = torch.randn(2, 3, 96)
    found = PackedLinear.of(*maps)(x)
    expected = torch.cat([one.double()(x.double()) for one in maps], dim=-1)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)
    assert found.shape == (2, 3, 96)


def test_a_loaded_model_is_packed_and_draws_the_same(tiny_model: Model, tmp_path) -> None:
    model = load(save_bundle(tmp_path / "bundle", tiny_model))
    assert model.transformer.copy is not None and model.transformer.head._packed is not None
    documents = [Document((Text(words, role="user"),)) for words in ("a star", "two red circles")]
    sampling = Sampling(image_temperature=0.0, guidance=3.0, max_images=1)
    drawn = generate(model, documents, sampling, "image")
    model.transformer.copy = model.transformer.head._packed = None
    for (mine,), (plain,) in zip(drawn, generate(model, documents, sampling, "image"), strict=True):
        assert (mine.codes == plain.codes).all()


def test_factorised_codes_are_scored_as_by_the_summed_table() -> None:
    """Of the default model, whose codes' rows are sums that float16 does not hold."""
    transformer = unimodal.load().transformer
    head, ids_1T = transformer.head, torch.arange(1, 60)[None]
    attend = DenseAttention(torch.ones(1, 59, 59, dtype=torch.bool).tril())
    tokens = BranchInput(ids_1T, torch.zeros(1, 59, 2, dtype=torch.int64), [()])

    def logits() -> Tensor:
        with torch.inference_mode():
            hidden_1TD = transformer.hidden_states(tokens, ids_1T, attend)
            return head.products(hidden_1TD[0], transformer.output_table())

    assert transformer.architecture.is_factorised and head._packed is not None
    found, transformer.copy, head._packed = logits(), None, None
    expected = logits()
    assert expected.abs().max() > 5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_nothing_is_packed_where_memory_is_short(tiny_model: Model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1000)
    model = load(save_bundle(tmp_path / "bundle", tiny_model))
    assert model.transformer.copy is None
