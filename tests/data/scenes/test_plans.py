"""Plans in words: read again, and held against what was asked for."""

import re
from dataclasses import replace

import pytest

from unimodal.data.scenes.edits import KINDS, edit
from unimodal.data.scenes.plans import agrees, plan, plan_of_edit, planned
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import ground_of, ground_pattern, place_of
from unimodal.data.scenes.world import Background, Scene, SceneObject, generator, scene


def test_a_plan_is_read_again() -> None:
    for number in range(100):
        shown = scene(3, number)
        claims = planned(f" {plan(shown)}\n")
        assert claims is not None
        found = [(c.count, c.shape, c.colour, c.size, c.place) for c in claims]
        wanted = [(1, *one.attributes, place_of(one)) for one in shown.objects]
        assert sorted(found) == sorted(wanted)


def test_an_exact_plan_claims_what_the_other_does_and_says_all_of_the_scene() -> None:
    for number in range(100):
        shown = scene(3, number)
        said = plan(shown, exact=True)
        assert planned(said) == planned(plan(shown))
        centres = {(int(x), int(y)) for x, y in re.findall(r" at (\d+) (\d+)", said)}
        assert centres == {(round(64 * one.x), round(64 * one.y)) for one in shown.objects}
        page = ground_of(next(ground_pattern().finditer(said.split(" on ")[1])))
        assert page == shown.background


def test_an_exact_plan_of_an_edit_says_where_it_was_and_is() -> None:
    moved = Scene(SCENE.background, (RED, replace(BLUE, x=0.25)))
    said = plan_of_edit(SCENE, moved, exact=True)
    assert said == (
        "a change: large blue star bottom right at 45 45 to large blue star bottom left at 16 45."
    )
    assert planned(said, SCENE) == planned(plan_of_edit(SCENE, moved), SCENE) is not None


@pytest.mark.parametrize(
    "words",
    [
        "",
        "a plan: small red circle top left at 12.",
        "a plan: small red circle top left at 12 13 14.",
        "a plan: small red circle top left on plain vanilla.",
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
        changed = planned(plan_of_edit(shown, change.after), shown)
        assert changed is not None and agrees(changed, change)
        assert planned(plan_of_edit(shown, change.after)) is None, "of which scene?"
        stays = kind == "move" and plan(shown) == plan(change.after)  # within its place
        assert agrees(before, change) <= (kind == "move"), "a copy does no edit"
        seen += not stays
    assert seen > 15


RED, BLUE = (
    SceneObject("circle", "red", "small", 0.2, 0.2),
    SceneObject("star", "blue", "large", 0.7, 0.7),
)
SCENE = Scene(Background("plain", "white"), (RED, BLUE))


def test_the_plan_of_an_edit_says_what_changes_and_nothing_else() -> None:
    swapped = replace(RED, x=0.7, y=0.7), replace(BLUE, x=0.2, y=0.2)
    said = {
        (
            replace(RED, colour="pink"),
            BLUE,
        ): "small red circle top left to small pink circle top left",
        (BLUE,): "small red circle top left to nothing",
        (RED, BLUE, replace(RED, y=0.8)): "nothing to small red circle bottom left",
        (RED, replace(BLUE, x=0.2)): "large blue star bottom right to large blue star bottom left",
        swapped: "small red circle top left to small red circle bottom right, "
        "large blue star bottom right to large blue star top left",
    }
    for objects, words in said.items():
        assert plan_of_edit(SCENE, Scene(SCENE.background, objects)) == f"a change: {words}."


@pytest.mark.parametrize(
    "words",
    [
        "a change: .",
        "a change: small green circle top left to nothing.",  # there is none
        "a change: small red circle bottom left to nothing.",  # it is elsewhere
        "a change: small red circle top left to nothing, small red circle top left to nothing.",
        "a change: small red circle top left to a dog.",
        "a change: small red circle top left.",
        "a change: small red circle top left to nothing, large blue star bottom right to nothing.",
    ],
)
def test_changes_of_what_is_not_there_are_no_plan(words: str) -> None:
    assert planned(words, SCENE) is None
