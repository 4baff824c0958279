"""A layout says, as data, which tokens open and close documents, turns and images.

It names special tokens and texts; `Layout.bind` converts them to ids once. Our own models use
OWN_LAYOUT:

    document   begin turn* end
    turn       role part* turn_end        (parts without a role stand bare)
    image      image size_h size_w (w codes, row_end) * h image_end
    box        size_l size_t size_r size_b text       (its columns and rows of 64, counted from 1)

Other layouts are those of published models: sizes may be written in digits, rows may have no end
token, an image may end its reply, and neighbouring texts may be joined before they are encoded. No
other file knows how many tokens an image takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from unimodal.tokenizer.grid import Grid

from .document import Box
from .text import TextTokenizer
from .vocabulary import MAX_SIDE, Vocabulary

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class Special:
    """A Special names one special token of the vocabulary."""

    name: str


@dataclass(frozen=True)
class Side:
    """A Side stands for the height or the width of an image's grid, written as tokens."""

    axis: Literal["height", "width"]
    prefix: str | None = None
    """The number is the special token `<prefix><number>`; None: decimal digits, each as text."""
    step: int = 1
    """The number counts steps of this many codes."""


@dataclass(frozen=True)
class Size:
    """A Size is a text that says the size of the image that is asked for."""

    text: str
    """With {width} and {height}, in pixels."""
    patch: int
    """A code stands for so many pixels in each direction."""

    def of(self, grid: Grid) -> str:
        """Return the text where the image has this grid."""
        return self.text.format(width=grid.width * self.patch, height=grid.height * self.patch)


Piece = str | Special | Side | Size
"""A piece of a layout: text, a special token, a side of the image's grid, or its size in words."""


@dataclass(frozen=True)
class Turn:
    """A Turn gives the pieces before and after the parts of a turn."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]


@dataclass(frozen=True)
class ImageLayout:
    """An ImageLayout gives the pieces before, between and after the codes of an image."""

    opening: tuple[Piece, ...]
    row_end: Special | None = None
    """The token after each row of codes; None: there is none."""
    last_row_ends: bool = True
    """Whether the last row has its `row_end` too."""
    closing: tuple[Piece, ...] = ()
    ends_reply: bool = False
    """Whether the reply is over after an image."""
    patch: int = field(default=1, repr=False)
    """A token stands for patch x patch codes or latents; rows then have no `row_end`."""

    def content_length(self, grid: Grid) -> int:
        """Return how many tokens the codes and row ends of an image take: those of its last scale
        where there are several.
        """
        if self.row_end is None:
            return grid.height * grid.width // self.patch**2
        return grid.size + grid.height - (not self.last_row_ends)

    def length(self, grid: Grid) -> int:
        """Return how many tokens an image takes, where each piece of its opening and closing is one
        token.
        """
        return len(self.opening) + self.content_length(grid) + len(self.closing)


@dataclass(frozen=True)
class SoftLayout:
    """A SoftLayout gives what stands around the soft vectors of a vision tower (tower.py)."""

    opening: tuple[Piece, ...] = (Special("image"),)
    place: Special = Special("pad")
    """The token in whose place a vector enters."""
    closing: tuple[Piece, ...] = (Special("image_end"),)


@dataclass(frozen=True)
class Unconditional:
    """Unconditional says what the unconditional branch of classifier-free guidance reads.

    kind 'null': `pieces` replace each dropped part. 'padded': `pieces`, which are one token, are
    repeated to the length of the dropped part. 'prompt': `pieces` replace the whole prompt, which
    is all that comes before the reply. 'images': as 'prompt', but where the text alone is dropped,
    the prompt's images stand behind `pieces`. 'masked': `pieces`, which are one token, take the
    place of each token of the prompt but the first.
    """

    kind: Literal["null", "padded", "prompt", "images", "masked"]
    pieces: tuple[Piece, ...] = ()

    @property
    def replaces_prompt(self) -> bool:
        """Return whether it stands in place of all that comes before the reply."""
        return self.kind in ("prompt", "images")


@dataclass(frozen=True)
class Layout:
    """A Layout says how documents are written as tokens."""

    begin: tuple[Piece, ...]
    end: tuple[Piece, ...]
    turns: dict[str, Turn]
    """The turns by role."""
    reply: tuple[Piece, ...]
    """The pieces after the prompt, behind which a reply is sampled."""
    stops: tuple[Special, ...]
    """Special tokens that end a reply. Their targets are learned."""
    image: ImageLayout
    unconditional: Unconditional
    joined: bool = False
    """Whether neighbouring texts of equal loss weight are encoded as one text.

    A reply is never joined with the text around it: it is sampled behind an encoded prompt.
    """
    version: int = 1
    """Is increased when the same layout would give other ids; stored lengths are then discarded."""
    replies: tuple[Modality | None, ...] = field(default=(None, "text", "image"), repr=False)
    """The modality constraints that a reply can have; a request that names none has the first."""
    drawing: "Layout | None" = field(default=None, repr=False)
    """How a request for an image alone is laid out, where that is otherwise: its latest turn, and
    nothing before it. Both layouts have equal `stops`."""
    soft: SoftLayout = field(default=SoftLayout(), repr=False)
    """How an image stands that enters by a vision tower."""
    box: str | None = field(default=None, repr=False)
    """The special tokens `<box>1` to `<box>64` say where a box is, before its text: the first and
    last of 64 columns and rows that it covers. None: there are no boxes."""

    @property
    def asks_for_sizes(self) -> bool:
        """Return whether a request for an image says the size."""
        before = [] if self.drawing is None else [one.before for one in self.drawing.turns.values()]
        return any(isinstance(piece, Size) for pieces in before for piece in pieces)

    def sized(self, grid: Grid) -> "Layout":
        """Return the layout whose turns say the size of an image of this grid, if they say any."""
        turns = {
            role: replace(turn, before=tuple(
                piece.of(grid) if isinstance(piece, Size) else piece for piece in turn.before
            ))
            for role, turn in self.turns.items()
        }  # fmt: skip
        return self if turns == self.turns else replace(self, turns=turns)

    def bind(
        self, vocabulary: Vocabulary, text: TextTokenizer, max_side: int | None = None
    ) -> "BoundLayout":
        """Return the layout in ids; raise ValueError where the vocabulary lacks a special token."""
        return BoundLayout(self, vocabulary, text, max_side)


TURN_ROLES = ("system", "user", "assistant")
OWN_LAYOUT = Layout(
    begin=(Special("begin"),),
    end=(Special("end"),),
    turns={role: Turn((Special(role),), (Special("turn_end"),)) for role in TURN_ROLES},
    reply=(Special("assistant"),),
    stops=(Special("turn_end"),),
    image=ImageLayout(
        opening=(Special("image"), Side("height", "size_"), Side("width", "size_")),
        row_end=Special("row_end"),
        closing=(Special("image_end"),),
    ),
    unconditional=Unconditional("null", (Special("null"),)),
    box="size_",
)


@dataclass(frozen=True)
class BoundLayout:
    """A BoundLayout is a layout in the ids of one vocabulary and one text tokenizer."""

    layout: Layout
    vocabulary: Vocabulary
    text_tokenizer: TextTokenizer
    max_side: int | None = None
    """The most rows or columns of codes that the model has embeddings for; None: any number."""
    closing: list[int] = field(init=False)
    """The ids after an image's last code or row."""
    stops: list[int] = field(init=False)
    """The ids that end a reply."""
    _openings: dict[Grid, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "closing", self.ids(self.layout.image.closing))
        object.__setattr__(self, "stops", self.ids(self.layout.stops))

    def ids(self, pieces: Sequence[Piece], grid: Grid | None = None) -> list[int]:
        """Return the ids of pieces; `grid` is the one whose sides they name."""
        return [token for piece in pieces for token in self._piece(piece, grid)]

    def _piece(self, piece: Piece, grid: Grid | None) -> list[int]:
        """Return the ids of one piece; raise ValueError where it cannot express the grid's side."""
        if isinstance(piece, Special):
            return [self.vocabulary.special(piece.name)]
        if isinstance(piece, str):
            return self.text_tokenizer.encode(piece)
        assert isinstance(piece, Side), "a size is said in words (see Layout.sized)"
        assert grid is not None, "only an image's pieces have sides"
        number, left = divmod(getattr(grid, piece.axis), piece.step)
        if left or number < 1 or (piece.prefix is not None and number > MAX_SIDE):
            raise ValueError(
                f"a grid of {grid.height} x {grid.width} codes: sides are whole multiples of "
                f"{piece.step}, from {piece.step} to {MAX_SIDE * piece.step}"
            )
        if piece.prefix is None:
            return [token for digit in str(number) for token in self.text_tokenizer.encode(digit)]
        return [self.vocabulary.special(f"{piece.prefix}{number}")]

    def opening(self, grid: Grid) -> list[int]:
        """Return the ids before an image's first code.

        Raise ValueError where the layout cannot name the grid's sides, or they exceed `max_side`.
        """
        if grid not in self._openings:
            side = max(grid.height, grid.width) // self.layout.image.patch
            if self.max_side is not None and side > self.max_side:
                raise ValueError(
                    f"a grid of {grid.height} x {grid.width} codes: the model has embeddings "
                    f"(model.addresses) of {self.max_side} rows and columns"
                )
            self._openings[grid] = self.ids(self.layout.image.opening, grid)
        return self._openings[grid]

    def content(self, codes_n: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of an image's codes and row ends, and which of them are codes.

        The ids are int64 (n,), the mask is bool (n,).
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
        """Return how many tokens the codes and row ends of an image take."""
        return self.layout.image.content_length(grid)

    def length(self, grid: Grid) -> int:
        """Return how many tokens an image takes, its opening and closing included."""
        return len(self.opening(grid)) + self.content_length(grid) + len(self.closing)

    def soft_image(self, num_vectors: int) -> tuple[list[int], int]:
        """Return the ids of an image that enters as so many soft vectors, and how many are before
        the place of the first.
        """
        soft = self.layout.soft
        opening, places = self.ids(soft.opening), self.ids((soft.place,)) * num_vectors
        return [*opening, *places, *self.ids(soft.closing)], len(opening)

    def box(self, box: Box) -> list[int]:
        """Return the ids before the text of a box: left, top, right and bottom."""
        prefix = self.layout.box
        assert prefix is not None, "a sequencer refuses boxes that its layout does not have"
        first = [math.floor(side * MAX_SIDE) + 1 for side in (box.left, box.top)]
        last = [math.ceil(side * MAX_SIDE) for side in (box.right, box.bottom)]
        return [self.vocabulary.special(f"{prefix}{number}") for number in (*first, *last)]

    @property
    def says_any_size(self) -> bool:
        """Return whether an image's opening writes its sides in digits: any grid can be drawn."""
        sides = [piece for piece in self.layout.image.opening if isinstance(piece, Side)]
        return bool(sides) and all(side.prefix is None for side in sides)

    def dropped(self, num_tokens: int) -> list[int]:
        """Return the ids that replace a dropped part of `num_tokens` tokens within a prompt."""
        unconditional = self.layout.unconditional
        ids = self.ids(unconditional.pieces)
        return ids * num_tokens if unconditional.kind == "padded" else ids
