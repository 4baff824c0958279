"""What holds for every quantizer: codes and vectors are one, in every dtype; bad input is refused.

The entries of QUANTIZERS cover each codebook, and each way of using one several times a place.
"""

from dataclasses import replace
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal import config as configuration
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)
from unimodal.tokenizer.quantizers.quantizer import MAX_CODES, Quantizer

BOUNDS = ("equal_width", "shifted", "sigmoid", "equal_mass")
CODEBOOKS = {
    **{bound: QuantizerConfig(fsq=FsqConfig((8, 5, 4), bound)) for bound in BOUNDS},  # type: ignore
    "lfq": QuantizerConfig(lfq=LfqConfig(bits=6)),
    "bsq": QuantizerConfig(bsq=BsqConfig(bits=6)),
    "vq": QuantizerConfig(vq=VqConfig(num_codes=50, width=4)),
}
QUANTIZERS = {
    **CODEBOOKS,
    **{f"{name} groups": replace(one, groups=3) for name, one in CODEBOOKS.items()},
    **{f"{name} residual": replace(one, residual=3) for name, one in CODEBOOKS.items()},
    **{f"{name} scales": replace(one, scales=(1, 2, 3, 4)) for name, one in CODEBOOKS.items()},
    "lfq groups residual": QuantizerConfig(lfq=LfqConfig(bits=4), groups=2, residual=3),
    "vq groups residual": QuantizerConfig(vq=VqConfig(num_codes=9, width=2), groups=2, residual=3),
}
GRID = Grid(4, 6)
every_quantizer = pytest.mark.parametrize("config", QUANTIZERS.values(), ids=QUANTIZERS)


def latents(quantizer: Quantizer, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, GRID.height, GRID.width, quantizer.width, generator=generator)


@every_quantizer
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_codes_decode_to_the_vectors_they_came_with(config: QuantizerConfig, training: bool):
    quantizer = config.build(seed=1).train(training)
    before = config.build(seed=1)  # a learned codebook moves after it was read
    found = quantizer(latents(quantizer))
    grid = quantizer.grid_of(GRID)
    assert found.codes.shape == (2, grid.size, quantizer.num_groups)
    assert found.codes.dtype == torch.int64 and found.vectors.dtype == torch.float32
    assert 0 <= found.codes.min() and found.codes.max() < quantizer.num_codes
    assert len(found.codes.unique()) > 3
    assert torch.equal(before.decode(found.codes, grid), found.vectors)
    assert quantizer.num_groups == config.groups * config.residual
    assert quantizer.width == config.width


@every_quantizer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_never_touches_the_arithmetic(config: QuantizerConfig, dtype: torch.dtype):
    quantizer = config.build(seed=1).eval()
    z_BhwD = latents(quantizer).to(dtype)
    whole = quantizer(z_BhwD.float())
    with torch.autocast("cpu", dtype=dtype):
        for found in (quantizer(z_BhwD), quantizer(z_BhwD.float())):
            assert torch.equal(found.codes, whole.codes)
            assert found.vectors.dtype == torch.float32
            assert torch.equal(found.vectors, whole.vectors)
        decoded = quantizer.decode(whole.codes, quantizer.grid_of(GRID))
    assert decoded.dtype == torch.float32 and torch.equal(decoded, whole.vectors)


@every_quantizer
def test_losses_are_float32_under_autocast_and_come_in_training_only(config: QuantizerConfig):
    quantizer = config.build(seed=1)
    z_BhwD = latents(quantizer).bfloat16()
    assert quantizer.eval()(z_BhwD).losses == {}
    whole = config.build(seed=1)(z_BhwD.float()).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer.train()(z_BhwD).losses
    assert found == whole and (found == {}) == (config.fsq is not None)
    assert all(loss.dtype == torch.float32 and loss.shape == () for loss in found.values())


@every_quantizer
def test_gradients_reach_the_latents_and_are_finite(config: QuantizerConfig):
    quantizer = config.build(seed=1)
    # Numbers so large that soft probabilities are 0 and 1, and zeros.
    z_BhwD = torch.cat([latents(quantizer), 1e4 * latents(quantizer), 0 * latents(quantizer)])
    z_BhwD.requires_grad_()
    found = quantizer(z_BhwD)
    (found.vectors.sum() + sum(found.losses.values())).backward()
    assert z_BhwD.grad.isfinite().all() and z_BhwD.grad[:2].abs().min(-1).values.max() > 0
    assert found.vectors.isfinite().all() and all(x.isfinite() for x in found.losses.values())


@every_quantizer
def test_the_same_seed_gives_the_same_quantizer(config: QuantizerConfig):
    one, same, other = (config.build(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    books = [name for name in one if name.endswith("codebook")]
    assert len(books) == (config.groups * config.residual if config.vq else 0)
    assert not any(torch.equal(one[name], other[name]) for name in books)
    assert len({one[name].sum().item() for name in books}) == len(books)


# --- codes <-> vectors, for every set of levels ---------------------------------------------------

level_sets = (
    st.lists(st.integers(2, 64), min_size=1, max_size=12)
    .map(lambda levels: levels[: next((k for k in range(len(levels), 1, -1)
                                       if prod(levels[:k]) <= MAX_CODES), 1)])
)  # fmt: skip
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
MIDDLES = {  # where a bound is v: its inverse
    "equal_width": torch.atanh,
    "sigmoid": lambda v: torch.logit((v + 1) / 2) / 1.6,
    "equal_mass": lambda v: torch.special.ndtri((v + 1) / 2),
}


def some_codes(num_codes: int, data: st.DataObject) -> torch.Tensor:
    """Up to 500 codes, the first and the last among them, as those of one row: (1, n, 1)."""
    drawn = data.draw(st.lists(st.integers(0, num_codes - 1), min_size=1, max_size=500))
    return torch.tensor([*drawn, 0, num_codes - 1])[None, :, None]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(levels=level_sets, bound=st.sampled_from(sorted(MIDDLES)), dtype=dtypes, data=st.data())
def test_fsq_is_a_bijection(levels: list[int], bound: str, dtype: torch.dtype, data: st.DataObject):
    quantizer = QuantizerConfig(fsq=FsqConfig(tuple(levels), bound)).build(0)  # type: ignore
    codes = some_codes(quantizer.num_codes, data)
    vectors = quantizer.decode(codes, Grid(1, codes.shape[1]))
    digits = ((vectors.double() + 1) / 2 * torch.tensor(levels) - 0.5).round().long()
    radix = torch.tensor([prod(levels[:k]) for k in range(len(levels))])
    assert torch.equal((digits * radix).sum(-1).flatten(), codes.flatten())
    assert torch.equal(quantizer(MIDDLES[bound](vectors).to(dtype)).codes, codes)


@pytest.mark.parametrize("bound", sorted(MIDDLES))
def test_float32_tells_all_levels_of_one_number_apart(bound: str):
    quantizer = QuantizerConfig(fsq=FsqConfig((MAX_CODES,), bound)).build(0)  # type: ignore
    codes = torch.arange(MAX_CODES)[None, :, None]
    vectors = quantizer.decode(codes, Grid(1, MAX_CODES))
    assert (vectors.diff(dim=2) > 0).all()
    assert torch.equal(quantizer(MIDDLES[bound](vectors.double()).float()).codes, codes)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(levels=level_sets, dtype=dtypes, data=st.data())
def test_shifted_fsq_is_a_bijection(levels: list[int], dtype: torch.dtype, data: st.DataObject):
    levels = [max(3, count) for count in levels]
    levels = levels[: next((k for k in range(len(levels), 1, -1)
                            if prod(levels[:k]) <= MAX_CODES), 1)]  # fmt: skip
    quantizer = QuantizerConfig(fsq=FsqConfig(tuple(levels), "shifted")).build(0)
    codes = some_codes(quantizer.num_codes, data)
    vectors = quantizer.decode(codes, Grid(1, codes.shape[1]))
    counts = torch.tensor(levels)
    half, offset = (counts - 1) * 1.001 / 2, (1 - counts % 2) / 2
    inner = ((vectors * (counts // 2) + offset) / half).double()
    z = torch.atanh(inner) - torch.atanh(offset / half)
    assert torch.equal(quantizer(z.to(dtype)).codes, codes)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(bits=st.integers(1, 18), kind=st.sampled_from(["lfq", "bsq"]), dtype=dtypes, data=st.data())
def test_bits_are_a_bijection(bits: int, kind: str, dtype: torch.dtype, data: st.DataObject):
    section = LfqConfig(bits=bits) if kind == "lfq" else BsqConfig(bits=bits)
    quantizer = QuantizerConfig(**{kind: section}).build(0)  # type: ignore
    codes = some_codes(2**bits, data)
    vectors = quantizer.decode(codes, Grid(1, codes.shape[1]))
    assert torch.equal(quantizer.eval()(vectors.to(dtype)).codes, codes)
    wanted = [[2 * (code >> bit & 1) - 1 for bit in range(bits)] for code in codes.flatten()]
    assert torch.equal(vectors[0, 0].sign(), torch.tensor(wanted).float())


# --- what is refused ------------------------------------------------------------------------------


@every_quantizer
def test_codes_of_another_grid_or_range_are_refused(config: QuantizerConfig):
    quantizer = config.build(0)
    grid, num = quantizer.grid_of(GRID), quantizer.num_codes
    codes = torch.zeros(1, grid.size, quantizer.num_groups, dtype=torch.int64)
    for wrong in (-1, num):
        codes[0, -1, -1] = wrong
        with pytest.raises(ValueError, match=rf"codes -?\d+\.\.\d+ outside 0\.\.{num - 1}"):
            quantizer.decode(codes, grid)
    with pytest.raises(ValueError, match=rf"codes of shape .*: \(B, {grid.size}, "):
        quantizer.decode(codes[:, 1:], grid)
    with pytest.raises(ValueError, match="latent vectors of shape"):
        quantizer(torch.zeros(1, 4, 4, quantizer.width + 1))
    other = Grid(4, 6) if config.scales else Grid(4, 6, ((2, 3), (4, 6)))
    codes = torch.zeros(1, other.size, quantizer.num_groups, dtype=torch.int64)
    with pytest.raises(ValueError, match="its scales are others"):
        quantizer.decode(codes, other)


@every_quantizer
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_get_no_code(config: QuantizerConfig, number: float):
    quantizer = config.build(0)
    z_BhwD = latents(quantizer)
    z_BhwD[1, 2, 3, 0] = number
    with pytest.raises(ValueError, match=f"1 of {z_BhwD.numel()} latent numbers are not finite"):
        quantizer.eval()(z_BhwD)
    if number != number:  # in training, where looking would cost time, the loss tells
        assert quantizer.train()(z_BhwD).vectors.isnan().any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QuantizerConfig(fsq=FsqConfig((64, 64, 65))), "266,240 codes: at most 262,144"),
        (QuantizerConfig(fsq=FsqConfig((8, 1))), r"levels \(8, 1\): .* at least 2"),
        (QuantizerConfig(fsq=FsqConfig(())), "at least one"),
        (QuantizerConfig(fsq=FsqConfig((8, 2), "shifted")), r"at least 3 with the bound 'shifted'"),
        (QuantizerConfig(lfq=LfqConfig(bits=19)), "bits 19 make 524,288 codes: at most 262,144"),
        (QuantizerConfig(bsq=BsqConfig(bits=64)), "at most 262,144"),
        (QuantizerConfig(lfq=LfqConfig(bits=0)), "bits 0: at least 1"),
        (QuantizerConfig(lfq=LfqConfig(entropy_weight=-1)), "entropy_weight -1: at least 0"),
        (QuantizerConfig(lfq=LfqConfig(temperature=0)), "temperature 0: above 0"),
        (QuantizerConfig(lfq=LfqConfig(bits=8, factor_bits=9)), "factor_bits 9: from 1 to the 8"),
        (QuantizerConfig(vq=VqConfig(num_codes=2**18 + 1)), "num_codes 262,145: at most 262,144"),
        (QuantizerConfig(vq=VqConfig(num_codes=1, width=0)), "num_codes 1: .*; width 0: at least"),
        (QuantizerConfig(vq=VqConfig(decay=1)), "decay 1: from 0 to below 1"),
        (QuantizerConfig(vq=VqConfig(restart_below=0)), "restart_below 0: between 0 and 1"),
        (QuantizerConfig(fsq=FsqConfig(), vq=VqConfig()), "fsq and vq are given: only one of"),
        (QuantizerConfig(groups=0, residual=0), "groups 0: at least 1; residual 0: at least 1"),
        (QuantizerConfig(groups=2, scales=(1, 2)), "groups 2 and residual 1: scales need one"),
        (QuantizerConfig(residual=2, scales=(1, 2)), "groups 1 and residual 2: scales need one"),
        (QuantizerConfig(scales=(4,)), r"scales \(4,\): at least two sides"),
        (QuantizerConfig(scales=(1, 3, 3)), "sides that grow"),
        (QuantizerConfig(scales=(0, 3)), "the first at least 1"),
    ],
)
def test_a_wrong_config_is_refused_with_its_numbers(config: QuantizerConfig, message: str):
    with pytest.raises(ValueError, match=message):
        config.build(0)


def test_the_largest_codebooks_are_allowed():
    for section in (
        LfqConfig(bits=18),
        BsqConfig(bits=18),
        FsqConfig((64, 64, 64)),
        VqConfig(2**18),
    ):
        assert section.problems() == []


def test_no_section_is_fsq_and_yaml_reads_one():
    default = QuantizerConfig()
    assert default.problems() == [] and default.width == 4
    assert default.build(0).levels == (8, 8, 8, 8)
    read = configuration.load(QuantizerConfig, None, ["lfq.bits=9", "groups=2"])
    assert read == QuantizerConfig(lfq=LfqConfig(bits=9), groups=2) and read.width == 18
    with pytest.raises(ValueError, match="bits 40 make 1,099,511,627,776 codes"):
        configuration.load(QuantizerConfig, None, ["bsq.bits=40"])
