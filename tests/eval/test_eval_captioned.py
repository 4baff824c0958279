"""Captioned images: which names and drawings are right, and what the scores are."""

from dataclasses import replace

import numpy as np
import pytest

from unimodal.document import Image, Text
from unimodal.eval.answer import Answer
from unimodal.eval.captioned import Captioned, CaptionedEvaluator, CaptionedRequest
from unimodal.eval.reconstruction import psnr
from unimodal.eval.run import run
from unimodal.model import Model
from unimodal.sampling import Sampling


def flat(level: int) -> np.ndarray:
    return np.full((24, 16, 3), level, np.uint8)


def image(name: str, level: int, *captions: str, held_out: bool = False) -> Captioned:
    return Captioned(name, captions, flat(level), flat(level), flat(level + 5), held_out)


IMAGES = [
    image("a.png", 0, "A red bus.", "a coach"),
    image("b.png", 100, "the moon"),
    image("c.png", 200, "a red bus", held_out=True),
]


@pytest.fixture
def evaluator() -> CaptionedEvaluator:
    return CaptionedEvaluator(IMAGES, Sampling(), seed=3)


def drawn(level: int) -> Answer:
    return Answer("", (flat(level),), ((1, 2),))


@pytest.mark.parametrize(
    ("number", "said", "right"),
    [
        (0, "a red bus", True),
        (0, "Red bus", True),
        (0, "A COACH!", True),
        (0, "a bus", False),
        (0, "", False),
        (1, "moon.", True),
        (1, "a red bus", False),
    ],
)
def test_a_name_is_one_of_the_captions(
    evaluator: CaptionedEvaluator, number: int, said: str, right: bool
):
    judged = evaluator.score(CaptionedRequest("naming", number), Answer(said))
    assert judged["right"] is right and bool(judged["reason"]) is not right


def test_an_image_is_no_name(evaluator: CaptionedEvaluator):
    answer = Answer("a red bus", (flat(0),), ((1,),))
    judged = evaluator.score(CaptionedRequest("naming", 0), answer)
    assert not judged["right"] and judged["reason"].startswith("1 image")


def test_a_drawing_is_compared_with_what_the_tokenizer_shows(evaluator: CaptionedEvaluator):
    judged = evaluator.score(CaptionedRequest("drawing", 1), drawn(95))
    assert judged["right"]
    assert judged["own_db"] == psnr(flat(105), flat(95))
    assert judged["others_db"] == np.mean([psnr(flat(level), flat(95)) for level in (5, 205)])


def test_a_drawing_nearer_to_another_is_wrong(evaluator: CaptionedEvaluator):
    judged = evaluator.score(CaptionedRequest("drawing", 1), drawn(20))
    assert not judged["right"] and judged["reason"] == "nearer to a.png"


def test_images_of_one_caption_are_not_told_apart(evaluator: CaptionedEvaluator):
    """Both are red buses: a drawing of one may look like the other."""
    judged = evaluator.score(CaptionedRequest("drawing", 0), drawn(210))
    assert judged["right"] and judged["own_db"] < 3
    assert judged["others_db"] == psnr(flat(105), flat(210))


@pytest.mark.parametrize("answer", [Answer("no"), Answer("", (flat(1), flat(2)), ((1,), (2,)))])
def test_no_drawing_and_two_are_wrong(evaluator: CaptionedEvaluator, answer: Answer):
    judged = evaluator.score(CaptionedRequest("drawing", 0), answer)
    assert not judged["right"] and judged["own_db"] is None


def test_what_is_asked(evaluator: CaptionedEvaluator):
    requests = evaluator.requests()
    assert len({one.id for one in requests}) == len(requests) == 6
    (asked,) = list(evaluator.turns(requests[0]))
    assert [part.text for part in asked.document.parts] == ["draw a red bus"]
    (shown,) = list(evaluator.turns(requests[3]))
    seen, words = shown.document.parts
    assert isinstance(seen, Image) and isinstance(words, Text)
    assert (seen.pixels == IMAGES[0].pixels).all() and words.text == "what is this?"
    assert asked.sampling.seed == 3 * 2**20


def test_the_digest_is_of_captions_and_pixels(evaluator: CaptionedEvaluator):
    for change in ({"captions": ("b",)}, {"pixels": flat(1)}):
        other = [replace(IMAGES[0], **change), *IMAGES[1:]]
        assert CaptionedEvaluator(other, Sampling(), 3).digest() != evaluator.digest()


def test_scores_of_taught_and_held_out_stand_apart(evaluator: CaptionedEvaluator):
    answers = {
        "drawing/000000": drawn(0), "drawing/000001": drawn(0), "drawing/000002": Answer("no"),
        "naming/000000": Answer("red bus"), "naming/000001": Answer("x"),
        "naming/000002": Answer("red bus"),
    }  # fmt: skip
    predictions = [evaluator.score(one, answers[one.id]) for one in evaluator.requests()]
    scores = evaluator.summary(predictions)
    taught, held_out = scores["taught"], scores["held_out"]
    assert (taught["named"].value, taught["named"].n) == (0.5, 2)
    assert (taught["drawn_nearest_to_own"].value, held_out["named"].value) == (0.5, 1.0)
    assert held_out["drawn_nearest_to_own"].value == 0.0
    assert held_out["psnr_to_own_db"].value is None and taught["psnr_to_own_db"].n == 2
    without = CaptionedEvaluator(IMAGES[:2], Sampling(), 3)
    assert list(without.summary(predictions[:2])) == ["taught"]


def test_a_model_draws_what_it_always_draws(drawing_model: Model):
    """A model whose reply is 'ok' and an image: every drawing is judged, and no name is right."""
    evaluator = CaptionedEvaluator(IMAGES, drawing_model.sampling, 3)
    predictions = run(drawing_model, evaluator)
    assert [p["kind"] for p in predictions] == ["drawing"] * 3 + ["naming"] * 3
    assert all(p["own_db"] is not None and len(p["codes"]) == 1 for p in predictions[:3])
    assert not any(p["right"] for p in predictions[3:])
