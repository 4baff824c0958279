"""Two results in pairs: the differences are those of the scores, and what is no pair is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from result_files import geneval, scene_predictions, scenes, vqa

from unimodal.command import main
from unimodal.eval.results.comparison import Comparison, compare
from unimodal.eval.results.stored import read_judged, read_result


def compared(a: Path, b: Path) -> Comparison:
    return compare(read_judged(a), read_judged(b), seed=5, resamples=2000)


def row(found: Comparison, part: str, kind: str):
    (one,) = [r for r in found.rows if (r.part, r.kind) == (part, kind)]
    return one


def test_scenes_are_compared_part_by_part(tmp_path):
    """B is right wherever A is, and in all drawings of an object alone too."""
    a = scenes(tmp_path / "a.json", lambda n: n % 3 == 0, samples=6)
    b = scenes(tmp_path / "b.json", lambda n: n < 24 or n % 3 == 0, samples=6, guidance=1.0)
    found = compared(a, b)
    scores = [read_result(path).scores for path in (a, b)]
    for one in found.rows:
        first, second = (score[one.part][one.kind].value for score in scores)
        assert (one.a, one.b) == (pytest.approx(first), pytest.approx(second))
        assert one.difference.value == pytest.approx(second - first)
    assert row(found, "drawing", "overall").is_real
    assert row(found, "drawing", "overall").p == pytest.approx(2 / 2**16)  # 16 prompts moved
    assert not row(found, "questions", "overall").is_real
    assert row(found, "questions", "overall").p == 1
    assert found.differing() == {"guidance": (3.0, 1.0)}
    real, others = found.words()
    assert real.startswith("drawing / overall: b is higher") and "no difference is" in others


def test_kinds_are_corrected_together(tmp_path):
    """Six drawings of one kind alone change: 2/2^6, times the seventeen kinds."""
    a = scenes(tmp_path / "a.json", lambda n: False, samples=6)
    b = scenes(tmp_path / "b.json", lambda n: n < 6, samples=6)
    one = row(compared(a, b), "drawing", "single_object")
    prompts = {p["prompt"] for p in read_result(a).predictions[:6]}
    assert one.prompts == len(prompts)
    assert one.p == pytest.approx(2 / 2 ** len(prompts))
    assert one.p_corrected == pytest.approx(min(1, 17 * one.p)) and not one.is_real


def test_images_of_a_prompt_are_one_cluster(tmp_path):
    a = geneval(tmp_path / "a.json", lambda n: False, samples=4)
    b = geneval(tmp_path / "b.json", lambda n: n % 4 < 2, samples=4)
    found = compared(a, b)
    overall = row(found, "geneval_by_recorded", "overall")
    assert overall.difference.value == pytest.approx(0.5)
    prompts = {item.cluster for item, _ in found.pairs}
    assert overall.prompts == len(prompts) == overall.difference.n / 4
    # Every prompt moves by the same: all signs are equally likely, and two of them are as far.
    assert row(found, "geneval_by_recorded", "counting").p == pytest.approx(2 / 2**4)
    # Half of the images of every prompt: whole prompts drawn again give the same.
    assert (overall.difference.low, overall.difference.high) == (0.5, 0.5)


def test_the_overall_of_uneven_kinds_weighs_kinds_alike(tmp_path):
    """3 prompts of one object and 4 that count: an image of the former weighs more."""
    a = geneval(tmp_path / "a.json", lambda n: False)
    b = geneval(tmp_path / "b.json", lambda n: n < 6)
    found = compared(a, b)
    overall = row(found, "geneval_by_recorded", "overall")
    assert overall.b == pytest.approx(read_result(b).scores["geneval_by_recorded"]["overall"].value)
    assert overall.is_exact and overall.p == pytest.approx(2 / 2**3)


def test_rewritten_prompts_are_paired_with_raw_ones(tmp_path):
    a = geneval(tmp_path / "a.json", lambda n: False)
    b = geneval(tmp_path / "b.json", lambda n: True, rewriter="llama")
    c = geneval(tmp_path / "c.json", lambda n: False, rewriter="llama")
    found = compared(a, b)
    assert row(found, "geneval_by_recorded", "overall").difference.value == 1
    assert found.differing() == {"rewriter": ("raw prompts", "llama")}
    named = compared(b, c)
    assert row(named, "geneval_by_recorded_prompts_by_llama", "overall").difference.value == -1


def test_questions_of_one_image_are_one_cluster(tmp_path):
    a = vqa(tmp_path / "a.json", lambda n: True)
    b = vqa(tmp_path / "b.json", lambda n: n % 2 == 0)
    overall = row(compared(a, b), "pope", "overall")
    assert (overall.a, overall.b) == (0.5, 1.0)
    assert (overall.prompts, overall.difference.n) == (4, 8)
    assert overall.p == pytest.approx(2 / 2**4) and overall.is_exact


def test_what_only_one_side_knows_is_not_compared(tmp_path):
    """Answers of another program come without the images that it saw."""
    a = spoil(
        vqa(tmp_path / "a.json", lambda n: True), lambda s: s["recipe"].update(images="ab" * 32)
    )
    b = vqa(tmp_path / "b.json", lambda n: False)
    found = compared(a, b)
    assert set(found.hashes) == {"questions", "prompts"} and found.differing()["images"][1] is None


def test_kept_predictions_are_paired_with_results(tmp_path):
    a = scenes(tmp_path / "a.json", lambda n: n % 2 == 0)
    b = scene_predictions(tmp_path / "b.jsonl", lambda n: n % 3 == 0)
    as_result = scenes(tmp_path / "c.json", lambda n: n % 3 == 0)
    assert [r.json(("", "")) for r in compared(a, b).rows] == [
        r.json(("", "")) for r in compared(a, as_result).rows
    ]


def test_equal_answers_are_said_to_be_equal(tmp_path):
    a = scenes(tmp_path / "a.json", lambda n: n % 2 == 0)
    b = scenes(tmp_path / "b.json", lambda n: n % 2 == 0, model="b" * 64)
    assert compared(a, b).words() == ["all 51 pairs of items are worth the same"]


def test_the_file_is_a_result_itself(tmp_path):
    a = scenes(tmp_path / "a.json", lambda n: False)
    b = scenes(tmp_path / "b.json", lambda n: True, guidance=1.0)
    spoil(b, lambda stored: stored["recipe"]["versions"].update(torch="1.0"), "b")
    done = CliRunner().invoke(main, ["eval", "compare", str(a), str(b), "--json", f"{tmp_path}/d"])
    assert done.exit_code == 0, done.output
    assert "b is higher" in done.output and "seed 7" in done.output and "model aaa" in done.output
    both, of_a, of_b = " ".join(done.output.split()).partition("both: ")[2].split(" guidance ")
    how = "intervals bootstrap of prompts, percentiles, resample seed 1000003, resamples"
    assert f"{how} 10000, level 0.05, correction holm" in both
    assert "torch 1.0," not in both + of_a and "torch 1.0," in of_b, "each has its versions"
    stored = json.loads((tmp_path / "d").read_text())
    assert stored["scores"]["drawing_difference"]["overall"]["value"] == 1
    told = stored["recipe"]
    assert (told["model"], told["a_guidance"], told["b_guidance"]) == ("a" * 64, 3.0, 1.0)
    assert told["a"]["guidance"] == 3.0 and len(stored["predictions"]) == 51
    tests = {(one["part"], one["kind"]): one for one in stored["tests"]}
    assert tests["drawing", "overall"]["real"] and tests["drawing", "overall"]["p_is_exact"]
    again = CliRunner().invoke(main, ["eval", "compare", str(a), str(b), "--json", f"{tmp_path}/e"])
    assert again.output == done.output
    assert (tmp_path / "d").read_bytes() == (tmp_path / "e").read_bytes()


# --- what is refused ----------------------------------------------------------------------------


def refused(a: Path, b: Path, *words: str) -> None:
    done = CliRunner().invoke(main, ["eval", "compare", str(a), str(b)])
    told = done.output.replace("\n", " ")
    assert done.exit_code == 2 and told.startswith("error: "), done.output
    assert [word for word in words if word not in told] == [], told


@pytest.fixture
def a(tmp_path) -> Path:
    return scenes(tmp_path / "a.json", lambda n: n % 2 == 0)


def spoil(path: Path, change, name: str = "spoiled") -> Path:
    """Write a JSON file with a change made to what it holds, as one without a hash of its own."""
    stored = json.loads(path.read_text())
    change(stored)
    stored.pop("sha256", None)
    spoiled = path.with_name(f"{name}.json")
    spoiled.write_text(json.dumps(stored))
    return spoiled


def test_other_prompts_are_refused_with_both_hashes(a, tmp_path):
    b = scenes(tmp_path / "b.json", lambda n: True, samples=4)
    hashes = [read_result(path).recipe["prompts"] for path in (a, b)]
    refused(a, b, "did not ask the same", *hashes)


def test_other_evaluations_and_rules_are_refused(a, tmp_path):
    other = geneval(tmp_path / "g.json", lambda n: True)
    refused(a, other, "not scored alike", "scenes and geneval")
    strict = spoil(other, lambda stored: stored["recipe"].update(confidence=0.5))
    refused(other, strict, "confidence 0.3 and 0.5")


def test_a_file_and_itself_are_refused(a):
    refused(a, a, "given twice")


def test_missing_predictions_are_refused(a):
    one_less = spoil(a, lambda stored: stored["predictions"].pop(5))
    refused(a, one_less, "spoiled.json holds 50 predictions", "half-finished")
    none = spoil(a, lambda stored: stored.update(predictions=[]))
    refused(a, none, "holds 0 predictions")


def test_a_run_that_was_stopped_is_refused(a, tmp_path):
    b = scene_predictions(tmp_path / "b.jsonl", lambda n: True)
    lines = b.read_text().splitlines(keepends=True)
    b.write_text("".join(lines[:-3]) + lines[-3][:20])
    refused(a, b, "b.jsonl holds 48 predictions", "half-finished", "goes on from what is there")


def test_altered_predictions_are_refused(a):
    altered = spoil(a, lambda stored: stored["predictions"][3].update(prompt="draw a cat"))
    refused(a, altered, "was altered")


def test_a_result_that_was_edited_by_hand_is_refused(a: Path, tmp_path: Path) -> None:
    """By the page and by comparisons, whatever was edited: a score, a verdict, the recipe."""

    def flip(stored):
        first = stored["predictions"][0]
        first["right"] = not first["right"]

    changes = (
        flip,
        lambda stored: stored["predictions"].pop(),
        lambda stored: stored["scores"]["drawing"]["overall"].update(n=10**6),
        lambda stored: stored["recipe"].update(model="0" * 64),
    )
    for change in changes:
        stored = json.loads(a.read_text())
        change(stored)
        edited = tmp_path / "edited.json"
        edited.write_text(json.dumps(stored))
        refused(a, edited, "edited.json was cut or altered since it was written")
        with pytest.raises(ValueError, match="cut or altered"):
            read_result(edited)
    assert read_result(a).scores, "it is as it was"
    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps(json.loads(a.read_text()), indent=4))  # another layout
    assert read_result(moved).scores == read_result(a).scores


def test_predictions_of_another_shape_are_refused(a, tmp_path):
    def forget(name):
        return lambda stored: [p.pop(name) for p in stored["predictions"]]

    refused(a, spoil(a, forget("part")), "holds 51 predictions whose prompts are")
    other = vqa(tmp_path / "v.json", lambda n: True)
    refused(other, spoil(other, forget("item")), "a prediction lacks 'item'")
    mixed = spoil(a, lambda stored: stored["predictions"][0].update(part="chains"))
    refused(a, mixed, "a prediction lacks 'steps'")


def test_a_worth_that_is_no_number_is_refused(a):
    for worth, told in ((None, "None"), ("yes", "'yes'"), (float("nan"), "NaN")):
        bad = spoil(a, lambda stored, w=worth: stored["predictions"][0].update(right=w))
        refused(a, bad, told)


def test_nan_in_kept_predictions_is_refused(a, tmp_path):
    b = scene_predictions(tmp_path / "b.jsonl", lambda n: True)
    b.write_text(b.read_text().replace('"right": true', '"right": NaN', 1))
    refused(a, b, "it holds NaN")


def test_wrong_ids_are_refused(tmp_path):
    first = geneval(tmp_path / "a.json", lambda n: True)

    def rename(stored):
        stored["predictions"][1]["id"] = "00077/0001"

    refused(first, spoil(first, rename), "lacks 1 of", "00000/0001")

    def repeat(stored):
        stored["predictions"][3]["id"] = stored["predictions"][1]["id"]

    refused(first, spoil(first, repeat), "is there twice")


def test_detections_and_folders_are_refused(a, tmp_path):
    geneval(tmp_path / "g.json", lambda n: True)
    detections = (tmp_path / "g.lines").rename(tmp_path / "g.jsonl")
    refused(a, detections, "holds no verdicts", "eval geneval score")
    refused(a, tmp_path, "is a folder")


def test_an_interval_of_one_prompt_is_not_told(tmp_path):
    a = vqa(tmp_path / "a.json", lambda n: True, images=1)
    b = vqa(tmp_path / "b.json", lambda n: n == 0, images=1)
    overall = row(compared(a, b), "pope", "overall")
    assert overall.difference.low is None and not overall.is_real
