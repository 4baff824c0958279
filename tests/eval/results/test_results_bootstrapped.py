"""Bootstrap intervals against distributions that are known, and where they stand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from result_files import scenes

from unimodal.eval.results.bootstrapped import bootstrapped
from unimodal.eval.results.shown import show
from unimodal.eval.results.stored import read_result


def report(evaluation: str, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"scores": {}, "recipe": {"evaluation": evaluation}, "predictions": predictions}


def own(verdicts: list[bool], **fields: Any) -> list[dict[str, Any]]:
    return [{"id": str(at), "right": right, **fields} for at, right in enumerate(verdicts)]


def test_limits_of_independent_verdicts_are_quantiles_of_the_binomial_distribution() -> None:
    # 4 of 10: P(X <= 0) = 0.006, P(X <= 1) = 0.046; P(X <= 6) = 0.945, P(X <= 7) = 0.988
    found = bootstrapped(report("mine", own([True] * 4 + [False] * 6)))
    assert found == {"bootstrap": {"mine": {"overall": [0.1, 0.7], "all": [0.1, 0.7]}}}


def test_answers_to_one_prompt_are_drawn_together() -> None:
    pairs = [
        {**one, "id": f"{one['id']}/{k}", "group": one["id"]}
        for one in own([True] * 4 + [False] * 6)
        for k in range(2)
    ]
    alone = [{key: value for key, value in one.items() if key != "group"} for one in pairs]
    low, high = bootstrapped(report("mine", pairs))["bootstrap"]["mine"]["overall"]
    assert (low, high) == (0.1, 0.7), "two copies of an answer tell no more than one"
    low, high = bootstrapped(report("mine", alone))["bootstrap"]["mine"]["overall"]
    assert 0.1 < low < high < 0.7


def test_the_mean_of_kinds_is_drawn_kind_by_kind() -> None:
    kinds = own([True, False] * 8, kind="a") + [
        {**one, "id": f"b{one['id']}"} for one in own([True] * 3, kind="b")
    ]
    found = bootstrapped(report("mine", kinds))["bootstrap"]["mine"]
    assert found["b"] == [1.0, 1.0], "a bootstrap of right answers alone is a point"
    low, high = found["a"]
    np.testing.assert_allclose(found["overall"], [(low + 1) / 2, (high + 1) / 2], atol=0.04)


@pytest.mark.parametrize("predictions", [[], [{"id": "a", "distance": 3.0}]])
def test_what_has_no_items_has_no_bootstrap(predictions: list[dict[str, Any]]) -> None:
    assert bootstrapped(report("fidelity", predictions)) == {}


def test_a_result_file_has_them_and_is_read_again(tmp_path: Path) -> None:
    written = read_result(scenes(tmp_path / "a.json", lambda number: number % 2 == 0))
    again = {
        "scores": written.scores, "recipe": written.recipe, "predictions": written.predictions,
    }  # fmt: skip
    show("scenes", again, tmp_path / "b.json", None)
    stored = json.loads((tmp_path / "b.json").read_text())["bootstrap"]
    assert set(stored) == {"drawing", "questions"}
    overall = stored["drawing"]["overall"]
    assert overall[0] <= written.scores["drawing"]["overall"].value <= overall[1]
    assert read_result(tmp_path / "b.json").more["bootstrap"] == stored
