"""Requests, their answers by a real (tiny, untrained) model, scores and the command end to end."""

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
from unimodal.data.scenes.world import COLOURS, SHAPES, SMALL, World, render
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Image, Text
from unimodal.eval.answer import Answer
from unimodal.eval.chain_exam import make_chains
from unimodal.eval.run import run
from unimodal.eval.scene_evaluator import SceneEvaluator, counted
from unimodal.eval.scene_requests import WORLD_PARTS, make_requests
from unimodal.eval.scenes import evaluate, majority
from unimodal.eval.score import digest
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid


@pytest.fixture(scope="module")
def model(tiny_model):
    """Babbles; its images have 64 x 64 pixels."""
    sampling = replace(tiny_model.sampling, max_text_tokens=8, max_images=1)
    return replace(tiny_model, grid=Grid(8, 8), sampling=sampling)


@pytest.fixture(scope="module")
def painter(drawing_model):
    """Answers everything with 'ok', an image of random codes, and 'ok'."""
    return replace(drawing_model, grid=Grid(8, 8))


def evaluator(part: str, samples: int, seed: int, model: Model) -> SceneEvaluator:
    return SceneEvaluator(make_requests(part, samples, seed), model.sampling, seed, canvas=64)


@pytest.mark.parametrize(
    ("part", "kinds"),
    [("drawing", TASKS), ("questions", QUESTIONS), ("captions", ["caption"]), ("edits", EDITS)],
)
def test_every_kind_has_its_samples(part, kinds):
    found = make_requests(part, 3, seed=11)
    assert Counter(one.kind for one in found) == {kind: 3 for kind in kinds}
    again = make_requests(part, 3, seed=11)
    assert [t.prompt for t in again] == [t.prompt for t in found]
    assert [t.prompt for t in make_requests(part, 3, seed=12)] != [t.prompt for t in found]
    more = make_requests(part, 4, seed=11)  # the first samples do not depend on how many
    assert [t.prompt for t in more if t.kind == kinds[-1]][:3] == [t.prompt for t in found][-3:]


def test_drawing_is_uniform_over_what_it_names():
    claims = [c for t in make_requests("drawing", 150, seed=1) for c in t.expected["claims"]]
    for attribute, names in (("shape", SHAPES), ("colour", COLOURS)):
        counts = Counter(claim[attribute] for claim in claims if claim[attribute] is not None)
        total = sum(counts.values())
        expected = total / len(names)
        assert all(abs(counts[name] - expected) < 4 * expected**0.5 for name in names)
    counted = Counter(
        t.expected["claims"][0]["count"]
        for t in make_requests("drawing", 150, 1)
        if t.kind == "counting"
    )
    assert set(counted) == {2, 3, 4} and min(counted.values()) > 25


def test_a_fifth_is_held_out():
    for part in WORLD_PARTS:
        found = make_requests(part, 150 if part == "captions" else 40, seed=2)
        words = np.mean([one.held_out_words for one in found])
        assert abs(words - 0.2) < 4 * (0.16 / len(found)) ** 0.5, part
        assert any(one.held_out_pair for one in found)


def test_perfect_answers_are_right_and_empty_ones_wrong(model):
    for part in ("drawing", "edits"):
        asked = evaluator(part, 4, 3, model)
        for one in asked.requests():
            assert asked.score(one, Answer("", (render(one.ideal),)))["right"], one.prompt
            assert not asked.score(one, Answer(""))["right"]
    asked = evaluator("questions", 4, 3, model)
    for one in asked.requests():
        assert asked.score(one, Answer(one.expected))["right"]
        assert not asked.score(one, Answer(""))["right"]


def test_counts_are_split_by_kind_and_number(model):
    asked = evaluator("questions", 30, 3, model)
    found = [asked.score(one, Answer("two")) for one in asked.requests()]
    scores = asked.summary(found)
    assert scores["count_is_two"].value == 1 and scores["count_is_three"].value == 0
    split = [score.n for name, score in scores.items() if name.startswith("count_is")]
    assert sum(split) == scores["count"].n == 30
    assert {"count_of_shape", "count_of_colour"} <= set(scores)
    assert counted("How many red circles?") == "colour_shape"
    assert counted("count the things") == "all" and counted("number of discs?") == "shape"


def test_the_old_parts_ask_what_they_asked():
    """Digests of prompts at the commit before further parts came."""
    for part, expected in {
        "drawing": "6f68aed257cf1134", "questions": "32a318ace88ca42f",
        "captions": "470f846486381d8b", "edits": "f0c2ca08e6566ff7",
    }.items():  # fmt: skip
        found = make_requests(part, 30, 1_000_003)
        assert digest([r.part, r.kind, r.prompt, r.expected] for r in found)[:16] == expected


def test_exams_of_few_objects(painter):
    for part, number in (("drawing", 48), ("questions", 22), ("edits", 24)):
        kinds = {"drawing": TASKS, "questions": QUESTIONS, "edits": EDITS}[part]
        asked = make_requests(part, number // len(kinds), 1_000_003, World(2))
        scenes = [one for r in asked for one in (r.shown, r.ideal) if one is not None]
        assert len(asked) == number and len(scenes) >= number
        assert {len(scene.objects) for scene in scenes} == {1, 2}
    report, _ = evaluate(painter, 1, 6, parts=("drawing",), max_objects=2)
    assert report["recipe"]["max_objects"] == 2
    with pytest.raises(ValueError, match="max_objects 5: 1 to 4 on a canvas of 64 pixels"):
        evaluate(painter, 1, 6, parts=("drawing",), max_objects=5)


def test_majority_is_the_best_constant():
    def answered(kind, expected):
        return {"kind": kind, "expected": expected, "answer": "", "right": False}

    found = majority(
        [answered("count", a) for a in ("one", "two", "two")] + [answered("yesno", "no")]
    )
    assert [p["answer"] for p in found] == ["two", "two", "two", "no"]
    assert [p["right"] for p in found] == [False, True, True, True]


def test_an_answer_does_not_depend_on_its_batch(painter):
    asked = evaluator("edits", 1, 4, painter)
    together, apart = run(painter, asked, batch=6), run(painter, asked, batch=1)
    assert together == apart
    assert len({tuple(p["codes"][0]) for p in together}) == 6, "each request has its own noise"


def test_the_image_is_shown_before_the_words(model):
    asked = evaluator("captions", 1, 5, model)
    (one,) = asked.requests()
    image, text = next(asked.turns(one)).document.parts
    assert isinstance(image, Image) and (image.pixels == render(one.shown)).all()
    assert text == Text(one.prompt, role="user")
    hidden = asked.blind()
    (same,) = hidden.requests()
    assert same.id != one.id and next(hidden.turns(same)).document.parts == (text,)


def test_noise_is_that_of_seed_and_number(model):
    asked = evaluator("questions", 2, 7, model)
    seeds = [next(asked.turns(one)).sampling.seed for one in asked.requests()]
    assert seeds == [7 * 2**20 + k for k in range(2 * len(QUESTIONS))]
    blind = asked.blind()
    assert [next(blind.turns(one)).sampling.seed for one in blind.requests()] == seeds


def test_evaluate_scores_every_part(model):
    report, cells = evaluate(model, samples=1, seed=6, batch=16)
    scores = report["scores"]
    assert set(scores) == {*WORLD_PARTS, "tokenizer", "reader_error"}
    for task in TASKS:
        assert scores["drawing"][task.replace(" ", "_")].n == 1
    assert scores["questions"]["blind"]["overall"].n == len(QUESTIONS)
    assert scores["drawing"]["overall"].n == scores["drawing"]["perfect_images"]["overall"].n == 6
    parts = Counter(p["part"] for p in report["predictions"])
    assert parts == {
        "drawing": 6, "questions": len(QUESTIONS), "blind": len(QUESTIONS),
        "captions": 1, "edits": 6,
    }  # fmt: skip
    assert all(p["right"] == (p["reason"] == "") for p in report["predictions"])
    assert len(cells) > 15
    recipe = report["recipe"]
    assert recipe["model"] == model.hash and recipe["tokenizer"] == model.image_tokenizer.hash
    assert (recipe["seed"], recipe["resolution"], recipe["precision"]) == (6, 64, "float32")
    assert len(recipe["prompts"]) == 64


def test_images_are_judged_by_what_is_in_them(painter):
    report, cells = evaluate(painter, samples=1, seed=6, parts=("drawing", "questions"))
    drawn = [p for p in report["predictions"] if p["part"] == "drawing"]
    assert all(p["reason"].startswith("unreadable: ") for p in drawn)
    assert all(len(p["codes"][0]) == 64 for p in drawn)
    assert report["scores"]["drawing"]["overall"].value == 0
    asked = [p for p in report["predictions"] if p["part"] in ("questions", "blind")]
    assert all(p["reason"] == "1 image" for p in asked)
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
    bundle = save_bundle(tmp_path / "bundle", model)
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


def test_command_resumes_from_its_predictions(painter, tmp_path):
    words = f"eval scenes --model {save_bundle(tmp_path / 'bundle', painter)} --samples 1 --seed 8"
    words += f" --tasks drawing,captions --predictions {tmp_path / 'kept.jsonl'} --json "

    def scores(name: str, more: str = "") -> dict:
        result = CliRunner().invoke(main, f"{words}{tmp_path / name} {more}".split())
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / name).read_text())

    kept = tmp_path / "kept.jsonl"
    whole, lines = scores("whole.json"), kept.read_text()
    assert lines.count("\n") == 1 + 7
    kept.write_text(lines[: lines.index("drawing/000002") + 100])  # in the middle of a line
    resumed = scores("resumed.json", "--batch-size 2")
    assert kept.read_text() == lines
    assert resumed["predictions"] == whole["predictions"] and resumed["scores"] == whole["scores"]
    other = CliRunner().invoke(main, [*words.split(), str(tmp_path / "c.json"), "--guidance", "4"])
    assert other.exit_code == 2
    assert "another recipe (guidance None, not 4.0): name another file" in other.output


def test_command_names_what_is_wrong(tmp_path):
    unknown = CliRunner().invoke(main, "eval scenes --tasks drawing,singing".split())
    assert unknown.exit_code == 2 and "no tasks singing: there are drawing" in unknown.output
    device = CliRunner().invoke(main, "eval scenes --device gpu".split())
    assert device.exit_code == 2 and "--device gpu: " in device.output
    missing = CliRunner().invoke(main, f"eval scenes --model {tmp_path / 'none'}".split())
    assert missing.exit_code == 2 and "there is no such directory" in missing.output


def test_requests_and_images_of_the_exam_are_looked_for_in_training_shards(model, tmp_path):
    """Questions need their image, chains count by their first turn, blind ones are not twice."""
    seed, parts = 21, ("drawing", "questions", "chains")
    drawn, asked = (make_requests(part, 1, seed) for part in parts[:2])
    (_, chain) = make_chains(1, seed, SMALL)
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("drawn", Document((Text(drawn[0].prompt.upper(), role="user"),)))
        for key, one, words in (
            ("whole", asked[0], asked[0].prompt),
            ("image", asked[1], "what else?"),
            ("chain", chain, chain.prompt),
        ):
            image = Image(pixels=render(one.shown, 64), role="user")
            writer.write(key, Document((image, Text(words, role="user"))))
    report, _ = evaluate(model, 1, seed, parts=parts, training=[str(tmp_path / "shards")])
    found = report["overlap"]
    assert {one["what"]: one["training"] for one in found["items"]["examples"]} == {
        drawn[0].id: "shard-000000.tar, drawn",
        asked[0].id: "shard-000000.tar, whole",
        chain.id: "shard-000000.tar, chain",
    }
    assert found["items"]["of"] == len(TASKS) + len(QUESTIONS) + 2
    assert (found["images"]["exact"], found["images"]["of"]) == (3, len(QUESTIONS) + 1)
    assert report["recipe"]["items_in_training"].startswith("3 exact")
    with pytest.raises(ValueError, match="holds no .tar shard"):
        (tmp_path / "none").mkdir()
        evaluate(model, 1, seed, parts=("drawing",), training=[str(tmp_path / "none")])
