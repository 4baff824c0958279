"""Layouts of other families: ids by hand, round trips, lengths, and what may follow in a reply."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import document_of, parts_of
from toy_layouts import HASH, NUM_CODES, TOYS, Toy, content

from unimodal.document import Document, Image, Part, Text
from unimodal.grammar import Choice, Grammar, ReplyState
from unimodal.sequence import IGNORE
from unimodal.sequencer import DROPS, Sequencer
from unimodal.tokenizer.grid import Grid

NAMES = [*TOYS]
WORDS = st.text("abcdrw :", min_size=1, max_size=12)


@pytest.fixture(params=NAMES)
def toy(request) -> Toy:
    return TOYS[request.param]


@st.composite
def conversations(draw: st.DrawFn, toy: Toy, user_weights: tuple[float, ...] = (0.0, 0.5)):
    """Turns of the user and the assistant by turns, with texts and images in each."""
    parts: list[Part] = []
    for turn in range(draw(st.integers(1, 5))):
        role = ("user", "assistant")[turn % 2]
        weights = st.sampled_from(user_weights if role == "user" else (0.0, 1.0))
        for _ in range(draw(st.integers(1, 3))):
            weight = draw(weights)
            if draw(st.booleans()):
                parts.append(Text(draw(WORDS), role, weight))
                continue
            parts.append(toy.image(role, draw(st.integers(0, 9)), weight))
            if role == "assistant" and toy.layout.image.ends_reply:
                break
    return Document(tuple(parts))


any_toy = st.sampled_from(NAMES).map(lambda name: TOYS[name])
documents = any_toy.flatmap(lambda toy: st.tuples(st.just(toy), conversations(toy)))
learned_replies = any_toy.flatmap(lambda toy: st.tuples(st.just(toy), conversations(toy, (0.0,))))


# --- by hand ------------------------------------------------------------------------------------


def by_hand(name: str) -> tuple[Toy, Document, list[int]]:
    """'draw it', answered by an image, in the ids of a layout."""
    toy = TOYS[name]
    grid = toy.grids[-1]
    codes = [*range(7, 7 + grid.size)]
    drawn = Image(codes=np.array(codes)[:, None], grid=grid, codec_hash=HASH, role="assistant")
    document = Document((Text("draw it", "user", 0), drawn))
    rows = [codes[start : start + grid.width] for start in range(0, grid.size, grid.width)]
    return toy, document, toy.spelled(*SPELLED[name](rows))


SPELLED = {
    "own": lambda rows: (
        "<begin>", "<user>", "draw it", "<turn_end>", "<assistant>", "<image>", "<size_1>",
        "<size_4>", rows[0], "<row_end>", "<image_end>", "<turn_end>", "<end>",
    ),
    "chameleon": lambda rows: (
        "<begin>", "draw it", "<turn_end>", "<image>", rows[0], rows[1], "<image_end>",
        "<turn_end>", "<end>",
    ),
    "lumina": lambda rows: (
        "<begin>", "draw it", "<turn_end>", "<image>", "<size_2>", "<size_1>", rows[0],
        "<row_end>", rows[1], "<row_end>", rows[2], "<row_end>", rows[3], "<row_end>",
        "<image_end>", "<turn_end>", "<end>",
    ),
    "emu3": lambda rows: (
        "<bos>", "You are a helpful assistant. USER: draw it. ASSISTANT:", "<image>", "2", "*", "3",
        "<image_token>", rows[0], "<row_end>", rows[1], "<row_end>", "<file_end>", "<image_end>",
        "<eos>",
    ),
    "emu3.5": lambda rows: (
        "<bos>", "You are a helpful assistant. USER: draw it. ASSISTANT:", "<image>", "2", "*", "3",
        "<image_token>", rows[0], "<row_end>", rows[1], "<file_end>", "<image_end>", "<eos>",
    ),
    "janus": lambda rows: (
        "<begin>", "You draw.\n\n", "<user>", ": draw it\n\n", "<assistant>", ":", "<image>",
        rows[0], rows[1], rows[2], "<end>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ids_by_hand(name: str) -> None:
    toy, document, ids = by_hand(name)
    sequence = toy.sequencer.sequence(document)
    assert sequence.ids.tolist() == ids
    prompt = toy.sequencer.prompt(Document(document.parts[:1])).ids.tolist()
    assert ids[: len(prompt)] == prompt
    # Learned are what opens the image, its codes and the reply's stop; not what can only follow.
    rest = ids[len(prompt) :]
    layout = toy.layout.image
    closing = [piece.name for piece in (*layout.closing, *filter(None, [layout.row_end]))]
    forced = {toy.vocabulary.special(one) for one in closing}
    stop = toy.vocabulary.special(toy.layout.stops[0].name)
    last = len(rest) - 1 - rest[::-1].index(stop)
    learned = [token if at <= last and token not in forced else IGNORE
               for at, token in enumerate(rest)]  # fmt: skip
    assert sequence.labels.tolist() == [*[IGNORE] * (len(prompt) - 1), *learned, IGNORE]
    assert TOYS[name].vocabulary.is_code(sequence.labels[sequence.modality == 2]).all()
    assert (sequence.modality == 2).sum() == document.parts[1].grid.size


UNCONDITIONAL = {
    "own": ("<begin>", "<user>", "<null>", "<turn_end>", "<assistant>"),
    "chameleon": ("<begin>",),
    "lumina": (),
    "emu3": ("<bos>", "You are a helpful assistant. USER: . ASSISTANT:"),
    "emu3.5": ("<bos>", "You are a helpful assistant. USER: . ASSISTANT:"),
    "janus": ("<begin>", "You draw.\n\n", "<user>", ": ", "<pad>", "<pad>", "\n\n", "<assistant>",
              ":"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_unconditional_prompts_by_hand(name: str) -> None:
    toy, document, ids = by_hand(name)
    words = UNCONDITIONAL[name]
    if name == "janus":  # as many as the words have tokens
        at = words.index("<pad>")
        num_tokens = len(toy.text.encode("draw it"))
        words = (*words[:at], *["<pad>"] * num_tokens, *words[at + 2 :])
    prompt = toy.sequencer.prompt(Document(document.parts[:1]), "text").ids.tolist()
    assert prompt == toy.spelled(*words)
    # What is trained without a question is what guidance reads.
    num_prompt = len(toy.sequencer.prompt(Document(document.parts[:1])))
    whole = toy.sequencer.sequence(document, "text").ids.tolist()
    assert whole == [*prompt, *ids[num_prompt:]]


# --- round trips and lengths --------------------------------------------------------------------


@settings(max_examples=200, deadline=None, derandomize=True)
@given(documents)
def test_round_trip(case: tuple[Toy, Document]) -> None:
    toy, document = case
    sequencer = toy.sequencer
    ids = sequencer.sequence(document).ids
    back = document_of(sequencer.layout, ids, HASH, toy.untold)
    assert content(back, toy.names_roles) == content(document, toy.names_roles)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(documents)
def test_lengths_are_measured_without_making_a_sequence(case: tuple[Toy, Document]) -> None:
    toy, document = case
    sequencer = toy.sequencer
    bare = Document(tuple(
        dataclasses.replace(part, codes=None, pixels=np.zeros((8, 8, 3), np.uint8))
        if isinstance(part, Image) else part for part in document.parts
    ))  # fmt: skip
    expected = {drop: len(sequencer.sequence(document, drop)) for drop in DROPS}
    assert sequencer.measure(document) == sequencer.measure(bare) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(learned_replies, st.sampled_from(DROPS))
def test_a_reply_is_learned_behind_what_it_is_sampled_behind(
    case: tuple[Toy, Document], drop: str | None
) -> None:
    """In training and in drawing the prompt has the same ids, with and without what is dropped."""
    toy, document = case
    turns = document.turns()
    if turns[-1][0] != "assistant":
        return
    before = Document(document.parts[: -len(turns[-1][1])])
    whole = Document((*before.parts, *joined(turns[-1][1])))
    plain = toy.sequencer.prompt(before).ids
    reply = toy.sequencer.sequence(whole).ids[len(plain) :]
    sequence = toy.sequencer.sequence(whole, drop).ids
    assert sequence.tolist() == [*toy.sequencer.prompt(before, drop).ids, *reply]
    assert toy.sequencer.sequence(whole).ids.tolist() == [*plain, *reply]


def test_lengths_of_another_layout_are_not_taken_for_these(toy: Toy) -> None:
    """What was measured is kept under a key."""
    keys = {name: one.sequencer.key for name, one in TOYS.items()}
    assert len({*keys.values()}) == len(TOYS)
    inputs = dataclasses.replace(toy.sequencer.inputs, key="a head's")
    layout = dataclasses.replace(toy.layout, version=2)
    for one in (inputs, dataclasses.replace(inputs, key="", layout=layout)):
        key = Sequencer(toy.vocabulary, toy.text, HASH, one).key
        assert key not in keys.values()


def test_a_prompt_learns_nothing(toy: Toy) -> None:
    """Whatever its parts weigh: of an image the model sees the clean copy alone."""
    document = Document((toy.image("user", 1), Text("draw", "user"), Text("ok", "assistant")))
    prompt = toy.sequencer.prompt(document)
    assert not prompt.weights.any() and (prompt.labels == IGNORE).all()
    light = Document(tuple(dataclasses.replace(part, weight=0.0) for part in document.parts))
    assert toy.sequencer.prompt(light).ids.tolist() == prompt.ids.tolist()


def test_words_are_joined_where_they_weigh_the_same() -> None:
    toy = TOYS["emu3"]
    context = Document((Text("a", "user", 0), Text("b", "user", 0)))
    learned = Document((Text("a", "user", 0), Text("b", "user", 1)))
    head = "You are a helpful assistant. USER: a"
    assert toy.sequencer.sequence(context).ids.tolist() == toy.spelled("<bos>", head + "b. ")
    sequence = toy.sequencer.sequence(learned)
    assert sequence.ids.tolist() == toy.spelled("<bos>", head, "b", ". ")
    labels = sequence.labels[sequence.labels != IGNORE].tolist()
    assert labels == toy.spelled("b")


def test_turns_without_a_name_stand_bare() -> None:
    toy = TOYS["chameleon"]
    document = Document((Text("be kind", "system"), Text("hi", "user")))
    ids = toy.spelled("<begin>", "be kind", "hi", "<turn_end>", "<end>")
    assert toy.sequencer.sequence(document).ids.tolist() == ids
    assert toy.sequencer.measure(document)[None] == len(ids)


def test_what_is_nobodys_is_not_dropped(toy: Toy) -> None:
    """A caption pair has no user: it is the same whatever is dropped, but for words as targets."""
    image = dataclasses.replace(toy.image("user", 0), role=None)
    document = Document((Text("a red star"), image))
    whole = toy.sequencer.sequence(document)
    for drop in DROPS:
        assert toy.sequencer.sequence(document, drop).ids.tolist() == whole.ids.tolist()


def test_unknown_drops_are_refused(toy: Toy) -> None:
    for make in (toy.sequencer.sequence, toy.sequencer.prompt):
        with pytest.raises(ValueError, match="drop 'all': one of"):
            make(Document((Text("a", "user"),)), "all")


def test_a_missing_special_token_is_named() -> None:
    toy = TOYS["janus"]
    tokens = {k: v for k, v in toy.vocabulary.special_tokens.items() if k != "image"}
    vocabulary = dataclasses.replace(toy.vocabulary, special_tokens=tokens)
    with pytest.raises(ValueError, match="no special token 'image'"):
        toy.layout.bind(vocabulary, toy.text).opening(Grid(3, 2))


@pytest.mark.parametrize(("height", "width"), [(3, 2), (2, 5), (8, 2), (0, 2)])
def test_sides_between_two_steps_have_no_name(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="whole multiples of 2|no special token 'size_4'"):
        TOYS["lumina"].sequencer.layout.opening(Grid(height, width))


# --- what may follow in a reply -----------------------------------------------------------------


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


def joined(parts: list[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if found and isinstance(part, Text) and isinstance(found[-1], Text):
            part = dataclasses.replace(part, text=found.pop().text + part.text)
        found.append(dataclasses.replace(part, weight=1.0))
    return found


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
