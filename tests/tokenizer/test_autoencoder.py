"""The image tokenizer: shapes, locality of codes, files and hash."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tokenizers import of_patches

from unimodal.tokenizer.autoencoder import (
    ImageTokenizer,
    TokenizerConfig,
    initial_weight,
    read_shape,
)  # fmt: skip
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.autoencoders.patches import PatchesConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import FsqConfig, QuantizerConfig

CONFIG = of_patches((5, 5, 5), encoder_width=16, decoder_width=16, num_blocks=1, pixel_width=4)
FSQ = QuantizerConfig(fsq=FsqConfig((5, 5, 5)))
F8 = TokenizerConfig(
    FSQ, convolutions=ConvolutionsConfig(8, "haar", (8, 16), (1, 1), (1, 1), pixel_width=4)
)
F16 = TokenizerConfig(
    FSQ, convolutions=ConvolutionsConfig(16, "patch", (8, 8, 16), (1, 0, 1), (0, 1, 1), 4)
)
ROW = TokenizerConfig(
    QuantizerConfig(fsq=FsqConfig((5,) * 5)), queries=QueriesConfig(12, 32, 48, 8, 32, 1, 1, 4)
)


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    return ImageTokenizer(CONFIG).eval()


def random_pixels(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_ranges(tokenizer: ImageTokenizer) -> None:
    codes, grid = tokenizer.encode(random_pixels(2, 3, 32, 48))
    assert codes.shape == (2, 24, 1) and codes.dtype == torch.int64 and grid == Grid(4, 6)
    assert 0 <= codes.min() and codes.max() < tokenizer.num_codes == 125
    images = tokenizer.decode(codes, grid)
    assert images.shape == (2, 3, 32, 48) and images.abs().max() <= 1


def test_training_and_decoding_agree(tokenizer: ImageTokenizer) -> None:
    images = random_pixels(2, 3, 32, 32)
    torch.testing.assert_close(
        tokenizer(images).images_BCHW.clamp(-1, 1), tokenizer.decode(*tokenizer.encode(images))
    )


def test_a_code_knows_only_its_patch_and_margin(tokenizer: ImageTokenizer) -> None:
    images = random_pixels(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 24:32, 24:32] = -changed[:, :, 24:32, 24:32]
    before, after = tokenizer.encode(images)[0], tokenizer.encode(changed)[0]
    different = (before != after).reshape(8, 8).nonzero()
    assert len(different) and (different - 3).abs().max() <= 1


def test_files_round_trip_with_the_hash(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    back = ImageTokenizer.load(tmp_path)
    assert back.hash == tokenizer.hash and back.config == CONFIG
    images = random_pixels(1, 3, 16, 16)
    assert torch.equal(
        back.decode(*back.encode(images)), tokenizer.decode(*tokenizer.encode(images))
    )


def test_what_is_no_tokenizer_is_named(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere holds no image tokenizer: there is no tok"):
        ImageTokenizer.load(tmp_path / "nowhere")
    tokenizer.save(tmp_path)
    weights, config = tmp_path / "tokenizer.safetensors", tmp_path / "tokenizer.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="tokenizer.safetensors is damaged or belongs to another"):
        ImageTokenizer.load(tmp_path)
    weights.write_bytes(whole)
    described = config.read_text()
    config.write_text(described.replace('"decoder_width": 16', '"decoder_width": 24'))
    with pytest.raises(ValueError, match="tokenizer.safetensors is damaged or belongs to another"):
        ImageTokenizer.load(tmp_path)
    for wrong in ("{", '{"levels": 3}', described.replace('"patch"', '"pitch"'), "[]"):
        config.write_text(wrong)
        with pytest.raises(ValueError, match="tokenizer.json describes no image tokenizer"):
            ImageTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("quantizer", {"lfq": {"bits": "8"}}, "expected int, got '8'"),
        ("quantizer", {"lfq": {"bits": 8.0}}, "expected int, got 8.0"),
        ("quantizer", {"lfq": {"bits": None}}, "expected int, got None"),
        ("quantizer", {"lfq": []}, "expected the keys of LfqConfig"),
        ("quantizer", {"fsq": {"levels": [4, "x"]}}, "expected int, got 'x'"),
        ("quantizer", {"fsq": {"bound": "arc"}}, "got 'arc'"),
        ("quantizer", {"scales": 3}, "expected a list, got 3"),
        ("convolutions", {"factor": 12}, "got 12"),
        ("convolutions", {"widths": [8, True]}, "expected int, got True"),
    ],
)
def test_values_of_another_kind_describe_no_tokenizer(
    section: str, values: dict, message: str, tmp_path: Path
) -> None:
    ImageTokenizer(F8).save(tmp_path)
    config = tmp_path / "tokenizer.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), section: values}))
    with pytest.raises(ValueError, match="tokenizer.json describes no image tokenizer") as caught:
        ImageTokenizer.load(tmp_path)
    assert message in str(caught.value)


def test_first_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(5)
    one, again, other = (ImageTokenizer(CONFIG, seed) for seed in (3, 3, 4))
    assert one.hash == again.hash != other.hash
    assert one.decoder.blocks[0].second.weight.count_nonzero() == 0
    assert one.encoder.patches.weight.std().item() == pytest.approx((3 * 12 * 12) ** -0.5, rel=0.1)


def test_the_hash_sees_every_weight(tokenizer: ImageTokenizer) -> None:
    other = ImageTokenizer(CONFIG, seed=1)
    other.load_state_dict(tokenizer.state_dict())
    assert other.hash == tokenizer.hash
    with torch.no_grad():
        other.decoder.out.bias[0] += 1e-3
    assert other.hash != tokenizer.hash


def test_bad_input_is_refused(tokenizer: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match="32 x 30 pixels are no whole 8-pixel patches"):
        tokenizer.encode(random_pixels(1, 3, 30, 32))
    with pytest.raises(ValueError, match=r"images of shape \(1, 1, 32, 32\)"):
        tokenizer.encode(random_pixels(1, 1, 32, 32))
    with pytest.raises(ValueError, match="do not fill"):
        tokenizer.decode(torch.zeros(1, 5, 1, dtype=torch.int64), Grid(2, 3))
    with pytest.raises(ValueError, match="make 1,048,576 codes: at most 262,144"):
        ImageTokenizer(of_patches((32, 32, 32, 32)))


def test_every_problem_of_a_shape_is_told_at_once() -> None:
    wrong = {"encoder_width": 0, "decoder_width": 12, "num_blocks": -1, "margin": 9}
    assert PatchesConfig(**wrong).problems() == [
        "encoder_width 0: at least 1",
        "num_blocks -1: at least 0",
        "decoder_width 12: a multiple of 8",
        "margin 9: from 0 to the patch's 8",
    ]
    with pytest.raises(ValueError, match=r"levels \(\): (.|\n)*encoder_width 0(.|\n)*margin 9"):
        ImageTokenizer(of_patches((), **wrong))
    both = TokenizerConfig(patches=PatchesConfig(), queries=QueriesConfig(32, 60, 64))
    with pytest.raises(ValueError, match="patches and queries: give one of them; width 64 and hei"):
        ImageTokenizer(both)
    assert ConvolutionsConfig(16).problems()[0] == (
        "widths [64, 256]: factor 16 needs 3 numbers (at 1/4, 1/8, 1/16 of the resolution), each"
        " at least 1"
    )


# --- the other autoencoders ---------------------------------------------------------------------


@pytest.mark.parametrize(("config", "factor"), [(CONFIG, 8), (F8, 8), (F16, 16)])
def test_any_size_that_is_a_multiple_of_the_factor(config: TokenizerConfig, factor: int) -> None:
    tokenizer = ImageTokenizer(config).eval()
    for height, width in ((64, 64), (64, 1024), (1024, 64), (208, 336)):
        images = random_pixels(1, 3, height, width)
        codes, grid = tokenizer.encode(images)
        assert grid == Grid(height // factor, width // factor)
        assert codes.shape == (1, grid.size, 1) and len(codes.unique()) > 4
        assert tokenizer.geometry.size_of(grid) == (height, width)
        torch.testing.assert_close(
            tokenizer.decode(codes, grid), tokenizer(images).images_BCHW.clamp(-1, 1)
        )


def test_a_convolution_knows_no_size() -> None:
    """A crop far from the border has the codes that it has in the whole image."""
    tokenizer = ImageTokenizer(F8, seed=2).eval()
    images = random_pixels(1, 3, 256, 256)
    whole = tokenizer.encode(images)[0].reshape(32, 32)
    crop = tokenizer.encode(images[:, :, 64:192, 64:192])[0].reshape(16, 16)
    assert torch.equal(whole[12:20, 12:20], crop[4:12, 4:12])
    assert not torch.equal(whole[8:24, 8:24], crop)  # its border is another


def test_the_haar_transform() -> None:
    """Against the pyramid by hand: means and differences of pixels, then of the means."""
    stem = ImageTokenizer(F8).encoder.stem
    images = random_pixels(2, 3, 8, 12)
    found = stem(images).unflatten(1, (3, 16))

    def level(x: torch.Tensor) -> list[torch.Tensor]:
        a, b = x[..., ::2, ::2], x[..., ::2, 1::2]
        c, d = x[..., 1::2, ::2], x[..., 1::2, 1::2]
        return [(a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]

    sums, *details = level(images)
    torch.testing.assert_close(found[:, :, :4], torch.stack(level(sums), dim=2))
    corners = [part[..., y::2, x::2] for part in details for y in (0, 1) for x in (0, 1)]
    torch.testing.assert_close(found[:, :, 4:], torch.stack(corners, dim=2))
    torch.testing.assert_close(ImageTokenizer(F8).decoder.canvas.shuffle(stem(images)), images)


def test_queries_are_a_row_of_codes_that_see_the_whole_image() -> None:
    tokenizer = ImageTokenizer(ROW).eval()
    images = random_pixels(2, 3, 32, 48)
    codes, grid = tokenizer.encode(images)
    assert grid == Grid(1, 12) and codes.shape == (2, 12, 1)
    assert tokenizer.geometry.size_of(grid) == (32, 48)
    assert tokenizer.decode(codes, grid).shape == (2, 3, 32, 48)
    changed = images.clone()
    changed[:, :, :8, :8] *= -1
    z, other = tokenizer.encoder(images), tokenizer.encoder(changed)
    assert ((z - other).abs().amax(dim=(0, 1, 2)) > 1e-4).all()
    with pytest.raises(ValueError, match="48 x 48 pixels: these queries read images of 48 x 32"):
        tokenizer.encode(random_pixels(1, 3, 48, 48))
    with pytest.raises(ValueError, match="2 x 6 codes: an image is one row of 12 codes"):
        tokenizer.decode(torch.zeros(1, 12, 1, dtype=torch.int64), Grid(2, 6))


def test_mask_tokens_are_told_apart_by_their_positions_alone() -> None:
    decoder = ImageTokenizer(ROW).decoder.eval()
    with torch.no_grad():
        decoder.positions.zero_()
    painted = decoder.layers(
        torch.cat([decoder.enter(torch.rand(1, 12, 5)) + decoder.queries,
                   decoder.mask.expand(1, 24, -1)], dim=1)
    )[:, -24:]  # fmt: skip
    torch.testing.assert_close(painted, painted[:, :1].expand_as(painted))


@pytest.mark.parametrize("config", [F8, F16, ROW], ids=["f8", "f16", "queries"])
def test_they_learn_an_image(config: TokenizerConfig) -> None:
    tokenizer = ImageTokenizer(config)
    colour_C11 = torch.tensor([1.0, -1, 0.5])[:, None, None]
    ramp = torch.linspace(-1, 1, 48).expand(1, 3, 32, 48) * colour_C11
    images = torch.cat([ramp, ramp.flip(3), 0.3 * ramp, -0.6 * ramp])
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    errors = []
    for _ in range(200 if config is ROW else 60):
        error = (tokenizer(images).images_BCHW - images).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0] / 10
    assert all(one.grad is not None for one in tokenizer.parameters())


@pytest.mark.parametrize("config", [F8, F16, ROW], ids=["f8", "f16", "queries"])
def test_their_files_round_trip(config: TokenizerConfig, tmp_path: Path) -> None:
    tokenizer = ImageTokenizer(config, seed=4)
    tokenizer.save(tmp_path)
    back = ImageTokenizer.load(tmp_path)
    assert back.config == config and back.hash == tokenizer.hash
    assert read_shape(tmp_path / "tokenizer.json") == config
    assert ImageTokenizer(config, seed=5).hash != back.hash


def test_a_flat_config_keeps_its_hash_and_codes(tmp_path: Path) -> None:
    """So were tokenizers written when patches and FSQ were all there was."""
    levels, patches = [7, 5, 5, 5, 5], asdict(PatchesConfig(margin=2, decoder_width=32))
    nested = ImageTokenizer(of_patches(tuple(levels), **patches), seed=2)
    nested.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"levels": levels, **patches}))
    tokenizer = ImageTokenizer.load(tmp_path)
    assert tokenizer.hash == nested.hash and tokenizer.config == nested.config
    images = random_pixels(3, 3, 64, 64)
    codes, grid = tokenizer.encode(images)
    # As it was computed then: tanh, shares of equal width, mixed radix.
    levels_D = torch.tensor(levels)
    radix_D = torch.from_numpy(np.cumprod([1, *levels[:-1]]))
    unit = (torch.tanh(tokenizer.encoder(images)).movedim(1, -1) + 1) / 2
    expected = ((unit * levels_D).floor().long() * radix_D).sum(-1)
    assert torch.equal(codes, expected.reshape(3, 64, 1))


@pytest.mark.parametrize("config", [F8, ROW], ids=["f8", "queries"])
def test_bfloat16_has_norms_of_one_dtype(config: TokenizerConfig) -> None:
    """Others are not fused, of which torch warns."""
    tokenizer, images = ImageTokenizer(config), random_pixels(1, 3, 32, 48)
    full = tokenizer(images).images_BCHW
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with torch.autocast("cpu", torch.bfloat16):
                low = tokenizer(images).images_BCHW
    finally:
        torch.set_warn_always(False)
    assert low.dtype == torch.bfloat16
    assert (low - full).square().mean() < 0.05 * full.square().mean()


def test_initial_weights() -> None:
    assert initial_weight("encoder.layers.0.mlp_norm.weight", (4,), 0).eq(1).all()
    named = dict(ImageTokenizer(F8).named_parameters())
    assert named["decoder.stages.0.0.second.weight"].count_nonzero() == 0
    std = named["decoder.stages.0.0.first.weight"].std().item()
    assert std == pytest.approx((16 * 9) ** -0.5, rel=0.1)
