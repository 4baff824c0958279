"""What may follow in a reply, by the layouts of other families."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import parts_of
from toy_documents import any_toy, documents, joined
from toy_documents import toy as toy
from toy_layouts import HASH, NUM_CODES, TOYS, Toy

from unimodal.document import Document, Image
from unimodal.grammar import Choice, Grammar, ReplyState
from unimodal.tokenizer.grid import Grid


def a_state(toy: Toy, room: int = 200, **budget: int) -> ReplyState:
    grammar = Grammar(toy.sequencer.layout, toy.grids, toy.text.spelled)
    return ReplyState(grammar, room, **({"max_text_tokens": 60, "max_images": 3} | budget))


def walk(toy: Toy, state: ReplyState, ids: list[int]) -> list[str]:
    """Take ids one by one, images whole; what each was: forced, chosen or drawn."""
    kinds, at = [], 0
    while state.next is not None:
        following = state.next
        if isinstance(following, Grid):
            stop = at + toy.sequencer.layout.content_length(following)
            state.take_image(ids[at:stop])
            kinds.append("drawn")
            at = stop
            continue
        kinds.append("forced" if isinstance(following, int) else "chosen")
        state.take(ids[at])
        at += 1
    assert at == len(ids)
    return kinds


@settings(max_examples=200, deadline=None, derandomize=True)
@given(documents)
def test_a_reply_of_the_sequencer_is_one_of_the_grammar(case: tuple[Toy, Document]) -> None:
    toy, document = case
    turns = document.turns()
    if turns[-1][0] != "assistant":
        return
    sequencer, reply = toy.sequencer, turns[-1][1]
    # Texts side by side were sampled as one.
    whole = Document((*document.parts[: -len(reply)], *joined(reply)))
    prompt = sequencer.prompt(Document(document.parts[: -len(reply)]))
    ids = sequencer.sequence(dataclasses.replace(whole)).ids[len(prompt) :].tolist()
    stop = toy.vocabulary.special(toy.layout.stops[0].name)
    last = len(ids) - 1 - ids[::-1].index(stop)
    ends_reply = toy.layout.image.ends_reply and isinstance(reply[-1], Image)
    ids = ids[: last + (not ends_reply)]
    state = a_state(toy)
    kinds = walk(toy, state, ids)
    assert state.over and not state.drawing and state.ids == ids
    assert kinds.count("drawn") == sum(isinstance(part, Image) for part in reply)


def test_texts_are_chosen_from_what_a_text_can_hold(toy: Toy) -> None:
    state = a_state(toy)
    begin = toy.sequencer.layout.opening(toy.grids[0])[0]
    stops = {toy.vocabulary.special(one.name) for one in toy.layout.stops}
    text = {k for k in range(toy.vocabulary.num_text) if toy.text.spelled[k]}
    for allowed in (text | {begin}, text | {begin} | stops):
        choice = state.next
        assert isinstance(choice, Choice) and not choice.drawing
        assert {k for k in range(-3, toy.vocabulary.size + 3) if k in choice} == allowed
        state.take(max(text))


def test_digits_of_a_size_are_a_choice_where_images_differ() -> None:
    """Of 1x2, 12x1 and 2x3: the first digit is chosen, and what only one image has is forced."""
    toy = TOYS["emu3"]
    one, two, three, star = (toy.spelled(word)[0] for word in "123*")
    image, image_token = (toy.vocabulary.special(name) for name in ("image", "image_token"))
    state = a_state(toy)
    state.take(one)  # as text
    assert not state.drawing and isinstance(state.next, Choice) and two in state.next
    state.take(image)
    first = state.next
    assert isinstance(first, Choice) and first.drawing and state.drawing
    assert [k for k in range(toy.vocabulary.size) if k in first] == sorted([one, two])
    state.take(one)
    second = state.next
    assert isinstance(second, Choice)
    assert [k for k in range(toy.vocabulary.size) if k in second] == sorted([two, star])
    with pytest.raises(AssertionError, match="may not follow"):
        state.take(three)
    state.take(two)
    for token in (star, one, image_token):
        assert state.next == token
        state.take(token)
    assert state.next == Grid(12, 1)
    state.take_image([*range(24)])
    closing = [toy.vocabulary.special(name) for name in ("file_end", "image_end")]
    for token in closing:
        assert state.next == token and not state.over
        state.take(token)
    assert state.over and state.next is None, "an image ends its reply"
    assert state.ids[:2] == [one, image] and state.ids[-2:] == closing


def test_a_size_that_goes_unsaid_is_forced_whole() -> None:
    for name, forced in (("chameleon", ["<image>"]), ("janus", ["<image>"])):
        toy = TOYS[name]
        grammar = Grammar(toy.sequencer.layout, toy.grids)
        state = ReplyState(grammar, 200, 60, 1, "image")
        for token in toy.spelled(*forced):
            assert state.next == token
            state.take(token)
        assert state.next == toy.grids[0]
        state.take_image([0] * 6)
        if name == "janus":
            assert state.over
        else:
            assert state.next == toy.vocabulary.special("image_end")


def test_images_that_open_alike_are_refused() -> None:
    layout = TOYS["chameleon"].sequencer.layout
    with pytest.raises(ValueError, match="opens another too"):
        Grammar(layout, [Grid(2, 3), Grid(3, 2)])
    Grammar(layout, [Grid(2, 3), Grid(2, 3)])
    # 1 x 1 would end where 1 x 12 goes on.
    emu3 = TOYS["emu3"]
    image = dataclasses.replace(emu3.layout.image, opening=emu3.layout.image.opening[:-1])
    bound = dataclasses.replace(emu3.layout, image=image).bind(emu3.vocabulary, emu3.text)
    for grids in ([Grid(1, 1), Grid(1, 12)], [Grid(1, 12), Grid(1, 1)]):
        with pytest.raises(ValueError, match="opens another too"):
            Grammar(bound, grids)


def test_an_image_may_open_by_its_size() -> None:
    """Where images have no first id in common, one that must come is chosen by its first id."""
    toy = TOYS["emu3"]
    image = dataclasses.replace(toy.layout.image, opening=toy.layout.image.opening[1:])
    bound = dataclasses.replace(toy.layout, image=image).bind(toy.vocabulary, toy.text)
    state = ReplyState(Grammar(bound, [Grid(1, 2), Grid(2, 3)]), 200, 60, 1, "image")
    one, two = (toy.spelled(word)[0] for word in "12")
    choice = state.next
    assert isinstance(choice, Choice) and one in choice and two in choice
    assert choice.allowed.sum() == 2


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    toy=any_toy,
    seed=st.integers(0, 2**32 - 1),
    room=st.integers(40, 120),
    max_images=st.integers(0, 3),
    modality=st.sampled_from([None, "text", "image"]),
)
def test_whatever_is_sampled_parses(
    toy: Toy, seed: int, room: int, max_images: int, modality: str | None
) -> None:
    layout, random = toy.sequencer.layout, np.random.default_rng(seed)
    grammar = Grammar(layout, toy.grids, toy.text.spelled)
    state = ReplyState(grammar, room, 30, max_images, modality)
    while (following := state.next) is not None:
        if isinstance(following, Grid):
            codes = random.integers(0, NUM_CODES, following.size)
            state.take_image(layout.content(codes, following)[0].tolist())
        elif isinstance(following, int):
            state.take(following)
        else:
            ids = np.arange(following.first, following.last)[following.allowed]
            rare = ids[~toy.vocabulary.is_text(ids)]
            state.take(int(random.choice(rare if len(rare) and random.random() < 0.3 else ids)))
    assert len(state.ids) <= room
    ids = state.ids
    if ids[-1] in layout.stops:
        ids = ids[:-1]
    else:
        assert toy.layout.image.ends_reply
    parts = parts_of(layout, ids, "assistant", HASH, toy.untold)
    images = [part for part in parts if isinstance(part, Image)]
    assert all(image.grid in toy.grids for image in images)
    assert len(images) <= {None: max_images, "text": 0, "image": 1}[modality]
    assert modality != "image" or len(parts) == 1
    # Between the images, spelled again, there is text and nothing else.
    at = 0
    for image in images:
        spelled = toy.sequencer.image(image).ids.tolist()
        while ids[at : at + len(spelled)] != spelled:
            assert toy.vocabulary.is_text(ids[at])
            at += 1
        at += len(spelled)
    assert toy.vocabulary.is_text(np.array(ids[at:], int)).all()
