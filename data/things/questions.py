"""Ask questions about a scene of things whose answers are known from its graph.

In: a `ThingScene`, a kind and a generator. Out: (question, answer), or None where the scene offers
none. Answers use the usual words; a fair coin picks yes or no.
"""

from collections.abc import Callable

import numpy as np

from ..scenes.wording import NUMBERS, dressed, pick, pick_phrasing, with_article
from ..scenes.world import SHAPES
from . import phrasings
from .choice import Choice
from .names import NAMES
from .wording import (
    ThingClaim,
    can_be_counted,
    name_of,
    noun,
    plural,
    the,
    told,
    word_of,
)
from .world import Item, ThingScene

Generator = np.random.Generator
Asked = tuple[str, str]
KINDS_OF_THINGS = tuple(dict.fromkeys(name.kind for name in NAMES.values()))
CLOSE = (  # kinds that overlap
    {"animal", "bird", "fish", "insect", "face"},
    {"food", "fruit", "vegetable", "drink", "plant"},
    {"sky", "place"},
    {"tool", "household thing", "device", "sport thing", "furniture", "sign", "instrument"},
    {"clothes", "household thing"},
)
NEAR_MISS = 0.6  # share of the things that are not there which are of the kind of one that is
KIND_PLURALS = {"fish": "fish", "sky": "things in the sky", "clothes": "clothes", "furniture":
                "furniture", "food": "food"}  # fmt: skip
KIND_WORDS = {"sky": "a thing in the sky", "clothes": "clothing", "furniture": "furniture",
              "food": "food", "fish": "a fish", "face": "a face"}  # fmt: skip


def ask(
    shown: ThingScene, kind: str, rng: Generator, choice: Choice, held_out: bool = False
) -> Asked | None:
    """Ask a question of one of KINDS; None where the scene has no such question."""
    if kind not in _ASKERS:
        raise ValueError(f"no question kind {kind!r}: one of {', '.join(KINDS)}")
    found = _ASKERS[kind](shown, rng, choice, held_out)
    if found is None:
        return None
    text, answer = found
    if rng.random() < 0.5:
        text = text.replace("colour", "color")
    return dressed(text, rng), answer


def kind_words(kind: str) -> str:
    """Return a kind of things with its article: 'an animal', 'food'."""
    return KIND_WORDS.get(kind) or with_article(kind)


def _say(table: tuple[str, ...], rng: Generator, held_out: bool, **slots: str) -> str:
    return pick_phrasing(rng, table, held_out)[1].format(**slots)


def _name(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked:
    return _say(phrasings.NAME, rng, held_out), told(shown)


def _alone(shown: ThingScene) -> Item | None:
    """Return the icon that a scene shows and nothing else, if it has a kind."""
    item = shown.items[0]
    if len(shown.items) > 1 or not item.is_icon or name_of(item.name).kind == "thing":
        return None
    return item


def _kind(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    item = _alone(shown)
    if item is None:
        return None
    return _say(phrasings.KIND, rng, held_out), kind_words(name_of(item.name).kind)


def _is_kind(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    item = _alone(shown)
    if item is None:
        return None
    yes = rng.random() < 0.5
    own = name_of(item.name).kind
    kind = own if yes else pick(rng, [kind for kind in KINDS_OF_THINGS if not _is_close(kind, own)])
    many = KIND_PLURALS.get(kind) or plural(kind)
    text = _say(phrasings.IS_KIND, rng, held_out, kind=kind_words(kind), kinds=many)
    return text, "yes" if yes else "no"


def _is_close(kind: str, other: str) -> bool:
    """Return whether a thing might be of both kinds, so that no answer is plainly right."""
    return kind == other or any({kind, other} <= group for group in CLOSE)


def _is_there(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked:
    """Ask whether a thing or shape is there; a no names mostly another one of the same kind."""
    item = pick(rng, shown.items)
    yes = rng.random() < 0.5
    name = item.name if yes else _absent(shown, item, rng, choice)
    words = noun(ThingClaim(1, (name,), item.is_icon), rng)
    return _say(phrasings.IS_NAME, rng, held_out, thing=words), "yes" if yes else "no"


def _absent(shown: ThingScene, item: Item, rng: Generator, choice: Choice) -> str:
    """Draw a shape, or an icon that is mostly of the same kind, that a scene does not show."""
    there = {other.name for other in shown.items}
    if not item.is_icon:
        return pick(rng, [shape for shape in SHAPES if shape not in there])
    kind = name_of(item.name).kind if rng.random() < NEAR_MISS else None
    near = [name for name in choice.common if kind in (None, name_of(name).kind)]
    return pick(rng, [name for name in near if name not in there] or choice.common)


def _count(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    """Ask how many there are: of a name that is there or, seldom, is not, or of all."""
    if len(shown.items) == 1 and rng.random() < 0.7:
        return None  # or else one would be the answer too often
    if rng.random() < 0.25:
        text = _say(phrasings.COUNT, rng, held_out, things=pick(rng, ("things", "objects")))
        return text, NUMBERS[len(shown.items)]
    item = pick(rng, shown.items)
    name = _absent(shown, item, rng, choice) if rng.random() < 0.15 else item.name
    if item.is_icon and not can_be_counted(name):
        return None
    words = word_of(name, item.is_icon, rng, many=True)
    number = sum(other.name == name for other in shown.items)
    return _say(phrasings.COUNT, rng, held_out, things=words), NUMBERS[number]


def _colour(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    """Ask for the colour of a thing that is the only one of its name."""
    names = [item.name for item in shown.items]
    found = [item for item in shown.items if item.colour and names.count(item.name) == 1]
    if not found:
        return None
    item = pick(rng, found)
    assert item.colour is not None, "only items with a colour were kept"
    words = f"the {word_of(item.name, item.is_icon, rng)}"
    return _say(phrasings.COLOUR, rng, held_out, the=words), item.colour


def _sides(shown: ThingScene) -> str | None:
    """Return where the first of two items stands to the second."""
    if len(shown.items) != 2:
        return None
    first, second = shown.items
    dx, dy = first.x - second.x, first.y - second.y
    if max(abs(dx), abs(dy)) < 1.4 * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _side(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    side = _sides(shown)
    names = [the(shown, item, rng) for item in shown.items]
    if side is None or names[1] is None:
        return None
    first = shown.items[0]
    text = _say(phrasings.SIDE, rng, held_out, side=side, the=names[1])
    answer = noun(ThingClaim(1, (first.name,), first.is_icon, first.colour))
    return _plain_side(text), answer


def _is_side(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Asked | None:
    side = _sides(shown)
    names = [the(shown, item, rng) for item in shown.items]
    if side is None or names[0] is None or names[1] is None:
        return None
    yes = rng.random() < 0.5
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    asked = side if yes else opposite[side]
    text = _say(phrasings.IS_SIDE, rng, held_out, one=names[0], side=asked, other=names[1])
    return _plain_side(text), "yes" if yes else "no"


def _plain_side(text: str) -> str:
    """Return the text with 'above the cat' where the template has 'above of the cat'."""
    return text.replace("above of", "above").replace("below of", "below")


_ASKERS: dict[str, Callable[[ThingScene, Generator, Choice, bool], Asked | None]] = {
    "name": _name,
    "kind": _kind,
    "is kind": _is_kind,
    "is there": _is_there,
    "count": _count,
    "colour": _colour,
    "side": _side,
    "is side": _is_side,
}
KINDS = tuple(_ASKERS)
