"""Conversations about pictures that change: what is undone, told and counted is so."""

import re
from collections import Counter

import numpy as np
import pytest
from captions import caption_agrees

from unimodal.data.scenes import chain_phrasings
from unimodal.data.scenes.chains import FEWEST, MOST, WHICH_ONE
from unimodal.data.scenes.changes import change_words
from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.counting import count_question, counted_scene
from unimodal.data.scenes.edits import KINDS, edit
from unimodal.data.scenes.mixes import MIXES
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.references import pointed, with_reference
from unimodal.data.scenes.synonyms import HELD_OUT_FAMILIES, NEVER_SAID
from unimodal.data.scenes.wording import NUMBERS, phrasings
from unimodal.data.scenes.world import COLOURS, SHAPES, SMALL, generator, has_held_out_pair, scene
from unimodal.document import Image, Text

SAME_BUT = r"(?:now )?(?:the )?same (?:but )?(?:with |in )?(?:an? )?(\w+)(?: instead)?"
NUMBERED = r"(\w+) (?:different )?(?:pictures?|drawings|images|versions|times)"
NONE = dict.fromkeys(Mix().kinds(), 0.0)


def only(kind, **fields):
    return Mix(**{**NONE, kind: 1.0, **fields})


def exchanges(kind, index, **fields):
    """(what the user said, the parts of the reply, the images before) of each exchange."""
    turns = conversation(21, index, mix=only(kind, **fields)).turns()
    before: list[np.ndarray] = []
    found = []
    for (_, asked), (_, replied) in zip(turns[::2], turns[1::2], strict=True):
        before += [part.pixels for part in asked if isinstance(part, Image)]
        said = " ".join(part.text for part in asked if isinstance(part, Text))
        found.append((said.lower().rstrip(".?! "), replied, list(before)))
        before += [part.pixels for part in replied if isinstance(part, Image)]
    return found


def said_of(table):
    return {text.rstrip(".?! ") for text in table}


def test_chains_have_three_to_six_exchanges():
    lengths = Counter(len(exchanges("chain", index)) for index in range(120))
    assert set(lengths) == set(range(FEWEST, MOST + 1))


def test_the_first_one_and_undo_bring_pictures_back_pixel_for_pixel():
    firsts = undone = again = 0
    for index in range(250):
        for said, (*_, last), before in exchanges("chain", index):
            if said in said_of(chain_phrasings.FIRST):
                firsts += 1
                assert np.array_equal(last.pixels, before[0])
            elif said in said_of(chain_phrasings.UNDO):
                undone += 1
                assert any(np.array_equal(last.pixels, image) for image in before[:-1])
            elif said in said_of(chain_phrasings.AGAIN):
                again += 1
                assert np.array_equal(last.pixels, before[-1])
    assert firsts > 20 and undone > 30 and again > 5


def test_all_that_is_drawn_is_a_scene_without_held_out_pairs():
    for kind in ("chain", "tale", "count"):
        for index in range(40):
            for _, reply, _ in exchanges(kind, index):
                for image in (part for part in reply if isinstance(part, Image)):
                    read = read_scene(image.pixels)
                    assert not isinstance(read, Unreadable) and not has_held_out_pair(read.objects)


def test_what_it_drew_is_described_as_it_is():
    told = 0
    for index in range(150):
        for said, reply, before in exchanges("chain", index):
            if said in said_of(chain_phrasings.DREW):
                told += 1
                assert caption_agrees(reply[0].text, read_scene(before[-1])), reply[0].text
    assert told > 30


def test_the_same_but_changes_one_attribute_of_one_object():
    changed = 0
    for index in range(300):
        for said, reply, before in exchanges("chain", index):
            match = re.fullmatch(SAME_BUT, said)
            if match is None or match[1] == "again":
                continue
            changed += 1
            old, new = (read_scene(pixels).objects for pixels in (before[-1], reply[0].pixels))
            assert len(old) == len(new)
            told = [obj for obj in new if all(obj.attributes != o.attributes for o in old)]
            assert len(told) == 1 and match[1] in told[0].attributes
    assert changed > 10


def test_it_asks_back_where_several_could_be_meant():
    asked = 0
    for index in range(300):
        found = exchanges("chain", index)
        for (_, reply, before), (which, drawn, _) in zip(found, found[1:], strict=False):
            if not isinstance(reply[0], Text) or reply[0].text != WHICH_ONE:
                continue
            asked += 1
            old, new = (read_scene(pixels).objects for pixels in (before[-1], drawn[0].pixels))
            assert len(old) > 1 and which.startswith("the ")
            gone = Counter(o.attributes for o in old) - Counter(o.attributes for o in new)
            assert gone.total() == 1
    assert asked > 15


def test_counts_are_even_over_numbers_and_name_kinds():
    numbers, kinds = Counter(), Counter()
    rng = np.random.default_rng(0)
    for _ in range(1500):
        shown, claim = counted_scene(rng, SMALL)
        numbers[sum(map(claim.fits, shown.objects))] += 1
        kinds[claim.colour is not None, claim.shape is not None] += 1
        assert not has_held_out_pair(shown.objects) and 1 <= len(shown.objects) <= 4
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert all(abs(count - 300) < 4 * 240**0.5 for count in numbers.values())
    assert kinds[False, True] > kinds[True, False] > 200 and kinds[True, True] > 200


def test_count_questions_count():
    rng = np.random.default_rng(1)
    told = 0
    for index in range(300):
        shown = scene(4, index)
        asked = count_question(shown, rng)
        (shape,) = [s for s in SHAPES if re.search(rf"\b{s}(?:e?s)\b", asked.text.lower())] or [""]
        colours = [c for c in COLOURS if re.search(rf"\b{c}\b", asked.text.lower())]
        if not shape or re.search(r"\b(?:shapes|things|objects)\b", asked.text.lower()):
            continue
        told += 1
        fit = [o for o in shown.objects if o.shape == shape and o.colour in (colours or COLOURS)]
        assert NUMBERS.index(asked.answer) == len(fit), asked.text
    assert told > 100


def test_stories_have_the_number_of_pictures_said():
    spelled = {**{word: k for k, word in enumerate(NUMBERS)}, **{str(k): k for k in range(1, 13)}}
    for index in range(120):
        ((said, reply, _),) = exchanges("tale", index)
        words = re.findall(NUMBERED, said)
        numbers = [spelled[word] for word in words if word in spelled]
        images = sum(isinstance(part, Image) for part in reply)
        if isinstance(reply[0], Text) and reply[0].text.startswith("that is too long"):
            assert images == 0 and all(number > 4 for number in numbers)
        elif numbers:
            assert images == numbers[0], said
    assert images <= 4


def test_changes_are_told_for_every_kind():
    found = Counter()
    for index in range(60):
        for kind in KINDS:
            change = edit(scene(5, index), kind, generator(5, index, 3))
            if change is None:
                continue
            found[kind] += 1
            words = change_words(change)
            assert words.endswith(".") and words.startswith(("the ", "there is "))
            if kind == "add":
                new = change.after.objects[-1]
                assert f"{new.colour} {new.shape} now" in words
    assert set(found) == set(KINDS)


def test_pointing_fits_one_object_plainly():
    rng = np.random.default_rng(6)
    told = 0
    for index in range(200):
        shown = scene(6, index)
        for k, obj in enumerate(shown.objects):
            words = pointed(shown, k, rng)
            if words is None:
                continue
            others = [other for other in shown.objects if other is not obj]
            rivals = [o for o in others if obj.shape not in words or o.shape == obj.shape]
            assert rivals, "what is alone is not told apart"
            if "left" in words:
                told += 1
                assert all(obj.x < other.x - 0.09 for other in rivals)
            if "biggest" in words:
                assert all(obj.width > other.width for other in rivals)
    assert told > 30
    moved = with_reference("take it and carry it up", "the left one")
    assert moved == "take the left one and carry it up"


@pytest.mark.parametrize("kind", ["compare", "chat", "refuse", "count"])
def test_words_are_the_reply_where_no_picture_is_asked_for(kind):
    words = Counter()
    for index in range(100):
        for _, reply, _ in exchanges(kind, index, free=0.5):
            words[type(reply[0])] += 1
            assert len(reply) == 1
    assert words[Text] > 2 * words[Image]


def test_people_hear_nothing_that_is_held_out():
    gems = ("sapphire", "amethyst", "onyx", "pentagram", "annulus", "ginormous", "flamingo-pink")
    texts = [
        part.text.lower()
        for index in range(900)
        for part in conversation(23, index, mix=MIXES["people"]).parts
        if isinstance(part, Text)
    ]
    said = "\n".join(texts)
    assert not any(word in said for word in (*gems, *NEVER_SAID))
    tables = [t for t in vars(chain_phrasings).values() if isinstance(t, tuple)]
    for table in tables:
        held = {table[k].split("{")[0] for k in phrasings(table, True)} - {""}
        assert not {text for text in texts for start in held if text.startswith(start)}
    assert "gems" in HELD_OUT_FAMILIES and len(texts) > 2500


def test_a_mix_says_and_shows_the_same_whoever_asks():
    for index in range(40):
        one, two = (conversation(24, index, mix=MIXES["people"]) for _ in range(2))
        for first, second in zip(one.parts, two.parts, strict=True):
            same = (
                first.text == second.text
                if isinstance(first, Text)
                else (np.array_equal(first.pixels, second.pixels))
            )
            assert same and (first.role, first.weight) == (second.role, second.weight)
        roles = [role for role, _ in one.turns()]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
