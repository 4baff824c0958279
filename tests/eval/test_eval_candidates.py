"""The gain of drawings that are the best of several, beside the drawings without."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from unimodal.checking import judged
from unimodal.checks import checks_of
from unimodal.command import main
from unimodal.eval.answer import kept_image
from unimodal.eval.candidates import Chosen, candidate_scores
from unimodal.eval.scenes import evaluate
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid


@pytest.fixture(scope="module")
def painter(drawing_model: Model) -> Model:
    """Answers everything with 'ok' and an image of random codes."""
    return replace(drawing_model, grid=Grid(8, 8))


def test_the_first_candidates_are_what_is_scored_without(painter: Model, tmp_path) -> None:
    without, _ = evaluate(painter, samples=1, seed=6, parts=("drawing",))
    file = tmp_path / "kept.jsonl"
    report, cells = evaluate(
        painter, samples=1, seed=6, parts=("drawing", "captions"), file=file, candidates=3
    )
    drawn = [p for p in report["predictions"] if p["part"] == "drawing"]
    told = ("candidates", "kept")
    assert [{k: v for k, v in p.items() if k not in told} for p in drawn] == without["predictions"]
    for one in drawn:
        assert one["codes"] == one["candidates"][0]["codes"]
        assert len({str(other["codes"]) for other in one["candidates"]}) == 3
        for other in one["candidates"]:
            image = kept_image(painter, other["codes"][0])
            assert other["score"] == judged(painter, image, checks_of(one["prompt"])).score
    scores, bare = report["scores"]["drawing"], without["scores"]["drawing"]
    assert {name: scores[name] for name in bare} == bare
    assert scores["judged_of_3"].value == 1 and scores["best_of_3"]["overall"].value == 0
    assert report["recipe"]["candidates"] == 3 and "candidates" not in without["recipe"]
    assert "best_of_3" not in report["scores"]["captions"] and cells
    again, _ = evaluate(painter, samples=1, seed=6, parts=("drawing", "captions"), file=file)
    assert again["scores"]["drawing"] == bare, "one file serves both"


def test_scores_count_what_was_kept() -> None:
    def one(kind: str, kept: int, *right: bool) -> Chosen:
        predictions = tuple({"kind": kind, "right": is_right} for is_right in right)
        return Chosen(predictions, (None,) * len(right), kept)

    found = [
        one("a", 1, False, True), one("a", 0, True, False),
        one("b", 1, True, False), one("b", 1, False, False),
    ]  # fmt: skip
    scores = candidate_scores(found, 2)
    assert [scores["best_of_2"][name].value for name in ("a", "b", "overall")] == [1, 0, 0.5]
    assert [scores["any_of_2"][name].value for name in ("a", "b", "overall")] == [1, 0.5, 0.75]
    gains = [scores["gain_of_best_of_2"][name].value for name in ("a", "b", "overall")]
    assert gains == [0.5, -0.5, 0]
    assert scores["judged_of_2"].value == 0


def test_candidates_where_nothing_is_drawn_are_refused(painter: Model) -> None:
    with pytest.raises(ValueError, match="2 candidates: captions have no candidates; name the"):
        evaluate(painter, samples=1, seed=6, parts=("captions",), candidates=2)
    found = CliRunner().invoke(main, ["eval", "scenes", "--candidates", "9"])
    assert found.exit_code == 2 and "9 is not in the range" in found.output
