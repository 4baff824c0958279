"""Plans in words: read again, and held against what was asked for."""

from dataclasses import replace

import pytest

from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.edits import KINDS, edit
from unimodal.data.scenes.plans import agrees, plan, planned
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import place_of
from unimodal.data.scenes.world import Scene, generator, scene
from unimodal.document import Image


def test_a_plan_is_read_again() -> None:
    for number in range(100):
        shown = scene(3, number)
        claims = planned(f" {plan(shown)}\n")
        assert claims is not None
        found = [(c.count, c.shape, c.colour, c.size, c.place) for c in claims]
        wanted = [(1, *one.attributes, place_of(one)) for one in shown.objects]
        assert sorted(found) == sorted(wanted)


def test_the_plan_of_an_edit_tells_what_the_image_before_it_shows_unless_a_plan_did() -> None:
    mix = Mix(draw=0, ask=0, describe=0, edit=1, story=0, greet=0, plan=1, follow=1, max_follows=4)
    further = 0
    for index in range(60):
        parts = conversation(9, index, mix=mix).parts
        plans = [part.text for part in parts if "a plan: " in getattr(part, "text", "")]
        if not plans:  # nothing could be done: it was described
            continue
        first = next(part for part in parts if isinstance(part, Image))
        shows, _, then = plans[0].partition(" a plan: ")
        assert objects(shows.replace("it shows: ", "a plan: ")) == objects(plan(read(first)))
        assert planned(plans[0]) == planned(f"a plan: {then}")
        assert all("it shows" not in one for one in plans[1:])
        further += len(plans[1:])
    assert further > 50


def read(image: Image) -> Scene:
    found = read_scene(image.pixels)
    assert not isinstance(found, Unreadable)
    return found


def objects(words: str) -> list[tuple[str | None, ...]]:
    """Return the objects of a plan without their places, which may be read beside an edge."""
    claims = planned(words)
    assert claims is not None
    return sorted((one.size, one.colour, one.shape) for one in claims)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "it shows: small red circle top left.",
        "it shows: small red circle top left. small red circle top left.",
        "a plan: small red circle top left. a plan: small red circle top left.",
        "a plan: .",
        "a plan: small red circle.",
        "a plan: small red circle top left",
        "a plan: small red circle top left, large dog middle.",
        "a plan: small red circle in the middle.",
        "I drew it. a plan: small red circle top left.",
        "a plan: " + ", ".join(["small red circle top left"] * 7) + ".",
    ],
)
def test_other_words_are_no_plan(words: str) -> None:
    assert planned(words) is None


@pytest.mark.parametrize("task", TASKS)
def test_the_plan_of_what_grants_a_request_agrees_with_it(task: str) -> None:
    rng = generator(5, 1)
    for _ in range(60):
        wish = request(task, rng)
        claims = planned(plan(granted(wish, rng)))
        assert claims is not None and agrees(claims, wish)
        others = [replace(one, shape="heart", colour="pink", size="small") for one in claims]
        hearts = any(
            c.shape in ("heart", None) and c.colour in ("pink", None) and c.size in ("small", None)
            for c in wish.claims
        )
        assert hearts or not agrees(others, wish)


def test_a_relation_is_that_of_the_places() -> None:
    wish = request("position", generator(5, 2))
    first, second = wish.claims
    sides = {"left of": ("middle left", "middle right"), "above": ("top middle", "bottom middle")}
    sides |= {"right of": sides["left of"][::-1], "below": sides["above"][::-1]}
    here, there = sides[str(wish.relation)]
    attributes = {"size": "small", "colour": "pink"}

    def at(one, place):  # what the request leaves open is chosen
        given = {name: getattr(one, name) for name in attributes if getattr(one, name)}
        return replace(one, **attributes | given, place=place)

    assert agrees([at(first, here), at(second, there)], wish)
    assert not agrees([at(first, there), at(second, here)], wish)
    assert not agrees([at(first, here), at(second, here)], wish)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_of_an_edit_is_that_of_its_result(kind: str) -> None:
    rng, seen = generator(6, 1), 0
    for number in range(60):
        shown = scene(6, number)
        change = edit(shown, kind, rng)
        if change is None or not change.after.objects:
            continue
        before, after = planned(plan(shown)), planned(plan(change.after))
        assert before is not None and after is not None
        assert agrees(after, change)
        assert not agrees(after[:-1], change)
        stays = kind == "move" and plan(shown) == plan(change.after)  # within its place
        assert agrees(before, change) <= (kind == "move"), "a copy does no edit"
        seen += not stays
    assert seen > 15
