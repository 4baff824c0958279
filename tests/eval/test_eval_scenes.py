"""Trials, their replies by a real (tiny, untrained) model, scores and the command end to end."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from unimodal.bundle import save_bundle
from unimodal.command import main
from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.requests import TASKS
from unimodal.data.scenes.world import COLOURS, SHAPES, render
from unimodal.document import Image, Text
from unimodal.eval.scenes import PARTS, evaluate, majority, predict, replies, trials
from unimodal.eval.score import Prediction
from unimodal.eval.verdicts import Answer
from unimodal.tokenizer.grid import Grid


@pytest.fixture(scope="module")
def model(tiny_model):
    """Babbles; its images have 64 x 64 pixels."""
    sampling = replace(tiny_model.sampling, max_text_tokens=8, max_images=1)
    return replace(tiny_model, grid=Grid(8, 8), sampling=sampling)


@pytest.fixture(scope="module")
def painter(drawing_model):
    """Answers everything with 'ok', a image of random codes, and 'ok'."""
    return replace(drawing_model, grid=Grid(8, 8))


@pytest.mark.parametrize(
    ("part", "kinds"),
    [("drawing", TASKS), ("questions", QUESTIONS), ("captions", ["caption"]), ("edits", EDITS)],
)
def test_every_kind_has_its_samples(part, kinds):
    found = trials(part, 3, seed=11)
    assert Counter(trial.kind for trial in found) == {kind: 3 for kind in kinds}
    again = trials(part, 3, seed=11)
    assert [t.prompt for t in again] == [t.prompt for t in found]
    assert [t.prompt for t in trials(part, 3, seed=12)] != [t.prompt for t in found]
    more = trials(part, 4, seed=11)  # the first samples of each kind do not depend on how many
    assert [t.prompt for t in more if t.kind == kinds[-1]][:3] == [t.prompt for t in found][-3:]


def test_drawing_is_uniform_over_what_it_names():
    claims = [c for t in trials("drawing", 150, seed=1) for c in t.expected["claims"]]
    for attribute, names in (("shape", SHAPES), ("colour", COLOURS)):
        counts = Counter(claim[attribute] for claim in claims if claim[attribute] is not None)
        total = sum(counts.values())
        expected = total / len(names)
        assert all(abs(counts[name] - expected) < 4 * expected**0.5 for name in names)
    counted = Counter(
        t.expected["claims"][0]["count"] for t in trials("drawing", 150, 1) if t.kind == "counting"
    )
    assert set(counted) == {2, 3, 4} and min(counted.values()) > 25


def test_a_fifth_is_held_out():
    for part in PARTS:
        found = trials(part, 150 if part == "captions" else 40, seed=2)
        words = np.mean([trial.held_out_words for trial in found])
        assert abs(words - 0.2) < 4 * (0.16 / len(found)) ** 0.5, part
        assert any(trial.held_out_pair for trial in found)


def test_perfect_replies_are_right_and_empty_ones_wrong():
    for part in ("drawing", "edits"):
        for trial in trials(part, 4, seed=3):
            assert predict(trial, Answer("", (render(trial.ideal),))).right, trial.prompt
            assert not predict(trial, Answer("")).right
    for trial in trials("questions", 4, seed=3):
        assert predict(trial, Answer(trial.expected)).right
        assert not predict(trial, Answer("")).right


def test_majority_is_the_best_constant():
    def answered(kind, expected):
        return Prediction("questions", kind, "?", expected, "", False, "", False, False)

    found = majority(
        [answered("count", a) for a in ("one", "two", "two")] + [answered("yesno", "no")]
    )
    assert [p.answer for p in found] == ["two", "two", "two", "no"]
    assert [p.right for p in found] == [False, True, True, True]


def test_a_reply_does_not_depend_on_its_batch(painter):
    found = trials("edits", 1, seed=4)[:4]
    together = replies(painter, found, painter.sampling, seed=4, batch=4, words="")
    apart = replies(painter, found, painter.sampling, seed=4, batch=1, words="")
    assert [(r.text, r.codes) for r in together] == [(r.text, r.codes) for r in apart]
    assert len({r.codes for r in together}) == 4, "each request has its own noise"
    assert all(r.images[0].shape == (64, 64, 3) for r in together)


def test_documents_show_the_image_first(model):
    from unimodal.eval.scenes import _documents

    (trial,) = trials("captions", 1, seed=5)
    image, text = _documents(model, [trial], batch=8)[0].parts
    assert isinstance(image, Image) and image.grid == Grid(8, 8)
    assert text == Text(trial.prompt, role="user")
    (hidden,) = _documents(model, [replace(trial, shown=None)], batch=8)
    assert hidden.parts == (text,)


def test_evaluate_scores_every_part(model):
    report, cells = evaluate(model, samples=1, seed=6, batch=16)
    scores = report["scores"]
    assert set(scores) == {*PARTS, "tokenizer", "reader_error"}
    for task in TASKS:
        assert scores["drawing"][task.replace(" ", "_")].n == 1
    assert scores["questions"]["blind"]["overall"].n == len(QUESTIONS)
    assert scores["drawing"]["overall"].n == scores["drawing"]["perfect_images"]["overall"].n == 6
    parts = Counter(p.part for p in report["predictions"])
    assert parts == {
        "drawing": 6, "questions": len(QUESTIONS), "blind": len(QUESTIONS),
        "captions": 1, "edits": 6,
    }  # fmt: skip
    assert all(p.right == (p.reason == "") for p in report["predictions"])
    assert len(cells) > 15
    recipe = report["recipe"]
    assert recipe["model"] == model.hash and recipe["tokenizer"] == model.tokenizer.hash
    assert (recipe["seed"], recipe["resolution"], recipe["precision"]) == (6, 64, "float32")
    assert len(recipe["prompts"]) == 64


def test_images_are_judged_by_what_is_in_them(painter):
    report, cells = evaluate(painter, samples=1, seed=6, parts=("drawing", "questions"))
    drawn = [p for p in report["predictions"] if p.part == "drawing"]
    assert all(p.reason.startswith("unreadable: ") and len(p.codes[0]) == 64 for p in drawn)
    assert report["scores"]["drawing"]["overall"].value == 0
    asked = [p for p in report["predictions"] if p.part in ("questions", "blind")]
    assert all(p.reason == "1 image" for p in asked)
    again, _ = evaluate(painter, samples=1, seed=6, parts=("drawing",))
    assert again["predictions"] == drawn
    assert again["scores"]["drawing"] == report["scores"]["drawing"]
    assert len(cells[0].images) == 1 and not cells[0].right


def test_a_model_of_other_canvases_is_refused(tiny_model):
    with pytest.raises(ValueError, match="draws 16x24 pixels: scenes are square"):
        evaluate(tiny_model, samples=1, seed=0)


def test_the_seed_of_training_is_refused(model):
    with pytest.raises(ValueError, match="trained on scenes of seed 0: evaluate it on another"):
        evaluate(model, samples=1, seed=0)


def test_command_writes_everything(model, tmp_path):
    bundle = save_bundle(
        tmp_path / "bundle", model.transformer, model.vocabulary, model.text, model.tokenizer,
        model.card, context=model.context, grid=model.grid, sampling=model.sampling,
    )  # fmt: skip
    paths = {name: tmp_path / f"out.{name}" for name in ("json", "md", "png")}
    words = (
        f"eval scenes --model {bundle} --samples 1 --seed 8 --tasks captions,drawing --guidance 2"
    )
    words += f" --temperature 0.5 --json {paths['json']} --markdown {paths['md']}"
    result = CliRunner().invoke(main, [*words.split(), "--contact-sheet", str(paths["png"])])
    assert result.exit_code == 0, result.output
    report = json.loads(paths["json"].read_text())
    assert set(report["scores"]) == {"drawing", "captions", "tokenizer", "reader_error"}
    assert report["scores"]["reader_error"]["none"]["n"] == 1
    assert set(report["scores"]["drawing"]["overall"]) == {"value", "low", "high", "n"}
    assert report["recipe"]["guidance"] == 2 and report["recipe"]["image_temperature"] == 0.5
    assert len(report["predictions"]) == 7
    assert "| **drawing / overall** |" in paths["md"].read_text()
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_command_names_what_is_wrong(tmp_path):
    unknown = CliRunner().invoke(main, "eval scenes --tasks drawing,singing".split())
    assert unknown.exit_code == 2 and "no tasks singing: there are drawing" in unknown.output
    device = CliRunner().invoke(main, "eval scenes --device gpu".split())
    assert device.exit_code == 2 and "--device gpu: " in device.output
    missing = CliRunner().invoke(main, f"eval scenes --model {tmp_path / 'none'}".split())
    assert missing.exit_code == 2 and "there is no such directory" in missing.output
