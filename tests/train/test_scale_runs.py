"""Runs of the scale head: what only it has (see test_head_runs.py)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as PILImage
from scale_models import of_scales
from tiny_runs import exact, metrics, recipe

from unimodal.bundle import load, save_bundle
from unimodal.command import main
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.eval.scenes import evaluate
from unimodal.hub.new_rows import linear_code_rows
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.quantizers.config import QuantizerConfig, VqConfig
from unimodal.train import lm
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 1 + 4 + 16 + 64  # codes of an image


@pytest.fixture(scope="module")
def run(head_run: Callable[[str], LmRun], one_thread: None) -> LmRun:
    return head_run("scale")


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    found = load(run.output / "bundle")
    return replace(found, sampling=replace(found.sampling, max_text_tokens=6, max_images=1))


# --- training -----------------------------------------------------------------------------------


def test_all_scales_are_learned(run: LmRun) -> None:
    lines = metrics(run.output)
    found = [line["loss_image"] for line in lines]
    assert abs(found[0] - np.log(64)) < 0.3, "64 codes at random"
    assert np.mean(found[-10:]) < found[0] - 0.5
    assert all(line["targets_image"] % COUNT == 0 for line in lines)


def test_rows_of_codes_begin_as_a_linear_map_of_their_vectors() -> None:
    """So sums of rows are rows of sums, as VAR's linear map of what codes show."""
    shape = of_scales()
    shape = replace(shape, quantizer=QuantizerConfig(vq=VqConfig(64, 4), scales=(1, 2, 4)))
    image = ImageTokenizer(shape).eval()
    rows = linear_code_rows(image, 32, 5, 0.02)
    assert rows.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-5)
    vectors = image.quantizer.codebook.codebook
    solved = torch.linalg.lstsq(vectors, rows).solution
    torch.testing.assert_close(vectors @ solved, rows, rtol=1e-3, atol=1e-5)
    assert not torch.equal(rows, linear_code_rows(image, 32, 6, 0.02))


def test_code_shards_teach_what_image_shards_do(tmp_path, run: LmRun, shards) -> None:
    words = ["data", "encode", str(shards), str(tmp_path / "codes"), "--tokenizer"]
    done = CliRunner().invoke(main, [*words, str(run.tokenizer)])
    assert done.exit_code == 0, done.output
    again = replace(
        run, output=tmp_path / "run", sources={"scenes": SourceConfig(str(tmp_path / "codes"))}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(again, schedule=replace(run.schedule, num_steps=3)))
    assert exact(again.output) == exact(run.output)[:3]


# --- bundles, chat, scores ----------------------------------------------------------------------


def test_a_bundle_has_its_scales(run: LmRun) -> None:
    stored = json.loads((run.output / "bundle" / "config.json").read_text())
    assert stored["grid"]["scales"] == [[1, 1], [2, 2], [4, 4], [8, 8]]


def test_the_command_draws_and_keeps_a_conversation(model: Model, tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle", model)
    words = f"chat --model {bundle} --output {tmp_path / 'out'} --prompt".split()
    done = CliRunner().invoke(main, [*words, "draw a red circle"])
    assert done.exit_code == 0, done.output
    made, shown = tmp_path / "codes.json", tmp_path / "shown"
    PILImage.fromarray(render(scene(1, 1, SMALL), 64)).save(tmp_path / "a.png")
    for words in (
        f"encode {tmp_path / 'a.png'} --model {bundle} --output {made}",
        f"decode {made} --model {bundle} --output {shown}",
    ):
        done = CliRunner().invoke(main, words.split())
        assert done.exit_code == 0, done.output
    assert json.loads(made.read_text())["grids"] == {"a.png": [8, 8]}


def test_it_is_scored(model: Model) -> None:
    report, cells = evaluate(model, 1, 10**6, parts=("drawing", "questions", "edits"))
    kept = [one["codes"] for one in report["predictions"] if one.get("codes")]
    assert report["scores"] and cells and kept, "some requests were answered by an image"
    assert all(len(codes) == model.grid.size == COUNT for images in kept for codes in images)


# --- what is refused ----------------------------------------------------------------------------


def test_settings_are_refused_before_anything_is_written(
    tmp_path, shards, tokenizer, run: LmRun
) -> None:
    small = LmRun.__dataclass_fields__["loader"].default_factory()
    small = replace(small, images=ImageRule(target_pixels=16 * 16), sequence_length=512)
    run = replace(run, output=tmp_path / "run")
    plain = recipe(tmp_path / "run", shards, run.tokenizer, 1)
    for wrong, why in (
        (replace(run, tokenizer=tokenizer), "it has one scale, and the image head draws several"),
        (plain, r"it has scales, and a language model reads .* model\.head scale, which reads"),
        (replace(run, loader=small), r"image of 2 x 2 codes are 1 x 1, 1 x 1, 1 x 1, 2 x 2: each"),
        (replace(run, sampling=Sampling(image_steps=8)), "head scale has no image_steps 8"),
        (replace(run, sampling=Sampling(image_solver="heun")), "scale has no image_solver heun"),
        (replace(run, sampling=Sampling(guidance_interval=(0.0, 0.5))), "no guidance_interval"),
        (replace(run, weights=run.output / "none"), "none"),
    ):
        with pytest.raises(ValueError, match=why):
            lm.train(wrong)
        assert not (tmp_path / "run" / "text.json").exists()
