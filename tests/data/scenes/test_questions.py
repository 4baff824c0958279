from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from unimodal.data.scenes.phrasings import QUESTIONS
from unimodal.data.scenes.questions import KINDS, Question, accept, ask, named, referents
from unimodal.data.scenes.wording import NUMBERS, phrasings
from unimodal.data.scenes.world import Background, Scene, SceneObject, generator, scene

RED_CIRCLE = SceneObject("circle", "red", "small", 0.2, 0.5)
BLUE_SQUARE = SceneObject("square", "blue", "large", 0.7, 0.5)
PAIR = Scene(Background("plain", "grey"), (RED_CIRCLE, BLUE_SQUARE))
SYNONYMS = {"grey": "gray", "purple": "violet", "circle": "a ball", "left": "To the left."}


def asked_of(drawn, kind, count=60, seed=1, **options):
    rng = generator(seed, 0, 11)
    found = (ask(drawn, kind, rng, **options) for _ in range(count))
    return [question for question in found if question is not None]


def asked_about_many(kind, count, seed=2):
    rng = generator(seed, 0, 11)
    found = (ask(scene(9, index), kind, rng) for index in range(count))
    return [question for question in found if question is not None]


def test_answers_about_a_pair_by_hand():
    expected = {
        "count": {"zero", "one", "two"},
        "colour": {"red", "blue"},
        "shape": {"circle", "square"},
        "existence": {"yes", "no"},
        "size": {"small", "large"},
        "relation": {"left", "right"},
        "neighbour": {"circle", "square"},
        "comparison": {"yes", "no"},
        "yesno": {"yes", "no"},
        "place": {"left", "right"},
        "background": {"grey", "plain"},
    }
    for kind in KINDS:
        assert {question.answer for question in asked_of(PAIR, kind)} == expected[kind], kind


def test_texts_and_answers_go_together():
    for question in asked_of(PAIR, "colour", 200):
        about_circle = any(w in question.text.lower() for w in ("circle", "ball", "disc", "dot"))
        about_small = any(w in question.text.lower() for w in ("small", "little", "tiny"))
        assert question.answer == ("red" if about_circle or about_small else "blue"), question
        assert "red" not in question.text and "blue" not in question.text
    for question in asked_of(PAIR, "existence", 200):
        words = question.text.lower()
        is_mixed = (
            "red" in words and ("square" in words or "box" in words or "block" in words)
        ) or ("blue" in words and any(w in words for w in ("circle", "ball", "disc", "dot")))
        assert not (is_mixed and question.answer == "yes"), question


def test_descriptions_fit_exactly_one_object():
    rng = generator(3, 0, 11)
    for index in range(300):
        drawn = scene(10, index)
        for obj in drawn.objects:
            for without in ("", "colour", "shape", "size"):
                claims = referents(drawn, obj, without)
                for claim in claims:
                    assert [t for t in drawn.objects if claim.fits(t)] == [obj]
                    assert not without or getattr(claim, without) is None
                assert (named(drawn, obj, rng, without) is None) == (not claims)


def test_objects_that_nothing_tells_apart_are_not_asked_about():
    twins = Scene(PAIR.background, (RED_CIRCLE, SceneObject("circle", "red", "small", 0.8, 0.2)))
    for kind in ("colour", "shape", "size", "relation", "neighbour", "yesno", "comparison"):
        assert asked_of(twins, kind) == []


def test_guessing_without_the_image_gains_little():
    rates = {}
    for kind in KINDS:
        answers = Counter(question.answer for question in asked_about_many(kind, 1500))
        rates[kind] = max(answers.values()) / answers.total()
        if set(answers) == {"yes", "no"}:
            assert rates[kind] < 0.54, (kind, answers)
    assert sum(rates.values()) / len(rates) < 0.34, rates


def test_no_form_of_a_yes_no_question_gives_its_answer_away():
    answers = defaultdict(Counter)
    for kind in ("existence", "yesno", "comparison"):
        for question in asked_about_many(kind, 3000):
            answers[question.topic, question.phrasing][question.answer] += 1
    for key, counts in answers.items():
        spread = 4 * 0.5 / counts.total() ** 0.5  # four standard errors of a fair coin
        assert abs(counts["yes"] / counts.total() - 0.5) < spread, (key, counts)


def test_phrasings_are_held_out_as_asked():
    for held_out in (True, False):
        for kind in KINDS:
            for question in asked_of(scene(11, 3), kind, 20, held_out=held_out):
                assert question.phrasing in phrasings(QUESTIONS[question.topic], held_out)


def test_both_spellings_occur():
    texts = " ".join(question.text for question in asked_of(PAIR, "colour", 200)).lower()
    assert "colour" in texts and "color " in texts


def test_replies_are_scored_whatever_their_dress():
    for kind in KINDS:
        for question in asked_about_many(kind, 60):
            answer = question.answer
            assert accept(question, answer)
            assert accept(question, f" {answer.upper()}. ")
            if answer in SYNONYMS:
                assert accept(question, SYNONYMS[answer])
            if answer in NUMBERS:
                assert accept(question, str(NUMBERS.index(answer)))
            assert not accept(question, "") and not accept(question, "banana 12")
            assert not accept(question, f"{answer} {answer}")


def test_wrong_replies_are_wrong():
    for first, second in pairwise(
        ("yes", "no", "red", "circle", "two", "12", "left", "above", "²")
    ):
        assert not accept(Question("count", "count", "?", first, 0), second)
        assert not accept(Question("count", "count", "?", second, 0), first)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="no question kind 'riddle'"):
        ask(PAIR, "riddle", generator(1, 1))
