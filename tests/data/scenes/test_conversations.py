from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from captions import caption_agrees

from unimodal.data.scenes.conversations import GREETINGS, Mix, conversation
from unimodal.data.scenes.phrasings import STORIES
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.wording import phrasings
from unimodal.data.scenes.world import LARGE, World, has_held_out_pair
from unimodal.document import Image, Text

ONLY = dict.fromkeys(("draw", "ask", "describe", "edit", "story", "greet"), 0.0)


def only(kind, **fields):
    return Mix(**{**ONLY, kind: 1.0}, **fields)


def same(first, second):
    def bare(part):
        return part.text if isinstance(part, Text) else part.pixels.tobytes()

    def all_of(document):
        return [(type(p), p.role, p.weight, bare(p)) for p in document.parts]

    return all_of(first) == all_of(second)


def test_a_conversation_is_a_pure_function_of_seed_and_index():
    for index in range(30):
        assert same(conversation(1, index), conversation(1, index))
    assert not same(conversation(1, 0), conversation(2, 0))
    assert not same(conversation(1, 0), conversation(1, 1))


def test_turns_begin_with_the_user_alternate_and_end_with_the_assistant():
    for index in range(300):
        roles = [role for role, _ in conversation(2, index).turns()]
        assert roles == ["user", "assistant"] * (len(roles) // 2), index


def test_only_what_the_assistant_says_has_full_weight():
    mix = Mix(asked_weight=0.25, seen_weight=0.5)
    for index in range(100):
        for part in conversation(3, index, mix=mix).parts:
            expected = {"assistant": 1.0}.get(part.role, 0.25 if isinstance(part, Text) else 0.5)
            assert part.weight == expected


@pytest.mark.parametrize("exact", [0, 1])
def test_plans_have_a_weight_of_their_own(exact: int) -> None:
    """Whatever it is, the same is said and drawn."""
    mix, weights = only("draw", plan=1, exact_plan=exact, asked_weight=1), set()
    for index in range(100):
        parts = conversation(3, index, mix=replace(mix, plan_weight=0.5)).parts
        others = conversation(3, index, mix=mix).parts
        for part, other in zip(parts, others, strict=True):
            is_plan = isinstance(part, Text) and part.text.startswith(("a plan: ", "a change: "))
            assert part.weight == (0.5 if is_plan else 1.0)
            assert getattr(part, "text", None) == getattr(other, "text", None)
            weights.add(part.weight)
    assert weights == {0.5, 1.0}


def test_images_are_rendered_scenes_without_held_out_pairs():
    num_images = 0
    for index in range(60):
        for part in conversation(4, index).parts:
            if isinstance(part, Image):
                assert part.pixels.shape == (64, 64, 3) and part.pixels.dtype == np.uint8
                read = read_scene(part.pixels)
                assert not isinstance(read, Unreadable)
                assert not has_held_out_pair(read.objects)
                num_images += 1
    assert num_images > 60


def test_captions_tell_the_image():
    for index in range(40):
        image, asked, told = conversation(5, index, mix=only("describe")).parts[:3]
        if isinstance(asked, Image):
            image = asked
        assert caption_agrees(told.text, read_scene(image.pixels)), told.text


def test_an_image_is_asked_about_in_several_turns():
    mix = only("ask", min_questions=3, max_questions=5)
    counts = Counter()
    for index in range(100):
        parts = conversation(6, index, mix=mix).parts
        counts[sum(part.role == "assistant" for part in parts)] += 1
        assert sum(isinstance(part, Image) for part in parts) == 1
        assert all(len(part.text.split()) == 1 for part in parts if part.role == "assistant")
    assert set(counts) == {3, 4, 5}


def test_hard_questions_come_as_often_as_the_mix_says():
    shares = []
    for hard in (0.0, 0.5, 1.0):
        mix = only("ask", hard=hard)
        talks = [conversation(6, k, mix=mix).parts for k in range(200)]
        told = [p.text for parts in talks for p in parts if p.role == "assistant"]
        # Of all kinds only relation is answered so: 1 of 11, or of 4, with left and right in half.
        shares.append(sum(text in ("above", "below") for text in told) / len(told))
    assert shares[0] < 0.07
    assert shares[0] * 1.3 < shares[1] < shares[2] / 1.2
    with pytest.raises(ValueError, match="hard: a share is at most 1"):
        Mix(hard=2)


def test_stories_have_as_many_images_as_told():
    for index in range(40):
        turns = conversation(7, index, mix=only("story")).turns()
        assert len(turns) == 2
        number = 2 if "two" in turns[0][1][0].text else 3
        kinds = [type(part) for part in turns[1][1]]
        assert kinds == [Text, Image] * number + [Text]


def test_further_turns_follow_as_often_as_the_mix_says():
    never = [len(conversation(8, k, mix=only("draw", follow=0.0)).turns()) for k in range(50)]
    assert set(never) == {2}
    always = [
        len(conversation(8, k, mix=only("draw", follow=1.0, max_follows=3)).turns())
        for k in range(100)
    ]
    assert max(always) == 8 and np.mean(always) > 6.5


def test_every_kind_comes_about_as_often_as_its_weight():
    num_drawn_first = 0
    for index in range(600):
        parts = conversation(9, index).parts
        is_story = sum(isinstance(p, Text) and p.role == "assistant" for p in parts[:5]) > 1
        if isinstance(parts[0], Text) and isinstance(parts[1], Image) and not is_story:
            num_drawn_first += parts[1].role == "assistant"
    assert 0.36 < num_drawn_first / 600 < 0.48


def test_held_out_phrasings_do_not_occur():
    held = {STORIES[k].split("{")[0].strip() for k in phrasings(STORIES, True)}
    said = {said for k, (said, _) in enumerate(GREETINGS) if k % 5 == 0}
    for index in range(150):
        told = conversation(10, index, mix=only("story")).parts[0].text.lower()
        assert not any(told.startswith(start) for start in held)
        assert (
            conversation(10, index, mix=only("greet")).parts[0].text.lower().rstrip(".") not in said
        )


def test_large_canvases_have_large_images():
    for index in range(3):
        for part in conversation(11, index, LARGE, 128).parts:
            assert isinstance(part, Text) or part.pixels.shape == (128, 128, 3)


def test_a_mix_without_sense_is_refused():
    with pytest.raises(ValueError, match="seen_weight"):
        Mix(seen_weight=-1)
    with pytest.raises(ValueError, match="kinds of conversation sum to 0.*: a number above 0"):
        Mix(**ONLY)


@pytest.mark.parametrize("max_objects", [1, 2])
def test_no_image_has_more_objects_than_the_world(max_objects: int):
    mix = Mix(**dict.fromkeys(Mix().kinds(), 1.0), free=0.3)
    found = Counter()
    for index in range(120):
        for part in conversation(13, index, World(max_objects), 64, mix).parts:
            # What is shown as strange is no scene.
            if isinstance(part, Image) and not isinstance(
                read := read_scene(part.pixels), Unreadable
            ):
                found[len(read.objects)] += 1
    assert set(found) == set(range(1, max_objects + 1)) and min(found.values()) > 20
