"""Write requests to draw: what is wanted, in words, and a scene that grants it.

In: a task's name and a generator. Out: a `Request` (claims, relation, background, and its text);
`granted` returns a scene for it, and `grants` says whether a scene grants it.

The six TASKS follow GenEval (Ghosh et al. 2023, arXiv 2310.11513); the EXTRAS go beyond them. What
a request leaves open, `granted` draws uniformly, and it adds nothing that was not asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .phrasings import REQUESTS
from .wording import (
    Claim,
    bare_noun,
    covers,
    dressed,
    ground_agrees,
    ground_words,
    listed,
    noun,
    pick,
    pick_phrasing,
    spell,
)
from .world import (
    COLOURS,
    SHAPES,
    SIZES,
    SMALL,
    Attributes,
    Background,
    Scene,
    SceneObject,
    World,
    any_held_out,
    arrange,
    background,
    has_held_out_pair,
)

TASKS = ("single object", "two objects", "counting", "colours", "position", "attribute binding")
EXTRAS = ("background", "several", "open")
MAX_COUNTED = 4
SEVERAL = (  # counts of the claims of a request for several; repeated ones come more often
    (1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1),
    (1, 2), (2, 1), (2, 2), (1, 3), (1, 2, 1),
)  # fmt: skip
FULLEST = 0.44  # of the canvas: requests name no sizes whose boxes cover more, as they hardly fit
NUM_LAYOUTS = 500  # tried before a request is said not to fit

RELATIONS = ("left of", "right of", "above", "below")
RELATION_WORDS = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
POSITION_THRESHOLD = 0.1  # GenEval's: how much of the two boxes an offset must exceed


@dataclass(frozen=True)
class Request:
    """What is to be drawn: claims that must hold, the first in `relation` to the second."""

    task: str
    claims: tuple[Claim, ...]
    relation: str | None  # one of RELATIONS
    background: Background | None  # direction None: any
    text: str
    phrasing: int  # index in REQUESTS

    @property
    def count(self) -> int:
        """Return how many objects are wanted."""
        return sum(claim.count for claim in self.claims)


def relations(first: SceneObject, second: SceneObject) -> frozenset[str]:
    """Return which RELATIONS the first object has to the second, by GenEval's position rule."""
    sides = first.width + second.width
    return box_relations(first.x - second.x, first.y - second.y, sides, sides)


def box_relations(dx: float, dy: float, widths: float, heights: float) -> frozenset[str]:
    """Apply GenEval's position rule to two boxes with centres (dx, dy) apart.

    `widths` and `heights` are the sums of the boxes' sides. The offset, less 0.1 of the summed
    sides, is divided by the length of the whole offset; a component beyond 0.5 counts (Ghosh et al.
    2023, `relative_position` of their evaluation script).
    """
    x = max(abs(dx) - POSITION_THRESHOLD * widths, 0) * np.sign(dx)
    y = max(abs(dy) - POSITION_THRESHOLD * heights, 0) * np.sign(dy)
    if max(abs(x), abs(y)) < 1e-3:
        return frozenset()
    x, y = x / np.hypot(dx, dy), y / np.hypot(dx, dy)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return frozenset(name for name, is_so in holds.items() if is_so)


def plain_relation(first: SceneObject, second: SceneObject) -> str | None:
    """Return the relation of the first object to the second; None when it is not plain to see.

    Plain: the centres are at least 1.5 times as far apart along one axis as along the other. (Boxes
    of a scene are then apart along that axis.)
    """
    dx, dy = first.x - second.x, first.y - second.y
    if max(abs(dx), abs(dy)) < 1.5 * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def request(
    task: str, rng: np.random.Generator, held_out: bool = False, pairs: bool | None = False
) -> Request:
    """Draw a request of one of TASKS or EXTRAS, uniform over what it names.

    `held_out` chooses among the phrasings. `pairs` matters to tasks that name two (shape, colour):
    True makes them a held-out pair, False avoids one, None allows either. ValueError for an unknown
    task.
    """
    if task not in TASKS + EXTRAS:
        raise ValueError(f"no task {task!r}: one of {', '.join(TASKS + EXTRAS)}")
    claims = _claims(task, rng, pairs)
    relation = pick(rng, RELATIONS) if task == "position" else None
    ground = _wanted_background(rng) if task == "background" else None
    wanted = Request(task, claims, relation, ground, "", 0)
    return worded(wanted, rng, held_out)


def worded(wanted: Request, rng: np.random.Generator, held_out: bool = False) -> Request:
    """Return the same request in newly drawn words."""
    index, template = pick_phrasing(rng, REQUESTS, held_out)
    text = dressed(template.format(what=what_words(wanted, rng)), rng)
    if rng.random() < 0.3:
        text = text.replace("grey", "gray")
    return replace(wanted, text=text, phrasing=index)


def what_words(wanted: Request, rng: np.random.Generator) -> str:
    """Put what is wanted in words, to stand behind 'draw'."""
    nouns = [noun(claim, rng, vary=wanted.relation is None) for claim in wanted.claims]
    if wanted.relation is not None:
        return relation_words(nouns[0], wanted.relation, nouns[1], rng)
    if wanted.task == "counting":
        return counted_words(wanted.claims[0], rng)
    words = with_joint(nouns, rng)
    if wanted.background is not None:
        words += pick(rng, (" on", " on", " in front of", " over", " with"))
        words += f" a {ground_words(wanted.background, rng)} background"
    return words


def with_joint(nouns: Sequence[str], rng: np.random.Generator) -> str:
    """Join nouns as a list; two are sometimes joined by other words than 'and'."""
    if len(nouns) == 2 and rng.random() < 0.2:
        return (
            nouns[0] + pick(rng, (" with ", " next to ", " beside ", " together with ")) + nouns[1]
        )
    return listed(nouns)


def counted_words(claim: Claim, rng: np.random.Generator) -> str:
    """Put a counted claim in words: 'exactly two red squares', 'three circles', '4 stars'."""
    before = pick(rng, ("", "", "", "exactly ", "only ")) if rng.random() < 0.5 else ""
    return f"{before}{spell(claim.count, rng)} {bare_noun(claim, rng)}"


def relation_words(first: str, relation: str, second: str, rng: np.random.Generator) -> str:
    """Write 'a red circle to the left of a blue square' in one of several orders."""
    chance = rng.random()
    if chance < 0.8:
        joint = pick(rng, ("", "", "", " that is", ", which is"))
        return f"{first}{joint} {pick(rng, RELATION_WORDS[relation])} {second}"
    if chance < 0.9:
        return f"{second} with {first} {pick(rng, RELATION_WORDS[relation])} it"
    back = pick(rng, RELATION_WORDS[OPPOSITE[relation]])
    return f"{first} and, {back} it, {second}"


def random_claim(rng: np.random.Generator, count: int = 1, has: str = "colour shape") -> Claim:
    """Draw a claim whose attributes named in `has` are uniform, the others open."""
    size, colour, shape = (pick(rng, names) for names in (tuple(SIZES), tuple(COLOURS), SHAPES))
    return Claim(
        count,
        size if "size" in has else None,
        colour if "colour" in has else None,
        shape if "shape" in has else None,
    )


def _claims(task: str, rng: np.random.Generator, pairs: bool | None) -> tuple[Claim, ...]:
    if task == "single object":
        has = pick(rng, ("shape", "size shape", "colour shape", "size colour shape"))
        return (random_claim(rng, has=has),)
    if task in ("colours", "background"):
        return (random_claim(rng),)
    if task == "counting":
        return (_counted_claim(rng, pairs),)
    if task == "several":
        return _several_claims(rng, pairs)
    if task == "open":
        has = pick(rng, ("size", "colour", "size colour", ""))
        return (_counted_claim(rng, pairs, has),)
    return _two_claims(task, rng, pairs)


def _counted_claim(rng: np.random.Generator, pairs: bool | None, has: str | None = None) -> Claim:
    count = int(rng.integers(1, MAX_COUNTED + 1))
    while True:
        named = pick(rng, ("shape", "colour shape")) if has is None else has
        claim = random_claim(rng, count, named)
        is_pair = count > 1 and claim.colour is not None and claim.shape is not None
        if is_pair and pairs is not None and any_pair_held_out((claim,)) != pairs:
            continue
        if _fits_easily((claim,)):
            return claim


def _several_claims(rng: np.random.Generator, pairs: bool | None) -> tuple[Claim, ...]:
    """Draw claims of 2 to 4 objects, of which some may be equal."""
    has = pick(rng, ("colour shape", "colour shape", "size colour shape"))
    counts = pick(rng, SEVERAL)
    while True:
        claims = tuple(random_claim(rng, count, has) for count in counts)
        if _fits_easily(claims) and (pairs is None or any_pair_held_out(claims) == pairs):
            return claims


def _fits_easily(claims: Sequence[Claim]) -> bool:
    return sum(c.count * SIZES[c.size] ** 2 for c in claims if c.size is not None) <= FULLEST


def _two_claims(task: str, rng: np.random.Generator, pairs: bool | None) -> tuple[Claim, ...]:
    has = (
        "shape"
        if task == "two objects" or (task == "position" and rng.random() < 0.25)
        else "colour shape"
    )
    while True:
        first, second = random_claim(rng, has=has), random_claim(rng, has=has)
        if first.shape == second.shape or (has != "shape" and first.colour == second.colour):
            continue  # as in GenEval: different kinds, and different colours where they are named
        if has == "shape" or pairs is None or any_pair_held_out((first, second)) == pairs:
            return first, second


def any_pair_held_out(claims: Sequence[Claim]) -> bool:
    return any_held_out([
        (claim.shape, claim.colour)
        for claim in claims
        for _ in range(claim.count)
        if claim.shape is not None and claim.colour is not None
    ])  # fmt: skip


def _wanted_background(rng: np.random.Generator) -> Background:
    ground = background(rng)
    return ground if rng.random() < 0.5 else replace(ground, direction=None)


def granted(
    wanted: Request, rng: np.random.Generator, world: World = SMALL, seen_only: bool = False
) -> Scene:
    """Draw a scene that shows what is wanted and no other objects; what is open is uniform.

    `seen_only` shows no held-out pair. ValueError for a request that names one all the same, wants
    more objects than the world holds, or does not fit the canvas.
    """
    if seen_only and any_pair_held_out(wanted.claims):
        raise ValueError(
            f"{wanted.text!r} names a held-out pair: it cannot be granted with seen_only"
        )
    if wanted.count > world.max_objects:
        raise ValueError(
            f"{wanted.text!r} wants more than {world.max_objects} objects: ask for fewer"
        )
    for _ in range(NUM_LAYOUTS):
        objects = arrange(
            rng, [_attributes(claim, rng) for claim in wanted.claims for _ in range(claim.count)]
        )
        if objects is None or (seen_only and has_held_out_pair(objects)):
            continue
        if wanted.relation is not None:
            objects = mirrored(objects, wanted.relation)
            if plain_relation(objects[0], objects[1]) is None:
                continue
        drawn = Scene(_ground(wanted.background, rng), objects)
        if grants(wanted, drawn):
            return drawn
    raise ValueError(
        f"{wanted.text!r} found no room in {NUM_LAYOUTS} layouts: ask for smaller objects"
    )


def _attributes(claim: Claim, rng: np.random.Generator) -> Attributes:
    """Return what the claim states, and draw what it leaves open."""
    size, colour, shape = (pick(rng, names) for names in (tuple(SIZES), tuple(COLOURS), SHAPES))
    return claim.shape or shape, claim.colour or colour, claim.size or size


def _ground(wanted: Background | None, rng: np.random.Generator) -> Background:
    ground = background(rng)
    if wanted is None:
        return ground
    if wanted.kind == "plain" or wanted.direction is not None:
        return wanted
    return replace(wanted, direction=pick(rng, ("horizontal", "vertical")))


def mirrored(objects: Sequence[SceneObject], relation: str) -> tuple[SceneObject, ...]:
    """Mirror a layout so that the first object plainly stands in `relation` to the second.

    It is unchanged when the two stand at a slant.
    """
    first, second = objects[:2]
    if plain_relation(first, second) is None:
        return tuple(objects)
    if (plain_relation(first, second) in ("above", "below")) != (relation in ("above", "below")):
        objects = [replace(obj, x=obj.y, y=obj.x) for obj in objects]
    if plain_relation(objects[0], objects[1]) != relation:
        along = "y" if relation in ("above", "below") else "x"
        objects = [replace(obj, **{along: 1 - getattr(obj, along)}) for obj in objects]
    return tuple(objects)


def grants(wanted: Request, drawn: Scene) -> bool:
    """Return whether the scene shows what is wanted, by GenEval's rules.

    More objects than were asked for are allowed, but in 'counting' no more of the kind counted.
    """
    if wanted.background is not None and not ground_agrees(wanted.background, drawn.background):
        return False
    if wanted.relation is not None:
        return _has_related(wanted, drawn.objects)
    if wanted.task == "counting":
        claim = wanted.claims[0]
        return sum(claim.fits(obj) for obj in drawn.objects) == claim.count
    return covers(wanted.claims, drawn.objects)


def _has_related(wanted: Request, objects: Sequence[SceneObject]) -> bool:
    first, second = wanted.claims
    return any(
        wanted.relation in relations(a, b)
        for a in objects
        if first.fits(a)
        for b in objects
        if b is not a and second.fits(b)
    )
