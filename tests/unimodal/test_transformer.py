"""The transformer: its logits are transformers' own, and packing changes nothing."""

from dataclasses import replace

import pytest
import torch
import transformers
from checkpoints import logits
from torch import Tensor

from unimodal.attention import DenseAttention, PackedAttention
from unimodal.rotation import Rotation
from unimodal.sequence import span_mask
from unimodal.transformer import Transformer, TransformerConfig, initial_transformer_weight

SMALL = TransformerConfig(
    num_ids=61, width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=48
)
FAMILIES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    "mistral": (
        transformers.MistralConfig,
        transformers.MistralForCausalLM,
        {"sliding_window": None},
    ),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {}),
}


def config(family: str, seed: int) -> TransformerConfig:
    """One of many shapes: grouped heads, head widths, thetas, epsilons, tied or not."""
    heads, kv_heads, head_width = [(4, 4, 8), (4, 2, 16), (6, 1, 8)][seed % 3]
    return TransformerConfig(
        num_ids=61,
        width=heads * head_width if family == "qwen2" else 48,
        num_layers=1 + seed % 3,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_width=head_width,
        mlp_width=56,
        rope_theta=[1e4, 1e6, 5e2][seed % 3],
        norm_eps=[1e-5, 1e-6][seed % 2],
        qk_norm=family == "qwen3",
        attention_bias=family == "qwen2",
        tied_head=seed % 2 == 0,
    )


def theirs(family: str, config: TransformerConfig, seed: int) -> transformers.PreTrainedModel:
    """A Hugging Face model of the same shape, every parameter random, norms and biases too."""
    make_config, make_model, extra = FAMILIES[family]
    model = make_model(
        make_config(
            vocab_size=config.num_ids,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_width,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tied_head,
            max_position_embeddings=config.max_positions,
            **extra,
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_(1 + noise if name.endswith("norm.weight") else noise)
    return model.eval()


def ids(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Random ids."""
    return torch.randint(0, SMALL.num_ids, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(family: str, seed: int) -> None:
    shape = config(family, seed)
    reference = theirs(family, shape, seed)
    weights = reference.state_dict()
    if shape.tied_head:
        del weights["lm_head.weight"]
    model = Transformer(shape)
    model.load_state_dict(weights, strict=True)
    ids_BT = ids((2, 37), seed)
    with torch.no_grad():
        difference = logits(model, ids_BT) - reference(ids_BT).logits
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("tied_head", [True, False])
def test_weights_go_to_transformers_and_back(tied_head: bool) -> None:
    shape = replace(SMALL, tied_head=tied_head)
    model, reference = Transformer(shape, seed=3), theirs("llama", shape, 0)
    missing = reference.load_state_dict(model.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == (["lm_head.weight"] if tied_head else [])
    with torch.no_grad():
        difference = logits(model, ids((1, 20))) - reference(ids((1, 20))).logits
    assert difference.abs().max() <= 1e-5


def test_packed_rows_equal_separate_documents() -> None:
    model = Transformer(SMALL, seed=1)
    documents = [ids((1, length), length) for length in (5, 17, 64, 3)]
    packed_1T = torch.cat(documents, dim=1)
    doc_1T = torch.cat([torch.full_like(x, n) for n, x in enumerate(documents)], dim=1)
    positions_1T = torch.cat([torch.arange(x.shape[1])[None] for x in documents], dim=1)
    none_1T = torch.zeros_like(doc_1T)
    attend = PackedAttention(doc_1T, none_1T, none_1T)
    packed = model.logits(model(model.embed(packed_1T), positions_1T, attend))
    alone = torch.cat([logits(model, x) for x in documents], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)


def test_gradients_of_packed_rows_equal_those_of_the_dense_mask() -> None:
    model = Transformer(SMALL, seed=2)
    doc_BT = torch.tensor([[0] * 30 + [1] * 40 + [-1] * 10, [4] * 80])
    block_BT = torch.zeros_like(doc_BT)
    block_BT[1, 20:50] = 1
    spans = (doc_BT, block_BT, block_BT)  # the block is private too
    positions_BT = torch.arange(80).expand_as(doc_BT)

    def gradients(attend) -> tuple[Tensor, ...]:
        hidden_BTD = model(model.embed(ids((2, 80))), positions_BT, attend)
        loss = model.logits(hidden_BTD).logsumexp(-1).square().mean()
        return torch.autograd.grad(loss, list(model.parameters()))

    fast, oracle = gradients(PackedAttention(*spans)), gradients(DenseAttention(span_mask(*spans)))
    for mine, dense in zip(fast, oracle, strict=True):
        torch.testing.assert_close(mine, dense, atol=1e-5 * float(dense.abs().max()), rtol=1e-4)


def test_bfloat16_autocast_is_near_float32() -> None:
    model = Transformer(SMALL, seed=1)
    ids_BT = ids((2, 100))
    exact = logits(model, ids_BT)
    with torch.autocast("cpu", torch.bfloat16):
        rough = logits(model, ids_BT)
    assert (rough - exact).norm() / exact.norm() < 0.02


def test_future_ids_change_nothing_before_them() -> None:
    model = Transformer(SMALL, seed=1)
    first, second = ids((1, 40), 0), ids((1, 40), 1)
    second[:, :25] = first[:, :25]
    before, after = (logits(model, x)[:, :25] for x in (first, second))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert not torch.allclose(logits(model, first)[:, 25:], logits(model, second)[:, 25:])


def test_only_distances_between_positions_matter() -> None:
    model = Transformer(SMALL, seed=1)
    none_BT = torch.zeros(1, 30, dtype=torch.int64)
    attend = PackedAttention(none_BT, none_BT, none_BT)
    x_BTD = model.embed(ids((1, 30)))
    here, there = (model(x_BTD, torch.arange(30)[None] + shift, attend) for shift in (0, 1000))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied_head", [True, False])
def test_a_slice_of_the_head(tied_head: bool) -> None:
    model = Transformer(replace(SMALL, tied_head=tied_head))
    hidden_BTD = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    whole = model.logits(hidden_BTD)
    assert whole.shape == (2, 3, 61)
    torch.testing.assert_close(model.logits(hidden_BTD, 10, 20), whole[..., 10:20])
    torch.testing.assert_close(model.logits(hidden_BTD, first=50), whole[..., 50:])


def test_initial_weights_are_a_pure_function_of_seed_and_name() -> None:
    torch.manual_seed(1)
    first = Transformer(SMALL, seed=5).state_dict()
    torch.manual_seed(2)
    torch.randn(10)
    for name, tensor in reversed(first.items()):
        alone = initial_transformer_weight(name, tuple(tensor.shape), SMALL, seed=5)
        assert torch.equal(tensor, alone), name
    deeper = replace(SMALL, num_layers=4, tied_head=False)
    name = "model.layers.1.mlp.gate_proj.weight"
    assert torch.equal(Transformer(deeper, seed=5).state_dict()[name], first[name])
    assert not torch.equal(Transformer(SMALL, seed=6).state_dict()[name], first[name])


def test_initial_weights_have_the_stated_spread() -> None:
    shape, deep = (400, 500), replace(SMALL, num_layers=8)
    for name, std in (("self_attn.q_proj", 0.02), ("mlp.down_proj", 0.02 / 4)):
        drawn = initial_transformer_weight(f"model.layers.0.{name}.weight", shape, deep, 0)
        assert drawn.std() == pytest.approx(std, rel=0.01)
    for name, value in (("k_norm.weight", 1), ("k_proj.bias", 0)):
        weight = initial_transformer_weight(f"model.layers.0.self_attn.{name}", (7,), deep, 0)
        assert weight.eq(value).all()


def test_initial_weights_do_not_depend_on_the_machine() -> None:
    tensor = initial_transformer_weight("model.embed_tokens.weight", (2, 2), SMALL, 0)
    golden = [-0.022682101, -0.04205602, -0.02021398, -0.02698281]
    assert tensor.flatten().tolist() == pytest.approx(golden, abs=1e-8)


def test_residual_lambdas_mix_the_embeddings_into_each_layer() -> None:
    ids_BT = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
    positions_BT = torch.arange(9).expand(2, 9)
    none_BT = torch.zeros(2, 9, dtype=torch.int32)
    attend = PackedAttention(none_BT, none_BT, none_BT)
    model = Transformer(replace(SMALL, residual_lambdas=True), seed=5)
    x_BTD = model.embed(ids_BT)
    assert torch.equal(model(x_BTD, positions_BT, attend), model.model.norm(x_BTD))
    lambdas = {"model.residual_lambdas.0.weight": (0.5, 0.25)}
    lambdas["model.residual_lambdas.1.weight"] = (2.0, -1.0)
    state = Transformer(SMALL, seed=5).state_dict()
    model.load_state_dict(state | {name: torch.tensor(pair) for name, pair in lambdas.items()})
    plain = Transformer(SMALL, seed=5)
    rotate = Rotation.at(positions_BT, SMALL, torch.float32)
    expected_BTD = plain.model.layers[0](0.75 * x_BTD, rotate, attend, 0)
    expected_BTD = plain.model.layers[1](2 * expected_BTD - x_BTD, rotate, attend, 1)
    expected_BTD = plain.model.norm(expected_BTD)
    torch.testing.assert_close(model(x_BTD, positions_BT, attend), expected_BTD)


def test_value_embeddings_add_to_the_values_of_every_second_layer() -> None:
    """Values of the last layer are its projection's and the rows of the tokens' ids."""
    config = replace(SMALL, value_embeddings=True)
    assert [*config.value_layers] == [1] and [*replace(config, num_layers=5).value_layers] == [
        0, 2, 4
    ]  # fmt: skip
    ids_BT = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
    positions_BT = torch.arange(9).expand(2, 9)
    none_BT = torch.zeros(2, 9, dtype=torch.int32)
    attention = PackedAttention(none_BT, none_BT, none_BT)
    model, plain = Transformer(config, seed=5), Transformer(SMALL, seed=5)
    x_BTD, seen = model.embed(ids_BT), {}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen[layer] = v
        return attention(layer, q, k, v)

    expected_BTD = plain(x_BTD, positions_BT, attend)
    values = dict(seen)
    assert torch.equal(model(x_BTD, positions_BT, attend, ids_BT=ids_BT), expected_BTD), "zero"
    table = model.model.value_embeddings["1"].weight
    torch.nn.init.normal_(table, generator=torch.Generator().manual_seed(1))
    changed_BTD = model(x_BTD, positions_BT, attend, ids_BT=ids_BT)
    assert not torch.allclose(changed_BTD, expected_BTD)
    torch.testing.assert_close(seen[0], values[0])
    more_BGTd = table[ids_BT].unflatten(-1, (SMALL.num_kv_heads, -1)).transpose(1, 2)
    torch.testing.assert_close(seen[1], values[1] + more_BGTd)
    model(x_BTD, positions_BT, attend, ids_BT=ids_BT).sum().backward()
    met = torch.zeros(61, dtype=torch.bool).index_fill(0, ids_BT.flatten(), True)
    assert torch.equal(table.grad.abs().sum(1) > 0, met)


def test_every_problem_of_a_config_is_told_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        TransformerConfig(
            num_ids=0, width=8, num_layers=1, num_heads=4, num_kv_heads=3, head_width=5, mlp_width=8
        )
    for words in ("num_ids must be above 0, got 0", "got 3 and 4", "must be even"):
        assert words in str(caught.value)
