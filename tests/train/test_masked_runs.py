"""Runs of the masked head: what only it has (see test_head_runs.py)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_runs import masked
from tiny_runs import metrics, recipe

from unimodal.bundle import BundleError, load, save_bundle
from unimodal.config import ConfigError, of_tree
from unimodal.document import Document, Text
from unimodal.eval.scenes import evaluate
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.train import lm
from unimodal.train.initial import ShapeConfig
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(head_run: Callable[[str], LmRun], one_thread: None) -> LmRun:
    return head_run("masked")


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    found = load(run.output / "bundle")
    return replace(found, sampling=replace(found.sampling, max_text_tokens=6, max_images=1))


def drawn(model: Model, sampling: Sampling) -> list[int]:
    documents = [Document((Text("draw a red circle", role="user"),))]
    ((image,),) = generate(model, documents, sampling, "image")
    return image.codes[:, 0].tolist()


# --- training -----------------------------------------------------------------------------------


def test_codes_are_learned(run: LmRun) -> None:
    found = [line["loss_image"] for line in metrics(run.output)]
    assert abs(found[0] - np.log(64)) < 0.3, "64 codes at random"
    assert np.mean(found[-10:]) < found[0] - 0.5


@pytest.mark.parametrize("changes", [{"factorised": True, "addresses": True, "tied_head": False}])
def test_other_shapes_train(tmp_path, shards, tokenizer, changes: dict) -> None:
    other = masked(recipe(tmp_path / "run", shards, tokenizer, 3), **changes)
    found = load(lm.train(other))
    assert len(set(drawn(found, Sampling(seed=1)))) > 1
    assert found.transformer.state_dict()["embedder.rows.weight"].any()


def test_a_run_goes_on_reading_less(tmp_path, shards, tokenizer) -> None:
    begun = masked(recipe(tmp_path / "run", shards, tokenizer, 2))
    lm.train(begun)
    less = replace(begun.loader, unread_share=0.8)
    on = replace(begun, loader=less, schedule=replace(begun.schedule, num_steps=8))
    with pytest.raises(ValueError, match=r"loader.unread_share 0.0 -> 0.8; holds from the next"):
        lm.train(on)
    lm.train(on, accept_change=True)
    found = metrics(begun.output)
    assert [line["step"] for line in found] == list(range(8))
    met = np.diff([0, *(line["documents"] for line in found)])
    assert met[3:].mean() > 1.2 * met[:2].mean(), "more documents in as many positions"


# --- bundles, chat, scores ----------------------------------------------------------------------


def test_a_bundle_has_its_schedule_and_its_token(run: LmRun) -> None:
    stored = json.loads((run.output / "bundle" / "config.json").read_text())
    assert stored["image"]["masked"] == {
        "schedule": "cosine", "steps": 4, "choice_temperature": 4.5
    }  # fmt: skip
    assert "mask" in stored["vocabulary"]["special_tokens"]


def test_it_is_scored(model: Model) -> None:
    report, cells = evaluate(model, 1, 10**6, parts=("drawing", "questions", "edits"))
    kept = [one["codes"] for one in report["predictions"] if one.get("codes")]
    assert report["scores"] and cells and kept, "some requests were answered by an image"
    assert all(len(codes) == model.grid.size for images in kept for codes in images)


# --- what is refused ----------------------------------------------------------------------------


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
        (masked(run, head="next_code"), r"model\.masked: the settings of another head .*next_code"),
        (replace(run, sampling=Sampling(image_steps=8)), "head next_code has no image_steps 8"),
    ):
        with pytest.raises(ValueError, match=why):
            lm.train(wrong)
        assert not (tmp_path / "run" / "text.json").exists()
    with pytest.raises(ConfigError, match="steps 0: at least 1"):
        of_tree(ShapeConfig, {"head": "masked", "masked": {"steps": 0}})
