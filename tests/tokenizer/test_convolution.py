"""Convolutions of an image alone and among others, and where torch computes them by itself."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from unimodal.tokenizer.autoencoders.convolution import Convolution

SIZES = [(1, 0), (3, 1)]  # side of the kernel, padding


def convolution(side: int, padding: int) -> Convolution:
    torch.manual_seed(0)
    return Convolution(8, 16, side, padding=padding)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("side", "padding"), SIZES)
def test_an_image_alone_has_the_bits_that_it_has_among_others(
    side: int, padding: int, threads: int
) -> None:
    layer, x_BChw = convolution(side, padding), torch.randn(7, 8, 8, 8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = layer(x_BChw)
        for number, one in enumerate(together):
            assert torch.equal(layer(x_BChw[number : number + 1])[0], one)
    finally:
        torch.set_num_threads(before)
    plain = F.conv2d(x_BChw, layer.weight, layer.bias, padding=padding)
    torch.testing.assert_close(together, plain)


@pytest.mark.parametrize(("side", "padding"), SIZES)
def test_gradients_are_those_of_torch(side: int, padding: int) -> None:
    layer, x_BChw = convolution(side, padding), torch.randn(1, 8, 8, 8, requires_grad=True)
    leaves = (x_BChw, layer.weight, layer.bias)
    own = torch.autograd.grad(layer(x_BChw).square().sum(), leaves)
    plain = F.conv2d(x_BChw, layer.weight, layer.bias, padding=padding).square().sum()
    torch.testing.assert_close(own, torch.autograd.grad(plain, leaves))


@pytest.mark.filterwarnings("ignore:TF32")
def test_it_is_torchs_own_where_there_is_no_onednn_and_nothing_to_compute() -> None:
    layer, x_BChw = convolution(3, 1), torch.randn(1, 8, 8, 8)
    assert layer(x_BChw[:0]).shape == (0, 16, 8, 8)
    with torch.backends.mkldnn.flags(enabled=False):
        plain = F.conv2d(x_BChw, layer.weight, layer.bias, padding=1)
        assert torch.equal(layer(x_BChw), plain)
    assert layer.bfloat16()(x_BChw.bfloat16()).dtype == torch.bfloat16


def test_it_is_exported_and_traced_without_data() -> None:
    layer, x_BChw = convolution(3, 1).eval(), torch.randn(1, 8, 8, 8)
    exported = torch.export.export(layer, (x_BChw,)).module()
    torch.testing.assert_close(exported(x_BChw), layer(x_BChw))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.randn(1, 8, 8, 8)).shape == (1, 16, 8, 8)
