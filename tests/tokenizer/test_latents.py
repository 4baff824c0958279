"""Continuous latents: the KL term, their statistics, patches of pixels, and runs that make them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tokenizers import of_patches
from tokenizer_runs import captions, tiny_run
from torch.distributions import Normal, kl_divergence

from unimodal.codec import ImageCodec
from unimodal.document import Image
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.pixels import PixelsConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.latents import Latents, LatentsConfig, image_noise
from unimodal.tokenizer.quantizers.config import QuantizerConfig, VqConfig
from unimodal.tokenizer.saved import load_tokenizer
from unimodal.train import tokenizer
from unimodal.train.optimizer import OptimizerConfig

PATCHES = of_patches(encoder_width=16, decoder_width=16, num_blocks=1, pixel_width=4).patches
KL = TokenizerConfig(patches=PATCHES, latents=LatentsConfig(width=6, kl=1e-4))
PIXELS = TokenizerConfig(pixels=PixelsConfig(patch=4))


def images(count: int, height: int = 16, width: int = 24) -> torch.Tensor:
    """Return smooth images, float32 (count, 3, height, width) in [-1, 1]."""
    noise = torch.randn(count, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bilinear").tanh()


def test_the_kl_term_is_that_of_normal_distributions() -> None:
    latents = Latents(width=3, kl=0.5).train()
    encoded = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    mean, log_variance = encoded.chunk(2, dim=-1)
    oracle = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    noise = image_noise(images(2), 7, (4, 5, 3))
    made = latents(encoded, noise)
    torch.testing.assert_close(made.losses["kl"], 0.5 * oracle)
    torch.testing.assert_close(made.vectors, mean + (log_variance / 2).exp() * noise)
    torch.testing.assert_close(latents.eval()(encoded).vectors, mean)
    assert not latents(encoded).losses


def test_noise_depends_on_image_and_step_alone() -> None:
    three = images(3)
    noise = image_noise(three, 5, (4, 5, 8))
    torch.testing.assert_close(image_noise(three[1:2], 5, (4, 5, 8)), noise[1:2], rtol=0, atol=0)
    assert not torch.equal(image_noise(three, 6, (4, 5, 8)), noise)
    assert abs(float(noise.mean())) < 0.15 and abs(float(noise.std()) - 1) < 0.1


@pytest.mark.parametrize("config", [KL, PIXELS], ids=["kl", "pixels"])
def test_latents_have_zero_mean_and_unit_variance_once_measured(config: TokenizerConfig) -> None:
    model, batch = ImageTokenizer(config).eval(), images(20)
    before, grid = model.encode(batch)
    model.measure_latents(batch.split(6))
    latents, _ = model.encode(batch)
    assert latents.shape == (20, grid.size, model.latent_width) and model.num_codes == 0
    flat = latents.flatten(0, 1).double()
    torch.testing.assert_close(flat.mean(0), torch.zeros_like(flat[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(0, correction=0), torch.ones_like(flat[0]), rtol=1e-4,
                               atol=0)  # fmt: skip
    # Whatever the scale, what comes back of them is the same image.
    again = ImageTokenizer(config).eval()
    torch.testing.assert_close(model.decode(latents, grid), again.decode(before, grid), atol=1e-5,
                               rtol=0)  # fmt: skip


def test_pixels_come_back_as_they_were() -> None:
    model, batch = ImageTokenizer(PIXELS).eval(), images(4)
    model.measure_latents([batch])
    latents, grid = model.encode(batch)
    assert grid == Grid(4, 6) and latents.shape == (4, 24, 48)
    torch.testing.assert_close(model.decode(latents, grid), batch, atol=1e-5, rtol=0)
    assert not list(model.parameters())


@pytest.mark.parametrize("config", [KL, PIXELS], ids=["kl", "pixels"])
def test_they_survive_saving_with_their_statistics(config: TokenizerConfig, tmp_path: Path) -> None:
    model = ImageTokenizer(config, seed=3).eval()
    unmeasured = model.hash
    model.measure_latents([images(8)])
    assert model.hash != unmeasured
    model.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.hash == model.hash and again.config == config
    (latents, grid), (same, _) = again.encode(images(2)), model.encode(images(2))
    assert torch.equal(latents, same) and again.decodes
    assert torch.equal(again.decode(latents, grid), model.decode(same, grid))


def test_a_codec_makes_latents_of_pixels_and_pixels_of_latents() -> None:
    model = ImageTokenizer(PIXELS).eval()
    model.measure_latents([images(8)])
    codec = ImageCodec(model)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    (encoded,) = codec.encode([Image(pixels=pixels)])
    assert encoded.codes is None and encoded.latents is not None
    assert encoded.latents.dtype == np.float32 and encoded.latents.shape == (6, 48)
    assert codec.encode([encoded])[0] is encoded
    (decoded,) = codec.decode([replace(encoded, pixels=None)])
    np.testing.assert_array_equal(decoded.pixels, pixels)
    with pytest.raises(ValueError, match="latents of tokenizer abc, but this one"):
        codec.decode([replace(encoded, pixels=None, codec_hash="abc")])
    codes = Image(codes=np.zeros((6, 1), np.int64), grid=Grid(2, 3), codec_hash=codec.hash)
    with pytest.raises(ValueError, match="needs latents before"):
        codec.decode([codes])


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (replace(KL, quantizer=QuantizerConfig(vq=VqConfig())), "quantizer: there is none with"),
        (replace(PIXELS, latents=LatentsConfig()), "latents: those of pixels"),
        (replace(KL, latents=LatentsConfig(width=0)), "width 0: at least 1"),
        (replace(KL, latents=LatentsConfig(kl=-1.0)), "kl -1.0: at least 0"),
        (replace(PIXELS, pixels=PixelsConfig(patch=0)), "patch 0: at least 1"),
        (replace(PIXELS, patches=PATCHES), "patches and pixels: give one"),
    ],
)
def test_what_cannot_be_is_named(config: TokenizerConfig, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ImageTokenizer(config)


def test_wrong_latents_are_named() -> None:
    model = ImageTokenizer(KL).eval()
    with pytest.raises(ValueError, match=r"latents of shape \(1, 5, 6\) do not fill"):
        model.decode(torch.zeros(1, 5, 6), Grid(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        model.decode(torch.full((1, 6, 6), torch.nan), Grid(2, 3))
    with pytest.raises(ValueError, match="channel 0 of the latents is the same in all 12 places"):
        model.measure_latents([torch.zeros(2, 3, 16, 24)])
    with pytest.raises(ValueError, match="no latents were given"):
        model.measure_latents([])


def test_a_run_ends_with_scaled_latents_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    samples = captions(24, (24, 16))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = tiny_run(tmp_path / "whole", samples, 6, model=KL)
    whole = replace(whole, optimizer=OptimizerConfig(lr=3e-3, ema_decay=0.5))
    first = tokenizer.train(whole)
    parts = replace(whole, output=tmp_path / "parts" / "run")
    tokenizer.train(replace(parts, schedule=replace(whole.schedule, num_steps=3)))
    assert load_tokenizer(tokenizer.train(parts)).hash == load_tokenizer(first).hash
    log = [json.loads(line) for line in (whole.output / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] and log[0]["quantizer_kl"] > 0
    assert not any(name.startswith("usage") for name in log[0])
    model = load_tokenizer(first)
    assert isinstance(model.quantizer, Latents) and not (model.quantizer.std == 1).any()


def test_a_new_decoder_keeps_the_latents(tmp_path: Path) -> None:
    samples = captions(16, (24, 16))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = tokenizer.train(tiny_run(tmp_path / "first", samples, 3, model=KL))
    more = {"model": KL, "weights": first, "freeze_codes": True, "seed": 1}
    second = tokenizer.train(tiny_run(tmp_path / "second", samples, 3, **more))
    old, new = load_tokenizer(first), load_tokenizer(second)
    assert torch.equal(old.encode(images(3))[0], new.encode(images(3))[0])
    assert old.hash != new.hash


def test_a_run_of_pixels_measures_them(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, captions(12, (24, 16)), 2, model=PIXELS, optimizer=OptimizerConfig())
    model = load_tokenizer(tokenizer.train(run))
    assert not (model.quantizer.std == 1).any() and (model.quantizer.std > 0).all()
    assert not (run.output / "metrics.jsonl").exists()


def test_settings_that_would_be_ignored_are_named(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, captions(2, (24, 16)), 2, model=KL, min_usage=0.5)
    assert ["min_usage 0.5: there are no codes; leave it out"] == run.problems()
    pixels = replace(run, model=PIXELS, min_usage=0.3, precision="bf16")
    assert len(pixels.problems()) == 2 and "precision: model.pixels" in pixels.problems()[0]
