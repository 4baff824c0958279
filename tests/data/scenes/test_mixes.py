"""Mixes by name: the plain one makes what it always made, and 'people' is more than that."""

import hashlib
from collections import Counter

import numpy as np

from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.mixes import MIXES, named
from unimodal.data.scenes.world import LARGE, SMALL
from unimodal.document import Image, Text


def digest(indices, mix, world=SMALL, canvas=64):
    found = hashlib.sha256()
    for index in indices:
        for part in conversation(3, index, world, canvas, mix).parts:
            content = part.text.encode() if isinstance(part, Text) else part.pixels.tobytes()
            found.update(repr((type(part).__name__, part.role, part.weight)).encode() + content)
    return found.hexdigest()[:16]


def test_the_plain_mix_makes_what_it_always_made():
    assert MIXES["plain"] == Mix()
    assert digest(range(200), Mix()) == "583531ca8c27c025"
    assert digest(range(200), Mix(story=0.3, follow=0.6, max_follows=4)) == "0f1f1fc8d10ac9b0"
    assert digest(range(4), Mix(), LARGE, 128) == "4832d86cca359232"


def test_the_first_change_may_name_a_mix():
    assert named(["people", "draw=1"]) == (MIXES["people"], ["draw=1"])
    assert named(["draw=1", "people"]) == (Mix(), ["draw=1", "people"])
    assert named([]) == (Mix(), [])


def test_people_say_more_words_and_hear_more_answers():
    """Mean of 600 conversations each."""
    texts, images = Counter(), Counter()
    words = {}
    for name in ("plain", "people"):
        parts = [p for k in range(600) for p in conversation(5, k, mix=MIXES[name]).parts]
        said = [p.text.lower() for p in parts if isinstance(p, Text) and p.role == "user"]
        texts[name] = sum(isinstance(p, Text) and p.role == "assistant" for p in parts)
        images[name] = sum(isinstance(p, Image) for p in parts)
        words[name] = {word for text in said for word in text.split()}
    assert len(words["people"]) > 2.5 * len(words["plain"])
    assert images["people"] > images["plain"] and texts["people"] > 0.8 * texts["plain"]


def test_no_conversation_is_longer_than_a_row():
    """A picture takes some 80 positions; the model reads 2,048, and rows have 1,024."""
    found = [conversation(6, k, mix=MIXES["people"]).parts for k in range(600)]
    longest = max(sum(isinstance(part, Image) for part in parts) for parts in found)
    letters = max(sum(len(p.text) for p in parts if isinstance(p, Text)) for parts in found)
    assert longest <= 7 and letters < 900
    assert np.mean([len(parts) for parts in found]) > 3
