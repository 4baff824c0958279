"""Requests that differ in one thing, and plans: what is drawn is what was asked and said."""

from collections import Counter
from dataclasses import fields
from itertools import pairwise

import pytest

from unimodal.data.scenes.contrasts import contrasted
from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.plans import plan, planned
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.requests import OPPOSITE, any_pair_held_out, grants
from unimodal.data.scenes.world import Scene, generator
from unimodal.document import Document, Image, Text

KINDS = {field.name: 0.0 for field in fields(Mix) if field.name in Mix().kinds()}


def read(image: Image) -> Scene:
    found = read_scene(image.pixels)
    assert not isinstance(found, Unreadable)
    return found


def test_two_requests_differ_in_their_relation_or_in_whose_the_colours_are() -> None:
    kinds: Counter[str] = Counter()
    for number in range(300):
        first, second = contrasted(generator(5, number))
        assert first.text != second.text and not any_pair_held_out(second.claims)
        if second.claims == first.claims:
            assert second.relation == OPPOSITE[first.relation]
            kinds["relation"] += 1
            continue
        assert second.relation == first.relation
        assert [one.shape for one in first.claims] == [one.shape for one in second.claims]
        assert [one.colour for one in first.claims] == [one.colour for one in second.claims][::-1]
        kinds["colours"] += 1
    assert min(kinds.values()) > 50


def test_each_drawing_grants_its_own_request_and_not_the_other() -> None:
    for index in range(60):
        talk = conversation(7, index, mix=Mix(**KINDS | {"contrast": 1.0}))
        assert [role for role, _ in talk.turns()] == ["user", "assistant"] * 2
        first, second = contrasted(_rng(7, index))
        images = [read(part) for part in talk.parts if isinstance(part, Image)]
        assert [part.text for part in talk.parts if isinstance(part, Text)] == [
            first.text,
            second.text,
        ]
        for wanted, own, other in ((first, *images), (second, *images[::-1])):
            assert grants(wanted, own) and not grants(wanted, other)


def _rng(seed: int, index: int):
    """The generator of a conversation, behind the draw of its kind."""
    rng = generator(seed, index, 1)
    rng.random()
    return rng


def test_a_plan_tells_size_colour_shape_and_place_of_all_that_is_drawn() -> None:
    agreeing = 0
    for index in range(100):
        talk = conversation(8, index, mix=Mix(**KINDS | {"draw": 1.0}, plan=1.0, follow=0.0))
        words, said, drawn = talk.parts
        assert (words.role, said.role, drawn.role) == ("user", "assistant", "assistant")
        scene = read(drawn)
        found = sorted(said.text.removeprefix("a plan: ").removesuffix(".").split(", "))
        expected = sorted(plan(scene).removeprefix("a plan: ").removesuffix(".").split(", "))
        same = [one.split()[:3] for one in found] == [one.split()[:3] for one in expected]
        assert same, (said.text, plan(scene))
        agreeing += found == expected  # a centre on the edge of a place may be read beside it
    assert agreeing > 90


def test_a_mix_without_plans_is_what_it_was() -> None:
    plain, mixed = (
        conversation(9, 3, mix=Mix(**KINDS | {"draw": 1.0}, plan=p)) for p in (0.0, 1.0)
    )
    assert len(mixed.parts) > len(plain.parts) and isinstance(plain, Document)
    assert plain.parts[0].text == mixed.parts[0].text
    with pytest.raises(ValueError, match="plan: a share is at most 1"):
        Mix(plan=1.5)


@pytest.mark.parametrize("kind", ["draw", "contrast", "count"])
def test_what_a_request_alone_asks_for_is_planned_in_all_kinds(kind: str) -> None:
    # Where one kind drew at once, its phrasings ("draw ...") taught to draw without a plan.
    mix, drawn = Mix(**KINDS | {kind: 1.0}, plan=1.0, follow=0.0), 0
    for index in range(40):
        parts = conversation(11, index, mix=mix).parts
        for before, part in pairwise(parts):
            if isinstance(part, Image) and part.role == "assistant":
                drawn += 1
                assert isinstance(before, Text) and before.role == "assistant", parts
                assert planned(before.text) is not None
    assert drawn >= 10
