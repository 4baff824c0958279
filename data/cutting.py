"""Over-long documents in pieces that each fit a row.

In: a Document whose images have grids, and the row length. Out: `Cut`s, from place to place of
the document; `piece` makes the Document of one. Pieces cover the document in its order, and none
is longer than a row.

1. A document is cut between its parts; a conversation only before a user's turn, so that no answer
   loses its question. Only its first piece has the system's words.
2. A text that alone is longer than a row is cut inside: after a line's end, else before a space,
   else anywhere. A image is never cut.
3. What fits no row even so, a image or an exchange of turns, is left out and counted.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from unimodal.document import Document, Image, Part, Text

ENDS = 2  # positions of a document's begin and end
LINES, WORDS = re.compile(r"[^\n]*\n|[^\n]+"), re.compile(r"\s*\S+|\s+")
BYTES_A_CHARACTER = 4  # at most, in UTF-8; an id is at least one byte


@dataclass(frozen=True, order=True)
class Cut:
    """From character `begin_char` of part `begin_part` to before `end_char` of part `end_part`."""

    begin_part: int = 0
    begin_char: int = 0
    end_part: int = 0
    end_char: int = 0


WHOLE = Cut()  # no piece: the whole document


@dataclass(frozen=True)
class Cuts:
    """What an over-long document came to."""

    cuts: tuple[Cut, ...]
    left_out: tuple[str, ...]
    """For each thing that fits no row, what it is."""


def cut_document(document: Document, length: Callable[[Part], int], sequence_length: int) -> Cuts:
    """Cut a document into pieces of at most `sequence_length` positions.

    `length` gives the positions of a part alone. A piece is as long as the next whole unit allows.
    """
    cuts: list[Cut] = []
    left_out: list[str] = []
    room = sequence_length - ENDS
    piece: list[Cut] = []  # units that go into the piece at hand
    used = 0
    for unit, size in _units(document, length, room):
        if size > room:
            left_out.append(f"{_named(document, unit)} of {size} positions")
        if size > room or used + size > room:
            cuts += _joined(piece)
            piece, used = [], 0
        if size <= room:
            piece.append(unit)
            used += size
    return Cuts(tuple(cuts + _joined(piece)), tuple(left_out))


def piece(document: Document, cut: Cut) -> Document:
    """The part of a document between two places."""
    if cut == WHOLE:
        return document
    parts = list(document.parts[cut.begin_part : cut.end_part])
    if cut.end_char:
        parts.append(_text_until(document.parts[cut.end_part], cut.end_char))
    if cut.begin_char:
        parts[0] = _text_from(parts[0], cut.begin_char)
    return Document(tuple(parts))


def _text_until(part: Part, end: int) -> Text:
    assert isinstance(part, Text), "texts alone are cut inside"
    return replace(part, text=part.text[:end])


def _text_from(part: Part, begin: int) -> Text:
    assert isinstance(part, Text), "texts alone are cut inside"
    return replace(part, text=part.text[begin:])


def _joined(units: list[Cut]) -> list[Cut]:
    """The one piece from the first unit to the last; none of no units."""
    if not units:
        return []
    first, last = units[0], units[-1]
    return [Cut(first.begin_part, first.begin_char, last.end_part, last.end_char)]


def _units(
    document: Document, length: Callable[[Part], int], room: int
) -> Iterator[tuple[Cut, int]]:
    """What is never torn apart, with its positions, in order."""
    if any(part.role is not None for part in document.parts):
        yield from _exchanges(document, length)
        return
    for number, part in enumerate(document.parts):
        size = length(part)
        if size <= room or isinstance(part, Image):
            yield Cut(number, 0, number + 1, 0), size
            continue
        for begin, end, fragment_size in _fragments(part, length, room):
            last = end == len(part.text)
            to = (number + 1, 0) if last else (number, end)
            yield Cut(number, begin, *to), fragment_size


def _exchanges(document: Document, length: Callable[[Part], int]) -> Iterator[tuple[Cut, int]]:
    """From each user's turn to before the next one; a turn has two markers."""
    begin = size = at = 0
    for role, turn in groupby(document.parts, key=lambda part: part.role):
        parts = list(turn)
        if role == "user" and any(part.role == "user" for part in document.parts[begin:at]):
            yield Cut(begin, 0, at, 0), size
            begin, size = at, 0
        size += sum(map(length, parts)) + (2 if role is not None else 0)
        at += len(parts)
    yield Cut(begin, 0, at, 0), size


def _fragments(
    text: Text, length: Callable[[Part], int], room: int
) -> Iterator[tuple[int, int, int]]:
    """(begin, end, positions) of fragments of a text that each fit.

    The lengths of what lies between stops are added up, for the whole is seldom longer than its
    pieces; each fragment is then measured, and shortened by a stop where it is.
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
    """(place, positions since the place before) of ascending places where a text may be cut, the
    last one at its end; none is farther from the one before than a row.
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


def _named(document: Document, unit: Cut) -> str:
    if unit.end_part - unit.begin_part > 1 or document.parts[unit.begin_part].role is not None:
        return "an exchange"
    return "a image" if isinstance(document.parts[unit.begin_part], Image) else "a text"
