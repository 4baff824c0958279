"""Over-long documents: pieces cover everything in order, fit a row, and cut no image."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.cutting import WHOLE, WITH_IMAGES, Cut, cut_document, piece
from unimodal.document import Document, Image, Text
from unimodal.tokenizer.grid import Grid

WORDS = st.text(st.sampled_from("ab \né\t"), max_size=60)
TEXTS = st.builds(Text, WORDS)
IMAGES = st.integers(1, 30).map(
    lambda n: Image(codes=np.full((n, 1), n), grid=Grid(1, n), codec_hash="x")
)


@dataclass(frozen=True)
class Bytes:
    """A byte is a token; an image takes its codes and two more."""

    ends_length: int = 2
    around: int = 2
    """Tokens around a turn."""

    def part_length(self, part: Text | Image) -> int:
        return len(part.text.encode()) if isinstance(part, Text) else part.grid.size + 2

    def turn_length(self, role: str | None) -> int:
        return self.around if role is not None else 0

    def total(self, document: Document) -> int:
        turns = sum(self.turn_length(role) for role, _ in document.turns())
        return self.ends_length + turns + sum(map(self.part_length, document.parts))


LENGTHS = st.builds(Bytes, st.integers(0, 4), st.integers(0, 4))


def flat(parts) -> list:
    """Characters and images in order."""
    return [
        one for part in parts for one in (part.text if isinstance(part, Text) else [id(part.codes)])
    ]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(TEXTS | IMAGES, min_size=1, max_size=8), LENGTHS, st.integers(10, 40))
def test_pieces_of_a_page_are_the_page(parts: list, lengths: Bytes, sequence_length: int) -> None:
    document = Document(tuple(parts))
    found = cut_document(document, lengths, sequence_length)
    pieces = [piece(document, cut) for cut in found.cuts]
    assert all(lengths.total(one) <= sequence_length for one in pieces)
    room = sequence_length - lengths.ends_length
    kept = [part for part in parts if isinstance(part, Text) or lengths.part_length(part) <= room]
    assert [one for each in pieces for one in flat(each.parts)] == flat(kept)
    assert len(found.left_out) == len(parts) - len(kept)
    assert set(found.left_out) <= {"an image longer than a row"}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS | IMAGES), min_size=1,
        max_size=8,
    ),
    LENGTHS,
    st.integers(12, 60),
)  # fmt: skip
def test_conversations_are_cut_before_a_user_alone(
    turns: list, lengths: Bytes, sequence_length: int
) -> None:
    document = Document(tuple(replace(part, role=role) for role, part in turns))
    found = cut_document(document, lengths, sequence_length)
    cut_before = 0
    own = []  # what is in each piece beside the images that were shown before it
    for cut in found.cuts:
        assert (cut.begin_char, cut.end_char) == (0, 0) and cut.begin_part >= cut_before
        cut_before = cut.end_part
        assert cut.begin_part == 0 or document.parts[cut.begin_part].role == "user"
        assert cut.end_part == len(turns) or document.parts[cut.end_part].role == "user"
        assert lengths.total(piece(document, cut)) <= sequence_length
        before = [part for part in document.parts[: cut.begin_part] if isinstance(part, Image)]
        shown = piece(document, cut).parts[: len(before)]
        assert flat(shown) == flat(before)
        assert all((part.role, part.weight) == ("user", 0.0) for part in shown)
        own.append(piece(document, cut).parts[len(before) :])
    if not found.left_out:
        assert [one for parts in own for one in flat(parts)] == flat(document.parts)


def test_a_long_text_is_cut_at_lines_then_words_then_anywhere() -> None:
    def texts(text: str) -> list[str]:
        document = Document((Text(text),))
        cuts = cut_document(document, Bytes(), 12).cuts
        return ["".join(part.text for part in piece(document, cut).parts) for cut in cuts]

    assert texts("one\ntwo\nthree\nfour") == ["one\ntwo\n", "three\nfour"]
    assert texts("one two three four") == ["one two", " three", " four"]
    assert texts("abcdefghijklmnop") == ["abcdefghij", "klmnop"]


def test_paragraphs_stay_whole_where_they_fit() -> None:
    parts = tuple(Text(word) for word in ("aaaa", "bbbb", "cccc", "dddddddddd", "e"))
    cuts = cut_document(Document(parts), Bytes(), 12).cuts
    assert [(cut.begin_part, cut.end_part) for cut in cuts] == [(0, 2), (2, 3), (3, 4), (4, 5)]


def test_a_whole_document_is_itself() -> None:
    document = Document((Text("a"), Text("b")))
    assert piece(document, WHOLE) is document
    assert piece(document, Cut(0, 0, 1, 0)).parts == (Text("a"),)


def image(size: int, role: str | None = None) -> Image:
    return Image(
        codes=np.full((size, 1), size), grid=Grid(1, size), codec_hash="x", role=role, weight=0.0
    )


def said(*turns: str) -> list[Text]:
    """Turns of the user and the assistant in turn."""
    roles = ("user", "assistant") * len(turns)
    return [Text(words, role) for words, role in zip(turns, roles, strict=False)]


def contents(document: Document, sequence_length: int) -> tuple[list[list], tuple[str, ...]]:
    """Each piece as its words and the sizes of its images, and why others are left out."""
    found = cut_document(document, Bytes(0, 0), sequence_length)
    pieces = [piece(document, cut).parts for cut in found.cuts]
    shown = [[p.text if isinstance(p, Text) else p.grid.size for p in parts] for parts in pieces]
    return shown, found.left_out


def test_what_follows_a_left_out_exchange_keeps_its_images_or_is_left_out_too() -> None:
    talk = (image(8, "user"), *said("which is red?" * 3, "one", "and now?", "two", "why?", "so"))
    kept = [[8, "and now?", "two", "why?", "so"]]
    assert contents(Document(talk), 40) == (kept, ("an exchange longer than a row",))
    without = [[8, "why?", "so"]]  # the second exchange has no room beside the image
    reasons = ("an exchange longer than a row", WITH_IMAGES)
    assert contents(Document(talk), 20) == (without, reasons)
    assert contents(Document(talk), 12) == ([], (reasons[0], WITH_IMAGES, WITH_IMAGES))
    gone = Document((image(30, "user"), *talk[1:]))
    assert contents(gone, 28) == ([], (reasons[0], WITH_IMAGES, WITH_IMAGES))


def test_pieces_of_a_chat_begin_with_the_images_before_them() -> None:
    first, second = image(3, "user"), image(4, "assistant")
    talk = Document((first, *said("redder", "yes"), second, *said("what is it?", "a red circle")))
    assert contents(talk, 40) == (
        [[3, "redder", "yes", 4], [3, 4, "what is it?", "a red circle"]],
        (),
    )
    words = Document(tuple(said("one", "two", "three", "four")))
    assert contents(words, 8) == ([["one", "two"]], ("an exchange longer than a row",))
    assert contents(words, 9) == ([["one", "two"], ["three", "four"]], ())
