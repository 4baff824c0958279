"""Whatever is sampled, a reply parses; whatever may not follow is an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.document import Image
from unimodal.grammar import Choice, Grammar, State, image_length
from unimodal.sequence import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["a few words"], 256)
VOCABULARY = Vocabulary(TEXT.num_ids, 10)
SEQUENCER = Sequencer(VOCABULARY, TEXT, "hash")
ONE, SEVERAL = [Grid(2, 3)], [Grid(1, 2), Grid(1, 4), Grid(3, 2)]


def sampled(state: State, random: np.random.Generator, control_share: float = 0.3) -> list[int]:
    """A whole reply of random ids, special tokens more often than their number would have it."""
    while (following := state.next) is not None:
        if isinstance(following, Choice):
            allowed = following.allowed
            ids = np.arange(following.first, following.last)[
                slice(None) if allowed is None else allowed
            ]
            controls = ids[(ids >= VOCABULARY.num_text) & (ids < VOCABULARY.first_code)]
            if len(controls) and random.random() < control_share:
                ids = controls
            following = int(random.choice(ids))
        state.take(following)
    return state.ids


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    grids=st.sampled_from([ONE, SEVERAL]),
    room=st.integers(20, 90),
    max_text_tokens=st.integers(1, 30),
    max_images=st.integers(0, 3),
    force=st.sampled_from([None, "text", "image"]),
)
def test_every_reply_parses(
    seed: int,
    grids: list[Grid],
    room: int,
    max_text_tokens: int,
    max_images: int,
    force: str | None,
) -> None:
    state = State(Grammar(VOCABULARY, grids), room, max_text_tokens, max_images, force)
    most = state.max_ids
    ids = sampled(state, np.random.default_rng(seed))
    assert state.over and 2 <= len(ids) <= most <= room
    assert ids[-1] == VOCABULARY.control("turn_end")
    parts = SEQUENCER.parts(ids[:-1], role="assistant")
    images = [part for part in parts if isinstance(part, Image)]
    assert all(image.grid in grids for image in images)
    assert VOCABULARY.is_text(np.array(ids)).sum() <= max_text_tokens
    if force == "image":
        assert len(parts) == len(images) == 1
    else:
        assert len(images) <= (0 if force == "text" else max_images)


def test_a_image_is_exactly_its_codes() -> None:
    state = State(Grammar(VOCABULARY, ONE), room=100, force="image")
    control, code = VOCABULARY.control, VOCABULARY.first_code + 7
    ids = sampled(state, np.random.default_rng(0))
    assert len(ids) == image_length(ONE[0]) + 1 == 13
    names = [VOCABULARY.name(k) if k < VOCABULARY.first_code else "code" for k in ids]
    row = ["code", "code", "code", "row_end"]
    assert names == ["image", "size_2", "size_3", *row, *row, "image_end", "turn_end"]
    # The state says the same, id by id: forced ids are ints, codes are the shared choice.
    state = State(Grammar(VOCABULARY, ONE), room=100)
    for token in (control("image"), control("size_2"), control("size_3"), code, code, code):
        state.take(token)
    assert state.next == control("row_end") and state.num_codes == 3 and state.drawing


def test_columns_go_with_the_rows_chosen() -> None:
    state = State(Grammar(VOCABULARY, SEVERAL), room=100, force="image")
    state.take(VOCABULARY.control("image"))
    rows = state.next
    assert isinstance(rows, Choice) and VOCABULARY.side(1) in rows and VOCABULARY.side(3) in rows
    assert VOCABULARY.side(2) not in rows
    state.take(VOCABULARY.side(1))
    columns = state.next
    assert isinstance(columns, Choice)
    assert [length for length in range(1, 6) if VOCABULARY.side(length) in columns] == [2, 4]


@pytest.mark.parametrize("name", ["pad", "begin", "end", "user", "turn_end", "image_end", "size_2"])
def test_an_id_that_may_not_follow_is_an_error(name: str) -> None:
    state = State(Grammar(VOCABULARY, ONE), room=100)
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(VOCABULARY.control(name))
    assert state.ids == []


def test_codes_stand_in_images_only() -> None:
    state = State(Grammar(VOCABULARY, ONE), room=100)
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(VOCABULARY.first_code)
    for name in ("image", "size_2", "size_3"):
        state.take(VOCABULARY.control(name))
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(0)


def test_no_image_is_begun_that_does_not_fit() -> None:
    grammar, image = Grammar(VOCABULARY, ONE), VOCABULARY.control("image")
    for room, fits in ((12, False), (13, True)):
        following = State(grammar, room).next
        assert isinstance(following, Choice) and (image in following) is fits


def test_bad_arguments_are_said() -> None:
    with pytest.raises(ValueError, match="at least one grid"):
        Grammar(VOCABULARY, [])
    with pytest.raises(ValueError, match="force 'both'"):
        State(Grammar(VOCABULARY, ONE), room=100, force="both")
