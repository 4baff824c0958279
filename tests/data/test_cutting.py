"""Over-long documents: pieces cover everything in order, fit a row, and cut no image."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.cutting import WHOLE, Cut, cut_document, piece
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
    assert all("an image of" in words for words in found.left_out)


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
    for cut in found.cuts:
        assert (cut.begin_char, cut.end_char) == (0, 0) and cut.begin_part >= cut_before
        cut_before = cut.end_part
        assert cut.begin_part == 0 or document.parts[cut.begin_part].role == "user"
        assert cut.end_part == len(turns) or document.parts[cut.end_part].role == "user"
        assert lengths.total(piece(document, cut)) <= sequence_length
    if not found.left_out:
        pieces = [piece(document, cut) for cut in found.cuts]
        assert [one for each in pieces for one in flat(each.parts)] == flat(document.parts)


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
