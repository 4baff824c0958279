"""The tokenizer's ceiling: failures by name, PSNR and code usage by hand, the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_tokenizers import of_patches

from unimodal.data.scenes.reading import Unreadable
from unimodal.data.scenes.world import Background, Scene, SceneObject, render, scene
from unimodal.eval.command import eval_
from unimodal.eval.reconstruction import psnr
from unimodal.eval.tokenizer import (
    FAILURES,
    failures,
    judge,
    reader_errors,
    scores,
    tokenizer_ceiling,
)
from unimodal.eval.usage import code_usage
from unimodal.tokenizer.autoencoder import ImageTokenizer

CIRCLE = SceneObject("circle", "red", "small", 0.3, 0.3)
STAR = SceneObject("star", "blue", "large", 0.7, 0.7)
TRUTH = Scene(Background("plain", "grey"), (CIRCLE, STAR))


def tiny_tokenizer() -> ImageTokenizer:
    config = of_patches(encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)
    return ImageTokenizer(config).eval()


def with_first(**changes) -> Scene:
    return replace(TRUTH, objects=(replace(CIRCLE, **changes), STAR))


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (TRUTH, []),
        (replace(TRUTH, objects=(STAR, CIRCLE)), []),
        (Unreadable("noise"), ["unreadable"]),
        (replace(TRUTH, objects=(STAR,)), ["count"]),
        (with_first(shape="ring"), ["shape"]),
        (with_first(colour="pink"), ["colour"]),
        (with_first(size="medium"), ["size"]),
        (with_first(x=0.3 + 1.9 / 64), []),
        (with_first(x=0.3 + 2.1 / 64), ["centre"]),
        (replace(TRUTH, background=Background("plain", "sand")), ["background"]),
        (with_first(shape="ring", colour="pink"), ["shape", "colour"]),
    ],
)
def test_failures_are_named(read, expected):
    assert failures(TRUTH, read) == expected


def test_a_perfect_reconstruction_has_no_failures():
    truth = scene(seed=5, index=3)
    image = render(truth)
    found = judge(3, truth, image, image)
    assert found["right"] and found["reader_right"] and found["failures"] == []
    assert found["answer"]["background"] == found["expected"]["background"]


def test_noise_is_unreadable_and_says_why():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = judge(0, TRUTH, render(TRUTH), noise)
    assert not found["right"] and found["failures"] == ["unreadable"]
    assert found["answer"] is None and found["reason"]


def test_psnr_by_hand():
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    assert psnr(black, black + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(black, black) == pytest.approx(58.92, abs=0.01)


def test_code_usage_by_hand():
    found = code_usage([np.array([0, 0, 1]), np.array([[2]])], num_codes=16)
    assert found["distinct"] == 3 and found["share"] == 3 / 16 and found["drawn"] == 4
    assert found["entropy_bits"] == pytest.approx(1.5)
    assert found["perplexity"] == pytest.approx(2**1.5)
    same = code_usage([np.zeros(9, int)], num_codes=4)
    assert (same["entropy_bits"], same["perplexity"], same["share"]) == (0, 1, 0.25)


def test_scores_count_scenes():
    good = {"right": True, "psnr_db": 30.0, "ssim": 0.9, "failures": [], "reader_right": True}
    bad = {
        "right": False,
        "psnr_db": 20.0,
        "ssim": 0.7,
        "failures": ["shape"],
        "reader_right": False,
    }
    found = scores([good, good, good, bad])
    assert found["right"].value == 0.75
    assert found["psnr_db"].value == 27.5 and found["ssim"].value == pytest.approx(0.85)
    assert found["failures"]["shape"].value == 0.25
    assert found["failures"]["colour"].value == 0
    assert found["reader_error"].value == 0.25


def test_the_ceiling_is_a_function_of_its_arguments():
    tokenizer = tiny_tokenizer()
    first = tokenizer_ceiling(tokenizer, samples=5, seed=9, batch_size=2)
    second = tokenizer_ceiling(tokenizer, samples=5, seed=9, batch_size=2)
    assert first == second
    assert len(first["predictions"]) == 5 and set(first["scores"]["failures"]) == set(FAILURES)
    assert first["usage"]["drawn"] == 5 * 64


def test_command_writes_everything(tmp_path):
    tiny_tokenizer().save(tmp_path)
    paths = {name: tmp_path / f"new/out.{name}" for name in ("json", "md", "png")}
    words = f"tokenizer {tmp_path} --samples 3 --seed 7 --json {paths['json']}"
    words += f" --markdown {paths['md']} --contact-sheet {paths['png']}"
    result = CliRunner().invoke(eval_, words.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(paths["json"].read_text())
    assert set(report["scores"]["right"]) == {"value", "low", "high", "n"}
    assert report["recipe"]["seed"] == 7 and report["recipe"]["tokenizer"] == tiny_tokenizer().hash
    assert len(report["predictions"]) == 3
    assert paths["md"].read_text().startswith("| score | value |")
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_command_refuses_a_seed_of_training(tmp_path):
    tiny_tokenizer().save(tmp_path)
    (tmp_path / "card.json").write_text('{"data_seeds": [1, 7]}')
    result = CliRunner().invoke(eval_, f"tokenizer {tmp_path} --seed 7".split())
    assert "trained on scenes of seed 7: evaluate it on another" in str(result.exception)


@pytest.mark.parametrize("old", ["--model", "--tokenizer", "--images"])
def test_options_that_are_arguments_now_are_refused(tmp_path, old):
    result = CliRunner().invoke(eval_, f"tokenizer {old} {tmp_path}".split())
    assert result.exit_code == 2
    assert f"{old} is an argument now: unimodal eval tokenizer MODEL [IMAGES]..." in result.output


def test_the_reader_errs_more_on_worse_images():
    errors = reader_errors(samples=40, seed=3, canvas=64)
    assert errors["none"].value == 0 and errors["none"].n == 40
    assert errors["JPEG, quality 50"].value > 0
