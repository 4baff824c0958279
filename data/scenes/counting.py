"""Questions of how many, even over what is counted and over the answers.

In: a generator, or a scene. Out: a scene with a chosen number of a kind, and questions about it.

`questions.ask` counts what a random scene offers, of which large numbers are mostly all objects.
Here the number is drawn first, uniform from zero to the most, and then a kind by shape, by colour,
or by both; the scene is made to have so many of it.
"""

import numpy as np

from .phrasings import QUESTIONS
from .questions import Question
from .wording import (
    NUMBERS,
    Claim,
    bare_noun,
    claims_of,
    dressed,
    listed,
    noun,
    pick,
    pick_phrasing,
)
from .world import COLOURS, SHAPES, Scene, World, any_held_out, arrange, background
from .world import random_attributes as any_attributes

KINDS = (
    "shape",
    "shape",
    "colour",
    "colour shape",
)  # what names the counted; shapes are asked most
NUMBER_WEIGHTS = (0.22, 0.3, 1.2, 2.7, 4.2)  # of zero to four: a picture of few has no large ones
TEMPLATES = (
    *QUESTIONS["count"],
    "state how many {many} there are",
    "how many {many} can you see?",
    "how many {many} have you drawn?",
    "how many {many} did you draw?",
    "and how many {many}?",
    "i wonder how many {many} this has",
    "tell me how many {many} there are",
    "how many of them are {many}?",
    "{many}: how many?",
    "what number of {many} is there?",
)


def counted_scene(
    rng: np.random.Generator, world: World, number: int | None = None
) -> tuple[Scene, Claim]:
    """Draw a scene and a claim of which it has a number: any from zero to its most, each as often.

    The claim counts at least two, as plurals are asked for; held-out pairs do not meet.
    """
    number = int(rng.integers(world.max_objects + 1)) if number is None else number
    while True:
        claim = _kind(rng)
        others = int(rng.integers(0 if number else 1, world.max_objects - number + 1))
        wanted = [_like(claim, rng) for _ in range(number)] + [
            _unlike(claim, rng) for _ in range(others)
        ]
        if any_held_out([attributes[:2] for attributes in wanted]):
            continue
        objects = arrange(rng, [wanted[k] for k in rng.permutation(len(wanted))])
        if objects is not None:
            return Scene(background(rng), objects), claim


def question_of(
    scene: Scene, claim: Claim, rng: np.random.Generator, held_out: bool = False
) -> Question:
    """Ask how many objects of a scene fit the claim."""
    index, template = pick_phrasing(rng, TEMPLATES, held_out)
    answer = NUMBERS[sum(map(claim.fits, scene.objects))]
    text = dressed(template.format(many=bare_noun(claim, rng)), rng)
    return Question("count", "count", text, answer, index)


def count_question(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask how many of a kind a scene has; rarer numbers more often, now and then of all."""
    if rng.random() < 0.1:
        return question_of(scene, Claim(2, None, None, None), rng)
    by_number: dict[int, list[Claim]] = {}
    for claim in (
        *(Claim(2, None, None, shape) for shape in SHAPES),
        *(Claim(2, None, obj.colour, None) for obj in scene.objects),
        *(Claim(2, None, obj.colour, obj.shape) for obj in scene.objects),
    ):
        by_number.setdefault(sum(map(claim.fits, scene.objects)), []).append(claim)
    numbers = sorted(by_number)
    edges = np.cumsum([NUMBER_WEIGHTS[min(n, 4)] for n in numbers])
    number = numbers[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]
    return question_of(scene, pick(rng, by_number[number]), rng)


def _kind(rng: np.random.Generator) -> Claim:
    has = pick(rng, KINDS)
    colour = pick(rng, tuple(COLOURS)) if "colour" in has else None
    return Claim(2, None, colour, pick(rng, SHAPES) if "shape" in has else None)


def _like(claim: Claim, rng: np.random.Generator) -> tuple[str, str, str]:
    shape, colour, size = any_attributes(rng)
    return claim.shape or shape, claim.colour or colour, size


def _unlike(claim: Claim, rng: np.random.Generator) -> tuple[str, str, str]:
    """Draw attributes that do not fit the claim; half of them share one with it."""
    while True:
        shape, colour, size = any_attributes(rng)
        if claim.shape and claim.colour and rng.random() < 0.5:
            shape, colour = (claim.shape, colour) if rng.random() < 0.5 else (shape, claim.colour)
        if claim.shape not in (None, shape) or claim.colour not in (None, colour):
            return shape, colour, size


def listed_words(scene: Scene, rng: np.random.Generator) -> str:
    """Ask for a drawing of all objects of a scene: 'draw two red circles and a star'."""
    claims = claims_of(scene)
    claims = tuple(claims[k] for k in rng.permutation(len(claims)))
    return f"draw {listed([noun(claim, rng) for claim in claims])}"
