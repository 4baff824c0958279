"""Document <-> sequence: layout, labels, round trips, guidance dropout, and text that stays
text.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import document_of

from unimodal.document import Document, Image, Text, encoded
from unimodal.heads.next_code import NextCodeInputs
from unimodal.layout import OWN_LAYOUT, Side
from unimodal.sequence import IGNORE, IMAGE, PADDING, Batch, Row
from unimodal.sequence import TEXT as TEXT_TARGET
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import SPECIAL_TOKENS, Vocabulary

TEXT = TextTokenizer.train(["draw a red circle", "a blue square is left of it"] * 20, 300)
VOCABULARY = Vocabulary.new(TEXT.num_ids, 50)
SEQUENCER = Sequencer(VOCABULARY, TEXT, "hash", NextCodeInputs())
C = VOCABULARY.special


def image(role: str | None, weight: float = 1.0, seed: int = 0) -> Image:
    codes = np.random.default_rng(seed).integers(0, 50, (6, 1))
    return Image(codes=codes, grid=Grid(2, 3), codec_hash="hash", role=role, weight=weight)


def test_layout_and_labels_by_hand() -> None:
    drawn = image("assistant")
    document = Document((Text("a", "user", 0), drawn))
    sequence = SEQUENCER.sequence(document)
    codes = VOCABULARY.code_to_id(drawn.codes[:, 0]).tolist()
    head = [C("begin"), C("user"), *TEXT.encode("a"), C("turn_end"), C("assistant")]
    body = [
        C("image"),
        C("size_2"),
        C("size_3"),
        *codes[:3],
        C("row_end"),
        *codes[3:],
        C("row_end"),
    ]
    ids = [*head, *body, C("image_end"), C("turn_end"), C("end")]
    assert sequence.ids.tolist() == ids
    learned = [token if token not in (C("row_end"), C("image_end")) else IGNORE for token in body]
    labels = [*[IGNORE] * (len(head) - 1), *learned, IGNORE, C("turn_end"), IGNORE, IGNORE]
    assert sequence.labels.tolist() == labels
    (span,) = sequence.spans
    assert (span.start, span.stop, span.grid) == (len(head) + 3, len(head) + 11, Grid(2, 3))
    assert not span.has_content
    is_learned = np.array(labels) != IGNORE
    modality = np.where(VOCABULARY.is_code(np.array(labels)), IMAGE, TEXT_TARGET) * is_learned
    assert sequence.modality.tolist() == modality.tolist()
    assert sequence.weights.tolist() == is_learned.tolist()
    assert sequence.positions.tolist() == [*range(len(ids))]
    assert not sequence.block.any() and not sequence.private.any()
    # A token has the row and the column of the code that it predicts.
    addresses = {len(head) + 2 + k: (1, k + 1) for k in range(3)}
    addresses |= {len(head) + 6 + k: (2, k + 1) for k in range(3)}
    expected = [addresses.get(at, (0, 0)) for at in range(len(ids))]
    assert [*map(tuple, sequence.address.tolist())] == expected


def test_prompt_is_a_prefix_of_the_sequence() -> None:
    document = Document((Text("draw", "user"), image("assistant")))
    prompt = SEQUENCER.prompt(Document(document.parts[:1]))
    assert (SEQUENCER.sequence(document).ids[: len(prompt)] == prompt.ids).all()
    assert prompt.ids[-1] == C("assistant")


def test_dropout_replaces_the_users_parts_and_teaches_no_answer() -> None:
    shown, drawn = image("user", 0.5), image("assistant", seed=1)
    document = Document((shown, Text("recolour", "user"), Text("done", "assistant"), drawn))
    both = SEQUENCER.sequence(document, "both").ids.tolist()
    assert both[:5] == [C("begin"), C("user"), C("null"), C("null"), C("turn_end")]
    text = SEQUENCER.sequence(document, "text")
    assert text.ids.tolist().count(C("null")) == 1 and text.ids.tolist().count(C("image")) == 2
    assert not VOCABULARY.is_text(text.labels).any()
    assert VOCABULARY.is_code(text.labels).sum() == 12
    with pytest.raises(ValueError, match="drop 'all'"):
        SEQUENCER.sequence(document, "all")


parts = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "system"]),
        st.one_of(st.text(min_size=1), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(parts)
def test_round_trip(items: list[tuple[str, str | int]]) -> None:
    document = Document(
        tuple(Text(v, role) if isinstance(v, str) else image(role, seed=v) for role, v in items)
    )
    back = document_of(SEQUENCER.layout, SEQUENCER.sequence(document).ids)
    assert _content(back) == _content(document)


def _content(document: Document) -> list[tuple]:
    """(role, text or codes) with neighbouring texts of a role joined, as ids cannot tell them
    apart.
    """
    found: list[tuple] = []
    for part in document.parts:
        if isinstance(part, Image):
            found.append((part.role, part.grid, tuple(part.codes[:, 0])))
        elif found and found[-1][0] == part.role and isinstance(found[-1][1], str):
            found[-1] = (part.role, found[-1][1] + part.text)
        else:
            found.append((part.role, part.text))
    return found


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
@pytest.mark.parametrize("format", ["{}", "<{}>", "<|{}|>", "[{}]", "</{}>"])
def test_no_spelling_becomes_a_control_token(name: str, format: str) -> None:
    text = format.format(name)
    ids = SEQUENCER.sequence(Document((Text(text, "user"),))).ids
    assert VOCABULARY.is_text(ids[2:-2]).all()
    assert TEXT.decode(ids[2:-2].tolist()) == text


def test_codes_of_another_tokenizer_are_refused() -> None:
    foreign = Image(codes=np.zeros((6, 1), int), grid=Grid(2, 3), codec_hash="other", role="user")
    with pytest.raises(ValueError, match="encode the image again"):
        SEQUENCER.sequence(Document((foreign,)))
    with pytest.raises(ValueError, match="must be encoded"):
        SEQUENCER.sequence(Document((Image(pixels=np.zeros((16, 24, 3), np.uint8)),)))


def test_broken_images_are_read_by_no_test() -> None:
    """The inverse that other tests rely on refuses what is not whole."""
    ids = SEQUENCER.sequence(Document((image(None),))).ids.tolist()
    for at in (2, 6, 7, len(ids) - 2):
        wrong = ids[:at] + ids[at + 1 :]
        with pytest.raises(ValueError):
            document_of(SEQUENCER.layout, wrong)


def test_several_codes_a_place_are_refused() -> None:
    pairs = Image(codes=np.zeros((6, 2), int), grid=Grid(2, 3), codec_hash="hash", role="user")
    with pytest.raises(ValueError, match="one code for each place"):
        SEQUENCER.sequence(Document((pairs,)))


def test_a_grid_without_a_name_is_refused() -> None:
    for height, width in ((65, 1), (1, 65), (0, 3)):
        grid = Grid(height, width)
        codes = np.zeros((grid.size, 1), int)
        wide = Image(codes=codes, grid=grid, codec_hash="hash", role="user")
        with pytest.raises(ValueError, match=f"{height} x {width} codes: sides are .* 1 to 64"):
            SEQUENCER.sequence(Document((wide,)))
        with pytest.raises(ValueError, match=f"{height} x {width} codes: sides are .* 1 to 64"):
            SEQUENCER.measure(Document((wide,)))


def test_a_grid_without_embeddings_is_refused_whatever_the_layout_can_name() -> None:
    """Digits name any side; the tables of rows and columns end."""
    digits = replace(OWN_LAYOUT.image, opening=("<", Side("height"), "*", Side("width"), ">"))
    inputs = NextCodeInputs(replace(OWN_LAYOUT, image=digits))
    free = Sequencer(VOCABULARY, TEXT, "hash", inputs)
    bound = Sequencer(VOCABULARY, TEXT, "hash", inputs, 64)
    for height, width in ((65, 1), (2, 80)):
        grid = Grid(height, width)
        codes = np.zeros((grid.size, 1), int)
        tall = Document((Image(codes=codes, grid=grid, codec_hash="hash", role="user"),))
        assert len(free.sequence(tall)) > grid.size
        for use in (bound.sequence, bound.prompt, bound.measure):
            with pytest.raises(ValueError, match=f"{height} x {width} codes: .*addresses.* of 64 "):
                use(tall)
    largest = Image(codes=np.zeros((64, 1), int), grid=Grid(1, 64), codec_hash="hash")
    assert len(bound.sequence(Document((largest,)))) > 64
    assert free.key != bound.key == Sequencer(VOCABULARY, TEXT, "hash", inputs, 64).key


def test_row_packs_and_pads() -> None:
    one, two = (SEQUENCER.sequence(Document((Text(t, "user"),))) for t in ("a red", "b"))
    row = Row.pack([one, two, 3], 40, C("pad"), sources=[2, 0, 1])
    used = len(one) + len(two)
    assert row.ids[: len(one)].tolist() == one.ids.tolist() and (row.ids[used:] == C("pad")).all()
    assert row.doc.tolist() == [0] * len(one) + [1] * len(two) + [PADDING] * (40 - used)
    assert row.positions[len(one)] == 0 and (row.labels[used:] == IGNORE).all()
    sources = [2] * len(one) + [0] * len(two) + [PADDING] * (40 - used)
    assert row.source.dtype == np.int16 and row.source.tolist() == sources
    batch = Batch.stack([row, row])
    assert batch.ids.shape == (2, 40) and batch.address.shape == (2, 40, 2)
    assert batch.spans == ((), ()), "ids say all of images that are codes"
    with pytest.raises(ValueError, match="do not fit"):
        Row.pack([one, two], used - 1, C("pad"))


def test_encoded_keeps_roles_and_weights() -> None:
    document = Document(
        (Text("x", "user"), Image(pixels=np.zeros((8, 8, 3), np.uint8), role="user", weight=0.3))
    )
    filled = encoded(document, iter([image(None)])).parts[1]
    assert filled.role == "user" and filled.weight == 0.3 and filled.grid == Grid(2, 3)
