"""The exam of things: its requests, verdicts, hold-outs, ceilings, and the command end to end."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from drawn_things import write_blocks

from unimodal.bundle import load, save_bundle
from unimodal.command import main
from unimodal.data.things.choice import has_held_out_pair
from unimodal.data.things.icons import is_held_out
from unimodal.data.things.names import NAMES
from unimodal.data.things.table import Things, things_of
from unimodal.data.things.wording import ThingClaim
from unimodal.data.things.world import Item, ThingScene
from unimodal.eval.answer import Answer
from unimodal.eval.scene_request import SceneRequest
from unimodal.eval.scenes import judged, perfect_images
from unimodal.eval.thing_requests import PAIRED, PARTS, make_thing_requests
from unimodal.eval.thing_verdicts import as_json, from_json, judge_thing_answer, names_of
from unimodal.eval.things import ThingEvaluator, evaluate
from unimodal.eval.things_command import PARTS as COMMAND_PARTS
from unimodal.tokenizer.grid import Grid

SAMPLES = 2
FEW = list(NAMES)[:16]  # two of them are held out
make_requests = partial(make_thing_requests, samples=SAMPLES, seed=11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("things"), FEW)


@pytest.fixture(scope="module")
def things(folder) -> Things:
    return things_of(folder)


@pytest.fixture(scope="module")
def painter(drawing_model):
    """Answers everything with 'ok', an image of random codes, and 'ok'."""
    return replace(drawing_model, grid=Grid(8, 8))


def evaluator(part: str, model, things: Things) -> ThingEvaluator:
    requests = make_requests(part, things=things)
    return ThingEvaluator(requests, model.sampling, 11, 64, things)


def scene_of(request: SceneRequest) -> ThingScene:
    shown = request.shown or request.ideal
    assert isinstance(shown, ThingScene)
    return shown


@pytest.mark.parametrize("part", PARTS)
def test_every_kind_and_side_has_its_samples(things, part):
    found = make_requests(part, things=things)
    counts = Counter((one.unseen, one.kind) for one in found)
    assert counts == {
        **{("nothing", kind): SAMPLES for kind in PARTS[part]},
        **{("icons", kind): 1 for kind in PARTS[part]},
        **{("pairs", kind): 1 for kind in PAIRED[part]},
    }
    assert len({one.id for one in found}) == len(found)
    again = make_requests(part, things=things)
    assert [one.prompt for one in again] == [one.prompt for one in found]
    other = make_thing_requests(part, SAMPLES, 12, things)
    assert [one.prompt for one in other] != [one.prompt for one in found]


@pytest.mark.parametrize("part", PARTS)
def test_hold_outs_are_what_they_are_said_to_be(things, part):
    for one in make_thing_requests(part, 12, 5, things):
        items = [item.what for item in scene_of(one).items]
        icons = [is_held_out(name) for name, is_icon, _ in items if is_icon]
        assert all(icons) if one.unseen == "icons" else not any(icons)
        assert has_held_out_pair(items) == one.held_out_pair == (one.unseen == "pairs")
        assert one.unseen == "nothing" or not one.held_out_words


def test_a_fifth_of_the_phrasings_is_held_out(things):
    found = [one for one in make_thing_requests("questions", 40, 2, things)]
    words = [one.held_out_words for one in found if one.unseen == "nothing"]
    assert abs(np.mean(words) - 0.2) < 4 * (0.16 / len(words)) ** 0.5


def test_counts_are_of_two_and_more_and_mixed_has_shapes(things):
    for one in make_thing_requests("drawing", 12, 3, things):
        claims = one.expected["claims"]
        if one.kind == "counting":
            assert claims[0]["count"] in (2, 3, 4)
        if one.kind == "mixed":
            assert {claim["icon"] for claim in claims} == {True, False}


def test_right_answers_are_right_and_others_wrong(painter, things):
    asked = evaluator("questions", painter, things)
    for one in asked.requests():
        assert asked.score(one, Answer(one.expected.upper() + "."))["right"], one.prompt
        assert not asked.score(one, Answer(""))["right"]
        assert asked.score(one, Answer("", (asked.picture(scene_of(one)),)))["reason"] == "1 image"


def test_a_thing_goes_by_any_of_its_names_but_no_other_colour():
    rabbit = Item("rabbit", True, "blue")
    judge = partial(judge_thing_answer, "a blue rabbit", rabbit)
    for right in ("a blue rabbit", "A bunny.", "the rabbit", "blue bunny"):
        assert not judge(Answer(right)).reason, right
    for wrong in ("a red rabbit", "a hare", "blue", "a blue rabbit and a cat", ""):
        assert judge(Answer(wrong)).reason, wrong
    assert names_of(Item("circle", False, "purple")) >= {"disc", "violet ball", "purple circle"}
    assert not judge_thing_answer("two", None, Answer("2")).reason
    assert judge_thing_answer("two", None, Answer("3")).reason == "'3' instead of 'two'"
    assert "rabbit" not in names_of(Item("cat", True, None))
    assert ThingClaim(1, ("rabbit",), True).fits(rabbit)


def test_a_scene_survives_json():
    shown = ThingScene(
        "sky", (Item("cat", True, "red", 0.25, 0.5, 0.4), Item("ring", False, "blue"))
    )
    assert from_json(json.loads(json.dumps(as_json(shown)))) == shown


def test_perfect_images_are_granted_and_the_wrong_ones_not(painter, things):
    asked = evaluator("drawing", painter, things)
    images = perfect_images(asked)
    assert len(images) == len(asked.requests()) == len(asked.truths())
    right = [one["right"] for one in judged(asked, images)]
    assert np.mean(right) > 0.9
    shifted = judged(asked, images[1:] + images[:1])
    assert np.mean([one["right"] for one in shifted]) < 0.3
    assert all(one["right"] == (one["reason"] == "") for one in shifted)
    one = asked.requests()[0]
    assert asked.score(one, Answer("no"))["reason"] == "no images, 'no'"


def test_hold_outs_stand_apart(painter, things):
    asked = evaluator("questions", painter, things)
    told = [
        asked.score(one, Answer(one.expected if one.unseen == "nothing" else ""))
        for one in asked.requests()
    ]
    scores = asked.summary(told)
    assert scores["overall"].value == 1 and scores["overall"].n == SAMPLES * len(PARTS["questions"])
    for side in ("by_icon", "by_pair"):
        assert scores[side]["seen"]["overall"].value == 1
        assert scores[side]["held_out"]["overall"].value == 0
    assert scores["by_pair"]["held_out"]["overall"].n == len(PAIRED["questions"])
    blind = asked.blind()
    assert blind.name == "blind" and blind.things is things
    (words,) = next(blind.turns(blind.requests()[0])).document.parts
    assert words.text == asked.requests()[0].prompt


def test_what_cannot_be_measured_is_refused(tiny_model, painter, things, tmp_path):
    with pytest.raises(ValueError, match="draws 16x24 pixels: scenes are square"):
        evaluate(tiny_model, things, 1, 5)
    with pytest.raises(ValueError, match="trained on scenes of seed 0: evaluate it on another"):
        evaluate(painter, things, 1, 0)
    seen = [name for name in FEW if not is_held_out(name)]
    with pytest.raises(ValueError, match="icons is held out: give a whole table"):
        evaluate(painter, things_of(write_blocks(tmp_path, seen)), 1, 5)


def test_command_writes_everything(painter, folder, tmp_path):
    bundle = save_bundle(tmp_path / "bundle", painter)
    paths = {name: tmp_path / f"out.{name}" for name in ("json", "md", "png")}
    words = (
        f"eval things --things {folder} --model {bundle} --samples 1 --seed 8 --card "
        f"--json {paths['json']} --markdown {paths['md']} --contact-sheet {paths['png']} "
        "--guidance 2"
    )
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 0, result.output
    report = json.loads(paths["json"].read_text())
    scores, recipe = report["scores"], report["recipe"]
    assert set(scores) == {*COMMAND_PARTS, "tokenizer", "reader_error"}
    assert scores["drawing"]["overall"]["value"] == 0 and scores["drawing"]["overall"]["n"] == 6
    assert scores["drawing"]["perfect_images"]["overall"]["n"] == 6
    assert scores["questions"]["blind"]["overall"]["n"] == len(PARTS["questions"])
    assert scores["reader_error"]["misread"]["value"] == 0
    assert scores["tokenizer"]["right"]["n"] == 6 + 6 + 4
    assert (recipe["things"], recipe["evaluation"], recipe["guidance"]) == ("test", "things", 2)
    parts = Counter(p["part"] for p in report["predictions"])
    assert parts == {"drawing": 16, "questions": 21, "blind": 21}
    assert "| **drawing / overall** |" in paths["md"].read_text()
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    card = load(bundle).card
    assert card["scores"]["things.drawing.overall"]["value"] == 0
    assert "things.drawing.overall | 0.000 (0.000 to " in (bundle / "README.md").read_text()
    assert "things.drawing.over_perfect | not measured" in (bundle / "README.md").read_text()
    assert "things test" in card["things_scores_recipe"]


def test_questions_alone_are_asked_and_taken_up_again(painter, things, tmp_path):
    kept = tmp_path / "kept.jsonl"
    report, cells = evaluate(painter, things, 1, 8, parts=("questions",), file=kept)
    assert set(report["scores"]) == {"questions"} and len(cells) == len(PARTS["questions"])
    lines = kept.read_text()
    kept.write_text("".join(lines.splitlines(True)[:20]))
    again, _ = evaluate(painter, things, 1, 8, parts=("questions",), file=kept)
    assert kept.read_text() == lines and again["predictions"] == report["predictions"]
    other = replace(painter.sampling, guidance=4.0)
    with pytest.raises(ValueError, match="another recipe"):
        evaluate(painter, things, 1, 8, other, parts=("questions",), file=kept)


def test_command_names_what_is_wrong(tmp_path):
    empty = CliRunner().invoke(main, f"eval things --things {tmp_path}".split())
    assert empty.exit_code == 2 and "holds no table of things" in empty.output
    missing = CliRunner().invoke(main, ["eval", "things"])
    assert missing.exit_code == 2 and "--things" in missing.output
    assert COMMAND_PARTS == tuple(PARTS)
