"""A model's answers to benchmarks: batches, baselines, resuming, ranks, and scoring again."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import vqa_files
from click.testing import CliRunner
from PIL import Image

import unimodal
from unimodal.command import main
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.data.sizes import ImageRule
from unimodal.document import Image as Shown
from unimodal.document import Text
from unimodal.eval.score import Prediction
from unimodal.eval.vqa.asking import VqaEvaluator, greedy, placed, sample, wrong_images
from unimodal.eval.vqa.evaluation import evaluate, scored_again, scored_answers
from unimodal.eval.vqa.item import Item
from unimodal.eval.vqa.pictures import Pictures
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of
from unimodal.model import Model
from unimodal.sampling import Sampling

POPE, BARE = "pope", "{question}"
NLVR = Path(__file__).resolve().parents[3] / "../shared/data/nlvr/nlvr-test.tar"


@pytest.fixture(scope="module")
def model() -> Model:
    return unimodal.load()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """POPE's files about four scenes, each with a thing that is there and one that is not."""
    folder, rows = tmp_path_factory.mktemp("pope"), []
    for number in range(4):
        shown = scene(5, number, SMALL)
        name = f"scene_{number}.png"
        Image.fromarray(np.asarray(render(shown, 64))).save(folder / name)
        looks = {f"{one.colour} {one.shape}" for one in shown.objects}
        absent = next(
            f"{colour} {shape}"
            for colour in ("red", "blue", "green", "yellow")
            for shape in ("circle", "square", "star", "heart")
            if f"{colour} {shape}" not in looks
        )
        for k, (thing, label) in enumerate(((sorted(looks)[0], "yes"), (absent, "no"))):
            more = " anywhere in this picture" * (number % 3)
            rows.append(
                {
                    "question_id": 2 * number + k, "image": name, "label": label,
                    "text": f"is there a {thing}{more}?",
                }
            )  # fmt: skip
    vqa_files.write_lines(folder / "coco_pope_random.json", rows)
    return folder


def ask(model: Model, data: Path, **settings) -> dict:
    found = evaluate(model, task_of(POPE), Source(data, data), 7, template=BARE, **settings)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def kept(model: Model, data: Path, tmp_path_factory: pytest.TempPathFactory):
    """A whole run: its report, and the file of its predictions."""
    file = tmp_path_factory.mktemp("kept") / "pope.jsonl"
    return ask(model, data, file=file), file


def answers(report: dict) -> dict[str, str]:
    return {f"{p['pass']}/{p['item']}": p["answer"] for p in report["predictions"]}


# --- what is asked ------------------------------------------------------------------------------


def test_the_default_model_sees_the_images(kept):
    """It was trained on such questions: right on most, and not without the image."""
    scores = kept[0]["scores"][POPE]
    assert scores["overall"].value >= 0.75 and scores["overall"].n == 8
    assert scores["majority"]["overall"].value == 0.5
    assert scores["blind"]["overall"].n == scores["shuffled"]["overall"].n == 8
    assert scores["gain_over_blind"].value == pytest.approx(
        scores["overall"].value - scores["blind"]["overall"].value
    )
    assert len(set(answers(kept[0]).values())) >= 2


def test_the_recipe_says_what_the_numbers_depend_on(kept, model):
    recipe = kept[0]["recipe"]
    assert recipe["model"] == model.hash and recipe["task"] == POPE and recipe["seed"] == 7
    assert recipe["rules"] == "POPE evaluate.py @ 08d957b" and recipe["template"] == BARE
    assert recipe["items"] == recipe["of_items"] == 8 and recipe["requests"] == 24
    assert all(len(recipe[name]) == 64 for name in ("questions", "prompts", "images"))
    assert {"versions", "commit", "precision", "target_pixels"} <= set(recipe)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_answers_depend_on_no_batch_size(model, data, kept, batch):
    again = ask(model, data, batch=batch)
    assert again["predictions"] == kept[0]["predictions"]
    assert again["scores"] == kept[0]["scores"]


def test_wrong_images_are_never_the_own_and_each_serves_once():
    items = [Item(str(k), "?", (f"{k // 2}.png",), {}, "all", str(k)) for k in range(20)]
    wrong = wrong_images(items, 3)
    assert all(
        other is not None and other != item.images for item, other in zip(items, wrong, strict=True)
    )
    assert sorted(wrong) == sorted(item.images for item in items)
    assert wrong == wrong_images(items, 3) != wrong_images(items, 4)
    lonely = Item("x", "?", ("0.png", "1.png"), {}, "all", "x")
    assert wrong_images([*items, lonely], 3) == [*wrong, None], "no other pair of images"


def test_a_sample_keeps_groups_whole():
    items = [Item(str(k), "?", (), {}, "all", str(k // 3)) for k in range(30)]
    chosen = sample(items, 7, 1)
    assert len(chosen) == 9 and len({one.group for one in chosen}) == 3
    assert [int(one.id) for one in chosen] == sorted(int(one.id) for one in chosen)
    assert chosen == sample(items, 7, 1) != sample(items, 7, 2)
    assert sample(items, None, 1) == sample(items, 99, 1) == items


def test_images_stand_where_the_question_has_them():
    images = [Shown(pixels=np.full((8, 8, 3), k, dtype=np.uint8)) for k in range(3)]
    parts = list(placed("a <image 2> b <image 1>", images))
    assert parts[0] is images[2], "one without a place comes first"
    assert [one.text if isinstance(one, Text) else one for one in parts[1:]] == [
        "a ", images[1], " b ", images[0],
    ]  # fmt: skip
    assert [one.text for one in placed("a <image 1>", [])] == ["a "]


def test_a_prompt_holds_braces_as_they_are(tmp_path):
    task = task_of("seedbench")
    expected = {"answer": "A", "options": {"A": "{x}", "B": "{question}"}}
    item = Item("1", "{options} of {y}?", (), expected, "all", "1")
    pictures = Pictures(tmp_path, ImageRule())
    sampling = greedy(Sampling(), 8, 1)
    evaluator = VqaEvaluator(task, [item], pictures, "{question}\n{options}", 1, sampling)
    assert evaluator.prompt(item) == "{options} of {y}?\nA. {x}\nB. {question}"
    with pytest.raises(ValueError, match="has no {options}"):
        VqaEvaluator(task, [item], pictures, "{question}", 1, sampling)
    with pytest.raises(ValueError, match="has a place for options, and pope has none"):
        VqaEvaluator(task_of(POPE), [item], pictures, "{question} {options}", 1, sampling)


# --- files --------------------------------------------------------------------------------------


def test_scores_again_are_the_first_scores(kept):
    report, file = kept
    again = scored_again([file])
    assert again["scores"] == report["scores"]
    by_id = {(p["pass"], p["item"]): p for p in report["predictions"]}
    assert {(p["pass"], p["item"]): p for p in again["predictions"]} == by_id


def test_a_run_that_was_stopped_goes_on(model, data, kept, tmp_path, monkeypatch):
    file = tmp_path / "half.jsonl"
    lines = kept[1].read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:14]) + lines[14][:30])  # killed while it wrote
    with pytest.raises(ValueError, match="line 15 is no JSON"):
        scored_again([file])
    file.write_text("".join(lines[:14]))
    with pytest.raises(ValueError, match="13 of 24 predictions are there; run the same"):
        scored_again([file])
    asked: list[str] = []
    turns = VqaEvaluator.turns
    monkeypatch.setattr(
        VqaEvaluator, "turns", lambda self, one: (asked.append(one.id), turns(self, one))[1]
    )
    assert ask(model, data, file=file)["scores"] == kept[0]["scores"]
    assert len(asked) == 24 - 13 and file.read_bytes() == kept[1].read_bytes()


def test_ranks_share_the_work(model, data, kept, tmp_path):
    files = [tmp_path / f"{rank}.jsonl" for rank in range(2)]
    for rank, file in enumerate(files):
        source = Source(data, data)
        assert evaluate(
            model, task_of(POPE), source, 7, template=BARE, file=file, rank=rank, world_size=2
        ) is None  # fmt: skip
    assert scored_again(files)["scores"] == kept[0]["scores"]
    with pytest.raises(ValueError, match="of 24 predictions are there"):
        scored_again(files[:1])
    with pytest.raises(ValueError, match="is there twice"):
        scored_again([*files, files[0]])
    with pytest.raises(ValueError, match="2 ranks keep their predictions in files"):
        evaluate(model, task_of(POPE), Source(data, data), 7, world_size=2)


def changed(file: Path, change) -> Path:
    """A copy of a file of predictions in which `change` was applied to the first prediction."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines[1])
    copy = file.with_name(f"changed-{os.urandom(4).hex()}.jsonl")
    copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return copy


OTHER = "the questions are not those of its first line"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: one["expected"].update(answer="maybe"), OTHER),
        (lambda one: one.update(group="elsewhere"), OTHER),
        (lambda one: one.update(item="random/99"), "is not of random/99"),
        (lambda one: one.update(id="blind/random/99", item="random/99"), OTHER),
        (lambda one: one.pop("answer"), "line 2 has no answer"),
        (lambda one: one.update(answer=float("nan")), "line 2 is no JSON: .* holds NaN"),
    ],
)
def test_predictions_that_were_changed(kept, change, why):
    with pytest.raises(ValueError, match=why):
        scored_again([changed(kept[1], change)])


def test_predictions_under_another_task(kept):
    copy = changed(kept[1], lambda one: None)
    copy.write_text(copy.read_text().replace('"task": "pope"', '"task": "vqav2"', 1))
    with pytest.raises(ValueError, match="the questions are not of vqav2: KeyError"):
        scored_again([copy])


def test_answers_of_another_program(data, kept, tmp_path):
    seen = [p for p in kept[0]["predictions"] if p["pass"] == "seen"]
    rows = [{"question_id": p["item"], "answer": p["answer"]} for p in seen]
    file = vqa_files.write_json(tmp_path / "answers.json", rows)
    source = Source(data, data)
    found = scored_answers(task_of(POPE), source, file, 7)["scores"][POPE]
    assert found["overall"] == kept[0]["scores"][POPE]["overall"] and "blind" not in found
    for wrong, why in (
        (rows[:-1], "7 answers to 8 questions; 1 ids are on one side alone, such as random/7"),
        ([*rows, {"question_id": "random/99", "answer": "no"}], "such as random/99"),
        ([*rows, rows[0]], "random/0 is answered twice"),
        ([{**rows[0], "answer": None}, *rows[1:]], "has no answer or prediction"),
        ([{**rows[0], "answer": 3}, *rows[1:]], "an answer is text, not 3"),
    ):
        with pytest.raises(ValueError, match=why):
            scored_answers(task_of(POPE), source, vqa_files.write_json(file, wrong), 7)


# --- commands -----------------------------------------------------------------------------------


def run(*words: str) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands(data, tmp_path):
    kept, first, again = (tmp_path / name for name in ("kept.jsonl", "first.json", "again.json"))
    words = ("--data", data, "--samples", 4, "--prompt", BARE, "--predictions", kept)
    told = run("eval", "vqa", "--task", POPE, *words, "--json", first)
    assert "gain over blind" in told and "POPE evaluate.py @ 08d957b" in told.replace("\n", "")
    run("eval", "score", "vqa", kept, "--json", again)
    one, other = (json.loads(path.read_text()) for path in (first, again))
    assert one["scores"] == other["scores"] and one["recipe"]["items"] == 4
    assert "note: no rows" not in told


def test_a_single_image_has_no_wrong_one_and_that_is_told(data, tmp_path):
    lines = (data / "coco_pope_random.json").read_text().splitlines()
    (tmp_path / "coco_pope_random.json").write_text("\n".join(lines[:2]) + "\n")
    told = run("eval", "vqa", "--task", POPE, "--data", tmp_path, "--images", data)
    assert "note: no rows `shuffled`: all questions have the same images" in told
    assert "shuffled" not in told.replace("`shuffled`", "")


@pytest.mark.parametrize(
    "words",
    [
        ("vqa", "--task", POPE, "--data", ".", "--ranks", "2", "--json", "x.json"),
        ("score", "vqa", __file__, "--seed", "1"),
        ("score", "vqa", __file__, "--data", "."),
        ("score", "pope", __file__),
    ],
)
def test_options_that_would_be_ignored_are_refused(words):
    done = CliRunner().invoke(main, ["eval", *words])
    assert done.exit_code == 2 and "Error" in done.output


def test_check_fails_on_a_disagreement(tmp_path):
    vectors = {
        "normalise": [{"in": "two", "out": "2"}],
        "score": [{"gt": ["2"] * 3 + ["3"] * 7, "pred": "two", "acc": 90.0}],
    }
    file = vqa_files.write_json(tmp_path / "golden.json", vectors)
    assert "vqa: agrees with every vector" in run("eval", "check", "vqa", file)
    vectors["score"][0]["acc"] = 100.0
    vqa_files.write_json(file, vectors)
    done = CliRunner().invoke(main, ["eval", "check", "vqa", str(file)])
    assert done.exit_code and "1 disagreements with vqa" in done.output
    for empty in ({"normalise": [], "score": []}, {"images": []}, [1]):
        vqa_files.write_json(file, empty)
        assert CliRunner().invoke(main, ["eval", "check", "vqa", str(file)]).exit_code


def test_the_command_counts_nothing_where_an_image_is_missing(data, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    done = CliRunner().invoke(
        main, ["eval", "vqa", "--task", POPE, "--data", str(data), "--images", str(images)]
    )
    assert done.exit_code and "4 of 4 images cannot be used, so nothing is scored" in done.output


@pytest.mark.skipif(not NLVR.exists(), reason="needs shared/data/nlvr beside the repository")
def test_nlvr_runs_end_to_end(model):
    task = task_of("nlvr")
    found = evaluate(model, task, Source(NLVR, NLVR.parent), 7, samples=6)
    assert found is not None
    scores = found["scores"]["nlvr"]
    assert scores["overall"].n == 6 and 0 <= scores["unparsed"].value <= 1
    predictions: list[Prediction] = found["predictions"]
    assert all("structured_rep" not in json.dumps(one) for one in predictions)
