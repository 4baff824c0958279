from dataclasses import replace

import pytest
from captions import caption_agrees, read_caption

from unimodal.data.scenes import phrasings as tables
from unimodal.data.scenes.wording import (
    PLACES,
    Claim,
    agrees,
    caption,
    claims_of,
    covers,
    phrasings,
    place_of,
    read_parts,
)
from unimodal.data.scenes.world import (
    LARGE,
    SMALL,
    Background,
    Scene,
    SceneObject,
    generator,
    scene,
)

GREY = Background("plain", "grey")
RED_CIRCLE = SceneObject("circle", "red", "small", 0.2, 0.2)
BLUE_SQUARE = SceneObject("square", "blue", "large", 0.7, 0.7)
PAIR = Scene(GREY, (RED_CIRCLE, BLUE_SQUARE))


def all_tables():
    yield from (tables.CAPTIONS, tables.DESCRIBE, tables.REQUESTS, tables.STORIES)
    yield tuple(said for said, _ in tables.GREETINGS)
    yield from tables.QUESTIONS.values()
    yield from tables.EDITS.values()


@pytest.mark.parametrize(("world", "count"), [(SMALL, 2500), (LARGE, 50)])
def test_every_phrasing_of_a_caption_is_read_back_as_the_scene(world, count):
    rng = generator(1, 0, 7)
    for index in range(count):
        drawn = scene(3, index, world)
        text = caption(drawn, rng, index=index % len(tables.CAPTIONS))
        claims = read_caption(text)
        assert claims is not None, text
        assert agrees(claims, drawn.objects), text
        assert caption_agrees(text, drawn), text


def test_a_caption_of_one_scene_does_not_agree_with_another():
    rng = generator(2, 0, 7)
    fooled = 0
    for index in range(500):
        drawn, other = scene(4, index), scene(5, index)
        fooled += caption_agrees(caption(drawn, rng), other)
    assert fooled <= 2  # one object, of the same attributes by chance (1 in 4 * 4 * 80)


def test_one_wrong_attribute_is_noticed():
    rng = generator(3, 0, 7)
    for index in range(300):
        drawn = scene(6, index)
        obj = drawn.objects[0]
        changed = replace(obj, colour="red" if obj.colour != "red" else "blue")
        altered = Scene(drawn.background, (changed, *drawn.objects[1:]))
        text = caption(altered, rng)
        assert not caption_agrees(text, drawn), text


def test_sizes_places_and_backgrounds_that_are_told_must_be_so():
    assert caption_agrees("a small red circle and a large blue square", PAIR)
    assert not caption_agrees("a large red circle and a large blue square", PAIR)
    assert caption_agrees("a red circle in the top left and a blue square", PAIR)
    assert not caption_agrees("a red circle in the top right and a blue square", PAIR)
    assert caption_agrees("a red circle and a blue square on a grey background", PAIR)
    assert not caption_agrees("a red circle and a blue square on a mint background", PAIR)
    striped = Scene(Background("striped", "sky", "mint", "vertical"), PAIR.objects)
    text = "a red circle and a blue square on a vertically striped mint and sky background"
    assert caption_agrees(text, striped)
    assert not caption_agrees(text.replace("vertical", "horizontal"), striped)
    graded = Scene(Background("graded", "sky", "mint", "vertical"), PAIR.objects)
    assert not caption_agrees("A red dot and a blue box on a graded mint to sky background", graded)


def test_synonyms_plurals_and_digits_are_read():
    assert read_caption("There are 2 big violet balls and a hoop in green.") == (
        Claim(2, "large", "purple", "circle"),
        Claim(1, None, "green", "ring"),
    )
    assert read_caption("three plus signs that are red") == (Claim(3, None, "red", "cross"),)
    assert read_caption("two rhombuses, a box and an orange disc") == (
        Claim(2, None, None, "diamond"),
        Claim(1, None, None, "square"),
        Claim(1, None, "orange", "circle"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "a red",
        "a red circle and a",
        "a red circle and a blue",
        "a red circle a blue square",
        "a red blue circle",
        "two red circle",
        "a red circles",
        "a red circle in blue",
        "a red circle, and more",
        "a red circle on a background",
        "a red circle on a graded sky and mint background",
        "zero red circles",
        "{objects}",
        "# and #",
        "a red circles and a blue square there are",
    ],
)
def test_what_is_no_caption_is_not_read(text):
    assert read_parts(text) is None
    assert read_caption(text) is None
    assert not caption_agrees(text, PAIR)


def test_agreement_counts_every_object_once():
    circle, two = Claim(1, None, "red", "circle"), Claim(2, None, "red", "circle")
    square = Claim(1, None, "blue", "square")
    assert agrees((circle, square), PAIR.objects)
    assert not agrees((circle,), PAIR.objects)
    assert not agrees((two,), PAIR.objects)
    assert not agrees((circle, circle), PAIR.objects)
    assert covers((circle,), PAIR.objects)
    assert not covers((two,), PAIR.objects)
    # A vague claim must not take the only object that an exact one can have.
    assert agrees((Claim(1, None, None, None), circle), PAIR.objects)


def test_claims_group_equal_objects():
    twins = Scene(GREY, (RED_CIRCLE, replace(RED_CIRCLE, x=0.7, y=0.6)))
    assert claims_of(twins) == (Claim(2, None, "red", "circle"),)
    assert len(claims_of(twins, placed=True)) == 2
    assert len(claims_of(twins, grouped=False)) == 2


def test_places_tile_the_canvas():
    assert place_of(RED_CIRCLE) == "top left"
    found = {
        place_of(replace(RED_CIRCLE, x=x, y=y)) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)
    }
    assert found == set(PLACES)


def test_a_fifth_of_every_table_is_held_out_and_no_phrasing_stands_twice():
    for table in all_tables():
        held, seen = phrasings(table, True), phrasings(table, False)
        assert sorted(held + seen) == list(range(len(table)))
        assert len(table) % 5 == 0 and len(held) * 5 == len(table), table[:2]
        assert len(set(table)) == len(table), table[:2]


def test_captions_keep_to_the_phrasings_asked_for():
    rng = generator(4, 0, 7)
    held = [tables.CAPTIONS[k].split("{")[0] for k in phrasings(tables.CAPTIONS, True)]
    for index in range(300):
        drawn = scene(7, index)
        text = caption(drawn, rng, held_out=True).lower()
        assert any(text.startswith(start) for start in held), text
        text = caption(drawn, rng).lower()
        assert not any(text.startswith(start) for start in held), text
