"""Items of results that the evaluators really write: what they asked is recomputed from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_things import write_blocks

from unimodal.data.scenes.world import world_of
from unimodal.data.things.names import NAMES
from unimodal.data.things.table import things_of
from unimodal.eval.answer import Answer
from unimodal.eval.chain_exam import CHAINS, ChainEvaluator, make_chains
from unimodal.eval.predictions import PredictionsFile
from unimodal.eval.results.comparison import compare
from unimodal.eval.results.items import asked, items
from unimodal.eval.results.stored import read_judged, read_result
from unimodal.eval.round_trip import round_trip
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_request import BLIND
from unimodal.eval.scene_requests import PARTS as SCENE_PARTS
from unimodal.eval.scene_requests import WORLD_PARTS, make_requests
from unimodal.eval.score import by_kind, digest, write
from unimodal.eval.things import evaluate as evaluate_things
from unimodal.eval.tokenizer import held_out, scene_report
from unimodal.tokenizer.grid import Grid


@pytest.fixture(scope="module")
def painter(drawing_model):
    """Answers everything with 'ok', an image of random codes, and 'ok'."""
    return replace(drawing_model, grid=Grid(8, 8))


def test_scenes_of_all_parts(painter, tmp_path):
    """As the evaluators judge an 'ok', in the order of a result and in that of kept predictions."""
    sampling, world = painter.sampling, world_of(64)
    chains = ChainEvaluator(make_chains(1, 6, world), sampling, 6, 64)
    parts = [SceneEvaluator(make_requests(p, 1, 6, world), sampling, 6, 64) for p in SCENE_PARTS]
    exams: list[Any] = [*parts[:2], parts[1].blind(), *parts[2:], chains]
    predictions = {
        request.id: exam.score(request, Answer("ok"))
        for exam in exams
        for request in exam.requests()
    }
    asked_all = [r for exam in exams if exam.name != BLIND for r in exam.requests()]
    told = [[r.part, r.kind, r.prompt, r.expected] for r in asked_all]
    recipe = {
        "evaluation": "scenes",
        "prompts": digest(one for one in told if one[0] in WORLD_PARTS),
        "people_prompts": digest(one for one in told if one[0] not in WORLD_PARTS),
    }
    scores = {"drawing": by_kind([p for p in predictions.values() if p["part"] == "drawing"])}
    kept = list(predictions.values())
    write(tmp_path / "s.json", {"scores": scores, "recipe": recipe, "predictions": kept})
    with PredictionsFile(tmp_path / "s.jsonl", recipe) as file:
        file.update(predictions)
    whole, lines = read_judged(tmp_path / "s.json"), read_judged(tmp_path / "s.jsonl")
    assert asked(whole) == asked(lines) == {name: recipe[name] for name in recipe if "pr" in name}
    first = {(one.part, one.key): one for one in items(whole)}
    assert first == {(one.part, one.key): one for one in items(lines)}
    assert {one.part for one in first.values()} == {*SCENE_PARTS, CHAINS}, "blind ones are left out"


def test_things_are_scored_apart_where_they_are_held_out(painter, tmp_path):
    things = things_of(write_blocks(tmp_path, list(NAMES)[:16]))
    report, _ = evaluate_things(painter, things, 1, 6, parts=("questions",))
    write(tmp_path / "things.json", report)
    result = read_result(tmp_path / "things.json")
    assert asked(result) == {name: report["recipe"][name] for name in ("prompts", "things")}
    found = items(result)
    assert {one.part for one in found} == {
        "questions", "questions, unseen icons", "questions, unseen pairs",
    }  # fmt: skip
    seen = [one for one in found if one.part == "questions"]
    assert {one.kind for one in seen} == set(result.scores["questions"]) & {o.kind for o in seen}


def test_each_measure_of_a_tokenizer_is_a_part(painter, tmp_path):
    scenes, originals = held_out(4, 6, 64)
    report = scene_report(scenes, round_trip(painter.image_tokenizer, originals, 4))
    write(tmp_path / "t.json", report | {"recipe": {"evaluation": "tokenizer", "seed": 6}})
    result = read_result(tmp_path / "t.json")
    means = {part: [o.value for o in items(result) if o.part == part] for part in ("right", "ssim")}
    for part, values in means.items():
        assert sum(values) / 4 == pytest.approx(result.scores[part].value)


def mine(path: Path, values: list[float]) -> Path:
    predictions = [
        {"id": str(k), "kind": "x", "prompt": "p", "expected": k, "group": str(k // 2), "value": v}
        for k, v in enumerate(values)
    ]
    scores = {"mine": by_kind(predictions)}
    recipe = {"evaluation": "mine"}
    write(path, {"scores": scores, "recipe": recipe, "predictions": predictions})
    return path


def test_an_evaluator_of_ones_own(tmp_path):
    """Measured values: the signs of pairs are drawn, and the mean difference is theirs."""
    source = np.random.default_rng(2)
    first = source.normal(size=60)
    second = first + source.normal(0.5, 0.3, 60)
    paths = [mine(tmp_path / f"{k}.json", v.tolist()) for k, v in enumerate((first, second))]
    overall, kind = compare(*map(read_result, paths), seed=3).rows
    assert (overall.kind, kind.kind, overall.prompts) == ("overall", "x", 30)
    assert overall.difference.value == pytest.approx(float((second - first).mean()))
    assert overall.is_real and not overall.is_exact and overall.p == 1 / 20_001
    spread = (second - first).reshape(30, 2).mean(axis=1).std() / 30**0.5
    assert overall.difference.low == pytest.approx(
        overall.difference.value - 1.96 * spread, abs=0.02
    )


def test_scores_of_nothing_are_refused(tmp_path):
    write(tmp_path / "none.json", {"scores": {}, "recipe": {"evaluation": "x"}, "predictions": []})
    with pytest.raises(ValueError, match="holds no scores"):
        read_result(tmp_path / "none.json")
