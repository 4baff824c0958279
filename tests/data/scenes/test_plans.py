"""Plans in words: read again, and held against what was asked for."""

from dataclasses import replace

import pytest

from unimodal.data.scenes.edits import KINDS, edit
from unimodal.data.scenes.plans import agrees, plan, planned
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import place_of
from unimodal.data.scenes.world import generator, scene


def test_a_plan_is_read_again() -> None:
    for number in range(100):
        shown = scene(3, number)
        claims = planned(f" {plan(shown)}\n")
        assert claims is not None
        found = [(c.count, c.shape, c.colour, c.size, c.place) for c in claims]
        wanted = [(1, *one.attributes, place_of(one)) for one in shown.objects]
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "a plan: small red circle top left. a plan: small red circle top left.",
        "a change: nothing to small red circle top left.",  # of which scene?
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
