"""Runs of the scale head: learned, resumed, averaged, saved, talked to, scored, refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as PILImage
from scale_models import of_scales, scale_recipe, write_scale_tokenizer
from tiny_runs import exact, metrics, recipe

from unimodal.bundle import load, save_bundle
from unimodal.chat import Chat
from unimodal.command import main
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.eval.scenes import evaluate
from unimodal.generation import generate
from unimodal.hub.export import export
from unimodal.hub.new_rows import linear_code_rows
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.quantizers.config import QuantizerConfig, VqConfig
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, MASTER, newest
from unimodal.train.plan.plan import plan
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[1] / "golden" / "scale_losses.json"
COUNT = 1 + 4 + 16 + 64  # codes of an image


@pytest.fixture(scope="module")
def scales(tmp_path_factory) -> Path:
    return write_scale_tokenizer(tmp_path_factory.mktemp("scales"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, scales) -> LmRun:
    """A run of 50 steps with averaged weights."""
    run = scale_recipe(tmp_path_factory.mktemp("scale") / "run", shards, scales, 50)
    lm.train(run)
    return run


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    found = load(run.output / "bundle")
    return replace(found, sampling=replace(found.sampling, max_text_tokens=6, max_images=1))


def drawn(model: Model, sampling: Sampling) -> list[int]:
    documents = [Document((Text("draw a red circle", role="user"),))]
    ((image,),) = generate(model, documents, sampling, "image")
    return image.codes[:, 0].tolist()


# --- training -----------------------------------------------------------------------------------


def test_golden_losses(run: LmRun) -> None:
    lines = metrics(run.output)
    losses = [line["loss"] for line in lines]
    if os.environ.get("UNIMODAL_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(losses))
    np.testing.assert_allclose(losses, json.loads(GOLDEN.read_text()), rtol=5e-3)
    found = [line["loss_image"] for line in lines]
    assert abs(found[0] - np.log(64)) < 0.3, "64 codes at random"
    assert np.mean(found[-10:]) < found[0] - 0.5
    assert all(line["targets_image"] % COUNT == 0 for line in lines), "every scale is learned"
    assert all(line["targets_image"] > 0 and line["flops_per_s"] > 0 for line in lines)


def test_it_goes_on_bit_for_bit(tmp_path, run: LmRun) -> None:
    """Behind a stop after three steps, it takes the steps of the run that never stopped."""
    again = replace(run, output=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        for num_steps in (3, 6):
            lm.train(replace(again, schedule=replace(run.schedule, num_steps=num_steps)))
    assert exact(tmp_path / "run") == exact(run.output)[:6]


def test_its_bundle_has_the_averaged_weights(run: LmRun, model: Model) -> None:
    saved = newest(run.output)
    for name in ("model.layers.0.mlp.up_proj.weight", "embedder.scales.weight"):
        mean, master = saved.whole(name, EMA), saved.whole(name, MASTER)
        weight = model.transformer.state_dict()[name]
        assert torch.equal(weight, mean.bfloat16().float()) and not torch.equal(mean, master)


def test_a_bundle_is_gone_on_from(tmp_path, run: LmRun) -> None:
    more = replace(run, output=tmp_path / "more", weights=run.output / "bundle", text_ids=None)
    lm.train(replace(more, schedule=replace(run.schedule, num_steps=1)))
    losses = [line["loss_image"] for line in metrics(run.output)]
    assert abs(metrics(more.output)[0]["loss_image"] - np.mean(losses[-10:])) < 0.8
    other = replace(more.model, head="next_code")
    with pytest.raises(ValueError, match=r"model\.head next_code is scale there"):
        lm.train(replace(more, model=other, output=tmp_path / "other"))


def test_plans_know_its_parameters(run: LmRun, model: Model) -> None:
    made = plan(run, 1, 80.0)
    assert made.parameters == sum(one.numel() for one in model.transformer.parameters())


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


def test_code_shards_teach_what_image_shards_do(tmp_path, run: LmRun, shards, scales) -> None:
    words = ["data", "encode", str(shards), str(tmp_path / "codes"), "--tokenizer", str(scales)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    again = replace(
        run, output=tmp_path / "run", sources={"scenes": SourceConfig(str(tmp_path / "codes"))}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(again, schedule=replace(run.schedule, num_steps=3)))
    assert exact(again.output) == exact(run.output)[:3]


# --- bundles, chat, scores ----------------------------------------------------------------------


def test_it_survives_saving(model: Model, tmp_path: Path) -> None:
    again = load(save_bundle(tmp_path / "again", model))
    assert drawn(model, Sampling(seed=1)) == drawn(again, Sampling(seed=1))
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["image"]["head"] == "scale"
    assert stored["grid"]["scales"] == [[1, 1], [2, 2], [4, 4], [8, 8]]
    assert again.grid == model.grid and again.canvas == (64, 64)


def test_chat_draws_answers_and_edits(model: Model) -> None:
    chat = Chat(model, seed=3, guidance=2.0)
    first = chat("draw a red circle", modality="image")
    second = chat("make it blue", modality="image")
    assert [one.size for one in (*first.images, *second.images)] == [model.canvas] * 2
    assert np.asarray(first.images[0]).tolist() != np.asarray(second.images[0]).tolist()
    assert chat("what is it?", modality="text").text
    shown = PILImage.fromarray(render(scene(1, 1, SMALL), model.canvas[0]))
    edited = Chat(model, seed=3)("turn it green", [shown], modality="image")
    assert len(edited.images) == 1
    assert Chat(model)("what is it?", [shown], modality="text").text
    kinds = [type(part) for part in chat.document.parts]
    assert kinds == [Text, Image, Text, Image, Text, Text]
    # The conversation read anew goes on as the one that was held.
    again = Chat(model, chat.sampling)
    again.resume(chat.document)
    np.testing.assert_array_equal(
        np.asarray(chat("draw", modality="image").images[0]),
        np.asarray(again("draw", modality="image").images[0]),
    )


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


def test_there_is_no_plain_model_of_it(run: LmRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image head scale, which no model of transformers has"):
        export(run.output / "bundle", tmp_path / "exported")


def test_settings_are_refused_before_anything_is_written(
    tmp_path, shards, tokenizer, scales, run: LmRun
) -> None:
    small = LmRun.__dataclass_fields__["loader"].default_factory()
    small = replace(small, images=ImageRule(target_pixels=16 * 16), sequence_length=512)
    run = replace(run, output=tmp_path / "run")
    plain = recipe(tmp_path / "run", shards, scales, 1)
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
