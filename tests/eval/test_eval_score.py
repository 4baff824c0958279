"""The score writer: scores by kind, what is held out, the recipe, files whole or absent."""

import json
import sys
from importlib import metadata
from types import ModuleType

import pytest

from unimodal.eval.intervals import mean, proportion
from unimodal.eval.score import (
    Prediction,
    apart,
    by_kind,
    commit,
    digest,
    recipe,
    write,
)


def prediction(kind: str, right: bool, held_out: bool = False) -> Prediction:
    return {
        "part": "drawing",
        "kind": kind,
        "right": right,
        "held_out_words": held_out,
        "held_out_pair": False,
    }


FOUND = [
    prediction("colours", True),
    prediction("colours", True),
    prediction("colours", False, held_out=True),
    prediction("counting", False),
]


def test_overall_is_the_mean_of_kinds():
    scores = by_kind(FOUND)
    assert list(scores) == ["overall", "colours", "counting"]
    assert scores["colours"] == proportion(2, 3) and scores["counting"] == proportion(0, 1)
    assert scores["overall"].value == pytest.approx(1 / 3)
    assert scores["overall"].n == 4


def test_values_are_averaged_where_they_are_no_verdicts():
    found = [{"kind": "other", "value": value} for value in (0.3, 1.0, 0.6)]
    scores = by_kind([*found, prediction("yes/no", True)])
    assert scores["other"] == mean([0.3, 1.0, 0.6]) and scores["yes/no"] == proportion(1, 1)


def test_held_out_is_compared_over_kinds_that_have_both():
    scores = apart(FOUND, "held_out_words")
    assert scores["seen"] == by_kind(FOUND[:2])
    assert scores["held_out"] == by_kind(FOUND[2:3])
    nothing = apart(FOUND, "held_out_pair")
    assert nothing["held_out"]["overall"].value is None


def test_digest_depends_on_every_prompt_and_their_order():
    assert digest(["a", "b"]) == digest(["a", "b"])
    assert len({digest(p) for p in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5


def test_recipe_tells_where_and_with_what():
    found = recipe(evaluation="scenes", seed=3)
    assert found["seed"] == 3 and found["versions"]["torch"] and found["python"]
    assert found["commit"] == commit()


def test_packages_that_score_are_told_where_they_are_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    assert "transformers" not in recipe()["versions"]
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    assert recipe()["versions"]["transformers"] == metadata.version("transformers")


def test_the_file_holds_everything(tmp_path):
    path = tmp_path / "new" / "scores.json"
    write(
        path, {"scores": {"drawing": by_kind(FOUND)}, "recipe": {"seed": 1}, "predictions": FOUND}
    )
    report = json.loads(path.read_text())
    assert set(report["scores"]["drawing"]["colours"]) == {"value", "low", "high", "n"}
    assert [p["right"] for p in report["predictions"]] == [True, True, False, False]
    assert report["recipe"] == {"seed": 1}
    lines = path.read_text().splitlines()
    assert sum(line.startswith('  {"part"') for line in lines) == len(FOUND)


def test_no_predictions_are_json_too(tmp_path):
    write(tmp_path / "a.json", {"scores": {}, "recipe": {}, "predictions": []})
    assert json.loads((tmp_path / "a.json").read_text())["predictions"] == []


def test_a_failed_write_leaves_the_old_file(small_disk):
    path, report = small_disk / "scores.json", {"scores": {}, "recipe": {}, "predictions": []}
    write(path, report)
    old = path.read_bytes()
    with pytest.raises(OSError, match="No space left on device: .*scores.json"):
        write(path, report | {"predictions": FOUND * 500})
    assert path.read_bytes() == old and list(small_disk.iterdir()) == [path]


def test_values_that_are_no_json_numbers_are_refused(tmp_path):
    report = {"scores": {}, "recipe": {}, "predictions": [FOUND[0] | {"answer": float("nan")}]}
    with pytest.raises(ValueError):
        write(tmp_path / "a.json", report)
    assert not list(tmp_path.iterdir())
