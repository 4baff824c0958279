"""Requests as people type them, and of what cannot be had: which answers are right."""

from collections import Counter

import numpy as np
import pytest

from unimodal.data.scenes.nouns import held_out_nouns
from unimodal.data.scenes.refusals import ANSWERS, is_refusal
from unimodal.data.scenes.wording import NUMBERS
from unimodal.data.scenes.world import LARGE, render
from unimodal.document import Image
from unimodal.eval.answer import Answer
from unimodal.eval.people_requests import FREE, REFUSALS, TOPICS
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import PEOPLE_PARTS, make_requests
from unimodal.sampling import Sampling

KINDS = {"free": FREE, "counts": NUMBERS[:5], "refusals": REFUSALS, "words": TOPICS}
GREY = np.full((64, 64, 3), 150, np.uint8)


@pytest.mark.parametrize("part", PEOPLE_PARTS)
def test_every_kind_has_its_samples(part):
    found = make_requests(part, 4, seed=11)
    assert Counter(one.kind for one in found) == dict.fromkeys(KINDS[part], 4)
    again = make_requests(part, 4, seed=11)
    assert [one.prompt for one in again] == [one.prompt for one in found]
    assert [one.prompt for one in make_requests(part, 4, seed=12)] != [one.prompt for one in found]


@pytest.mark.parametrize("part", PEOPLE_PARTS)
def test_perfect_answers_are_right_and_others_wrong(part):
    for one in make_requests(part, 4, seed=3):
        if one.ideal is not None:
            right, wrong = Answer("", (render(one.ideal),)), Answer(str(one.ideal))
        else:
            right, wrong = Answer(one.expected), Answer(one.expected, (GREY,))
        assert not one.judge(right).reason, one.prompt
        assert one.judge(wrong).reason and one.judge(Answer("")).reason


def test_numbers_are_even_and_go_up_to_the_most():
    found = make_requests("counts", 5, seed=1, world=LARGE)
    assert Counter(one.expected for one in found) == dict.fromkeys(NUMBERS, 5)


def test_free_requests_are_seen_and_held_out():
    found = make_requests("free", 30, seed=2)
    share = np.mean([one.held_out_words for one in found])
    assert 0.5 < share < 0.8
    nouns = [one.prompt for one in make_requests("refusals", 40, seed=2) if one.kind == "noun"]
    held = held_out_nouns()
    assert np.mean([any(noun[:4] in text.lower() for noun in held) for text in nouns]) > 0.8


def test_every_sentence_of_refusal_is_known_as_one():
    assert all(
        is_refusal(a.format(one="a red star", side=64, most="four", what="star")) for a in ANSWERS
    )
    assert not any(map(is_refusal, ("", "two", "a red star", "hello! tell me what to draw.")))


def test_strange_images_are_shown():
    found = [one for one in make_requests("refusals", 2, seed=5) if one.kind == "strange"]
    asked = SceneEvaluator(found, Sampling(), 5, canvas=64)
    for one in found:
        image, _ = next(asked.turns(one)).document.parts
        assert isinstance(image, Image) and (image.pixels == one.image).all()


def test_words_instead_of_images_are_counted():
    found = make_requests("free", 3, seed=6)
    asked = SceneEvaluator(found, Sampling(), 6, canvas=64)
    refused = [asked.score(one, Answer("i cannot draw that")) for one in found]
    drawn = [asked.score(one, Answer("", (GREY,), ((0,),))) for one in found]
    assert asked.summary(refused)["words_instead"].value == 1
    assert asked.summary(drawn)["words_instead"].value == 0
    assert asked.summary(drawn)["words_instead"].n == 3 * (len(FREE) - 1)
    sides = [asked.summary(drawn)[f"unseen_{side}"].n for side in ("nothing", "words", "phrasings")]
    assert sum(sides) == len(found) and min(sides) > 0
