"""Edit a scene of things: what the user says, and the scene that comes of it.

In: a `ThingScene`, a kind and a generator. Out: (instruction, scene after), or None where the scene
offers no such edit. All that is not spoken of stays; only who joins makes the others move.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..scenes.wording import dressed, pick, pick_phrasing
from ..scenes.world import COLOURS, MARGIN
from .choice import Choice, any_held_out, tints
from .icons import STYLES
from .phrasings import EDITS
from .requests import scene_of
from .wording import ThingClaim, noun, the
from .world import ALONE, MAX_ITEMS, PAGES, Item, ThingScene, shows

Generator = np.random.Generator
Edited = tuple[str, ThingScene]
NUM_TRIES = 20


def edit(
    shown: ThingScene, kind: str, rng: Generator, choice: Choice, held_out: bool = False
) -> Edited | None:
    """Draw an edit of one of KINDS; None where the scene offers none."""
    if kind not in _EDITORS:
        raise ValueError(f"no edit kind {kind!r}: one of {', '.join(KINDS)}")
    for _ in range(NUM_TRIES):
        found = _EDITORS[kind](shown, rng, choice, held_out)
        if found is not None and _is_sound(found[1], choice):
            return dressed(found[0], rng), found[1]
    return None


def _is_sound(after: ThingScene, choice: Choice) -> bool:
    """Return whether training may show a scene, and all of it can be seen."""
    if any_held_out([item.what for item in after.items]):
        return False
    return all(shows(item, after.style, after.page, choice.things) for item in after.items)


def _say(kind: str, rng: Generator, held_out: bool, **slots: str) -> str:
    return pick_phrasing(rng, EDITS[kind], held_out)[1].format(**slots)


def _subject(shown: ThingScene, rng: Generator) -> tuple[int, str] | None:
    """Draw an item that can be named, and its name: 'it' where it is alone."""
    k = int(rng.integers(len(shown.items)))
    if len(shown.items) == 1 and rng.random() < 0.6:
        return k, "it"
    words = the(shown, shown.items[k], rng)
    return None if words is None else (k, words)


def _with(shown: ThingScene, k: int, item: Item) -> ThingScene:
    return replace(shown, items=(*shown.items[:k], item, *shown.items[k + 1 :]))


def _recolour(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    found = _subject(shown, rng)
    colour = pick(rng, tuple(COLOURS))
    if found is None or shown.items[found[0]].colour == colour:
        return None
    item = shown.items[found[0]]
    if item.is_icon and colour not in tints(choice.things, item.name):
        return None
    after = _with(shown, found[0], replace(item, colour=colour))
    return _say("recolour", rng, held_out, the=found[1], colour=colour), after


def _plain(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    """Give a tinted icon its own colours."""
    found = _subject(shown, rng)
    if found is None or not shown.items[found[0]].is_icon or not shown.items[found[0]].colour:
        return None
    after = _with(shown, found[0], replace(shown.items[found[0]], colour=None))
    return _say("plain", rng, held_out, the=found[1]), after


def _page(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    page = pick(rng, tuple(PAGES))
    if page == shown.page:
        return None
    return _say("page", rng, held_out, page=page), replace(shown, page=page)


def _resize(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    """Make an item that is alone small, medium or large, at its place."""
    found = _subject(shown, rng)
    size = pick(rng, tuple(ALONE))
    if found is None or len(shown.items) > 1 or abs(shown.items[0].width - ALONE[size]) < 0.1:
        return None
    half, item = ALONE[size] / 2 + MARGIN, shown.items[0]
    x, y = (min(max(v, half), 1 - half) for v in (item.x, item.y))
    after = _with(shown, 0, replace(item, width=ALONE[size], x=x, y=y))
    return _say("resize", rng, held_out, the=found[1], size=size), after


def _style(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    if not any(item.is_icon for item in shown.items):
        return None
    style = STYLES[1 - STYLES.index(shown.style)]
    text = pick_phrasing(rng, EDITS[style], held_out)[1]
    return text, replace(shown, style=style)


def _newcomer(rng: Generator, choice: Choice) -> ThingClaim:
    return choice.shape(rng) if rng.random() < 0.25 else choice.thing(rng)


def _add(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    """Let a thing join; the others make room, and the page stays."""
    if len(shown.items) >= MAX_ITEMS:
        return None
    new = _newcomer(rng, choice)
    items = [item.what for item in shown.items] + [(new.names[0], new.is_icon, new.colour)]
    if any_held_out(items):
        return None
    after = scene_of(items, rng, choice.things, style=shown.style)
    return _say("add", rng, held_out, thing=noun(new, rng)), replace(after, page=shown.page)


def _remove(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    found = _subject(shown, rng)
    if found is None or len(shown.items) == 1:
        return None
    k, words = found
    after = replace(shown, items=shown.items[:k] + shown.items[k + 1 :])
    return _say("remove", rng, held_out, the=words), after


def _replace(shown: ThingScene, rng: Generator, choice: Choice, held_out: bool) -> Edited | None:
    found, new = _subject(shown, rng), choice.thing(rng)
    if found is None or not shown.items[found[0]].is_icon:
        return None
    k, words = found
    if new.names[0] == shown.items[k].name:
        return None
    item = replace(shown.items[k], name=new.names[0], colour=new.colour)
    return _say("replace", rng, held_out, the=words, thing=noun(new, rng)), _with(shown, k, item)


_EDITORS: dict[str, Callable[[ThingScene, Generator, Choice, bool], Edited | None]] = {
    "recolour": _recolour,
    "plain": _plain,
    "page": _page,
    "resize": _resize,
    "style": _style,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
}
KINDS = tuple(_EDITORS)
