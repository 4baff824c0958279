"""Codes that are learned from a vision backbone's features, and a decoder that is trained apart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backbones import write_backbone
from safetensors.torch import load_file
from tiny_runs import TINY, metrics
from tokenizer_runs import captions, tiny_run, with_quantizer

from unimodal.image_tokenizers import load_tokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.losses import TokenizerLossConfig
from unimodal.tokenizer.quantizers.config import FsqConfig, VqConfig
from unimodal.tokenizer.semantic import SemanticConfig
from unimodal.train import tokenizer
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLES = captions(40, (64, 64))
VQ = with_quantizer(vq=VqConfig(num_codes=32, width=4))  # whose codebook learns without gradients
PIXELS = TokenizerLossConfig()
IMAGES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> TokenizerLossConfig:
    vision = str(write_backbone(tmp_path_factory.mktemp("backbone")))
    return TokenizerLossConfig(l1=0, l2=0, semantic=SemanticConfig(1.0, vision, 16))


@pytest.fixture(scope="module")
def first(features: TokenizerLossConfig, tmp_path_factory: pytest.TempPathFactory) -> TokenizerRun:
    """A run of the first stage that has ended."""
    folder = tmp_path_factory.mktemp("first")
    averaged = OptimizerConfig(lr=3e-3, ema_decay=0.9)
    config = tiny_run(folder, SAMPLES, 40, model=VQ, loss=features, optimizer=averaged)
    tokenizer.train(config)
    return config


def second(first: TokenizerRun, output: Path, num_steps: int, **more) -> TokenizerRun:
    """The config of the second stage."""
    return replace(
        first, output=output, weights=first.output, freeze_codes=True, loss=PIXELS,
        schedule=ScheduleConfig(num_steps, 1), **more,
    )  # fmt: skip


def test_the_first_stage_learns_features_and_sees_no_pixels(first: TokenizerRun) -> None:
    lines = metrics(first.output)
    assert not {"absolute", "squared", "psnr_db"} & lines[0].keys()
    told = [line["semantic"] for line in lines]
    assert sum(told[-5:]) < 0.5 * sum(told[:5])
    assert not (first.output / "samples").exists()
    made = load_tokenizer(first.output / "tokenizer")
    assert isinstance(made, ImageTokenizer) and not made.decodes
    assert not any(name.startswith("decoder") for name in made.state_dict())
    codes, grid = made.encode(IMAGES)
    with pytest.raises(ValueError, match="has codes and no decoder yet: .*freeze_codes"):
        made.decode(codes, grid)


def test_the_second_stage_paints_the_codes_and_keeps_them(first: TokenizerRun, tmp_path) -> None:
    config = second(first, tmp_path / "second", 40)
    made = ImageTokenizer.load(tokenizer.train(config))
    before = ImageTokenizer.load(first.output / "tokenizer")
    for name, value in before.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name
    (codes, grid), (old, _) = made.encode(IMAGES), before.encode(IMAGES)
    assert torch.equal(codes, old) and len(codes.unique()) > 4
    lines = metrics(config.output)
    assert lines[-1]["squared"] < 0.7 * lines[0]["squared"]
    assert lines[-1]["usage_share"] > 0.1 and "quantizer_commitment" not in lines[0]
    drawn = ImageTokenizer(VQ, config.seed)
    at_random, painted = (one.decode(codes, grid) for one in (drawn, made))
    assert painted.shape == IMAGES.shape and not torch.equal(at_random, painted)
    assert len(list((config.output / "samples").glob("*.png"))) == 1
    card = json.loads((config.output / "tokenizer" / "card.json").read_text())
    assert card["began_from"]["config"]["loss"]["semantic"]["width"] == 16


def test_other_codes_get_a_larger_decoder_in_half_the_bytes(tmp_path: Path) -> None:
    before = tiny_run(tmp_path, SAMPLES, 4)
    tokenizer.train(before)
    wider = replace(TINY, patches=replace(TINY.patches, decoder_width=32, num_blocks=2))
    config = replace(
        before, output=tmp_path / "wider", weights=before.output, freeze_codes=True, model=wider,
        decoder_storage="bf16",
    )  # fmt: skip
    finished = tokenizer.train(config)
    old, new = ImageTokenizer.load(before.output / "tokenizer"), ImageTokenizer.load(finished)
    assert torch.equal(new.encode(IMAGES)[0], old.encode(IMAGES)[0])
    stored = load_file(finished / "tokenizer.safetensors")
    assert stored["decoder.enter.weight"].shape[0] == 32
    for name, tensor in stored.items():
        is_narrow = name.startswith("decoder.")
        assert tensor.dtype == (torch.bfloat16 if is_narrow else torch.float32), name
        assert new.state_dict()[name].dtype == torch.float32
        assert torch.equal(new.state_dict()[name], tensor.float())
    again = tmp_path / "again"
    again.mkdir()
    new.save(again)
    files = [one / "tokenizer.safetensors" for one in (finished, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    losses = [line["squared"] for line in metrics(config.output)]
    assert losses[-1] < losses[0]


def test_only_the_decoder_may_have_another_shape(tmp_path: Path) -> None:
    before = tiny_run(tmp_path, SAMPLES, 1)
    tokenizer.train(before)
    for patches, freeze in (({"decoder_width": 32}, False), ({"encoder_width": 32}, True)):
        wider = replace(TINY, patches=replace(TINY.patches, **patches))
        config = replace(
            before, output=tmp_path / "wider", weights=before.output, freeze_codes=freeze,
            model=wider,
        )  # fmt: skip
        (name,) = patches
        with pytest.raises(ValueError, match=f"model.patches.{name} is 16 there and 32 here"):
            tokenizer.train(config)


@pytest.mark.parametrize("stage", ["first", "second"])
def test_both_stages_resume_bit_for_bit(first: TokenizerRun, tmp_path: Path, stage: str) -> None:
    config = replace(first, output=tmp_path / "whole", schedule=ScheduleConfig(6, 1))
    whole = config if stage == "first" else second(first, tmp_path / "whole", 6)
    finished = ImageTokenizer.load(tokenizer.train(whole))
    loop = LoopConfig(save_every_steps=2, num_threads=1)
    cut = replace(whole, output=tmp_path / "cut", schedule=ScheduleConfig(3, 1), loop=loop)
    tokenizer.train(cut)
    again = tokenizer.train(replace(cut, schedule=whole.schedule))
    assert ImageTokenizer.load(again).hash == finished.hash
    losses = [[line["loss"] for line in metrics(one.output)] for one in (whole, cut)]
    assert losses[0] == losses[1]


def test_a_run_may_begin_with_weights_and_train_them_all(tmp_path: Path) -> None:
    before = tiny_run(tmp_path, SAMPLES, 4)
    tokenizer.train(before)
    after = replace(before, output=tmp_path / "after", weights=before.output, seed=1)
    tokenizer.train(replace(after, schedule=ScheduleConfig(1, 0), optimizer=OptimizerConfig(1e-9)))
    old, new = (ImageTokenizer.load(one.output / "tokenizer") for one in (before, after))
    assert old.hash != new.hash
    for name, value in old.state_dict().items():
        torch.testing.assert_close(new.state_dict()[name], value, rtol=0, atol=1e-7)


def test_two_stages_cannot_be_mixed(features: TokenizerLossConfig, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, SAMPLES, 2, freeze_codes=True)
    assert config.problems() == [
        "freeze_codes: codes of no meaning would be kept; give trained `weights`"
    ]
    config = replace(config, weights=tmp_path, loss=features)
    assert config.problems() == [
        "freeze_codes: only the decoder learns, and loss has no term of pixels: give l1, l2 or "
        "perceptual",
        "loss.semantic: it teaches codes, which freeze_codes keeps: leave it out",
    ]


def test_weights_of_another_tokenizer_are_refused(first: TokenizerRun, tmp_path: Path) -> None:
    config = second(first, tmp_path / "other", 2)
    with pytest.raises(ValueError, match="model.quantizer.vq.num_codes is 32 there and 64 here"):
        other = with_quantizer(vq=VqConfig(num_codes=64, width=4))
        tokenizer.train(replace(config, model=other))
    with pytest.raises(ValueError, match="nowhere"):
        tokenizer.train(replace(config, weights=tmp_path / "nowhere"))
    assert not config.output.exists()
    tokenizer.train(config)
    for change, words in (
        ({"freeze_codes": False}, "freeze_codes true -> false; cannot change\n(?!.*bundle)"),
        ({"weights": None, "freeze_codes": False}, "weights .* -> null; cannot change"),
    ):
        with pytest.raises(ValueError, match=words):
            tokenizer.train(replace(config, **change), accept_change=True)


def test_a_default_shape_is_the_same_as_one_that_is_spelled_out() -> None:
    spelled = replace(TINY, quantizer=replace(TINY.quantizer, fsq=FsqConfig()))
    assert replace(TINY, quantizer=type(TINY.quantizer)()).spelled_out == spelled
    assert TINY.spelled_out == TINY
