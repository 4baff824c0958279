"""Write requests to draw things, and scenes that grant them.

In: a task's name and a generator. Out: a `ThingRequest`; `granted` returns a scene for it, and
`grants` says whether a scene grants it, by GenEval's rules (Ghosh et al. 2023, arXiv 2310.11513).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..scenes.phrasings import REQUESTS
from ..scenes.requests import RELATIONS, box_relations, relation_words
from ..scenes.wording import dressed, listed, pick, pick_phrasing
from .choice import Choice, whats
from .phrasings import IN_STYLE, KEYWORD, ON_PAGE
from .table import Things
from .wording import ThingClaim, noun
from .world import (
    ALONE,
    PAGES,
    Item,
    ThingScene,
    laid_out,
    shows,
    usual_page,
    usual_width,
)

THING_TASKS = {  # and how often each comes
    "thing": 0.3,
    "tinted": 0.1,
    "sized": 0.05,
    "counting": 0.14,
    "two things": 0.12,
    "mixed": 0.12,
    "position": 0.1,
    "page": 0.04,
    "style": 0.02,
    "keyword": 0.03,
}
MIXED = ((1, 1), (2, 1), (1, 2), (1, 1, 1), (2, 2), (3, 1), (1, 3))  # counts of claims
NUM_TRIES = 60


@dataclass(frozen=True)
class ThingRequest:
    """What is to be drawn: claims that must hold, the first in `relation` to the second."""

    task: str
    claims: tuple[ThingClaim, ...]
    relation: str | None
    page: str | None
    size: str | None
    style: str
    text: str


def request(
    task: str, rng: np.random.Generator, choice: Choice, held_out: bool = False
) -> ThingRequest:
    """Draw a request of one of THING_TASKS; `held_out` chooses among the phrasings."""
    if task not in THING_TASKS:
        raise ValueError(f"no task {task!r}: one of {', '.join(THING_TASKS)}")
    wanted = ThingRequest(task, _claims(task, rng, choice), None, None, None, "flat", "")
    if task == "position":
        wanted = replace(wanted, relation=pick(rng, RELATIONS))
    if task == "sized":
        wanted = replace(wanted, size=pick(rng, tuple(ALONE)))
    if task == "style":
        wanted = replace(wanted, style=pick(rng, tuple(IN_STYLE)))
    if task == "page":
        pages = [page for page in PAGES if _fits_page(wanted, page, choice.things)]
        wanted = replace(wanted, page=pick(rng, pages))
    if task == "keyword":
        return _about(wanted, rng, choice, held_out)
    return replace(wanted, text=_worded(wanted, rng, held_out))


def _claims(task: str, rng: np.random.Generator, choice: Choice) -> tuple[ThingClaim, ...]:
    if task in ("thing", "sized", "keyword"):
        return (choice.thing(rng, tinted=0.0),)
    if task == "tinted":
        return (choice.thing(rng, tinted=1.0),)
    if task in ("page", "style"):
        return (choice.thing(rng),)
    if task == "counting":
        return (choice.thing(rng, int(rng.integers(1, 5))),)
    if task == "two things":
        return choice.claims(rng, (1, 1), shapes=0.0)
    if task == "position":
        return _shuffled(rng, choice.claims(rng, (1, 1), shapes=0.4))
    return _shuffled(rng, choice.claims(rng, pick(rng, MIXED), shapes=0.7))


def _shuffled(rng: np.random.Generator, claims: tuple[ThingClaim, ...]) -> tuple[ThingClaim, ...]:
    return tuple(claims[k] for k in rng.permutation(len(claims)))


def _about(
    wanted: ThingRequest, rng: np.random.Generator, choice: Choice, held_out: bool
) -> ThingRequest:
    """Return a request for any thing that a keyword leads to."""
    keyword = pick(rng, tuple(choice.keywords))
    claim = ThingClaim(1, choice.keywords[keyword], True)
    what = pick_phrasing(rng, KEYWORD, held_out)[1].format(keyword=keyword)
    template = pick_phrasing(rng, REQUESTS, held_out)[1]
    return replace(wanted, claims=(claim,), text=dressed(template.format(what=what), rng))


def _worded(wanted: ThingRequest, rng: np.random.Generator, held_out: bool) -> str:
    nouns = [noun(claim, rng, wanted.size) for claim in wanted.claims]
    if wanted.relation is not None:
        what = relation_words(nouns[0], wanted.relation, nouns[1], rng)
    else:
        what = listed(nouns)
    if wanted.page is not None:
        what = pick_phrasing(rng, ON_PAGE, held_out)[1].format(what=what, page=wanted.page)
    if wanted.task == "style":
        what = pick_phrasing(rng, IN_STYLE[wanted.style], held_out)[1].format(what=what)
    return dressed(pick_phrasing(rng, REQUESTS, held_out)[1].format(what=what), rng)


def _fits_page(wanted: ThingRequest, page: str, things: Things) -> bool:
    return all(shows(Item(*what), wanted.style, page, things) for what in whats(wanted.claims))


def granted(wanted: ThingRequest, rng: np.random.Generator, things: Things) -> ThingScene:
    """Draw a scene that shows what is wanted and nothing else, on a page that shows it."""
    claims = tuple(replace(claim, names=(pick(rng, claim.names),)) for claim in wanted.claims)
    return scene_of(whats(claims), rng, things, wanted)


def scene_of(
    items: Sequence[tuple[str, bool, str | None]],
    rng: np.random.Generator,
    things: Things,
    wanted: ThingRequest | None = None,
    style: str = "flat",
) -> ThingScene:
    """Lay out these items, in the usual sizes, on a page that shows all of them.

    What `wanted` asks of page, size, style and relation is kept. The page is any that shows most
    where none shows all.
    """
    relation, page, size = (
        (wanted.relation, wanted.page, wanted.size) if wanted is not None else (None, None, None)
    )
    style = wanted.style if wanted is not None else style
    widths = [usual_width(is_icon, len(items)) for _, is_icon, _ in items]
    if size is not None:
        widths = [ALONE[size]]
    places = laid_out(rng, widths, relation)
    placed = tuple(
        Item(*what, x, y, width) for what, (x, y), width in zip(items, places, widths, strict=True)
    )
    if page is None:
        page = page_for(placed, style, rng, things)
    return ThingScene(page, placed, style)


def page_for(items: Sequence[Item], style: str, rng: np.random.Generator, things: Things) -> str:
    """Draw a usual page that shows all items; where none is found, of all pages the one that does.

    ValueError where there is none.
    """
    for _ in range(NUM_TRIES):
        page = usual_page(rng)
        if all(shows(item, style, page, things) for item in items):
            return page
    for page in PAGES:
        if all(shows(item, style, page, things) for item in items):
            return page
    names = ", ".join(item.name for item in items)
    raise ValueError(f"no page shows all of {names}: ask for other colours")


def grants(wanted: ThingRequest, drawn: ThingScene) -> bool:
    """Return whether a scene shows what is wanted.

    More items than were asked for are allowed, but in 'counting' no more of the kind counted.
    """
    if wanted.page is not None and wanted.page != drawn.page:
        return False
    if wanted.relation is not None:
        return _has_related(wanted, drawn.items)
    if wanted.task == "counting":
        claim = wanted.claims[0]
        return sum(claim.fits(item) for item in drawn.items) == claim.count
    return all(  # claims of a request are about different things, so that none serves two
        sum(claim.fits(item) for item in drawn.items) >= claim.count for claim in wanted.claims
    )


def _has_related(wanted: ThingRequest, items: Sequence[Item]) -> bool:
    first, second = wanted.claims
    return any(
        wanted.relation in box_relations(a.x - b.x, a.y - b.y, a.width + b.width, a.width + b.width)
        for a in items
        if first.fits(a)
        for b in items
        if b is not a and second.fits(b)
    )
