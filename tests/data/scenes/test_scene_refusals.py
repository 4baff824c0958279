"""What cannot be granted: one sentence a reason, and nouns that no icon has."""

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from unimodal.data.scenes.languages import LANGUAGES, NOT_ENGLISH, foreign
from unimodal.data.scenes.nouns import ICON_NOUNS, NAMES, NOUNS, held_out_nouns, seen_nouns
from unimodal.data.scenes.phrasings import EDITS, GREETINGS
from unimodal.data.scenes.refusals import NOT_THERE, REASONS, absent, beyond, refused
from unimodal.data.scenes.small_talk import TALK, small_talk
from unimodal.data.scenes.strange import strange
from unimodal.data.scenes.synonyms import FREE_COLOURS, FREE_SHAPES, FREE_SIZES
from unimodal.data.scenes.wording import Claim, meanings
from unimodal.data.scenes.world import LARGE, SMALL, scene

THINGS = Path(__file__).resolve().parents[3] / "../shared/data/things"
ICONS = ("iconify-json-fluent-emoji-flat-1.2.6.tgz", "iconify-json-noto-1.2.9.tgz")


def icon_words() -> set[str]:
    """The names and keywords of all icons, and the words of which they are made."""
    found: set[str] = set()
    for name in ICONS:
        with tarfile.open(THINGS / name) as tar:
            icons = json.loads(tar.extractfile("package/icons.json").read())
        found.update(icons["icons"], icons.get("aliases", {}))
    with tarfile.open(THINGS / "emojilib-4.0.3.tgz") as tar:
        emoji = json.loads(tar.extractfile("package/dist/emoji-en-US.json").read())
    found.update(word for words in emoji.values() for word in words)
    return {word for name in found for word in (name.replace("_", "-"), *re.split("[-_ ]", name))}


@pytest.mark.skipif(not THINGS.exists(), reason="needs shared/data/things beside the repository")
def test_no_icon_has_an_unknown_noun():
    words = icon_words()
    assert len(words) > 3000
    assert not words & set(NOUNS) and not words & set(NAMES)
    assert set(ICON_NOUNS) <= words


def test_nouns_are_many_and_none_is_a_word_of_the_world():
    tables = (FREE_COLOURS, FREE_SHAPES, FREE_SIZES)
    families = [family for table in tables for family in table.values()]
    free = {word for family in families for words in family.values() for word in words}
    for names in (NOUNS, ICON_NOUNS, NAMES):
        assert len(set(names)) == len(names)
        assert not set(names) & (set(meanings()) | free)
        assert not set(seen_nouns(names)) & set(held_out_nouns(names))
    assert len(NOUNS) > 800 and len(held_out_nouns()) > 150


@pytest.mark.parametrize("reason", dict.fromkeys(REASONS))
def test_a_reason_has_one_sentence_and_many_askings(reason):
    rng = np.random.default_rng(0)
    found = [refused(rng, SMALL, 64, reason=reason) for _ in range(60)]
    assert len({one.text for one in found}) > 12
    answers = {re.sub(r"(an?) \w+ \w+\.$", r"\1 ...", one.answer) for one in found}
    assert len({re.sub(r"^an? ", "", answer.replace(" an ", " a ")) for answer in answers}) == 1
    assert all(one.answer == one.answer.lower() and one.answer[-1] == "." for one in found)
    held = {refused(rng, SMALL, 64, held_out=True, reason=reason).text for _ in range(60)}
    assert not held & {one.text for one in found}


def test_too_many_is_more_than_the_world_holds():
    rng = np.random.default_rng(1)
    for world in (SMALL, LARGE):
        for _ in range(80):
            one = refused(rng, world, 64, reason="number")
            digits = re.findall(r"\d+", one.text)
            assert all(int(number) > world.max_objects for number in digits), one.text
        assert ("six" in one.answer) == (world is LARGE)


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match="no reason 'mood' to refuse: one of noun, "):
        refused(np.random.default_rng(0), SMALL, 64, reason="mood")


def test_absent_objects_are_absent():
    rng = np.random.default_rng(2)
    for index in range(150):
        shown = scene(3, index)
        one = absent(shown, rng, EDITS)
        words = re.fullmatch(NOT_THERE.format(what="(.*)"), one.answer)[1].split()
        claim = Claim(1, None, words[0] if len(words) == 2 else None, words[-1])
        assert not any(map(claim.fits, shown.objects)), one


def test_other_languages_are_held_out_whole():
    rng = np.random.default_rng(3)
    seen, held = ({foreign(rng, held_out) for _ in range(400)} for held_out in (False, True))
    assert len(seen) > 150 and len(held) > 20 and not seen & held
    assert len(LANGUAGES) > 10 and "english" in NOT_ENGLISH


def test_small_talk_agrees_with_the_greetings():
    known = {said: answer for sayings, answer in TALK.values() for said in sayings}
    assert len(known) == sum(len(sayings) for sayings, _ in TALK.values()), "said in two topics"
    for said, answer in GREETINGS:
        assert known.get(said, answer) == answer or said == "who are you?"
    rng = np.random.default_rng(4)
    said, held = ({small_talk(rng, h)[0] for _ in range(900)} for h in (False, True))
    assert not said & held and said | held == set(known)


def test_questions_beyond_the_picture_have_one_answer():
    rng = np.random.default_rng(5)
    assert len({beyond(rng).answer for _ in range(40)}) == 1


@pytest.mark.parametrize("canvas", [64, 128])
def test_strange_images_fall_off_as_natural_ones(canvas):
    slopes = []
    for seed in range(12):
        image = strange(np.random.default_rng(seed), canvas)
        assert image.shape == (canvas, canvas, 3) and image.dtype == np.uint8
        power = np.abs(np.fft.rfft2(image[..., 1] / 255.0 - 0.5))
        low, high = power[1:4, 1:4].mean(), power[12:16, 12:16].mean()
        slopes.append(np.log(low / high) / np.log(14 / 2))
    assert 0.6 < np.mean(slopes) < 2
