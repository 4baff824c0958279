from dataclasses import replace

import pytest

from unimodal.data.scenes.edits import KINDS, SAME_PLACE, Edit, Spot, done, edit
from unimodal.data.scenes.phrasings import EDITS
from unimodal.data.scenes.wording import phrasings
from unimodal.data.scenes.world import (
    Background,
    Scene,
    SceneObject,
    fits,
    generator,
    has_held_out_pair,
    scene,
)

RED_CIRCLE = SceneObject("circle", "red", "small", 0.3, 0.3)
BLUE_SQUARE = SceneObject("square", "blue", "medium", 0.7, 0.7)
PAIR = Scene(Background("plain", "grey"), (RED_CIRCLE, BLUE_SQUARE))


def made(kind, count=200, seed=1, **options):
    rng = generator(seed, 0, 13)
    found = (edit(scene(12, index), kind, rng, **options) for index in range(count))
    return [change for change in found if change is not None]


def with_objects(drawn, *objects):
    return Scene(drawn.background, objects)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_done_by_its_result_and_by_nothing_less(kind):
    changes = made(kind)
    assert len(changes) > 60
    for change in changes:
        assert done(change, change.after), change
        assert not done(change, change.before), change
        assert change.before.background == change.after.background
        for obj in change.after.objects:
            assert fits(obj, [t for t in change.after.objects if t is not obj])


@pytest.mark.parametrize("kind", KINDS)
def test_touching_anything_else_undoes_an_edit(kind):
    for change in made(kind, 80):
        after = change.after
        assert not done(change, replace(after, background=Background("plain", "lilac")))
        assert not done(change, with_objects(after, *after.objects[1:]))
        extra = SceneObject("star", "white", "small", 0.5, 0.5)
        assert not done(change, with_objects(after, *after.objects, extra))
        for k, obj in enumerate(after.objects):
            if k == change.changed:
                continue
            others = [t for t in after.objects if t is not obj]
            for touched in (
                replace(obj, colour="black" if obj.colour != "black" else "red"),
                replace(obj, size="small" if obj.size != "small" else "large"),
                replace(obj, x=obj.x + 1.5 * SAME_PLACE),
            ):
                assert not done(change, with_objects(after, *others, touched)), (change, touched)
            near = replace(obj, x=obj.x + 0.5 * SAME_PLACE)
            assert done(change, with_objects(after, *others, near))


@pytest.mark.parametrize("kind", KINDS)
def test_results_show_no_held_out_pair_when_asked(kind):
    rng = generator(4, 0, 13)
    for index in range(150):
        change = edit(scene(13, index, seen_only=True), kind, rng, seen_only=True)
        assert change is None or not has_held_out_pair(change.after.objects)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "add"])
def test_the_subject_is_called_it(kind):
    for change in made(kind, 80, subject=0):
        words = change.instruction.lower().replace(".", " ").replace("?", " ").replace(",", " ")
        assert "it" in words.replace(":", " ").split(), change.instruction
        if kind not in ("remove", "swap"):
            assert change.subject == 0 and change.after.objects[1:] == change.before.objects[1:]


def test_objects_are_added_beside_the_subject():
    for change in made("add", 80, subject=0):
        assert "it" in change.instruction.lower().rstrip(".?").split(), change.instruction
        assert change.spot.anchor is change.before.objects[0]
        assert change.subject == len(change.before.objects)


def test_places_are_judged_by_the_instruction():
    left = Spot(nudge="left", start=BLUE_SQUARE)
    moved = Edit(
        "move", "move the square to the left", 1, PAIR,
        with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, x=0.45)), 1, 1, left,
    )  # fmt: skip
    for x, is_right in ((0.3, True), (0.55, True), (0.68, False), (0.8, False)):
        assert done(moved, with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, x=x))) == is_right
    corner = replace(moved, spot=Spot(zone="top right"))
    assert done(corner, with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, x=0.75, y=0.25)))
    assert not done(corner, with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, x=0.75, y=0.6)))
    below = replace(moved, spot=Spot(relation="below", anchor=RED_CIRCLE))
    assert done(below, with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, x=0.3)))
    assert not done(below, with_objects(PAIR, RED_CIRCLE, replace(BLUE_SQUARE, y=0.3)))


def test_bigger_is_any_bigger_size():
    wanted = with_objects(PAIR, replace(RED_CIRCLE, size="medium"), BLUE_SQUARE)
    change = Edit(
        "resize", "make the circle bigger", 1, PAIR, wanted, 0, 0, sizes=("medium", "large")
    )
    assert done(change, wanted)
    assert done(change, with_objects(PAIR, replace(RED_CIRCLE, size="large"), BLUE_SQUARE))
    assert not done(change, PAIR)


def test_phrasings_are_held_out_as_asked():
    for kind in KINDS:
        for held_out in (True, False):
            for change in made(kind, 30, held_out=held_out):
                assert change.phrasing in phrasings(EDITS[kind], held_out)


def test_what_cannot_be_is_none():
    rng = generator(5, 0, 13)
    alone = with_objects(PAIR, RED_CIRCLE)
    assert edit(alone, "remove", rng) is None
    assert edit(alone, "swap", rng) is None
    twins = with_objects(PAIR, RED_CIRCLE, replace(RED_CIRCLE, x=0.8))
    assert edit(twins, "recolour", rng) is None
    assert edit(twins, "swap", rng) is None
    full = with_objects(
        PAIR, *(replace(RED_CIRCLE, x=x, y=y) for x in (0.2, 0.7) for y in (0.2, 0.7))
    )
    assert edit(full, "add", rng) is None
    with pytest.raises(ValueError, match="no edit kind 'melt'"):
        edit(PAIR, "melt", rng)
