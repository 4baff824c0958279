from collections import Counter
from dataclasses import replace

import pytest
from captions import read_caption

from unimodal.data.scenes import requests
from unimodal.data.scenes.phrasings import REQUESTS
from unimodal.data.scenes.requests import (
    EXTRAS,
    OPPOSITE,
    RELATIONS,
    TASKS,
    Request,
    granted,
    grants,
    plain_relation,
    relations,
    request,
    what_words,
)
from unimodal.data.scenes.wording import Claim, phrasings
from unimodal.data.scenes.world import (
    COLOURS,
    LARGE,
    SHAPES,
    Background,
    Scene,
    SceneObject,
    fits,
    generator,
    has_held_out_pair,
    is_held_out,
    scene,
)

GREY = Background("plain", "grey")


def made(task, count, seed=1, **options):
    rng = generator(seed, 0, 9)
    return [request(task, rng, **options) for _ in range(count)]


@pytest.mark.parametrize("task", TASKS + EXTRAS)
def test_what_is_granted_is_what_was_wanted_and_nothing_more(task):
    rng = generator(2, 0, 9)
    for wanted in made(task, 150):
        drawn = granted(wanted, rng, seen_only=True)
        assert grants(wanted, drawn), wanted
        assert len(drawn.objects) == sum(claim.count for claim in wanted.claims)
        assert not has_held_out_pair(drawn.objects)
        for obj in drawn.objects:
            assert fits(obj, [other for other in drawn.objects if other is not obj])


@pytest.mark.parametrize("task", ["two objects", "several", "attribute binding", "colours"])
def test_words_say_what_is_wanted(task):
    """Words that could be a caption are read as the claims; the rest join two nouns otherwise."""
    rng = generator(3, 0, 9)
    wanted = made(task, 100)
    read = [read_caption(what_words(w, rng)) for w in wanted]
    for claims, w in zip(read, wanted, strict=True):
        assert claims is None or claims == w.claims
    assert sum(claims is not None for claims in read) > 60


def test_requests_are_uniform_over_what_they_name():
    colours = Counter(w.claims[0].colour for w in made("colours", 2000))
    shapes = Counter(w.claims[0].shape for w in made("colours", 2000))
    counts = Counter(w.claims[0].count for w in made("counting", 2000))
    places = Counter(w.relation for w in made("position", 2000))
    for found, names in ((colours, COLOURS), (shapes, SHAPES), (places, RELATIONS)):
        assert set(found) == set(names)
        assert min(found.values()) > 0.7 * 2000 / len(names)
    assert set(counts) == {1, 2, 3, 4} and min(counts.values()) > 400


@pytest.mark.parametrize("task", ["position", "attribute binding"])
@pytest.mark.parametrize("pairs", [True, False])
def test_pairs_of_shape_and_colour_are_held_out_as_asked(task, pairs):
    for wanted in made(task, 200, pairs=pairs):
        named = [(claim.shape, claim.colour) for claim in wanted.claims]
        if named[0][1] is not None:
            assert is_held_out(*named) == pairs
            assert named[0][0] != named[1][0] and named[0][1] != named[1][1]


def test_phrasings_are_held_out_as_asked():
    for held_out in (True, False):
        for wanted in made("colours", 200, held_out=held_out):
            assert wanted.phrasing in phrasings(REQUESTS, held_out)


def test_a_held_out_pair_cannot_be_granted_to_training():
    wanted = made("attribute binding", 1, pairs=True)[0]
    with pytest.raises(ValueError, match="held-out pair"):
        granted(wanted, generator(1, 1), seen_only=True)
    assert grants(wanted, granted(wanted, generator(1, 1)))


def test_impossible_requests_are_refused(monkeypatch):
    many = Request("counting", (Claim(7, None, None, "star"),), None, None, "seven stars", 0)
    with pytest.raises(ValueError, match="more than 6 objects"):
        granted(many, generator(1, 1), LARGE)
    monkeypatch.setattr(requests, "NUM_LAYOUTS", 3)
    large = Request("counting", (Claim(6, "large", None, "star"),), None, None, "6 large stars", 0)
    with pytest.raises(ValueError, match="no room"):
        granted(large, generator(1, 1), LARGE)
    with pytest.raises(ValueError, match="no task 'dogs'"):
        request("dogs", generator(1, 1))


def test_relations_follow_the_rule_of_positions():
    first = SceneObject("circle", "red", "small", 0.2, 0.5)
    second = SceneObject("square", "blue", "small", 0.8, 0.5)
    assert relations(first, second) == {"left of"} and plain_relation(first, second) == "left of"
    assert relations(second, first) == {"right of"} and plain_relation(second, first) == "right of"
    above = replace(second, x=0.2, y=0.9)
    assert relations(first, above) == {"above"} and plain_relation(first, above) == "above"
    slanted = replace(second, x=0.6, y=0.9)
    assert (
        relations(first, slanted) == {"left of", "above"} and plain_relation(first, slanted) is None
    )


def test_plain_relations_are_relations_and_turn_round():
    for index in range(500):
        objects = scene(8, index).objects
        for a in objects:
            for b in objects:
                if a is not b and (relation := plain_relation(a, b)) is not None:
                    assert relation in relations(a, b)
                    assert plain_relation(b, a) == OPPOSITE[relation]


def test_verdicts_by_hand():
    circle = SceneObject("circle", "red", "small", 0.2, 0.2)
    square = SceneObject("square", "blue", "small", 0.8, 0.3)
    drawn = Scene(GREY, (circle, square))
    red, blue = Claim(1, None, "red", "circle"), Claim(1, None, "blue", "square")
    binding = Request("attribute binding", (red, blue), None, None, "", 0)
    assert grants(binding, drawn)
    swapped = (replace(circle, colour="blue"), replace(square, colour="red"))
    assert not grants(binding, Scene(GREY, swapped))
    assert grants(replace(binding, task="position", relation="left of"), drawn)
    assert not grants(replace(binding, task="position", relation="right of"), drawn)
    one = Request("counting", (Claim(1, None, None, "circle"),), None, None, "", 0)
    assert grants(one, drawn)
    assert not grants(one, Scene(GREY, (circle, replace(circle, x=0.8))))
    ground = Request("background", (red,), None, Background("plain", "mint"), "", 0)
    assert not grants(ground, drawn)
    assert grants(ground, Scene(Background("plain", "mint"), drawn.objects))
