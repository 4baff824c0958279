"""Products without gradients: exact in either way and either order in memory, and never stale."""

import pytest
import torch
from torch import nn

from unimodal import products
from unimodal.bundle import load, save_bundle
from unimodal.model import Model
from unimodal.products import Linear, by_columns, linear

WITH_ONEDNN = pytest.mark.skipif(
    not products._has_avx512(), reason="a processor with AVX-512 multiplies by oneDNN"
)
WIDE = (1024, 512)  # above products.LEAST for each vector


def way(x: torch.Tensor, layer: nn.Module) -> str:
    """The operation that a linear map calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        layer(x)
    names = {one.key for one in seen.key_averages()}
    return "oneDNN" if "mkldnn::_linear_pointwise" in names else "torch"


def layer_of(outputs: int, inputs: int, bias: bool = True) -> Linear:
    torch.manual_seed(outputs)
    return Linear(inputs, outputs, bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2, 1), (16, 1), (3, 50), (0, 1)])
def test_products_are_those_of_float64(shape: tuple[int, ...], columns: bool, bias: bool) -> None:
    layer = layer_of(*WIDE, bias)
    if columns:
        layer.weight = nn.Parameter(by_columns(layer.weight.detach()))
        assert layer.weight.stride() == (1, WIDE[0])
    x = torch.randn(*shape, WIDE[1])
    expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.inference_mode():
        found = layer(x)
        sliced = linear(x, layer.weight[100:900])
    assert found.dtype == torch.float32 and found.shape == (*shape, WIDE[0])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    expected = expected - layer.bias.double() if bias else expected
    torch.testing.assert_close(sliced.double(), expected[..., 100:900], atol=1e-5, rtol=0)


@WITH_ONEDNN
def test_onednn_multiplies_what_is_large_and_has_no_gradient() -> None:
    layer, x = layer_of(*WIDE), torch.randn(1, WIDE[1])
    assert way(x, layer) == "torch"
    with torch.inference_mode():
        assert way(x, layer) == "oneDNN"
        assert way(torch.randn(1, 64), layer_of(64, 64)) == "torch"
        assert way(torch.randn(64, 64), layer_of(64, 64)) == "oneDNN"
        assert way(x.double(), layer_of(*WIDE).double()) == "torch"
        with torch.autocast("cpu", torch.bfloat16):
            assert way(x, layer) == "torch" and layer(x).dtype == torch.bfloat16


def test_gradients_are_those_of_torch() -> None:
    layer, x = layer_of(*WIDE), torch.randn(3, WIDE[1], requires_grad=True)
    twin = nn.Linear(WIDE[1], WIDE[0])
    twin.load_state_dict(layer.state_dict())
    for one in (layer, twin):
        one(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, twin.weight.grad)


def test_a_loaded_model_lies_by_columns_and_is_the_same(tiny_model: Model, tmp_path) -> None:
    """Its weights change in place like any others, and are saved as they are."""
    once = load(save_bundle(tmp_path / "once", tiny_model))
    (first, *_) = once.transformer.model.layers
    weight = first.mlp.down_proj.weight
    assert weight.stride() == (1, 32) and weight.shape == (32, 64) and weight.requires_grad
    assert once.transformer.lm_head_weight.is_contiguous(), "its rows are sliced and looked up"
    for name, tensor in tiny_model.transformer.state_dict().items():
        assert torch.equal(once.transformer.state_dict()[name], tensor.bfloat16().float()), name
    again = save_bundle(tmp_path / "again", once)
    files = [path / "model.safetensors" for path in (tmp_path / "once", again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    x = torch.randn(4096, 64)
    with torch.inference_mode():
        before = first.mlp.down_proj(x)
    with torch.no_grad():
        weight.mul_(2)
    with torch.inference_mode():
        torch.testing.assert_close(first.mlp.down_proj(x), 2 * before)
