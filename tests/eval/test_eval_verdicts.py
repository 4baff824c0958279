"""Verdicts on images rendered as a perfect or a wrong model would draw them, rule by rule."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.requests import RELATIONS, TASKS, Request, box_relations, granted, request
from unimodal.data.scenes.wording import Claim, caption
from unimodal.data.scenes.world import Background, Scene, SceneObject, generator, render, scene
from unimodal.eval.answer import Answer
from unimodal.eval.verdicts import (
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_question,
    names_held_out_pair,
)

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/data/geneval/golden_vectors.json"
GREY = Background("plain", "grey")
RED, BLUE = Claim(1, None, "red", "circle"), Claim(1, None, "blue", "square")


def drawn(*objects: tuple[str, str, float, float], ground: Background = GREY) -> Answer:
    """A reply with the image of small objects (colour, shape, x, y)."""
    found = tuple(SceneObject(shape, colour, "small", x, y) for colour, shape, x, y in objects)
    return Answer("", (render(Scene(ground, found)),))


def wanted(task: str, *claims: Claim, relation: str | None = None) -> Request:
    return Request(task, claims, relation, None, "", 0)


@pytest.mark.parametrize("task", TASKS)
def test_perfect_drawings_are_right(task):
    for index in range(10):
        rng = generator(7, index, part=1)
        asked = request(task, rng, held_out=False, pairs=None)
        reply = Answer("", (render(granted(asked, rng)),))
        assert judge_drawing(asked, reply).reason == "", asked.text


def test_more_objects_may_be_there_but_not_when_counting():
    extra = drawn(
        ("red", "circle", 0.2, 0.2), ("blue", "square", 0.7, 0.7), ("pink", "star", 0.7, 0.2)
    )
    assert judge_drawing(wanted("attribute binding", RED, BLUE), extra).reason == ""
    assert judge_drawing(wanted("single object", RED), extra).reason == ""
    three = drawn(
        *(("red", "circle", x, 0.5) for x in (0.18, 0.5, 0.82)), ("pink", "star", 0.2, 0.8)
    )
    assert judge_drawing(wanted("counting", Claim(3, None, None, "circle")), three).reason == ""
    too_many = judge_drawing(wanted("counting", Claim(2, None, None, "circle")), three)
    assert too_many.reason == "3 of 2 circle"
    too_few = judge_drawing(wanted("counting", Claim(4, None, None, "circle")), three)
    assert too_few.reason == "3 of 4 circle"
    assert judge_drawing(wanted("two objects", RED, RED), three).reason == ""


def test_swapped_colours_are_not_bound():
    reply = drawn(("blue", "circle", 0.2, 0.2), ("red", "square", 0.7, 0.7))
    assert (
        judge_drawing(wanted("attribute binding", RED, BLUE), reply).reason == "0 of 1 red circle"
    )


def test_one_object_does_not_serve_twice():
    reply = drawn(("red", "circle", 0.2, 0.2), ("blue", "square", 0.7, 0.7))
    both = wanted("two objects", Claim(1, None, None, "circle"), Claim(1, None, "red", None))
    assert "twice" in judge_drawing(both, reply).reason


def test_size_counts_when_it_was_asked_for():
    reply = drawn(("red", "circle", 0.5, 0.5))
    assert judge_drawing(wanted("single object", replace(RED, size="small")), reply).reason == ""
    large = judge_drawing(wanted("single object", replace(RED, size="large")), reply)
    assert large.reason == "0 of 1 large red circle"


@pytest.mark.parametrize(
    ("relation", "x", "y"),
    [("left of", 0.2, 0.5), ("right of", 0.8, 0.5), ("above", 0.5, 0.2), ("below", 0.5, 0.8)],
)
def test_relations_by_images(relation, x, y):
    reply = drawn(("red", "circle", x, y), ("blue", "square", 0.5, 0.5))
    for other in RELATIONS:
        verdict = judge_drawing(wanted("position", RED, BLUE, relation=other), reply)
        expected = "" if other == relation else f"red circle is not {other} blue square"
        assert verdict.reason == expected


def test_position_rule_by_hand():
    # boxes of 20 x 20: the dead zone is 0.1 * (20 + 20) = 4 along each axis
    assert box_relations(4, 0, 40, 40) == frozenset()
    assert box_relations(9, 0, 40, 40) == {"right of"}  # (9 - 4) / 9 = 0.56
    assert box_relations(7.9, 0, 40, 40) == frozenset()  # 3.9 / 7.9 = 0.49
    assert box_relations(8.1, 0, 40, 40) == {"right of"}  # 4.1 / 8.1 = 0.51
    assert box_relations(-40, -40, 40, 40) == {"left of", "above"}  # 36 / 56.6 = 0.64 both
    assert box_relations(30, 12, 40, 40) == {"right of"}  # 8 / 32.3 = 0.25 down
    assert box_relations(0, 30, 40, 400) == frozenset()  # heights of 200: a dead zone of 40


@pytest.mark.skipif(not GOLDEN.exists(), reason="GenEval's golden vectors are not at hand")
def test_position_rule_equals_genevals_own():
    def parts(a, b, k):
        return (a[k] + a[k + 2] - b[k] - b[k + 2]) / 2, a[k + 2] - a[k] + b[k + 2] - b[k]

    vectors = json.loads(GOLDEN.read_text())["relative_position"]
    assert len(vectors) == 150
    for vector in vectors:
        (dx, widths), (dy, heights) = (parts(vector["a"], vector["b"], k) for k in (0, 1))
        assert box_relations(dx, dy, widths, heights) == set(vector["a_relative_to_b"])


def test_what_is_no_image_is_wrong():
    asked = wanted("single object", RED)
    assert judge_drawing(asked, Answer("sorry")).reason == "no images, 'sorry'"
    one = drawn(("red", "circle", 0.5, 0.5)).images[0]
    assert judge_drawing(asked, Answer("", (one, one))).reason == "2 images"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    verdict = judge_drawing(asked, Answer("", (noise,)))
    assert verdict.answer is None and verdict.reason.startswith("unreadable: ")


def test_the_answer_is_the_scene_that_was_read():
    answer = judge_drawing(wanted("single object", RED), drawn(("red", "circle", 0.5, 0.25))).answer
    (obj,) = answer["objects"]
    assert (obj["shape"], obj["colour"], obj["size"]) == ("circle", "red", "small")
    assert (obj["x"], obj["y"]) == pytest.approx((0.5, 0.25), abs=0.01)
    assert answer["background"] == ["plain", "grey"]


@pytest.mark.parametrize("kind", EDITS)
def test_edits(kind):
    changes = [edit(scene(3, index), kind, generator(3, index, part=1)) for index in range(30)]
    for change in [change for change in changes if change is not None][:8]:
        assert judge_edit(change, Answer("", (render(change.after),))).reason == ""
        assert judge_edit(change, Answer("", (render(change.before),))).reason != ""


def test_an_edit_that_touches_something_else_is_wrong():
    before = Scene(
        GREY,
        (
            SceneObject("circle", "red", "small", 0.2, 0.2),
            SceneObject("star", "blue", "large", 0.7, 0.7),
        ),
    )
    change = edit(before, "remove", generator(0, 0))
    assert change is not None
    (left,) = change.after.objects
    shifted = replace(change.after, objects=(replace(left, x=left.x - 0.1),))
    assert "should be" in judge_edit(change, Answer("", (render(shifted),))).reason
    recoloured = replace(change.after, objects=(replace(left, colour="green"),))
    assert judge_edit(change, Answer("", (render(recoloured),))).reason.startswith("no ")
    elsewhere = replace(change.after, background=Background("plain", "mint"))
    assert judge_edit(change, Answer("", (render(elsewhere),))).reason == "the background changed"
    assert judge_edit(change, Answer("", (render(before),))).reason == "2 objects instead of 1"


@pytest.mark.parametrize("kind", QUESTIONS)
def test_questions(kind):
    asked = next(
        found
        for index in range(100)
        if (found := ask(scene(4, index), kind, generator(4, index, part=1))) is not None
    )
    assert judge_question(asked, Answer(asked.answer)).reason == ""
    assert judge_question(asked, Answer(f"{asked.answer.capitalize()}.")).reason == ""
    wrong = judge_question(asked, Answer("elephant"))
    assert wrong.answer == "elephant" and asked.answer in wrong.reason
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert judge_question(asked, Answer(asked.answer, (image,))).reason == "1 image"


SHOWN = Scene(
    GREY,
    (
        SceneObject("circle", "red", "small", 0.2, 0.2),
        SceneObject("circle", "red", "large", 0.7, 0.7),
        SceneObject("star", "blue", "small", 0.7, 0.2),
    ),
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two red circles and a blue star", ""),
        ("a blue star and two red circles on a grey background.", ""),
        ("a small red circle, a large red circle and a small blue star", ""),
        ("a red circle in the top left, a red circle and a blue star", ""),
        ("two red circles", "2 of 3 objects told"),
        ("two circles and a blue star", "no colour or shape of circle"),
        ("three red circles", "2 of 3 red circle"),
        ("two small red circles and a blue star", "1 of 2 small red circle"),
        ("two red circles and a blue star on a mint background", "another background"),
        ("a dog and a cat", "not a caption: 'a dog and a cat'"),
        ("", "not a caption: ''"),
    ],
)
def test_captions(text, reason):
    assert judge_caption(SHOWN, Answer(text)).reason == reason


def test_captions_that_the_world_writes_are_right():
    for index in range(100):
        shown = scene(6, index)
        text = caption(shown, generator(6, index, part=1), held_out=index % 2 == 0)
        assert judge_caption(shown, Answer(text)).reason == "", text


def test_held_out_pairs_are_those_named():
    found = [
        names_held_out_pair(request("attribute binding", generator(8, k), pairs=None))
        for k in range(400)
    ]
    assert 0.13 < np.mean(found) < 0.27  # a fifth, with room for three standard errors
    assert not names_held_out_pair(wanted("two objects", replace(RED, colour=None), BLUE))
    for pairs in (True, False):
        asked = request("attribute binding", generator(9, 0), pairs=pairs)
        assert names_held_out_pair(asked) == pairs
