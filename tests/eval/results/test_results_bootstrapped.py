"""Bootstrap intervals against distributions that are known, and where they stand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from result_files import geneval, scenes

from unimodal.eval.results.bootstrapped import bootstrapped
from unimodal.eval.results.comparison import compare
from unimodal.eval.results.shown import show
from unimodal.eval.results.stored import Result, read_result
from unimodal.eval.score import Prediction


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


def test_one_prompt_alone_has_no_limits() -> None:
    images = [{**one, "group": "a"} for one in own([True, False, True])]
    assert bootstrapped(report("mine", images)) == {
        "bootstrap": {"mine": {"overall": None, "all": None}}
    }
    kinds = own([True, False], kind="a") + [{"id": "b", "kind": "b", "right": True}]
    found = bootstrapped(report("mine", kinds))["bootstrap"]["mine"]
    assert found == {"overall": None, "a": [0.0, 1.0], "b": None}


def test_a_detectors_name_stands_here_too(tmp_path: Path) -> None:
    written = read_result(geneval(tmp_path / "a.json", lambda number: number % 2 == 0))
    (name,) = [one for one in written.scores if one.startswith("geneval_by_")][:1]
    given = {**report("geneval", written.predictions), "scores": written.scores}
    assert set(bootstrapped(given)["bootstrap"]) == {name}


def dpg(answers: dict[str, tuple[bool, bool]]) -> dict[str, Any]:
    """Return what a judge says to two questions about each prompt, the second below the first."""
    predictions: list[Prediction] = [
        {
            "id": f"{item}/0/{number}", "item": item, "cell": 0, "number": number, "kind": "entity",
            "about": {"row": 2 * row + number, "parents": [1] if number == 2 else []},
            "p": {"yes": float(yes), "no": float(not yes)}, "value": float(yes),
        }
        for row, (item, both) in enumerate(answers.items())
        for number, yes in enumerate(both, 1)
    ]  # fmt: skip
    settings = {"evaluation": "judged", "task": "dpg", "scorer": "one", "each_token_once": True}
    return {"scores": {}, "recipe": settings | {"questions": "q"}, "predictions": predictions}


def test_judged_prompts_are_worth_what_the_benchmark_says(tmp_path: Path) -> None:
    # A yes below a no is worth nothing: 4 prompts are worth 0 and 6 are worth 1.
    bad, good = [(False, True)] * 4, [(True, True)] * 6
    one = dpg({f"p{at}": both for at, both in enumerate(bad + good)})
    found = bootstrapped(one)["bootstrap"]
    assert found["dpg_by_one_dpg"]["overall"] == [0.3, 0.9]
    assert set(found) == {"dpg_by_one_dpg", "dpg_by_one_dpg_first_row_skipped"}
    other = dpg({f"p{at}": both for at, both in enumerate([(True, False)] * 10)})
    first, second = (
        Result(tmp_path / name, {}, given["recipe"], given["predictions"])
        for name, given in (("a.json", one), ("b.json", other))
    )
    row = compare(first, second, seed=1, resamples=100).rows[0]
    assert (row.a, row.b, row.prompts) == (0.6, 0.5, 10)


@pytest.mark.parametrize("predictions", [[], [{"id": "a", "distance": 3.0}]])
def test_what_has_no_items_has_no_bootstrap(predictions: list[dict[str, Any]]) -> None:
    assert bootstrapped(report("fidelity", predictions)) == {}


def test_a_result_file_has_them_and_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = read_result(scenes(tmp_path / "a.json", lambda number: number % 2 == 0))
    again = {
        "scores": written.scores, "recipe": written.recipe, "predictions": written.predictions,
    }  # fmt: skip
    show("scenes", again, tmp_path / "b.json", None)
    stored = json.loads((tmp_path / "b.json").read_text())["bootstrap"]
    assert set(stored) == {"drawing", "questions"}
    overall = stored["drawing"]["overall"]
    assert overall[0] <= written.scores["drawing"]["overall"].value <= overall[1]
    result = read_result(tmp_path / "b.json")
    assert result.more["bootstrap"] == stored
    how = "closed forms; bootstrap: percentiles of 10000 samples of prompts, seed 0"
    told = " ".join(capsys.readouterr().out.split())
    assert result.recipe["intervals"] == how and f"intervals {how}" in told
    assert "versions (unimodal " in told
