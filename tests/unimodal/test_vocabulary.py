"""The table of ids: codes anywhere, in any order, and conversions that are each other's inverse."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.vocabulary import SPECIAL_TOKENS, Vocabulary


@st.composite
def tables(draw: st.DrawFn) -> Vocabulary:
    """Ids dealt out at random: to text, special tokens, runs of codes, and nobody."""
    pieces = draw(st.lists(st.tuples(st.sampled_from("scn"), st.integers(1, 4)), max_size=9))
    special, runs, at = {}, [], draw(st.integers(0, 3))
    for kind, count in pieces:
        if kind == "s":
            special |= {f"token_{at + k}": at + k for k in range(count)}
        elif kind == "c":
            runs.append((at, count))
        at += count
    return Vocabulary(draw(st.integers(1, at + 3)), special, tuple(draw(st.permutations(runs))))


def kinds(vocabulary: Vocabulary) -> list[str]:
    """What each id is, read aloud."""
    ids_of_codes = [first + k for first, count in vocabulary.code_runs for k in range(count)]
    top = max([vocabulary.num_text - 1, *vocabulary.special_tokens.values(), *ids_of_codes])
    found = ["text" if token < vocabulary.num_text else "nobody" for token in range(top + 1)]
    for token in vocabulary.special_tokens.values():
        found[token] = "special"
    for token in ids_of_codes:
        found[token] = "code"
    return found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tables())
def test_every_id_is_what_the_table_says(vocabulary: Vocabulary) -> None:
    expected = kinds(vocabulary)
    assert vocabulary.size == len(expected)
    ids = np.arange(-2, vocabulary.size + 1)
    for kind, found in (("text", vocabulary.is_text(ids)), ("code", vocabulary.is_code(ids))):
        assert found.tolist() == [False, False, *(one == kind for one in expected), False]
    words = [token for token, one in enumerate(expected) if one in ("text", "special")]
    assert vocabulary.num_words == max([vocabulary.num_text, *(token + 1 for token in words)])
    mask = vocabulary.word_mask
    allowed = np.ones(vocabulary.num_words, bool) if mask is None else mask
    assert allowed.tolist() == [one != "code" for one in expected[: vocabulary.num_words]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tables())
def test_codes_and_ids_are_each_others_inverse(vocabulary: Vocabulary) -> None:
    codes = np.arange(vocabulary.num_codes)
    ids = vocabulary.code_to_id(codes)
    by_hand = [first + k for first, count in vocabulary.code_runs for k in range(count)]
    assert ids.tolist() == by_hand
    assert vocabulary.id_to_code(ids).tolist() == codes.tolist()
    assert vocabulary.id_to_code(ids.reshape(1, -1)).shape == (1, len(ids))
    others = np.setdiff1d(np.arange(-1, vocabulary.size + 1), ids)
    for token in others:
        with pytest.raises(ValueError, match="are no image codes"):
            vocabulary.id_to_code(np.array([token]))
    if by_hand:
        assert vocabulary.code_slice == (min(by_hand), max(by_hand) + 1)
    for wrong in (-1, vocabulary.num_codes):
        with pytest.raises(ValueError, match=f"image codes {wrong}..{wrong} outside"):
            vocabulary.code_to_id(np.array([wrong]))


def test_codes_below_the_text_in_runs_of_any_order() -> None:
    """By hand, as Chameleon has them: special 0 to 2, codes, special, text around them all."""
    special = {"begin": 0, "pad": 1, "end": 2, "image": 9}
    vocabulary = Vocabulary(20, special, ((6, 3), (3, 2), (12, 1)))
    assert vocabulary.code_to_id(np.arange(6)).tolist() == [6, 7, 8, 3, 4, 12]
    inner = [3, 4, -1, 0, 1, 2, -1, -1, -1, 5]
    assert vocabulary.code_of_id.tolist() == [-1] * 3 + inner + [-1] * 7
    assert vocabulary.is_text(np.arange(20)).nonzero()[0].tolist() == [5, 10, 11, *range(13, 20)]
    assert (vocabulary.size, vocabulary.num_words, vocabulary.code_slice) == (20, 20, (3, 13))
    assert vocabulary.word_mask is not None and (~vocabulary.word_mask).sum() == 6


def test_a_new_table_has_text_then_special_tokens_then_codes() -> None:
    """These ids are in bundles and shards of before: they may never change."""
    vocabulary = Vocabulary.new(1018, 4375)
    golden = {"pad": 1018, "begin": 1019, "end": 1020, "system": 1021, "user": 1022,
              "assistant": 1023, "turn_end": 1024, "image": 1025, "image_end": 1026,
              "row_end": 1027, "null": 1028, "size_1": 1029, "size_64": 1092}  # fmt: skip
    assert {name: vocabulary.special(name) for name in golden} == golden
    assert len(SPECIAL_TOKENS) == 75
    assert vocabulary.code_slice == (1093, 5468) and vocabulary.size == 5468
    assert vocabulary.num_words == 1093 and vocabulary.word_mask is None


def test_a_table_without_codes() -> None:
    vocabulary = Vocabulary.new(10, 0)
    assert vocabulary.num_codes == 0 and vocabulary.size == 85
    assert vocabulary.code_to_id(np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"special_tokens": {"pad": 7, "end": 7}},
        {"special_tokens": {"pad": 3}},
        {"special_tokens": {"pad": -1}},
        {"code_runs": ((2, 3), (4, 2))},
        {"code_runs": ((-1, 2),)},
    ],
    ids=str,
)
def test_ids_that_are_two_things_are_refused(changes: dict) -> None:
    table = Vocabulary(10, {"pad": 7}, ((2, 3),))
    with pytest.raises(ValueError, match="share ids, or are below 0"):
        dataclasses.replace(table, **changes)


@pytest.mark.parametrize("count", [0, -1])
def test_runs_of_no_codes_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"a run of {count} codes: at least 1"):
        Vocabulary(10, {}, ((10, 3), (20, count)))


def test_a_token_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no special token 'size_65': grow it anew"):
        Vocabulary.new(10, 4).special("size_65")
