"""Cut over-long documents into pieces that each fit the sequence length.

In: a Document whose images have grids, and the sequence length. Out: `Cut`s, from place to place
of the document; `piece` returns the Document of one. Pieces cover the document in its order, and
none is longer than the sequence length.

1. A document is cut between its parts; a conversation only before a user's turn, so that no answer
   loses its question. Only its first piece has the system's words.
2. Each piece of a conversation begins with all images that were shown or drawn before it, as the
   user's and not learned: what is said later may speak of them.
3. A text that alone is too long is cut inside: after a line's end, else before a space, else
   anywhere. An image is never cut.
4. What is too long even so is left out and counted: an image of a page, or an exchange of turns
   with the images before it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from unimodal.document import Document, Image, Part, Text

LINES, WORDS = re.compile(r"[^\n]*\n|[^\n]+"), re.compile(r"\s*\S+|\s+")
WITH_IMAGES = "an exchange longer than a row with the images before it"
BYTES_A_CHARACTER = 4  # at most, in UTF-8; a token is at least one byte


@dataclass(frozen=True, order=True)
class Cut:
    """A piece: from character `begin_char` of `begin_part` to before `end_char` of `end_part`."""

    begin_part: int = 0
    begin_char: int = 0
    end_part: int = 0
    end_char: int = 0


WHOLE = Cut()  # stands for the whole document


class TokenLengths(Protocol):
    """Knows how many tokens parts take, and what stands around them: a Sequencer."""

    @property
    def ends_length(self) -> int:
        """Return the tokens that open and close a document."""
        ...

    def turn_length(self, role: str | None) -> int:
        """Return the tokens around the parts of a turn."""
        ...

    def part_length(self, part: Part) -> int:
        """Return the tokens of a part alone."""
        ...


@dataclass(frozen=True)
class Cuts:
    """The pieces of an over-long document, and what is in none of them."""

    cuts: tuple[Cut, ...]
    left_out: tuple[str, ...]
    """Why each left-out image or exchange is, in a few words for counts."""


def cut_document(document: Document, lengths: TokenLengths, sequence_length: int) -> Cuts:
    """Cut a document into pieces of at most `sequence_length` tokens.

    A piece takes whole fragments as long as they fit.
    """
    cuts: list[Cut] = []
    left_out: list[str] = []
    room = sequence_length - lengths.ends_length
    at_hand: list[Cut] = []  # fragments of the piece that is being filled
    used = 0
    for fragment, size in _fragments(document, lengths, room):
        first_size = size + sum(map(lengths.part_length, _shown_before(document, fragment)))
        if used + size > room or (not at_hand and first_size > room):
            cuts += _joined(at_hand)
            at_hand, used = [], 0
        if not at_hand and first_size > room:
            left_out.append(_why(document, fragment, size > room))
            continue
        used += size if at_hand else first_size
        at_hand.append(fragment)
    return Cuts(tuple(cuts + _joined(at_hand)), tuple(left_out))


def _shown_before(document: Document, cut: Cut) -> tuple[Image, ...]:
    """Return the images of a conversation before a piece, as the user's; none of a page."""
    if all(part.role is None for part in document.parts):
        return ()
    before = document.parts[: cut.begin_part]
    return tuple(
        replace(part, role="user", weight=0.0) for part in before if isinstance(part, Image)
    )


def piece(document: Document, cut: Cut) -> Document:
    """Return the piece of a document that a cut stands for."""
    if cut == WHOLE:
        return document
    parts = list(document.parts[cut.begin_part : cut.end_part])
    if cut.end_char:
        parts.append(_text_until(document.parts[cut.end_part], cut.end_char))
    if cut.begin_char:
        parts[0] = _text_from(parts[0], cut.begin_char)
    return Document((*_shown_before(document, cut), *parts))


def _text_until(part: Part, end: int) -> Text:
    assert isinstance(part, Text), "texts alone are cut inside"
    return replace(part, text=part.text[:end])


def _text_from(part: Part, begin: int) -> Text:
    assert isinstance(part, Text), "texts alone are cut inside"
    return replace(part, text=part.text[begin:])


def _joined(fragments: list[Cut]) -> list[Cut]:
    """Join neighbouring fragments into the one piece that they are; none without any."""
    if not fragments:
        return []
    first, last = fragments[0], fragments[-1]
    return [Cut(first.begin_part, first.begin_char, last.end_part, last.end_char)]


def _fragments(document: Document, lengths: TokenLengths, room: int) -> Iterator[tuple[Cut, int]]:
    """Yield what is never cut further, with its tokens, in order."""
    if any(part.role is not None for part in document.parts):
        yield from _exchanges(document, lengths)
        return
    for number, part in enumerate(document.parts):
        size = lengths.part_length(part)
        if size <= room or isinstance(part, Image):
            yield Cut(number, 0, number + 1, 0), size
            continue
        for begin, end, fragment_size in _text_fragments(part, lengths.part_length, room):
            last = end == len(part.text)
            to = (number + 1, 0) if last else (number, end)
            yield Cut(number, begin, *to), fragment_size


def _exchanges(document: Document, lengths: TokenLengths) -> Iterator[tuple[Cut, int]]:
    """Yield the exchanges: from each user's turn to before the next one.

    What stands around a turn is counted.
    """
    begin = size = at = 0
    for role, turn in groupby(document.parts, key=lambda part: part.role):
        parts = list(turn)
        if role == "user" and any(part.role == "user" for part in document.parts[begin:at]):
            yield Cut(begin, 0, at, 0), size
            begin, size = at, 0
        size += sum(map(lengths.part_length, parts)) + lengths.turn_length(role)
        at += len(parts)
    yield Cut(begin, 0, at, 0), size


def _text_fragments(
    text: Text, length: Callable[[Part], int], room: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, tokens) of fragments of a text that each fit.

    To tokenize each candidate would be quadratic. So the tokens between stops are added up, for a
    whole is seldom longer than the sum of its parts; each fragment is then measured once, and
    shortened by a stop where it is longer.
    """

    def size(begin: int, end: int) -> int:
        return length(replace(text, text=text.text[begin:end]))

    begin = used = 0
    ends: list[int] = []  # of what goes into the fragment at hand
    for stop, more in _stops(text.text, room, lambda words: length(replace(text, text=words))):
        if ends and used + more > room:
            while len(ends) > 1 and size(begin, ends[-1]) > room:
                ends.pop()
            yield begin, ends[-1], size(begin, ends[-1])
            begin, used, ends = ends[-1], 0, []
        ends.append(stop)
        used += more
    while ends and begin < ends[-1]:
        last = next((at for at in reversed(ends) if size(begin, at) <= room), ends[0])
        yield begin, last, size(begin, last)
        begin, ends = last, [at for at in ends if at > last]


def _stops(text: str, room: int, length: Callable[[str], int]) -> Iterator[tuple[int, int]]:
    """Yield (character, tokens since the stop before) of the stops, where a text may be cut.

    They ascend, the last one is the text's end, and none is more than `room` tokens from the one
    before: after lines, within long lines after words, within long words anywhere.
    """
    for line in LINES.finditer(text):
        size = length(line.group())
        if size <= room:
            yield line.end(), size
            continue
        for words in WORDS.finditer(line.group()):
            first, last = line.start() + words.start(), line.start() + words.end()
            size = length(words.group())
            if size <= room:
                yield last, size
                continue
            step = max(1, room // BYTES_A_CHARACTER)
            for begin in range(first, last, step):
                end = min(begin + step, last)
                yield end, length(text[begin:end])


def _why(document: Document, fragment: Cut, is_long_alone: bool) -> str:
    """Return why a fragment is in no piece."""
    first = document.parts[fragment.begin_part]
    if not is_long_alone:
        return WITH_IMAGES
    if fragment.end_part - fragment.begin_part > 1 or first.role is not None:
        return "an exchange longer than a row"
    what = "an image" if isinstance(first, Image) else "a text"
    return f"{what} longer than a row"
