"""Optional parts of the transformer: packed, in 8 bits and step by step they compute the same."""

import pytest
import torch
from tiny_models import lively
from torch import Tensor

from unimodal.attention import DenseAttention
from unimodal.cache import KVCache
from unimodal.int8 import Int8Attention, Int8MLP
from unimodal.mlp import MLP, Experts, ExpertsConfig
from unimodal.packed import PackedTrunk
from unimodal.products import can_pack
from unimodal.rope import RopeScaling
from unimodal.transformer import Layer, Transformer, TransformerConfig

SHAPE = dict(
    num_ids=50, width=48, num_layers=2, num_heads=4, num_kv_heads=2, head_width=16, mlp_width=80
)
PARTS = {
    "joint norms": {"joint_qk_norm": True, "norm_places": "behind"},
    "norms around": {"norm_places": "around", "centred_norms": True, "qk_norm": True},
    "gemma's embedding": {"scaled_embedding": True, "activation": "gelu_tanh", "score_width": 20},
    "ropes": {"rope_layers": ("local", "none"), "local_rope_theta": 100.0},
    "some channels": {
        "rotary_width": 6,
        "rope": RopeScaling("longrope", 4.0, 64, factors=(1.0, 2.0, 3.0)),
    },
    "growing queries": {"rope": RopeScaling("yarn", 4.0, 8), "query_beta": 0.3},
    "experts": {"experts": ExpertsConfig(5, 2, 24)},
    "experts of one layer": {"experts": ExpertsConfig(3, 1, 16, False, (0,)), "qk_norm": True},
}
T = 20


def made(parts: dict) -> Transformer:
    return lively(TransformerConfig(**{**SHAPE, **parts}))


@torch.inference_mode()
def hidden(transformer: Transformer) -> Tensor:
    """Hidden vectors of two rows."""
    ids_BT = torch.arange(2 * T).view(2, T)
    attend = DenseAttention(torch.ones(T, T, dtype=torch.bool).tril().expand(2, T, T))
    return transformer(transformer.embed(ids_BT), torch.arange(T).expand(2, T), attend)


@torch.inference_mode()
def stepped(transformer: Transformer) -> Tensor:
    """The same, a few tokens at a time, from the cache."""
    ids_BT = torch.arange(2 * T).view(2, T)
    cache = KVCache(transformer.config, batch=2, capacity=T)
    cache.add(2)
    found = []
    for ids in ids_BT.split([7, 1, 1, 4, 7], dim=1):
        positions_BT = cache.append(ids.shape[1], None)
        found.append(transformer(transformer.embed(ids), positions_BT, cache))
        cache.commit(ids.shape[1])
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_cached_packed_and_rounded_layers(parts):
    transformer = made(parts)
    expected = hidden(transformer)
    assert not torch.allclose(expected, hidden(made({})), atol=0.1), "it matters"
    torch.testing.assert_close(stepped(transformer), expected, atol=1e-5, rtol=1e-5)
    if can_pack(torch.ones(1, 1)):
        transformer.copy = PackedTrunk(transformer.model, transformer.config)
        assert not torch.equal(hidden(transformer), expected)
        torch.testing.assert_close(hidden(transformer), expected, atol=3e-5, rtol=3e-5)
        torch.testing.assert_close(stepped(transformer), expected, atol=3e-5, rtol=3e-5)
        transformer.copy = None
    if torch.cpu._is_vnni_supported():
        for layer in transformer.model.layers:
            rounded(layer)
        # Rounding may give a token to another expert.
        tokens = (hidden(transformer) - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert 0 < tokens.median() < 0.05


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_half_precision(parts):
    transformer = made(parts)
    expected = hidden(transformer)
    with torch.autocast("cpu", torch.bfloat16):
        cast = hidden(transformer)
    for found in (cast, hidden(transformer.bfloat16()).float()):
        tokens = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert 0 < tokens.median() < 0.1


@pytest.mark.skipif(not can_pack(torch.ones(1, 1)), reason="torch has no FBGEMM here")
def test_packed_experts_are_never_stale():
    transformer = made(PARTS["experts"])
    transformer.copy = PackedTrunk(transformer.model, transformer.config)
    before = hidden(transformer)
    with torch.no_grad():
        transformer.model.layers[1].mlp.experts[0].down_proj.weight.mul_(3)
    found, transformer.copy = hidden(transformer), None
    torch.testing.assert_close(found, hidden(transformer), atol=3e-5, rtol=3e-5)
    assert not torch.allclose(found, before, atol=1e-2)


def rounded(layer: Layer) -> None:
    """Put a layer's matrices in 8 bits, as in_int8 does."""
    layer.self_attn = Int8Attention(layer.self_attn)
    if isinstance(layer.mlp, Experts):
        layer.mlp.experts = torch.nn.ModuleList(map(Int8MLP, layer.mlp.experts))
    elif isinstance(layer.mlp, MLP):
        layer.mlp = Int8MLP(layer.mlp)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"qk_norm": True, "joint_qk_norm": True}, "qk_norm, joint_qk_norm and head_norms: one"),
        ({"post_norm": True, "norm_places": "around"}, "post_norm and norm_places: one"),
        ({"rope_layers": ("none",)}, "rope_layers has 1 entries for 2 layers"),
        ({"rotary_width": 5}, "rotary_width 5: even, and at most head_width"),
        (
            {"rope": RopeScaling("longrope", 2.0, 64, factors=(1.0,))},
            "rope.factors has 1 numbers for 8",
        ),
        ({"rope": RopeScaling("yarn", 2.0, 64, factors=(1.0,))}, "of longrope, and of it alone"),
        ({"query_beta": 0.1}, "query_beta needs rope.original_positions, and rope is null"),
        ({"experts": ExpertsConfig(2, 3, 8)}, "experts.chosen 3: at most number, 2"),
        ({"experts": ExpertsConfig(0, 1, 8)}, "experts.number 0: at least 1"),
    ],
)
def test_parts_that_do_not_fit(parts, words):
    with pytest.raises(ValueError, match=words):
        TransformerConfig(**{**SHAPE, **parts})
