"""Scores of judged answers, against counts worked out by hand; intervals against definitions."""

import shutil
from typing import Any

import numpy as np
import pytest

from unimodal.eval.intervals import proportion
from unimodal.eval.vqa.captions import bleu_4
from unimodal.eval.vqa.clusters import mean_of_clusters, of_clusters, share_of_clusters
from unimodal.eval.vqa.evaluation import constants, gain, report
from unimodal.eval.vqa.tasks import task_of

SETTINGS = {"evaluation": "vqa", "task": "x", "seed": 1}


def said(item: str, answer: str, expected: dict[str, Any], kind: str = "all", group: str = ""):
    """A prediction, as an evaluation keeps it."""
    return {
        "item": item, "pass": "seen", "kind": kind, "group": group or item, "prompt": "?",
        "expected": expected, "answer": answer,
    }  # fmt: skip


def scores(name: str, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    task = task_of(name)
    return report(task, predictions, SETTINGS)["scores"][name]


# --- intervals ----------------------------------------------------------------------------------


def test_items_that_stand_alone_have_wilsons_interval():
    """The jackknife's variance is p (1 - p) / (n - 1): Wilson's interval for n - 1 answers."""
    found = mean_of_clusters((str(k), float(k < 30)) for k in range(101))
    p, n = 30 / 101, 100
    z = 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    assert found.value == pytest.approx(p) and found.n == 101
    assert (found.low, found.high) == (pytest.approx(centre - half), pytest.approx(centre + half))


def test_items_that_say_the_same_count_once():
    """A hundred copies of each of 20 answers are worth 20 answers, and not 2,000."""
    copies = mean_of_clusters((str(k % 20), float(k % 20 < 5)) for k in range(2000))
    alone = mean_of_clusters((str(k), float(k < 5)) for k in range(20))
    assert (copies.low, copies.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert copies.n == 2000


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_wrong_is_no_point(right):
    found = mean_of_clusters((str(k % 10), right) for k in range(60))
    wilson = proportion(int(10 * right), 10)
    assert (found.low, found.high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))


def test_the_jackknife_is_that_of_the_definition():
    rng = np.random.default_rng(3)
    addends = [(str(k % 7), rng.integers(0, 9, 2).tolist()) for k in range(30)]
    statistic = lambda sums: float(np.sqrt(sums[0] + 1) / (sums[1] + 1))  # noqa: E731
    found = of_clusters(addends, statistic)
    without = [
        statistic(np.sum([added for one, added in addends if one != name], axis=0))
        for name in map(str, range(7))
    ]
    half = 1.959963984540054 * np.sqrt(6 / 7 * np.sum((without - np.mean(without)) ** 2))
    assert found.value == pytest.approx(statistic(np.sum([a for _, a in addends], axis=0)))
    assert found.high - found.value == pytest.approx(half)


def test_intervals_hold_what_they_promise():
    """Of 400 samples of 40 images with 6 questions each, about 95 % hold the truth."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        rates = rng.beta(2, 1, 40)  # mean 2/3; questions about an image go together
        right = rng.random((40, 6)) < rates[:, None]
        found = mean_of_clusters((str(k), float(r)) for k in range(40) for r in right[k])
        held += found.low <= 2 / 3 <= found.high
    assert 0.91 <= held / 400 <= 0.99


def test_one_cluster_has_no_interval_and_none_no_value():
    found = share_of_clusters([("a", (1, 1)), ("a", (0, 1))])
    assert (found.value, found.low, found.high, found.n) == (0.5, None, None, 2)
    assert mean_of_clusters([]).value is None


# --- scores -------------------------------------------------------------------------------------


def test_pope_by_hand():
    yes, no = {"answer": "yes"}, {"answer": "no"}
    answers = [
        ("yes", yes), ("Yes, it is", yes), ("no", yes), ("yes", no), ("no", no), ("", no),
    ]  # fmt: skip
    random = [said(f"random/{k}", a, e, "random", str(k // 2)) for k, (a, e) in enumerate(answers)]
    popular = [said(f"popular/{k}", "no", e, "popular", str(k)) for k, e in enumerate([yes, no])]
    found = scores("pope", random + popular)
    # random: TP 2, FN 1, FP 2 (the empty answer counts as yes), TN 1
    assert found["random"].value == pytest.approx(3 / 6)
    assert found["random_precision"].value == pytest.approx(2 / 4)
    assert found["random_recall"].value == pytest.approx(2 / 3)
    assert found["random_f1"].value == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert found["random_yes_ratio"].value == pytest.approx(4 / 6)
    assert found["popular"].value == 0.5 and found["popular_f1"].value == 0
    assert found["popular_precision"].value is None, "nothing was answered by yes"
    assert found["overall"].value == pytest.approx((3 / 6 + 1 / 2) / 2)
    assert found["mean_f1"].value == pytest.approx((4 / 7 + 0) / 2)
    assert found["unparsed"].value == pytest.approx(1 / 8) and found["overall"].n == 8
    assert "adversarial" not in found


def test_mme_by_hand():
    yes, no = {"answer": "yes"}, {"answer": "no"}
    predictions = []
    for image, (first, second) in {
        "a": ("yes", "no"),
        "b": ("yes", "yes"),
        "c": ("?", "no"),
    }.items():
        for k, (answer, expected) in enumerate(((first, yes), (second, no))):
            predictions.append(said(f"{image}{k}", answer, expected, "count", f"count/{image}"))
    predictions += [said(f"d{k}", "no", e, "OCR", "OCR/d") for k, e in enumerate((yes, no))]
    found = scores("mme", predictions)
    assert found["count"].value == pytest.approx(100 * (4 / 6 + 1 / 3))
    assert found["OCR"].value == pytest.approx(100 * (1 / 2 + 0))
    assert found["perception_of_2"].value == pytest.approx(100 + 50) and "cognition" not in found
    assert 0 <= found["count"].low < found["count"].high <= 200
    assert found["unparsed"].value == pytest.approx(1 / 8)


def test_mmbench_wants_every_rotation_right():
    options = {"A": "cat", "B": "dog"}
    a, b = ({"answer": one, "options": options} for one in "AB")
    predictions = [
        said("1", "A", a, "x", "1"), said("1000001", "B", b, "x", "1"),
        said("2", "A", a, "x", "2"), said("1000002", "A", b, "x", "2"),
    ]  # fmt: skip
    found = scores("mmbench", predictions)
    assert found["overall"].value == found["x"].value == 0.5 and found["overall"].n == 2
    assert found["one_order"].value == 0.75 and found["one_order"].n == 4

    found = scores("mmbench", [{**one, "answer": one["expected"]["answer"]} for one in predictions])
    assert (found["overall"].value, found["majority"]["overall"].value) == (1, 0)
    whole = found["gain_over_majority"]
    assert (whole.value, whole.n) == (1, 2), "a gain is of questions, as the score is"


def test_a_letter_that_cannot_be_read_is_drawn_and_counted():
    expected = {"answer": "B", "options": {letter: f"option {letter}" for letter in "ABCD"}}
    predictions = [said(str(k), "no idea", expected) for k in range(2000)]
    task = task_of("seedbench")
    judged = task.judged(predictions, 5)
    assert all(
        one["unparsed"] and one["parsed"] is None and one["guess"] in "ABCD" for one in judged
    )
    assert np.mean([one["value"] for one in judged]) == pytest.approx(0.25, abs=0.04)
    assert judged == task.judged(predictions, 5) != task.judged(predictions, 6)
    assert scores("seedbench", predictions)["unparsed"].value == 1


def test_mmmu_judges_letters_and_open_answers():
    letters = {"answers": ["B"], "options": {"A": "one", "B": "two"}}
    open_ = {"answers": ["24"], "options": {}}
    predictions = [
        said("1", "(B)", letters, "Art"), said("2", "it is 24.0", open_, "Math"),
        said("3", "", open_, "Math"),
    ]  # fmt: skip
    found = scores("mmmu", predictions)
    assert found["overall"].value == pytest.approx(2 / 3) and found["Math"].value == 0.5
    assert found["unparsed"].value == pytest.approx(1 / 3)


def test_vqav2_and_gqa_have_both_rules():
    people = {"answers": ["yes"] * 10, "question_type": "is the"}
    found = scores(
        "vqav2", [said("1", "Yes", people, "yes/no"), said("2", "yes", people, "yes/no")]
    )
    assert (found["overall"].value, found["always_normalised"].value) == (0.5, 1.0)
    assert found["question_types"]["is the"].n == 2
    gqa = {"answer": "no", "type": "verify"}
    found = scores("gqa", [said("1", "No.", gqa, "binary"), said("2", "no", gqa, "binary")])
    assert (found["overall"].value, found["exact"].value) == (1.0, 0.5)


def test_the_majority_is_the_best_constant_of_each_category():
    answers = ["yes"] * 5 + ["no"] * 3
    predictions = [said(str(k), "no", {"answer": a}, "random") for k, a in enumerate(answers)]
    predictions += [said("z", "no", {"answer": "no"}, "popular")]
    task = task_of("pope")
    assert {p["kind"]: p["answer"] for p in constants(task, predictions)} == {
        "random": "yes", "popular": "no",
    }  # fmt: skip
    found = scores("pope", predictions)
    assert found["majority"]["random"].value == pytest.approx(5 / 8)
    assert found["gain_over_majority"].value == pytest.approx((4 - 6) / 9)


def test_a_gain_is_paired():
    seen = [{"item": str(k), "group": str(k), "value": float(k % 2)} for k in range(40)]
    same = gain(seen, seen, 1.0)
    assert same.value == 0 and same.low < 0 < same.high
    shifted = [{**one, "value": 0.0} for one in seen]
    assert gain(seen, shifted, 1.0).value == pytest.approx(0.5)


# --- captions -----------------------------------------------------------------------------------


def test_bleu_of_counts():
    """Papineni's equation for 3 of 4 words, 2 of 3 pairs, 1 of 2 triples and 1 of 1 quadruple."""
    sums = np.array([3, 2, 1, 1, 4, 3, 2, 1, 4, 5])
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1) ** 0.25 * np.exp(1 - 5 / 4)
    assert bleu_4(sums) == pytest.approx(expected, rel=1e-6)


def test_captions_are_refused_with_the_way_out(monkeypatch):
    task = task_of("captions")
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "pycocoevalcap.cider.cider", None)
        with pytest.raises(ValueError, match=r"pip install 'unimodal\[captions\]'"):
            task.check()
    pytest.importorskip("pycocoevalcap", reason="the extra captions is not installed")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs Java: install a Java runtime"):
        task.check()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime")
def test_captions_score_as_pycocoevalcap_does():
    pytest.importorskip("pycocoevalcap", reason="the extra captions is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    people = [["A cat on a mat.", "one cat"], ["two dogs run fast", "Dogs!"], ["a red bus", "bus"]]
    model = ["a cat on a mat", "two dogs\nrun in a field", ""]
    predictions = [
        said(str(k), a, {"captions": p}) for k, (a, p) in enumerate(zip(model, people, strict=True))
    ]
    found = scores("captions", predictions)
    tokens = PTBTokenizer().tokenize({k: [{"caption": c} for c in p] for k, p in enumerate(people)})
    answers = PTBTokenizer().tokenize({k: [{"caption": a}] for k, a in enumerate(model)})
    assert found["overall"].value == pytest.approx(Cider().compute_score(tokens, answers)[0])
    bleu = Bleu(4).compute_score(tokens, answers, verbose=0)[0][3]
    assert found["bleu_4"].value == pytest.approx(bleu)
    assert found["unparsed"].value == pytest.approx(1 / 3)
