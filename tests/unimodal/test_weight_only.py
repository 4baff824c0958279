"""Layers in 8 or 4 bits with vectors as they are: the formulas, bytes, and what a model does."""

import copy
from pathlib import Path

import head_models
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from unimodal import placing, weight_only
from unimodal.bundle import load, save_bundle
from unimodal.model import Model
from unimodal.placement import Placement
from unimodal.sampling import Sampling
from unimodal.tokenizer.grid import Grid
from unimodal.unified import parameter_shapes
from unimodal.weight_only import Linear4, Linear8, group_of, in_4_bits

KINDS = {"int8": Linear8, "int4": Linear4}


def matrix(rows: int = 48, columns: int = 192, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.logspace(-2, 1, rows)[:, None]


@pytest.mark.parametrize("group", weight_only.GROUPS)
def test_four_bits_are_those_of_the_formula(group: int) -> None:
    weight = matrix()
    weight[3] = 0.7  # a group of equal weights
    weight[4] = 0
    q_OI, scale_ON, zero_ON = in_4_bits(weight, group)
    assert int(q_OI.min()) == 0 and int(q_OI.max()) == 15 and q_OI.dtype == torch.int32
    for row, column in ((0, 0), (3, 5), (4, 7), (20, group), (47, 191)):
        part = weight[row].double()[column // group * group :][:group]
        scale = max((float(part.max()) - float(part.min())) / 15, weight_only.LEAST)
        found = (int(q_OI[row, column]) - 8) * scale + float(part.min()) + 8 * scale
        # Scales and offsets have 8 bits, of which the last may tip a number to its neighbour.
        assert abs(found - float(weight[row, column])) <= 0.65 * scale + 1e-6
        assert abs(float(scale_ON[row, column // group]) - scale) <= 2**-8 * scale
    held = (q_OI.unflatten(1, (-1, group)) - 8) * scale_ON.double()[..., None]
    held += zero_ON.double()[..., None]
    assert held.flatten(1)[4].abs().max() < 1e-6
    torch.testing.assert_close(held.flatten(1)[3].float(), weight[3], rtol=2**-8, atol=0)
    error = (held.flatten(1) - weight).norm() / weight.norm()
    assert 0.03 < error < 0.11


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_products_are_those_of_the_weight_that_is_held(kind: str, dtype: torch.dtype) -> None:
    weight, x = matrix().to(dtype), matrix(7, seed=1).to(dtype).unflatten(0, (7, 1))
    bias = torch.nn.Parameter(torch.arange(48).to(dtype))
    linear = KINDS[kind](weight, bias)
    if kind == "int8":
        scale_O = (weight.float().abs().amax(1) / 127).bfloat16().double()
        held = (weight.double() / scale_O[:, None]).round().clamp(-127, 127) * scale_O[:, None]
    else:
        q, scale, zero = in_4_bits(weight, group_of(weight.shape))
        held = (q.unflatten(1, scale.shape[1:] + (-1,)) - 8).double() * scale.double()[..., None]
        held = (held + zero.double()[..., None]).flatten(1)
    y, expected = linear(x), x.bfloat16().double() @ held.T + bias.double()
    assert y.dtype == dtype and y.shape == (7, 1, 48)
    assert (y.double() - expected).norm() / expected.norm() < 2**-8
    alone = torch.stack([linear(one) for one in x])  # what else is in the batch changes nothing
    torch.testing.assert_close(alone, y, rtol=2**-6, atol=2**-6 * float(y.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_vectors_are_multiplied_in_bfloat16(kind: str) -> None:
    """The shapes and dtypes that torch's own descriptions of its kernels for a GPU take."""
    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(2, 3, 192, device="lazy:0")
        linear = KINDS[kind](torch.empty(48, 192, device="lazy:0"))
        y = linear(x)
    assert y.shape == (2, 3, 48) and y.dtype == torch.float32 and y.device == x.device


@pytest.fixture(scope="module")
def whole() -> Model:
    return head_models.next_code_model(64, Grid(3, 2), addresses=False)


@pytest.fixture(scope="module")
def directory(whole: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("small") / "bundle", whole)


@torch.inference_mode()
def test_a_model_in_4_bits_draws_and_is_near(directory: Path, tmp_path: Path) -> None:
    model, plain = load(directory, weights="int4"), load(directory)
    assert model.weights == "int4" and model.transformer.copy is None
    layer = model.transformer.model.layers[1]
    assert isinstance(layer.self_attn.q_proj, Linear4) and isinstance(layer.mlp.down_proj, Linear4)
    sequence = plain.sequencer.sequence(head_models.talk(plain))
    found, expected = (head_models.hidden_of(one, sequence) for one in (model, plain))
    assert 0.01 < (found - expected).norm() / expected.norm() < 0.6
    documents = [head_models.request(words) for words in ("draw two red circles", "draw")]
    samplings = [Sampling(guidance=2.0, image_temperature=0.0), Sampling(image_temperature=0.0)]
    together = head_models.drawn(model, documents, samplings)
    for document, sampling, codes in zip(documents, samplings, together, strict=True):
        assert head_models.drawn(model, [document], [sampling]) == [codes]
    with pytest.raises(ValueError, match="weights int4 is not saved"):
        save_bundle(tmp_path / "other", model)


@torch.inference_mode()
def test_in_4_bits_and_spread_it_draws_the_same(directory: Path) -> None:
    one, apart = load(directory, weights="int4"), load(directory, "cpu:0,cpu:1", "int4")
    assert apart.transformer.placement is not None
    documents, samplings = [head_models.request("draw")], [Sampling(guidance=2.0, seed=2)]
    assert head_models.drawn(apart, documents, samplings) == head_models.drawn(
        one, documents, samplings
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_that_are_told_are_those_held(whole: Model, kind: str, dtype) -> None:
    transformer = copy.deepcopy(whole.transformer)
    names = [name for name, _ in transformer.named_parameters()]
    matrices = [name for name in names if weight_only.MATRIX.fullmatch(name)]
    assert len(matrices) == 7 * transformer.config.num_layers
    for name in matrices:
        weight = transformer.get_parameter(name)
        held = vars(KINDS[kind](weight.to(dtype)))
        told = weight_only.num_bytes(name, tuple(weight.shape), dtype, kind)
        assert told == sum(one.nbytes for one in held.values() if isinstance(one, torch.Tensor))
    for name in set(names) - set(matrices):
        weight = transformer.get_parameter(name).to(dtype)
        assert weight_only.num_bytes(name, tuple(weight.shape), dtype, kind) == weight.nbytes


def test_what_is_free_for_4_bits_may_be_too_little_for_32(
    directory: Path, whole: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = parameter_shapes(whole.transformer.architecture)
    sizes = {
        kind: sum(weight_only.num_bytes(*one, torch.float32, kind) for one in shapes.items())
        for kind in ("fp32", "int4")
    }
    tokenizer = whole.image_tokenizer.num_bytes
    monkeypatch.setattr(placing, "free_bytes", lambda _: tokenizer + sizes["int4"])
    assert load(directory, weights="int4").weights == "int4"
    architecture = whole.transformer.architecture
    assert placing.place(architecture, "cpu", torch.float32, "int4", tokenizer) == Placement.on(
        torch.device("cpu"), 2
    )
    with pytest.raises(ValueError, match="weights int4 about a quarter of bfloat16's"):
        placing.place(architecture, "cpu", torch.float32, "fp32", tokenizer)
    monkeypatch.setattr(placing, "free_bytes", lambda _: tokenizer + sizes["int4"] - 1)
    with pytest.raises(ValueError, match="as float32 with layers in int4, and"):
        load(directory, weights="int4")


def test_what_cannot_be_in_few_bits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((48, 48), (40, 64)):
        with pytest.raises(ValueError, match=f"int4: a matrix of {shape[0]} x {shape[1]} is not"):
            Linear4(torch.zeros(shape))
    assert (group_of((16, 96)), group_of((16, 128))) == (32, 64)
    with pytest.raises(ValueError, match="for a CPU or a GPU, not for mps"):
        weight_only.check("int4", [torch.device("mps")])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="cuda:1 has no bfloat16"):
        weight_only.check("int8", [torch.device("cuda:1")])
    assert placing.kept_as("int8", "cpu") == "fp32" and placing.kept_as("int4", "cpu") == "int4"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placing.kept_as("int8", "cuda:0,cuda:1") == "int8"
