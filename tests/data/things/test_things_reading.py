"""The reader of things: right on fresh renders, unreadable on what shows no scene of things."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unimodal.data.scenes.damage import blurred, compressed
from unimodal.data.scenes.reading import Unreadable
from unimodal.data.scenes.world import generator
from unimodal.data.things.choice import Choice
from unimodal.data.things.reading import read_things, same_things
from unimodal.data.things.requests import granted, grants, request
from unimodal.data.things.table import Things, things_of
from unimodal.data.things.world import Item, ThingScene, render, shows

TASKS = ("thing", "tinted", "mixed", "position", "counting")


@pytest.fixture(scope="module")
def things(small_table: Path) -> Things:
    return things_of(small_table)


@pytest.fixture(scope="module")
def scenes(things: Things) -> list[tuple]:
    """Requests and scenes that grant them, on white pages: one page's templates are enough."""
    found = []
    choice = Choice(things, rare=0.0)
    for number in range(10):
        rng = generator(6, number)
        wanted = request(TASKS[number % len(TASKS)], rng, choice)
        drawn = replace(granted(wanted, rng, things), page="white")
        if all(shows(item, drawn.style, "white", things) for item in drawn.items):
            found.append((wanted, drawn))
    assert len(found) > 6
    return found


def test_fresh_renders_are_read_and_judged(things, scenes):
    for wanted, drawn in scenes:
        found = read_things(render(drawn, things), things)
        assert isinstance(found, ThingScene) and same_things(found, drawn), (found, drawn)
        assert grants(wanted, found)


@pytest.mark.parametrize("canvas", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_worn_renders_are_read_or_said_to_be_unreadable(things, scenes, canvas):
    right = 0
    for _, drawn in scenes:
        for worn in (blurred, compressed):
            image = worn(render(drawn, things, canvas), 1.0 if worn is blurred else 75)
            found = read_things(image, things)
            right += isinstance(found, ThingScene) and same_things(found, drawn)
    assert right > 0.8 * 2 * len(scenes)


def test_what_shows_no_things_is_unreadable(things):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
    assert isinstance(read_things(noise, things), Unreadable)
    white = np.full((64, 64, 3), 255, np.uint8)
    assert read_things(white, things) == Unreadable("nothing but a page")
    assert "orange" not in str(read_things(np.full((64, 64, 3), (255, 0, 0), np.uint8), things))
    assert "square, 64 to 512" in read_things(white[:, :60], things).reason
    patch = white.copy()
    patch[20:44, 20:44] = rng.integers(0, 256, (24, 24, 3))
    assert isinstance(read_things(patch, things), Unreadable)
    with pytest.raises(ValueError, match="give uint8"):
        read_things(white.astype(np.float32), things)


def test_a_stain_beside_an_item_is_met(things):
    scene = ThingScene("white", (Item("cat", True, None, 0.35, 0.35, 0.4),))
    image = render(scene, things)
    assert same_things(read_things(image, things), scene)
    for spot in range(44, 62, 4):  # specks too small for items, many of them
        for other in range(4, 62, 4):
            image[spot : spot + 2, other : other + 2] = 0
    assert isinstance(read_things(image, things), Unreadable)


def test_scenes_are_compared_whatever_the_order(things):
    cat, dog = Item("cat", True, None, 0.3, 0.3, 0.4), Item("dog", True, None, 0.7, 0.7, 0.4)
    both = ThingScene("white", (cat, dog))
    assert same_things(both, ThingScene("white", (dog, cat)))
    assert same_things(both, ThingScene("white", (cat, replace(dog, x=0.72))))
    assert not same_things(both, ThingScene("white", (cat, replace(dog, x=0.75))))
    assert not same_things(both, ThingScene("white", (cat, replace(dog, colour="red"))))
    assert not same_things(both, ThingScene("white", (cat, dog), "cartoon"))
    assert not same_things(both, ThingScene("sky", (cat, dog)))
