"""Weights in 8 bits: their arithmetic by its formula, and models of them beside those of fp32."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unimodal import int8
from unimodal.bundle import load, save_bundle
from unimodal.document import Document, Image, Text
from unimodal.generation import generate
from unimodal.int8 import Int8Linear, in_int8
from unimodal.model import Model
from unimodal.sampling import Sampling

pytestmark = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs VNNI")
DEFAULT = None


def linears(*widths: int, bias: bool) -> list[nn.Linear]:
    generator = torch.Generator().manual_seed(3)
    found = [nn.Linear(40, width, bias=bias) for width in widths]
    with torch.no_grad():
        for one in found:
            for parameter in one.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return found


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_the_formula(bias: bool) -> None:
    maps = linears(24, 7, bias=bias)
    x = torch.randn(5, 3, 40, generator=torch.Generator().manual_seed(1)) * 10
    x[0, 0] = 0
    for one, mine in zip(maps, Int8Linear.of(*maps).parts(x), strict=True):
        weight, scale_x = one.weight.double(), x.double().abs().amax(-1, keepdim=True)
        scale_o = weight.abs().amax(1) / 127
        entering = (127 * x.double() / scale_x.clamp_min(1e-30)).round() / 127
        expected = scale_x * (entering @ (weight / scale_o[:, None]).round().T) * scale_o
        expected = expected if one.bias is None else expected + one.bias
        # A number in the middle between two may be rounded to either: one part in 127 of one of 40.
        torch.testing.assert_close(mine.double(), expected, atol=0.3, rtol=1e-5)
        assert ((mine - expected).abs() < 1e-3).float().mean() > 0.95
        whole = one(x).double()
        assert (mine - whole).norm() / whole.norm() < 0.015


@torch.inference_mode()
def test_what_else_is_in_the_batch_changes_nothing() -> None:
    linear = Int8Linear.of(*linears(24, bias=True))
    x = torch.randn(6, 1, 40) * torch.logspace(-3, 3, 6)[:, None, None]
    together = linear(x)
    for row, one in enumerate(x):
        assert torch.equal(linear(one[None])[0], together[row])


def test_a_loaded_model_draws_alone_what_it_draws_beside_others() -> None:
    model = load(DEFAULT, weights="int8")
    assert model.weights == "int8"
    documents = [Document((Text(f"draw {n} red circles", role="user"),)) for n in ("two", "three")]
    samplings = [Sampling(guidance=2.0, image_temperature=0.0), Sampling(image_temperature=0.0)]
    together = generate(model, documents, samplings, "image")
    for document, sampling, (drawn,) in zip(documents, samplings, together, strict=True):
        ((alone,),) = generate(model, [document], sampling, "image")
        assert isinstance(alone, Image) and isinstance(drawn, Image)
        np.testing.assert_array_equal(alone.codes, drawn.codes)


def test_what_cannot_be_is_said(tiny_model: Model, tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="weights 'int2': one of fp32, int8, int4"):
        load(DEFAULT, weights="int2")  # type: ignore[arg-type]
    mine = replace(tiny_model, transformer=copy.deepcopy(tiny_model.transformer))
    small = in_int8(mine)
    with pytest.raises(ValueError, match="weights int8 is not saved"):
        save_bundle(tmp_path / "bundle", small)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ValueError, match="needs a processor with VNNI"):
        int8.in_int8(tiny_model)
