"""Runs of every head with a loss or an order of its own: learned, resumed, saved, talked to.

What only one of them has is in a file of its own.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from head_models import request
from PIL import Image as PILImage
from tiny_runs import exact, metrics

from unimodal.bundle import load, save_bundle
from unimodal.chat import Chat
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.document import Image, Text
from unimodal.generation import generate
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, MASTER, newest
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.plan.plan import plan
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Case:
    """A head, what its golden file holds of each step, a weight of its own, what a run of
    next_code that goes on from its bundle is told, and how it draws here.
    """

    head: str
    golden: tuple[str, ...] = ("loss",)
    weight: str = "model.layers.0.mlp.up_proj.weight"
    other_head: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("masked", other_head=r"model\.head next_code is masked there"),
    Case("scale", weight="embedder.scales.weight", other_head=r"model\.head next_code is scale th"),
    Case("flow", ("loss_text", "loss_image"), "head.project.weight",
         "next_code learns codes, and the image tokenizer makes latents", {"image_steps": 3}),
]  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.head)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def run(case: Case, head_run: Callable[[str], LmRun], one_thread: None) -> LmRun:
    return head_run(case.head)


@pytest.fixture(scope="module")
def model(case: Case, run: LmRun) -> Model:
    found = load(run.output / "bundle")
    more = {"max_text_tokens": 6, "max_images": 1, **case.settings}
    return replace(found, sampling=replace(found.sampling, **more))


def content(model: Model) -> list:
    """The codes or latents of a drawing."""
    sampling = replace(model.sampling, seed=1)
    ((image,),) = generate(model, [request("draw a red circle")], sampling, "image")
    assert isinstance(image, Image)
    return (image.codes if image.latents is None else image.latents).tolist()


def test_golden_losses(case: Case, run: LmRun) -> None:
    lines, golden = metrics(run.output), GOLDEN / f"{case.head}_losses.json"
    found = np.array([[line[name] for name in case.golden] for line in lines])
    if os.environ.get("UNIMODAL_WRITE_GOLDEN"):
        golden.write_text(json.dumps(found.tolist()))
    expected = np.array(json.loads(golden.read_text())).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=5e-3)
    assert all(line["targets_image"] > 0 and line["flops_per_s"] > 0 for line in lines)


def test_it_goes_on_bit_for_bit(tmp_path, run: LmRun) -> None:
    """Behind a stop after three steps, it takes the steps of the run that never stopped."""
    again = replace(run, output=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        for num_steps in (3, 6):
            lm.train(replace(again, schedule=replace(run.schedule, num_steps=num_steps)))
    assert exact(tmp_path / "run") == exact(run.output)[:6]


def test_its_bundle_has_the_averaged_weights(case: Case, run: LmRun) -> None:
    saved, state = newest(run.output), load(run.output / "bundle").transformer.state_dict()
    for name in {"model.layers.0.mlp.up_proj.weight", case.weight}:
        mean, master = saved.whole(name, EMA), saved.whole(name, MASTER)
        assert torch.equal(state[name], mean.bfloat16().float()) and not torch.equal(mean, master)


def test_held_out_losses_of_images(tmp_path: Path, case: Case, run: LmRun) -> None:
    """They come beside the entropy of codes; latents have none."""
    steps = replace(run.schedule, num_steps=1, decay_steps=0, warmup_steps=0)
    held_out = HeldOutConfig(run.sources, rows=1, every_steps=1)
    lm.train(replace(run, output=tmp_path / "run", schedule=steps, held_out=held_out))
    (name,) = run.sources
    found = metrics(tmp_path / "run")[-1]
    assert found[f"held_out.{name}.image"] > 0 and found[f"held_out.{name}.text_unigram"] > 0
    assert (f"held_out.{name}.image_unigram" in found) == (case.head != "flow")


def test_a_bundle_is_gone_on_from(tmp_path, case: Case, run: LmRun) -> None:
    more = replace(run, output=tmp_path / "more", weights=run.output / "bundle", text_ids=None)
    lm.train(replace(more, schedule=replace(run.schedule, num_steps=1)))
    losses = [line["loss_image"] for line in metrics(run.output)]
    assert abs(metrics(more.output)[0]["loss_image"] - np.mean(losses[-10:])) < 0.8
    assert more.model is not None
    plain = replace(more.model, head="next_code", masked=None, flow=None)
    with pytest.raises(ValueError, match=case.other_head):
        lm.train(replace(more, model=plain, output=tmp_path / "other"))


def test_plans_know_its_parameters(run: LmRun, model: Model) -> None:
    made = plan(run, 1, 80.0)
    assert made.parameters == sum(one.numel() for one in model.transformer.parameters())


def test_it_survives_saving(case: Case, model: Model, tmp_path: Path) -> None:
    once = load(save_bundle(tmp_path / "once", model))
    again = load(save_bundle(tmp_path / "again", once))
    assert content(model) == content(once) == content(again)
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["image"]["head"] == case.head
    assert again.grid == model.grid and again.canvas == (64, 64) and again.sizes == model.sizes


def test_chat_draws_answers_and_edits(model: Model) -> None:
    chat = Chat(model, seed=3, guidance=2.0)
    first = chat("draw a red circle", modality="image")
    second = chat("make it blue", modality="image")
    assert [one.size for one in (*first.images, *second.images)] == [model.canvas] * 2
    assert np.asarray(first.images[0]).tolist() != np.asarray(second.images[0]).tolist()
    answer = chat("what is it?", modality="text")
    assert answer.text and not answer.images
    kinds = [type(part) for part in chat.document.parts]
    assert kinds == [Text, Image, Text, Image, Text, Text]
    # The conversation read anew goes on as the one that was held.
    again = Chat(model, chat.sampling)
    again.resume(chat.document)
    np.testing.assert_array_equal(
        np.asarray(chat("draw", modality="image").images[0]),
        np.asarray(again("draw", modality="image").images[0]),
    )


def test_chat_sees_what_it_is_shown(model: Model) -> None:
    shown = PILImage.fromarray(render(scene(1, 1, SMALL), model.canvas[0]))
    assert len(Chat(model, seed=3)("turn it green", [shown], modality="image").images) == 1
    assert Chat(model)("what is it?", [shown], modality="text").text


def test_there_is_no_plain_model_of_it(case: Case, run: LmRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"head {case.head}, which no model of transformers has"):
        export(run.output / "bundle", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
