"""Free words mean one thing, come in families, and replace plain ones."""

import numpy as np
import pytest

from unimodal.data.scenes.synonyms import (
    FREE_COLOURS,
    FREE_NUMBERS,
    FREE_RELATIONS,
    FREE_SHAPES,
    FREE_SIZES,
    HELD_OUT_FAMILIES,
    NEVER_SAID,
    families,
    free_plural,
    freely,
)
from unimodal.data.scenes.wording import COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS
from unimodal.data.scenes.world import COLOURS, GROUNDS, SHAPES, SIZES

TABLES = (FREE_COLOURS, FREE_SHAPES, FREE_SIZES, FREE_NUMBERS, FREE_RELATIONS)
PLAIN = COLOUR_WORDS | SHAPE_WORDS | SIZE_WORDS


def test_every_name_has_words_of_both_sides():
    assert set(FREE_COLOURS) == set(COLOURS)
    assert set(FREE_SHAPES) == set(SHAPES) and set(FREE_SIZES) == set(SIZES)
    for table in TABLES:
        for words in table.values():
            assert families(words, False) and families(words, True)
            assert not set(families(words, False)) & set(families(words, True))


def test_no_word_means_two_things():
    meanings: dict[str, str] = {}
    for table in (PLAIN, *({n: [w for f in t[n].values() for w in f] for n in t} for t in TABLES)):
        for name, words in table.items():
            for word in words:
                assert meanings.setdefault(word, name) == name, word
    assert not set(meanings) & set(GROUNDS)


def test_held_out_families_are_said_only_when_asked_for():
    rng = np.random.default_rng(0)
    text = "draw two small red circles, a blue heart, a green star and a ring above a white square"
    held = {
        word
        for table in TABLES
        for words in table.values()
        for family in HELD_OUT_FAMILIES
        for word in words.get(family, ())
    }
    held -= {
        word for table in TABLES for words in table.values() for word in families(words, False)
    }
    seen, unseen = (
        " ".join(freely(text, rng, held_out, rate=0.9) for _ in range(300)).split()
        for held_out in (False, True)
    )
    assert not held & set(seen)
    assert {"ruby", "orb", "teeny-weeny"} & set(unseen)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_rate_is_that_of_replaced_words(rate):
    rng = np.random.default_rng(1)
    freed = [freely("a yellow heart", rng, rate=rate) for _ in range(50)]
    assert all(("yellow heart" in text) == (rate == 0) or "yellow" in text for text in freed)
    assert (set(freed) == {"a yellow heart"}) == (rate == 0)


def test_articles_and_plurals_follow():
    rng = np.random.default_rng(2)
    for _ in range(300):
        words = freely("a purple cross and three red crosses", rng, rate=1.0).split()
        for before, word in zip(words, words[1:], strict=False):
            if before in ("a", "an"):
                assert (before == "an") == (word[0] in "aeiou"), words
        assert words[-1].endswith("s")
    assert free_plural("square on its tip") == "squares on its tip"


def test_what_the_exam_asks_is_never_said():
    rng = np.random.default_rng(3)
    for colour, shape in (("red", "circle"), ("green", "square"), ("blue", "triangle")):
        for _ in range(400):
            text = freely(f"a small {colour} {shape}", rng, rate=1.0)
            assert not any(said in text for said in NEVER_SAID), text


def test_a_question_that_offers_its_answers_stays():
    text = "is the circle small, medium or large?"
    assert freely(text, np.random.default_rng(4), rate=1.0) == text
