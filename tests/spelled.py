"""Ids -> documents, by any layout: an inverse written apart from the sequencer, for tests.

A sequence is first written as one string, in which special tokens and codes are lone surrogates
(where there are many, private-use characters too), which no text of a test holds; then it is read
from left to right by the pieces of the layout. What a layout leaves unsaid must be told: `grids`
by those that spell no sizes, and roles alternate where turns begin alike.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from unimodal.document import Document, Image, Part, Text
from unimodal.layout import BoundLayout, Piece, Side, Special
from unimodal.tokenizer.grid import Grid

LETTERS = [*map(chr, chain(range(0xD800, 0xE000), range(0xF0000, 0xFFFFE)))]


def document_of(
    layout: BoundLayout,
    ids: Sequence[int],
    codec_hash: str = "0" * 64,
    grids: Sequence[Grid] = (),
) -> Document:
    """Return the document that a whole sequence spells; ValueError where it is none."""
    return _Reader(layout, ids, codec_hash, grids).document()


def parts_of(
    layout: BoundLayout,
    ids: Sequence[int],
    role: str | None,
    codec_hash: str = "0" * 64,
    grids: Sequence[Grid] = (),
) -> list[Part]:
    """Return the texts and images that ids between two special tokens spell."""
    reader = _Reader(layout, ids, codec_hash, grids)
    return list(reader.parts(role, len(reader.text)))


class _Reader:
    """What is left of a sequence to be read."""

    def __init__(
        self, layout: BoundLayout, ids: Sequence[int], codec_hash: str, grids: Sequence[Grid]
    ) -> None:
        self.layout, self.codec_hash, self.grids = layout.layout, codec_hash, grids
        vocabulary = layout.vocabulary
        first = [*vocabulary.special_tokens.values()]
        codes = [start + k for start, count in vocabulary.code_runs for k in range(count)]
        letters = dict(zip([*first, *codes], LETTERS, strict=False))
        assert len(letters) == len(first) + len(codes), "the vocabulary of a test is small"
        self.letters = {*letters.values()}
        self.letter_of = {name: letters[token] for name, token in vocabulary.special_tokens.items()}
        self.code_of = {letters[token]: code for code, token in enumerate(codes)}
        self.text, text = "", []
        for token in map(int, ids):
            if token not in letters:
                text.append(token)
                continue
            self.text += layout.text_tokenizer.decode(text) + letters[token]
            text = []
        self.text += layout.text_tokenizer.decode(text)
        self.at = 0

    def document(self) -> Document:
        """Read all of it."""
        self._expect(self.layout.begin, "a document begins with")
        end = self._spelled(self.layout.end)
        if not self.text.endswith(end):
            raise ValueError("a document has no end")
        stop = len(self.text) - len(end)
        parts: list[Part] = []
        role: str | None = None
        while self.at < stop:
            role, after = self._turn(role)
            start = self.at
            parts += self.parts(role, self._find(after, stop) if after else self._next_turn(stop))
            self.at += len(after)
            if self.at == start:
                raise ValueError(f"nothing can be read at {start}")
        return Document(tuple(parts))

    def _turn(self, last: str | None) -> tuple[str | None, str]:
        """Read what opens a turn; its role and what closes it."""
        turns = {
            role: (self._spelled(turn.before), self._spelled(turn.after))
            for role, turn in self.layout.turns.items()
        }
        fitting = [role for role in turns if self.text.startswith(turns[role][0], self.at)]
        if not fitting:
            return None, ""
        role = next((one for one in fitting if one != last), fitting[0])
        before, after = turns[role]
        self.at += len(before)
        return role, after

    def _next_turn(self, stop: int) -> int:
        """Where the next turn begins."""
        opened = [self._spelled(turn.before) for turn in self.layout.turns.values()]
        found = [self.text.find(before, self.at, stop) for before in opened]
        return min([at for at in found if at >= 0], default=stop)

    def _find(self, after: str, stop: int) -> int:
        """Where a turn ends."""
        found = self.text.find(after, self.at, stop)
        if found < 0:
            raise ValueError(f"the turn at {self.at} has no end")
        return found

    def parts(self, role: str | None, stop: int) -> Iterator[Part]:
        """Read texts and images up to `stop`."""
        text = ""
        while self.at < stop:
            if self.text[self.at] not in self.letters:
                text += self.text[self.at]
                self.at += 1
                continue
            if text:
                yield Text(text, role=role)
                text = ""
            yield self._image(role)
        if self.at > stop:
            raise ValueError(f"an image runs over the end of its turn, {stop}")
        if text:
            yield Text(text, role=role)

    def _image(self, role: str | None) -> Image:
        image, start, sides = self.layout.image, self.at, {}
        for piece in image.opening:
            if isinstance(piece, Side):
                sides[piece.axis] = self._side(piece) * piece.step
            else:
                self._expect((piece,), f"an image at {start} opens with")
        grid = Grid(**sides) if sides else self._grid(start)
        codes: list[int] = []
        for row in range(grid.height):
            codes += [self._code() for _ in range(grid.width)]
            if image.row_end is not None and (image.last_row_ends or row + 1 < grid.height):
                self._expect((image.row_end,), f"a row of the image at {start} ends with")
        self._expect(image.closing, f"the image at {start} ends with")
        return Image(
            codes=np.array(codes)[:, None], grid=grid, codec_hash=self.codec_hash, role=role
        )

    def _side(self, piece: Side) -> int:
        if piece.prefix is None:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in "0123456789":
                self.at += 1
            if self.at == start:
                raise ValueError(f"there are no digits at {start}")
            return int(self.text[start : self.at])
        for name, letter in self.letter_of.items():
            number = name.removeprefix(piece.prefix)
            if self.text.startswith(letter, self.at) and number != name and number.isdigit():
                self.at += 1
                return int(number)
        raise ValueError(f"there is no {piece.axis} at {self.at}")

    def _grid(self, start: int) -> Grid:
        if len(self.grids) != 1:
            raise ValueError(f"the image at {start} does not say its size")
        return self.grids[0]

    def _code(self) -> int:
        letter = self.text[self.at : self.at + 1]
        if letter not in self.code_of:
            raise ValueError(f"no image code stands at {self.at}")
        self.at += 1
        return self.code_of[letter]

    def _expect(self, pieces: Sequence[Piece], words: str) -> None:
        spelled = self._spelled(pieces)
        if not self.text.startswith(spelled, self.at):
            raise ValueError(f"{words} {pieces}")
        self.at += len(spelled)

    def _spelled(self, pieces: Sequence[Piece]) -> str:
        return "".join(
            self.letter_of[piece.name] if isinstance(piece, Special) else str(piece)
            for piece in pieces
        )
