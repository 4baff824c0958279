"""The score of requests with boxes: what stands in its box, by centre and by sides."""

from dataclasses import replace

import numpy as np
import pytest
from other_architectures import with_boxes

import unimodal
from unimodal.data.scenes.world import Scene, fits, render
from unimodal.eval.answer import Answer
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.scenes import evaluate
from unimodal.eval.verdicts import CENTRES, SIDES
from unimodal.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return unimodal.load()


def evaluator(model: Model, samples: int) -> SceneEvaluator:
    return SceneEvaluator(make_requests("layout", samples, 5), model.sampling, 5, 64)


def test_requests_have_a_box_for_each_object() -> None:
    found = make_requests("layout", 12, seed=4)
    assert [one.kind for one in found[::12]] == ["one box", "two boxes", "three boxes",
                                                 "four boxes"]  # fmt: skip
    for one in found:
        assert len(one.boxes) == len(one.ideal.objects) == len(one.expected)
        assert all(part.box is not None for part in one.boxes)
    assert 0.05 < np.mean([one.held_out_words for one in found]) < 0.45


def moved(shown: Scene, pixels: float) -> Scene | None:
    """Return the scene with its first object so many pixels further right or left."""
    first, *others = shown.objects
    for by in (pixels / 64, -pixels / 64):
        other = replace(first, x=first.x + by)
        if fits(other, others):
            return Scene(shown.background, (other, *others))
    return None


def test_what_is_within_four_pixels_is_in_place(model: Model) -> None:
    asked = evaluator(model, 10)
    found = {0.0: [], 3.0: [], 6.0: []}
    for one in asked.requests():
        for pixels, verdicts in found.items():
            shown = moved(one.ideal, pixels)
            if shown is not None:
                verdicts.append(asked.score(one, Answer("", (render(shown),))))
    for pixels, verdicts in found.items():
        offsets = [one[CENTRES][0] for one in verdicts]
        assert len(verdicts) > 15 and abs(np.median(offsets) - pixels) < 0.5
        assert all(one["right"] == (pixels < 4) for one in verdicts), pixels
    scores = asked.summary(found[0.0])
    assert scores["overall"].value == 1 and scores["boxes_by_centre"].value == 1
    assert scores["boxes_by_centre"].n == 100 and scores["boxes_by_sides"].value == 1


def test_another_thing_in_the_box_and_no_image_are_wrong(model: Model) -> None:
    asked = evaluator(model, 3)
    requests = [one for one in asked.requests() if one.kind == "one box"]
    for one, other in zip(requests, requests[1:], strict=False):
        (obj,) = one.ideal.objects
        shape = "star" if obj.shape != "star" else "circle"
        wrong = Scene(one.ideal.background, (replace(obj, shape=shape),))
        verdict = asked.score(one, Answer("", (render(wrong),)))
        assert not verdict["right"] and verdict[CENTRES] == [None] and verdict[SIDES] == [None]
        assert verdict["reason"].startswith("not in place: ")
        words = asked.score(one, Answer("no"))
        assert not words["right"] and words[CENTRES] == [None]
        assert other.prompt


def test_a_model_without_boxes_is_not_measured() -> None:
    with pytest.raises(ValueError, match="layout: this model was not trained on boxes"):
        evaluate(with_boxes(unimodal.load(), False), 1, 5, parts=("layout",))


def test_the_score_has_an_interval(model: Model) -> None:
    report, _ = evaluate(model, 1, 5, parts=("layout",), max_objects=2)
    scores = report["scores"]["layout"]
    assert scores["overall"].low <= scores["overall"].value <= scores["overall"].high
    assert scores["boxes_by_centre"].n == 3
    assert scores["perfect_images"]["overall"].value == 1
    assert len(report["predictions"][0]["expected"]) == 1
