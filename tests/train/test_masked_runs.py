"""Runs of the masked head: learned, resumed, averaged, saved, talked to, scored, refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import exact, metrics, recipe

from unimodal.bundle import BundleError, load, save_bundle
from unimodal.chat import Chat
from unimodal.config import ConfigError, of_tree
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.document import Document, Image, Text
from unimodal.eval.scenes import evaluate
from unimodal.generation import generate
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, MASTER, newest
from unimodal.train.initial import ShapeConfig
from unimodal.train.plan.plan import plan
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[1] / "golden" / "masked_losses.json"
SCHEDULE = MaskSchedule(steps=4)


def shaped(run: LmRun, **changes: object) -> LmRun:
    assert run.model is not None
    return replace(
        run, model=replace(run.model, **{"head": "masked", "masked": SCHEDULE} | changes)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, tokenizer) -> LmRun:
    """A run of 50 steps with averaged weights."""
    run = shaped(recipe(tmp_path_factory.mktemp("masked") / "run", shards, tokenizer, 50))
    run = replace(run, optimizer=replace(run.optimizer, ema_decay=0.9))
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
    assert all(
        line["targets_image"] > 0 and line["flops_per_s"] > 0 for line in metrics(run.output)
    )


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
    name = "model.layers.0.mlp.up_proj.weight"
    mean, master = saved.whole(name, EMA), saved.whole(name, MASTER)
    weight = model.transformer.state_dict()[name]
    assert torch.equal(weight, mean.bfloat16().float()) and not torch.equal(mean, master)


@pytest.mark.parametrize("changes", [{"factorised": True, "addresses": True, "tied_head": False}])
def test_other_shapes_train(tmp_path, shards, tokenizer, changes: dict) -> None:
    other = shaped(recipe(tmp_path / "run", shards, tokenizer, 3), **changes)
    found = load(lm.train(other))
    assert len(set(drawn(found, Sampling(seed=1)))) > 1
    assert found.transformer.state_dict()["embedder.rows.weight"].any()


def test_a_bundle_is_gone_on_from(tmp_path, run: LmRun) -> None:
    more = replace(run, output=tmp_path / "more", weights=run.output / "bundle", text_ids=None)
    lm.train(replace(more, schedule=replace(run.schedule, num_steps=1)))
    losses = [line["loss_image"] for line in metrics(run.output)]
    assert abs(metrics(more.output)[0]["loss_image"] - np.mean(losses[-10:])) < 0.8
    with pytest.raises(ValueError, match=r"model\.head next_code is masked there"):
        lm.train(replace(shaped(more, head="next_code", masked=None), output=tmp_path / "other"))


def test_plans_know_its_parameters(run: LmRun, model: Model) -> None:
    made = plan(run, 1, 80.0)
    assert made.parameters == sum(one.numel() for one in model.transformer.parameters())


# --- bundles, chat, scores ----------------------------------------------------------------------


def test_it_survives_saving(model: Model, tmp_path: Path) -> None:
    again = load(save_bundle(tmp_path / "again", model))
    assert drawn(model, Sampling(seed=1)) == drawn(again, Sampling(seed=1))
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["image"]["masked"] == {
        "schedule": "cosine", "steps": 4, "choice_temperature": 4.5
    }  # fmt: skip
    assert "mask" in stored["vocabulary"]["special_tokens"]


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


def test_it_is_scored(model: Model) -> None:
    report, cells = evaluate(model, 1, 10**6, parts=("drawing", "questions", "edits"))
    kept = [one["codes"] for one in report["predictions"] if one.get("codes")]
    assert report["scores"] and cells and kept, "some requests were answered by an image"
    assert all(len(codes) == model.grid.size for images in kept for codes in images)


# --- what is refused ----------------------------------------------------------------------------


def test_there_is_no_plain_model_of_it(run: LmRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image head masked, which no model of transformers has"):
        export(run.output / "bundle", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_head_that_is_not_known_is_named(model: Model, tmp_path: Path) -> None:
    from unimodal import manifest

    bundle = save_bundle(tmp_path / "bundle", model)
    config = bundle / "config.json"
    config.write_text(config.read_text().replace('"head": "masked"', '"head": "imagined"'))
    manifest.write(bundle)
    with pytest.raises(BundleError, match="image head 'imagined': there is none of that name"):
        load(bundle)


def test_settings_are_refused_before_anything_is_written(tmp_path, shards, tokenizer) -> None:
    run = recipe(tmp_path / "run", shards, tokenizer, 1)
    for wrong, why in (
        (shaped(run, head="next_code"), r"model\.masked: the settings of another head .*next_code"),
        (replace(run, sampling=Sampling(image_steps=8)), "head next_code has no image_steps 8"),
    ):
        with pytest.raises(ValueError, match=why):
            lm.train(wrong)
        assert not (tmp_path / "run" / "text.json").exists()
    with pytest.raises(ConfigError, match="steps 0: at least 1"):
        of_tree(ShapeConfig, {"head": "masked", "masked": {"steps": 0}})
