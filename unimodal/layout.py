"""How a document is spelled in tokens, as data: what opens and closes documents, turns and images.

A layout names special tokens and text; `Layout.bind` turns them to ids once. Ours is OWN_LAYOUT:

    document   begin turn* end
    turn       role part* turn_end        (parts without a role stand bare)
    image      image size_h size_w (w codes, row_end) * h image_end

Other layouts are those of published models: sizes may be spelled in digits, rows may have no end,
an image may end its reply, and words may be joined before they are encoded. No other file knows how
many tokens an image takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unimodal.tokenizer.grid import Grid

from .text import TextTokenizer
from .vocabulary import MAX_SIDE, Vocabulary


@dataclass(frozen=True)
class SpecialToken:
    """A special token, by its name in the vocabulary."""

    name: str


@dataclass(frozen=True)
class Side:
    """How the height or the width of an image's grid is said."""

    axis: Literal["height", "width"]
    prefix: str | None = None
    """Special tokens `<prefix>1`, `<prefix>2`, ...; None: decimal digits, each as text."""
    step: int = 1
    """Codes that the number counts."""


Piece = str | SpecialToken | Side
"""Text, a special token, or a side of the image's grid."""


@dataclass(frozen=True)
class Turn:
    """What stands before and after the parts of a turn."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]


@dataclass(frozen=True)
class ImageLayout:
    """What stands around and between the codes of an image."""

    opening: tuple[Piece, ...]
    row_end: SpecialToken | None = None
    last_row_ends: bool = True
    closing: tuple[Piece, ...] = ()
    ends_reply: bool = False
    """Whether nothing of the assistant's turn follows an image."""

    def content_length(self, grid: Grid) -> int:
        """Return how many tokens an image's codes and its rows' ends take."""
        if self.row_end is None:
            return grid.size
        return grid.size + grid.height - (not self.last_row_ends)

    def length(self, grid: Grid) -> int:
        """Return how many tokens an image takes, where all that opens and closes it is special
        tokens.
        """
        return len(self.opening) + self.content_length(grid) + len(self.closing)


@dataclass(frozen=True)
class Unconditional:
    """What the unconditional branch of guidance reads in place of what was dropped.

    'null': `pieces` in place of each dropped part. 'padded': `pieces`, which are one token, as
    often as the dropped part has tokens. 'prompt': `pieces` in place of the whole prompt, which is
    all that comes before the reply.
    """

    kind: Literal["null", "padded", "prompt"]
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The spelling of documents."""

    begin: tuple[Piece, ...]
    end: tuple[Piece, ...]
    turns: dict[str, Turn]
    """By role."""
    reply: tuple[Piece, ...]
    """What a reply is sampled after."""
    stops: tuple[SpecialToken, ...]
    """Any of these ends a reply; they are learned."""
    image: ImageLayout
    unconditional: Unconditional
    joined: bool = False
    """Whether neighbouring words of equal loss weight are encoded as one text; those of a reply
    are never joined with what stands around it, behind which it is sampled.
    """
    version: int = 1
    """Raised where the same layout gives other ids; lengths that were measured before are void."""

    def bind(self, vocabulary: Vocabulary, text: TextTokenizer) -> "BoundLayout":
        """Turn every name to its id; ValueError for a special token that the vocabulary lacks."""
        return BoundLayout(self, vocabulary, text)


TURN_ROLES = ("system", "user", "assistant")
OWN_LAYOUT = Layout(
    begin=(SpecialToken("begin"),),
    end=(SpecialToken("end"),),
    turns={role: Turn((SpecialToken(role),), (SpecialToken("turn_end"),)) for role in TURN_ROLES},
    reply=(SpecialToken("assistant"),),
    stops=(SpecialToken("turn_end"),),
    image=ImageLayout(
        opening=(SpecialToken("image"), Side("height", "size_"), Side("width", "size_")),
        row_end=SpecialToken("row_end"),
        closing=(SpecialToken("image_end"),),
    ),
    unconditional=Unconditional("null", (SpecialToken("null"),)),
)


@dataclass(frozen=True)
class BoundLayout:
    """A layout in the ids of one vocabulary and text tokenizer."""

    layout: Layout
    vocabulary: Vocabulary
    text_tokenizer: TextTokenizer
    closing: list[int] = field(init=False)
    """The ids behind an image's last code or row."""
    stops: list[int] = field(init=False)
    """The ids that end a reply."""
    _openings: dict[Grid, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "closing", self.ids(self.layout.image.closing))
        object.__setattr__(self, "stops", self.ids(self.layout.stops))

    def ids(self, pieces: Sequence[Piece], grid: Grid | None = None) -> list[int]:
        """Return the ids of pieces; `grid` says what sides they speak of."""
        return [token for piece in pieces for token in self._piece(piece, grid)]

    def _piece(self, piece: Piece, grid: Grid | None) -> list[int]:
        if isinstance(piece, SpecialToken):
            return [self.vocabulary.special(piece.name)]
        if isinstance(piece, str):
            return self.text_tokenizer.encode(piece)
        assert grid is not None, "only an image's pieces speak of sides"
        number, left = divmod(getattr(grid, piece.axis), piece.step)
        if left or number < 1 or (piece.prefix is not None and number > MAX_SIDE):
            raise ValueError(
                f"a grid of {grid.height} x {grid.width} codes: sides are whole multiples of "
                f"{piece.step}, from 1 to {MAX_SIDE * piece.step}"
            )
        if piece.prefix is None:
            return [token for digit in str(number) for token in self.text_tokenizer.encode(digit)]
        return [self.vocabulary.special(f"{piece.prefix}{number}")]

    def opening(self, grid: Grid) -> list[int]:
        """Return the ids before an image's first code; ValueError for a grid that has no name."""
        if grid not in self._openings:
            self._openings[grid] = self.ids(self.layout.image.opening, grid)
        return self._openings[grid]

    def content(self, codes_n: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of an image's codes with what ends its rows, int64 (n,), and which of
        them are codes, bool (n,).
        """
        ids_n = self.vocabulary.code_to_id(codes_n)
        row_end = self.layout.image.row_end
        if row_end is None:
            return ids_n, np.ones(len(ids_n), bool)
        rows = np.full((grid.height, grid.width + 1), self.vocabulary.special(row_end.name))
        rows[:, :-1] = ids_n.reshape(grid.height, grid.width)
        is_code = np.ones(rows.shape, bool)
        is_code[:, -1] = False
        length = self.content_length(grid)
        return rows.reshape(-1)[:length], is_code.reshape(-1)[:length]

    def content_length(self, grid: Grid) -> int:
        """Return how many tokens an image's codes and its rows' ends take."""
        return self.layout.image.content_length(grid)

    def length(self, grid: Grid) -> int:
        """Return how many tokens an image takes, with what opens and closes it."""
        return len(self.opening(grid)) + self.content_length(grid) + len(self.closing)

    def dropped(self, num_tokens: int) -> list[int]:
        """Return the ids in place of a dropped part of so many tokens, where the prompt stays."""
        unconditional = self.layout.unconditional
        ids = self.ids(unconditional.pieces)
        return ids * num_tokens if unconditional.kind == "padded" else ids
