"""Whatever is sampled, a reply parses; whatever may not follow is an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import parts_of

from unimodal.document import Image
from unimodal.grammar import Choice, Grammar, Modality, ReplyState
from unimodal.layout import OWN_LAYOUT
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["a few words"], 256)
VOCABULARY = Vocabulary.new(TEXT.num_ids, 10)
LAYOUT = OWN_LAYOUT.bind(VOCABULARY, TEXT)
C = VOCABULARY.special
NAMES = {token: name for name, token in VOCABULARY.special_tokens.items()}
ONE, SEVERAL = [Grid(2, 3)], [Grid(1, 2), Grid(1, 4), Grid(3, 2)]


def a_state(
    grids: list[Grid] = ONE,
    room: int = 100,
    modality: Modality | None = None,
    max_text_tokens: int = 256,
    max_images: int = 4,
) -> ReplyState:
    return ReplyState(Grammar(LAYOUT, grids), room, max_text_tokens, max_images, modality)


def drawn(grid: Grid, random: np.random.Generator) -> list[int]:
    """The ids of an image of random codes."""
    codes = random.integers(0, VOCABULARY.num_codes, grid.size)
    return LAYOUT.content(codes, grid)[0].tolist()


def sampled(
    state: ReplyState, random: np.random.Generator, special_share: float = 0.3
) -> list[int]:
    """A whole reply of random ids, special tokens more often than their number would have it."""
    while (following := state.next) is not None:
        if isinstance(following, Grid):
            state.take_image(drawn(following, random))
            continue
        if isinstance(following, Choice):
            ids = np.arange(following.first, following.last)[following.allowed]
            special = ids[np.isin(ids, [*NAMES])]
            if len(special) and random.random() < 0.3:
                ids = special
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
    modality=st.sampled_from([None, "text", "image"]),
)
def test_every_reply_parses(
    seed: int,
    grids: list[Grid],
    room: int,
    max_text_tokens: int,
    max_images: int,
    modality: Modality | None,
) -> None:
    state = a_state(grids, room, modality, max_text_tokens, max_images)
    most = state.max_ids
    ids = sampled(state, np.random.default_rng(seed))
    assert state.over and 2 <= len(ids) <= most <= room
    assert ids[-1] == C("turn_end")
    parts = parts_of(LAYOUT, ids[:-1], role="assistant")
    images = [part for part in parts if isinstance(part, Image)]
    assert all(image.grid in grids for image in images)
    assert VOCABULARY.is_text(np.array(ids)).sum() <= max_text_tokens
    if modality == "image":
        assert len(parts) == len(images) == 1
    else:
        assert len(images) <= (0 if modality == "text" else max_images)


def test_an_image_is_exactly_its_codes() -> None:
    state = a_state(modality="image")
    ids = sampled(state, np.random.default_rng(0))
    assert len(ids) == LAYOUT.length(ONE[0]) + 1 == OWN_LAYOUT.image.length(ONE[0]) + 1 == 13
    names = [NAMES.get(k, "code" if VOCABULARY.is_code(k) else "text") for k in ids]
    row = ["code", "code", "code", "row_end"]
    assert names == ["image", "size_2", "size_3", *row, *row, "image_end", "turn_end"]
    # The state says the same, id by id: forced ids are ints, and the image itself is its grid.
    state = a_state()
    state.take(C("image"))
    for name in ("size_2", "size_3"):
        assert state.next == C(name) and state.drawing
        state.take(C(name))
    assert state.next == state.grid == Grid(2, 3) and state.drawing
    content = drawn(Grid(2, 3), np.random.default_rng(1))
    for wrong in (content[:-1], [*content, content[0]], []):
        with pytest.raises(AssertionError, match=f"an image of {len(wrong)} tokens instead of 8"):
            state.take_image(wrong)
    state.take_image(content)
    assert state.next == C("image_end") and state.drawing
    state.take(C("image_end"))
    assert not state.drawing and isinstance(state.next, Choice)
    with pytest.raises(AssertionError, match="none was asked for"):
        state.take_image(content)


def test_columns_go_with_the_rows_chosen() -> None:
    state = a_state(SEVERAL, modality="image")
    state.take(C("image"))
    rows = state.next
    assert isinstance(rows, Choice) and C("size_1") in rows and C("size_3") in rows
    assert C("size_2") not in rows and rows.drawing and rows.allowed.sum() == 2
    state.take(C("size_1"))
    columns = state.next
    assert isinstance(columns, Choice)
    assert [length for length in range(1, 6) if C(f"size_{length}") in columns] == [2, 4]
    state.take(C("size_4"))
    assert state.next == Grid(1, 4)


def test_choices_are_made_once() -> None:
    """Replies in the same state share a choice, and so are sampled together."""
    grammar = Grammar(LAYOUT, SEVERAL)
    one, two = (ReplyState(grammar, 100, 9, 2) for _ in range(2))
    assert one.next is two.next
    for state in (one, two):
        state.take(C("image"))
    assert one.next is two.next


@pytest.mark.parametrize("name", ["pad", "begin", "end", "user", "turn_end", "image_end", "size_2"])
def test_an_id_that_may_not_follow_is_an_error(name: str) -> None:
    state = a_state()
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(C(name))
    assert state.ids == []


def test_codes_stand_in_images_only() -> None:
    state = a_state()
    code = int(VOCABULARY.code_to_id(np.array(0)))
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(code)
    for name in ("image", "size_2", "size_3"):
        state.take(C(name))
    for token in (0, code, C("row_end")):  # what an image holds comes from its head, all of it
        with pytest.raises(AssertionError, match="may not follow"):
            state.take(token)


def test_no_image_is_begun_that_does_not_fit() -> None:
    for room, fits in ((12, False), (13, True)):
        following = a_state(room=room).next
        assert isinstance(following, Choice) and (C("image") in following) is fits


def test_ids_that_no_text_holds_are_never_chosen() -> None:
    spelled = np.arange(TEXT.num_ids) % 3 == 0
    choice = ReplyState(Grammar(LAYOUT, ONE, spelled), 100, 9, 1).next
    assert isinstance(choice, Choice)
    assert choice.allowed[: TEXT.num_ids].tolist() == spelled.tolist()


def test_bad_arguments_are_said() -> None:
    with pytest.raises(ValueError, match="at least one grid"):
        Grammar(LAYOUT, [])
    with pytest.raises(ValueError, match="modality 'both'"):
        a_state(modality="both")


@pytest.mark.parametrize("grids", [ONE, SEVERAL], ids=["one size", "several sizes"])
def test_an_image_alone_may_come_behind_a_plan(grids: list[Grid]) -> None:
    """Text up to the budget, then the image, whether it was begun or not; no stop before it."""
    grammar, random = Grammar(LAYOUT, grids), np.random.default_rng(0)
    lengths = set()
    for _ in range(60):
        state = ReplyState(grammar, 100, 256, 4, "image", max_plan_tokens=5)
        assert isinstance(state.next, Choice)
        assert not any(stop in state.next for stop in LAYOUT.stops)
        ids = sampled(state, random)
        begins = next(at for at, one in enumerate(ids) if one in grammar.begins)
        assert begins <= 5 and ids[-1] in LAYOUT.stops and len(ids) <= state.max_ids
        assert sum(one in grammar.begins for one in ids) == 1
        lengths.add(begins)
    assert lengths == set(range(6))


def test_a_plan_leaves_room_for_the_image() -> None:
    grammar = Grammar(LAYOUT, ONE)
    for room in range(grammar.longest_image + 1, grammar.longest_image + 5):
        state = ReplyState(grammar, room, 256, 4, "image", max_plan_tokens=9)
        ids = sampled(state, np.random.default_rng(room), special_share=0)
        assert any(one in grammar.begins for one in ids) and len(ids) <= room
