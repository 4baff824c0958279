"""The official rules, against outputs of the official programs and examples worked out by hand."""

import json
from pathlib import Path

import pytest

from unimodal.eval.vqa.answers import (
    CONTRACTIONS,
    always_normalised,
    evalai,
    leave_one_out,
    llava_gqa,
    textvqa_accuracy,
    vqa_accuracy,
    vqa_official,
)
from unimodal.eval.vqa.check import check
from unimodal.eval.vqa.choices import first_letter, guess, mmbench_choice, mmmu_choice
from unimodal.eval.vqa.open_answer import is_right, key_phrases, numbers, parsed
from unimodal.eval.vqa.yes_no import mme_answer, pope_answer, says_either, true_or_false

VECTORS = Path(__file__).resolve().parents[3] / "../shared/data/vqa/golden_vectors.json"
OPTIONS = {"A": "a cat", "B": "a dog", "C": "three horses", "D": "nothing"}
TEN = ("red", "red", "red", "blue", "blue", "blue", "blue", "green", "Red.", "a red")

# --- short answers ------------------------------------------------------------------------------


@pytest.mark.skipif(not VECTORS.exists(), reason="needs shared/data/vqa beside the repository")
def test_every_golden_vector_agrees():
    vectors = json.loads(VECTORS.read_text())
    assert (len(vectors["normalise"]), len(vectors["score"])) == (20, 6)
    assert check(VECTORS) == []


@pytest.mark.parametrize(
    ("given", "official"),
    [
        ("two", "2"),
        ("Ten dogs", "10 dogs"),
        ("none", "0"),
        ("The cat and a dog", "cat and dog"),
        ("an", ""),
        ("isnt", "isn't"),
        ("hes", "he's"),
        ("couldn'tve", "couldn't've"),
        ("Im", "im"),  # the table has Im with a capital, which no word has by then
        ("somebody'd", "somebodyd"),
        ("ow's'at", "'ow's'at"),
        ("t-shirt", "t shirt"),
        ("yes/no", "yes no"),
        ("yes / no", "yes no"),  # a mark beside a space goes without leaving one
        ("1,000", "1000"),
        ("1,000-year-old", "1000yearold"),  # a comma between digits closes every gap
        ("3.5", "3.5"),
        ("3.", "3"),
        (".5", ".5"),
        ("U.S.A.", "usa"),
        ("10:30", "10:30"),
        ("$5", "$5"),
        ("50%", "50%"),
        ("it's", "it's"),
        ("what?!", "what"),
        ("line\nbreak\tand", "line break and"),
        ("." * 40 + "x", "." * 8 + "x"),  # no more than 32 full stops
    ],
)
def test_vqa_normal_forms(given: str, official: str):
    assert vqa_official(given) == official


def test_contractions_are_the_official_ones():
    """120 in the official table, of which "let's" and "she's" change nothing."""
    assert len(CONTRACTIONS) == 118
    assert all(one.replace("'", "") == full.replace("'", "") for one, full in CONTRACTIONS.items())


@pytest.mark.parametrize(
    ("agree", "worth"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_an_answer_is_worth_how_many_agree(agree: int, worth: float):
    people = ["two"] * agree + [f"other {k}" for k in range(10 - agree)]
    assert leave_one_out("two", people) == pytest.approx(worth, abs=1e-12)
    assert leave_one_out("two", people) == pytest.approx(brute_force("two", people), abs=1e-12)


def brute_force(answer: str, people: list[str]) -> float:
    """The definition: leave out each person in turn."""
    worth = []
    for left_out in range(len(people)):
        others = people[:left_out] + people[left_out + 1 :]
        worth.append(min(1, others.count(answer) / 3))
    return sum(worth) / len(worth)


@pytest.mark.parametrize(
    ("answer", "people", "official", "always"),
    [
        ("Yes", ["yes"] * 10, 0.0, 1.0),  # all agree: nothing is normalised
        ("yes", ["yes"] * 10, 1.0, 1.0),
        (" yes\n", ["yes"] * 10, 1.0, 1.0),
        ("Yes", ["yes"] * 9 + ["no"], 1.0, 1.0),
        ("red", TEN, 1.0, 1.0),  # 'Red.' and 'a red' join the three
        ("Green", TEN, 0.3, 0.3),
        ("", TEN, 0.0, 0.0),
    ],
)
def test_vqa_accuracy(answer: str, people: list[str], official: float, always: float):
    assert vqa_accuracy(answer, people) == pytest.approx(official)
    assert always_normalised(answer, people) == pytest.approx(always)


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("It's a dog, right?", "it 's dog right"),
        ("McDonald's", "mcdonald 's"),
        ("1,000", "1000"),
        ("Two.", "2"),
        ("dont", "don't"),
        ("coca-cola", "coca cola"),
        ("what? no", "what no"),
        ("12.99", "12.99"),
    ],
)
def test_textvqa_normal_forms(given: str, form: str):
    assert evalai(given) == form


def test_official_vectors_may_be_of_no_words(tmp_path: Path):
    vectors = {"normalise": [{"in": "", "out": ""}], "score": [{"gt": TEN, "pred": "", "acc": 0.0}]}
    file = tmp_path / "golden.json"
    file.write_text(json.dumps(vectors))
    assert check(file) == []
    file.write_text(json.dumps(vectors | {"score": [{"gt": TEN, "pred": "", "acc": 30.0}]}))
    assert "'' to" in check(file)[0]


def test_textvqa_accuracy_always_normalises():
    assert textvqa_accuracy("STOP.", ["stop"] * 10) == 1
    assert textvqa_accuracy("stop", ["stop"] * 2 + ["go"] * 8) == pytest.approx(0.6)


def test_gqa_drops_the_last_stop_and_capitals():
    assert llava_gqa("Yes.") == "yes" and llava_gqa("the U.S.") == "the u.s"


# --- yes and no ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "read", "says"),
    [
        ("yes", "yes", True),
        ("No", "no", True),
        ("no.", "no", True),
        ("NO", "yes", True),  # only 'No', 'no' and 'not' are looked for
        ("There is not a dog. Yes", "no", True),
        ("Yes. There is no cat", "yes", True),  # the first sentence alone
        ("Well, no", "no", True),
        ("no!", "yes", True),
        ("a dog", "yes", False),
        ("", "yes", False),
        ("nothing", "yes", False),
    ],
)
def test_pope_takes_all_but_no_for_yes(answer: str, read: str, says: bool):
    assert pope_answer(answer) == read and says_either(answer) == says


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"), ("no.", "no"), ("Yes, it is", "yes"), ("A no", "no"), ("It is yes", None),
        ("", None), ("not", "no"), ("know", "no"), ("eyes", "yes"),
    ],
)  # fmt: skip
def test_mme_looks_at_four_letters(answer: str, read: str | None):
    assert mme_answer(answer) == read


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("true", True), ("False.", False), ("yes, it is", True), ('"No"', False), ("right", None),
        ("", None), ("untrue", None), ("it is true", None),
    ],
)  # fmt: skip
def test_true_or_false(answer: str, said: bool | None):
    assert true_or_false(answer) is said


# --- multiple choice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("B.", "B"),
        ("The answer is B.", "B"),
        ("(A) is wrong, so (B) it is", "B"),
        ("A or D", "D"),
        ("(A) rather than B", "A"),  # brackets come before bare letters
        ("B, because", None),
        ("B. a dog", "B"),
        ("it is a dog", None),  # texts count in answers of more than five words
        ("I am sure that this is a dog", "B"),
        ("one sees a cat and behind it a dog", "B"),  # the last of several
        ("", None),
    ],
)
def test_mmmu_letters(answer: str, letter: str | None):
    assert mmmu_choice(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("Answer: (C)", "C"),
        ("B, a dog", "B"),
        ("A or B", None),
        ("A dog is in it", "B"),  # A is an article here, and the text decides
        ("a dog", "B"),
        ("A Dog, not A Cat", None),
        ("no idea", None),
        ("three horses " * 10, None),  # more than twice the options' letters
        ("", None),
    ],
)
def test_mmbench_letters(answer: str, letter: str | None):
    assert mmbench_choice(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("C", "C"), ("D. nothing", "D"), ("(B)", "B"), ("Answer: C", None), ("E", None), ("", None)],
)
def test_the_first_letter(answer: str, letter: str | None):
    assert first_letter(answer, OPTIONS) == letter


def test_a_guess_is_seeded_and_even():
    drawn = [guess("ABCD", 1, f"question {k}") for k in range(4000)]
    assert drawn == [guess("ABCD", 1, f"question {k}") for k in range(4000)]
    assert drawn != [guess("ABCD", 2, f"question {k}") for k in range(4000)]
    assert all(abs(drawn.count(letter) - 1000) < 4 * (4000 * 3 / 16) ** 0.5 for letter in "ABCD")


# --- open answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right", "worth"),
    [
        ("24", ["24"], True),
        ("The answer is 24.", ["24"], True),
        ("x = 3.14159", ["3.14"], True),
        ("3.1", ["3.14"], False),
        ("about 1,200 dollars", ["1200"], True),
        ("the result is 1.2e3", ["1200"], True),
        ("It is a parallel circuit", ["parallel"], True),
        ("series", ["parallel"], False),
        ("it is b", ["b"], True),
        ("it is about", ["b"], False),  # a single letter needs a space beside it
        ("it is a b then", ["b"], True),
        ("seven", ["7", "seven"], True),
        ("", ["24"], False),
    ],
)
def test_mmmu_open_answers(answer: str, right: list[str], worth: bool):
    assert is_right(answer, right) is worth


def test_phrases_and_numbers():
    assert key_phrases("It is two\nso the final answer is 3") == ["two", "3"]
    assert key_phrases("Hello There.") == ["hello there"]
    # As officially: parts of a number are found again by the pattern of plain ones.
    assert list(numbers("1,200 and -3.5e2")) == ["1,200", "-3.5e2", "200", "-3", "2"]
    assert list(numbers("around .5 or 7")) == [".5", "7"]
    assert parsed("It is 2.75 m") == {"2.75 m", 2.75}
