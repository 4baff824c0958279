"""Ask questions about a scene whose answers are known from its graph.

In: a `Scene`, a kind and a generator. Out: a `Question` with one right, short answer, or None when
the scene offers no such question; `accept` scores a reply.

1. Objects are named by a description that fits exactly one of them (`referents`).
2. Where a question has a yes and a no, it is asked only of scenes that allow both, and a fair coin
   picks the side; other kinds pick among the answers that the scene allows. Who guesses without
   the image gains little: the commonest answer is right 0.31 of the time (mean of KINDS).
3. A no is mostly a near miss: an attribute of another object of the same scene.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .phrasings import QUESTIONS
from .requests import OPPOSITE, RELATION_WORDS, plain_relation
from .wording import NUMBERS, Claim, bare_noun, dressed, meanings, pick, pick_phrasing, with_article
from .world import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, SceneObject

KINDS = (
    "count", "colour", "shape", "existence", "size", "relation",
    "neighbour", "comparison", "yesno", "place", "background",
)  # fmt: skip
HARD = ("relation", "comparison", "yesno", "neighbour")  # of two objects, not one: learned last
ASIDE = 0.1  # an object is plainly in one half when its centre is so far from the middle
COUNT_WEIGHTS = (0.5, 0.45, 0.8, 1.6, 2.5)  # of answers zero to four: makes them equally frequent


@dataclass(frozen=True)
class Question:
    """A question with its one right answer, in lower case."""

    kind: str  # one of KINDS
    topic: str  # key of QUESTIONS: kinds with two topics have a table of phrasings for each
    text: str
    answer: str
    phrasing: int  # index in the table of the topic


Answered = tuple[str, str, dict[str, str]]  # topic, answer, words for the slots of the template


def ask(
    scene: Scene,
    kind: str,
    rng: np.random.Generator,
    held_out: bool = False,
    phrasings: Mapping[str, tuple[str, ...]] = QUESTIONS,
) -> Question | None:
    """Ask a question of one of KINDS, in held-out ones of the phrasings or others.

    None when the scene has no such question; ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no question kind {kind!r}: one of {', '.join(KINDS)}")
    answered = _ASKERS[kind](scene, rng)
    if answered is None:
        return None
    topic, answer, slots = answered
    index, template = pick_phrasing(rng, phrasings[topic], held_out)
    text = template.format(**slots)
    if rng.random() < 0.5:
        text = text.replace("colour", "color")
    return Question(kind, topic, dressed(text, rng), answer, index)


def accept(question: Question, text: str) -> bool:
    """Return whether a reply is the answer, whatever its case, stops, article, digits, synonyms."""
    return _plain(text) == _plain(question.answer)


def bare(text: str) -> str:
    """Return a reply in small letters, without stops and the article before it."""
    words = re.sub(r"[.!,;:]", " ", text.lower()).split()
    if words[:1] in (["a"], ["an"], ["the"]):
        words = words[1:]
    return " ".join(words)


def _plain(text: str) -> str:
    joined = bare(text)
    return _SHORTER.get(joined) or meanings().get(joined, joined)


_SHORTER = {"none": "zero", "no one": "zero", "gray": "grey", "over": "above", "under": "below"}
_SHORTER |= {str(number): word for number, word in enumerate(NUMBERS)}
_SHORTER |= {f"to the {side} of": side for side in ("left", "right")}
_SHORTER |= {
    f"{before} the {side}": side
    for before in ("to", "on", "at", "in")
    for side in ("left", "right", "top", "bottom")
}


def referents(scene: Scene, obj: SceneObject, without: str = "") -> list[Claim]:
    """Return the descriptions that fit this object alone; none names the attribute `without`."""
    found = []
    for has in (
        "shape", "colour", "colour shape", "size shape", "size colour", "size", "size colour shape",
    ):  # fmt: skip
        if without and without in has:
            continue
        claim = Claim(
            1, *(getattr(obj, a) if a in has else None for a in ("size", "colour", "shape"))
        )
        if sum(claim.fits(other) for other in scene.objects) == 1:
            found.append(claim)
    return found


def named(
    scene: Scene, obj: SceneObject, rng: np.random.Generator, without: str = ""
) -> str | None:
    """Put an object in words, to stand behind 'the'; None when no description fits it alone.

    Mostly colour and shape, as people say it, where that fits it alone.
    """
    claims = referents(scene, obj, without)
    if not claims:
        return None
    usual = [c for c in claims if c.shape is not None]
    return bare_noun(pick(rng, usual if usual and rng.random() < 0.75 else claims), rng)


def _nameable(scene: Scene, without: str = "") -> list[SceneObject]:
    return [obj for obj in scene.objects if referents(scene, obj, without)]


def _names(scene: Scene, rng: np.random.Generator, *objects: SceneObject) -> list[str]:
    names = [named(scene, obj, rng) for obj in objects]
    return [name for name in names if name is not None]


def _pick_weighted(rng: np.random.Generator, options: list, weights: list[float]):
    edges = np.cumsum(weights)
    return options[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]


def _ask_count(scene: Scene, rng: np.random.Generator) -> Answered:
    """Count whatever can be counted; the answer is picked first, rarer ones more often."""
    by_answer: dict[int, list[Claim]] = {len(scene.objects): [Claim(2, None, None, None)]}
    claims = [Claim(2, None, None, shape) for shape in SHAPES]
    claims += [Claim(2, None, colour, None) for colour in COLOURS]
    claims += [Claim(2, None, obj.colour, obj.shape) for obj in scene.objects]
    for claim in claims:
        by_answer.setdefault(sum(map(claim.fits, scene.objects)), []).append(claim)
    answers = sorted(by_answer)
    answer = _pick_weighted(rng, answers, [COUNT_WEIGHTS[min(n, 4)] for n in answers])
    return "count", NUMBERS[answer], {"many": bare_noun(pick(rng, by_answer[answer]), rng)}


def _ask_attribute(attribute: str) -> Callable[[Scene, np.random.Generator], Answered | None]:
    def asker(scene: Scene, rng: np.random.Generator) -> Answered | None:
        objects = _nameable(scene, without=attribute)
        if not objects:
            return None
        obj = pick(rng, objects)
        name = named(scene, obj, rng, without=attribute)
        assert name is not None, "a nameable object has a name"
        return attribute, getattr(obj, attribute), {"one": name}

    return asker


def _ask_size(scene: Scene, rng: np.random.Generator) -> Answered | None:
    objects = _nameable(scene, without="size")
    if not objects:
        return None
    weights = {"small": 0.8, "medium": 1.0, "large": 1.3}  # full scenes have fewer large objects
    obj = _pick_weighted(rng, objects, [weights[obj.size] for obj in objects])
    return "size", obj.size, {"one": named(scene, obj, rng, without="size") or ""}


def _ask_existence(scene: Scene, rng: np.random.Generator) -> Answered:
    """Ask whether there is such an object; a no mostly mixes the attributes of two objects."""
    obj = pick(rng, scene.objects)
    has_colour, has_shape = pick(rng, ((True, True), (True, True), (True, False), (False, True)))
    if rng.random() < 0.5:
        claim = Claim(1, None, obj.colour if has_colour else None, obj.shape if has_shape else None)
        return "existence", "yes", {"a": with_article(bare_noun(claim, rng))}
    near = rng.random() < 0.7
    colours = [obj.colour for obj in scene.objects] if near else list(COLOURS)
    shapes = [obj.shape for obj in scene.objects] if near else list(SHAPES)
    for _ in range(8):
        claim = Claim(
            1,
            None,
            pick(rng, colours) if has_colour else None,
            pick(rng, shapes) if has_shape else None,
        )
        if not any(claim.fits(obj) for obj in scene.objects):
            return "existence", "no", {"a": with_article(bare_noun(claim, rng))}
        colours, shapes = (list(COLOURS), shapes) if rng.random() < 0.5 else (colours, list(SHAPES))
    absent = [c for c in COLOURS if all(obj.colour != c for obj in scene.objects)]
    claim = Claim(1, None, pick(rng, absent), obj.shape if has_shape else None)
    return "existence", "no", {"a": with_article(bare_noun(claim, rng))}


def _related_pairs(scene: Scene) -> list[tuple[SceneObject, str, SceneObject]]:
    objects = _nameable(scene)
    return [
        (first, relation, second)
        for first in objects
        for second in objects
        if first is not second and (relation := plain_relation(first, second)) is not None
    ]


def _ask_relation(scene: Scene, rng: np.random.Generator) -> Answered | None:
    pairs = _related_pairs(scene)
    if not pairs:
        return None
    first, relation, second = pick(rng, pairs)
    one, two = _names(scene, rng, first, second)
    return "relation", relation.split()[0], {"one": one, "two": two}


def _ask_neighbour(scene: Scene, rng: np.random.Generator) -> Answered | None:
    """Ask what stands in a relation to an object: one does plainly, and no other does half."""
    found = []
    for second in _nameable(scene):
        others = [obj for obj in scene.objects if obj is not second]
        for relation in RELATION_WORDS:
            plain = [obj for obj in others if plain_relation(obj, second) == relation]
            if len(plain) == 1 and sum(_partly(obj, relation, second) for obj in others) == 1:
                found.append((plain[0], relation, second))
    if not found:
        return None
    first, relation, second = pick(rng, found)
    slots = {"relation": pick(rng, RELATION_WORDS[relation]), "one": _names(scene, rng, second)[0]}
    return "neighbour", first.shape, slots


def _partly(first: SceneObject, relation: str, second: SceneObject) -> bool:
    dx, dy = first.x - second.x, first.y - second.y
    return {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}[relation]


def _ask_comparison(scene: Scene, rng: np.random.Generator) -> Answered | None:
    askers = [_ask_more, _ask_bigger] if rng.random() < 0.5 else [_ask_bigger, _ask_more]
    return askers[0](scene, rng) or askers[1](scene, rng)


def _ask_more(scene: Scene, rng: np.random.Generator) -> Answered | None:
    """Ask for more of one shape (or colour) than of another; for a no the two are swapped."""
    attribute = pick(rng, ("shape", "colour"))
    counts: dict[str, int] = {}
    for obj in scene.objects:
        value = getattr(obj, attribute)
        counts[value] = counts.get(value, 0) + 1
    unequal = [(a, b) for a in counts for b in counts if counts[a] > counts[b]]
    if not unequal:
        return None
    more, fewer = pick(rng, unequal)
    answer = pick(rng, ("yes", "no"))
    values = (more, fewer) if answer == "yes" else (fewer, more)
    claims = [
        Claim(2, None, v, None) if attribute == "colour" else Claim(2, None, None, v)
        for v in values
    ]
    return "more", answer, {"many": bare_noun(claims[0], rng), "others": bare_noun(claims[1], rng)}


def _ask_bigger(scene: Scene, rng: np.random.Generator) -> Answered | None:
    objects = [obj for obj in scene.objects if any(c.size is None for c in referents(scene, obj))]
    pairs = [(a, b) for a in objects for b in objects if SIZES[a.size] > SIZES[b.size]]
    if not pairs:
        return None
    bigger, smaller = pick(rng, pairs)
    answer = pick(rng, ("yes", "no"))
    first, second = (bigger, smaller) if answer == "yes" else (smaller, bigger)
    one, two = (named(scene, obj, rng, without="size") for obj in (first, second))
    assert one is not None and two is not None, "both can be named without their size"
    return "bigger", answer, {"one": one, "two": two}


def _ask_yesno(scene: Scene, rng: np.random.Generator) -> Answered | None:
    """Ask whether an object is so; a no takes another's attribute, or the opposite relation."""
    attributes = [pick(rng, ("colour", "shape", "size", "relation"))]
    attributes += [a for a in ("colour", "shape", "size", "relation") if a not in attributes]
    for attribute in attributes:
        asked = (
            _near_relation(scene, rng) if attribute == "relation" else _near(scene, rng, attribute)
        )
        if asked is not None:
            return asked
    return None


def _near(scene: Scene, rng: np.random.Generator, attribute: str) -> Answered | None:
    objects = [
        obj
        for obj in _nameable(scene, without=attribute)
        if any(getattr(obj, attribute) != getattr(other, attribute) for other in scene.objects)
    ]
    if not objects:
        return None
    obj = pick(rng, objects)
    true = getattr(obj, attribute)
    others = [v for other in scene.objects if (v := getattr(other, attribute)) != true]
    answer = pick(rng, ("yes", "no"))
    value = true if answer == "yes" else pick(rng, others)
    what = with_article(value) if attribute == "shape" else value
    return "yesno", answer, {"one": named(scene, obj, rng, without=attribute) or "", "what": what}


def _near_relation(scene: Scene, rng: np.random.Generator) -> Answered | None:
    pairs = _related_pairs(scene)
    if not pairs:
        return None
    first, relation, second = pick(rng, pairs)
    answer = pick(rng, ("yes", "no"))
    relation = relation if answer == "yes" else OPPOSITE[relation]
    one, two = _names(scene, rng, first, second)
    return "yesno", answer, {"one": one, "what": f"{pick(rng, RELATION_WORDS[relation])} the {two}"}


def _ask_place(scene: Scene, rng: np.random.Generator) -> Answered | None:
    found = [
        (obj, names[0] if value < 0.5 else names[1], names)
        for obj in _nameable(scene)
        for value, names in ((obj.x, ("left", "right")), (obj.y, ("top", "bottom")))
        if abs(value - 0.5) >= ASIDE
    ]
    if not found:
        return None
    obj, answer, names = pick(rng, found)
    halves = f"{names[0]} or {names[1]}" if rng.random() < 0.5 else f"{names[1]} or {names[0]}"
    return "place", answer, {"one": _names(scene, rng, obj)[0], "halves": halves}


def _ask_background(scene: Scene, rng: np.random.Generator) -> Answered:
    ground = scene.background
    if ground.kind == "plain" and rng.random() < 0.75:
        return "ground", ground.first, {}
    patterns = [BACKGROUNDS[k] for k in rng.permutation(len(BACKGROUNDS))]
    return "pattern", ground.kind, {"patterns": f"{patterns[0]}, {patterns[1]} or {patterns[2]}"}


_ASKERS: dict[str, Callable[[Scene, np.random.Generator], Answered | None]] = {
    "count": _ask_count,
    "colour": _ask_attribute("colour"),
    "shape": _ask_attribute("shape"),
    "existence": _ask_existence,
    "size": _ask_size,
    "relation": _ask_relation,
    "neighbour": _ask_neighbour,
    "comparison": _ask_comparison,
    "yesno": _ask_yesno,
    "place": _ask_place,
    "background": _ask_background,
}
