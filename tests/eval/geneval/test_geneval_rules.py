"""GenEval's verdicts: equal to the official script's, and each rule by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unimodal.eval.geneval.check import check
from unimodal.eval.geneval.prompts import Prompt, Wanted
from unimodal.eval.geneval.rules import Found, Rules, iou, judge, relative_position, to_colour

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/data/geneval/golden_vectors.json"
RULES = Rules()
CAT = Prompt("single_object", (Wanted("cat", 1),), "a photo of a cat")
TWO = Prompt("counting", (Wanted("cat", 2),), "a photo of two cats", (("cat", 3),))
RED = Prompt("colors", (Wanted("cat", 1, "red"),), "a photo of a red cat")


def boxes(*scores: float) -> np.ndarray:
    """Boxes of 10 x 10 pixels in a row, with these scores."""
    return np.array([[20 * k, 0, 20 * k + 10, 10, score] for k, score in enumerate(scores)])


def cats(*scores: float, colours: list[str | None] | None = None) -> Found:
    return Found({"cat": boxes(*scores)}, {} if colours is None else {"cat": colours})


needs_golden = pytest.mark.skipif(
    not GOLDEN.exists(), reason="needs shared/data/geneval beside the repository"
)


@needs_golden
def test_every_golden_vector_agrees():
    vectors = json.loads(GOLDEN.read_text())
    assert len(vectors["images"]) == 180 and len(vectors["relative_position"]) == 150
    assert check(GOLDEN) == []


@needs_golden
def test_a_golden_vector_that_disagrees_is_told(tmp_path):
    vectors = json.loads(GOLDEN.read_text())
    vectors["images"][0]["correct"] ^= True
    vectors["images"][1]["reason"] = "another"
    vectors["images"][2]["kept"] = {}
    vectors["images"][6]["color_by_score"] = {}
    vectors["relative_position"][0]["a_relative_to_b"] = ["above"]
    vectors["relative_position"][1]["iou"] += 0.01
    file = tmp_path / "golden.json"
    file.write_text(json.dumps(vectors))
    told = check(file)
    assert [line.partition(" ")[0].rstrip(":") for line in told] == [
        "images[0]", "images[1]", "images[2]", "images[6]",
        "relative_position[0]", "relative_position[1]",
    ]  # fmt: skip
    assert "the colour of refrigerator at" in told[3]
    assert ["correct" in told[0], "reason" in told[1], "kept" in told[2]] == [True] * 3


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"images": [], "relative_position": []}',
     '{"images": [{"metadata": {}}], "relative_position": [{}]}',
     '{"images": [{}], "relative_position": [{}]}', '{"images": [3], "relative_position": [3]}'],
)  # fmt: skip
def test_a_file_without_golden_vectors_checks_nothing(tmp_path, content):
    file = tmp_path / "golden.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="golden"):
        check(file)


def test_a_box_must_be_above_its_threshold():
    assert not judge(CAT, cats(0.3), RULES).right
    assert judge(CAT, cats(0.301), RULES).right
    assert judge(TWO, cats(0.95, 0.91, 0.9), RULES).right  # the third does not count
    assert judge(TWO, cats(0.95, 0.9), RULES).reason == "expected cat>=2, found 1"
    assert judge(TWO, cats(0.95, 0.91, 0.92), RULES).reason == "expected cat<3, found 3"
    assert judge(TWO, cats(0.5, 0.6), replace(RULES, counting_confidence=0.3)).right


def test_at_most_sixteen_of_a_class_are_kept_the_surest_first():
    scores = [0.5 + k / 100 for k in range(20)]
    kept = judge(CAT, cats(*scores), RULES).kept["cat"]
    assert [box[4] for box in kept] == scores[:3:-1] and len(kept) == 16


def test_boxes_that_overlap_are_dropped_only_when_asked_to():
    near = Found({"cat": np.array([[0, 0, 9, 9, 0.5], [0, 0, 9, 8, 0.6], [50, 0, 59, 9, 0.4]])})
    assert len(judge(CAT, near, RULES).kept["cat"]) == 3
    kept = judge(CAT, near, replace(RULES, most_overlap=0.5)).kept["cat"]
    assert [box[4] for box in kept] == [0.6, 0.4]
    assert iou(near.boxes["cat"][0], near.boxes["cat"][1]) == pytest.approx(90 / 100)


def test_only_the_surest_box_has_a_colour_to_judge():
    found = cats(0.5, 0.9, colours=["red", "blue"])
    assert judge(RED, found, RULES).reason == "expected red cat>=1, found 0 red; and 1 blue"
    assert judge(RED, cats(0.9, 0.5, colours=["red", "blue"]), RULES).right
    assert to_colour(RED, found.boxes, RULES) == {"cat": [1]}
    assert to_colour(CAT, found.boxes, RULES) == {}
    with pytest.raises(ValueError, match="colour of cat at .* was not recorded"):
        judge(RED, cats(0.5, 0.9, colours=["red", None]), RULES)
    assert not judge(RED, cats(0.9, colours=["none"]), RULES).right


def test_a_position_needs_a_target_that_is_right():
    wanted = Wanted("dog", 1, "red"), Wanted("cat", 1, position=("left of", 0))
    asked = Prompt("position", wanted, "a photo of a cat left of a red dog")
    dog = np.array([[100, 0, 110, 10, 0.9]])

    def reason(*colours: str) -> str:
        colour = {"dog": list(colours)}
        return judge(asked, Found({"cat": boxes(0.9), "dog": dog}, colour), RULES).reason

    assert reason("red") == ""
    assert reason("blue").endswith("\nno target for cat to be left of")
    turned = Found({"cat": dog, "dog": boxes(0.9)}, {"dog": ["red"]})
    told = judge(asked, turned, RULES).reason
    assert told == "expected cat left of target, found right of target"


def test_relations_can_hold_together_or_not_at_all():
    a, b = np.array([0, 0, 10, 10]), np.array([40, 40, 50, 50])
    assert relative_position(a, b) == {"left of", "above"}
    assert relative_position(a, a + [1, 0, 1, 0]) == frozenset()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[0, 0, 1, 1, float("nan")]], "no NaN"),
        ([[0, 0, 1, 1, 1.5]], "must be 0 to 1"),
        ([[0, 0, float("inf"), 1, 0.5]], "no NaN"),
        ([[5, 0, 1, 1, 0.5]], "ends before it begins"),
        ([[0, 0, 1, 1]], "a box is"),
        (["cat"], "a box is"),
        ("cat", "a box is"),
        (3, "a box is"),
    ],
)
def test_detections_that_no_detector_makes(rows, told):
    with pytest.raises(ValueError, match=told) as error:
        Found.of({"boxes": {"cat": rows}}, "line 7")
    assert str(error.value).startswith("line 7")


def test_colours_that_do_not_match_the_boxes():
    row = [0, 0, 1, 1, 0.5]
    with pytest.raises(ValueError, match="2 colours of cat, one for each"):
        Found.of({"boxes": {"cat": [row]}, "colours": {"cat": ["red", "red"]}}, "x")
    with pytest.raises(ValueError, match="no colour 'teal'"):
        Found.of({"boxes": {"cat": [row]}, "colours": {"cat": ["teal"]}}, "x")


def test_thresholds_that_make_no_sense():
    assert RULES.problems() == []
    found = Rules(confidence=2, most_overlap=-1, most_objects=0).problems()
    assert [line.split()[0] for line in found] == ["confidence", "most_overlap", "most_objects"]
