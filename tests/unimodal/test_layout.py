"""Layouts of other families: ids by hand, round trips, and lengths."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import document_of
from toy_documents import NAMES, documents, joined, learned_replies
from toy_documents import toy as toy
from toy_layouts import HASH, TOYS, Toy, content

from unimodal.document import Document, Image, Text
from unimodal.sequence import IGNORE
from unimodal.sequencer import DROPS, Sequencer
from unimodal.tokenizer.grid import Grid

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
