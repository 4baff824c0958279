"""Which ids a reply may go on with: a state machine that every fed id passes through.

    reply    = ( text | picture )+ turn_end
    picture  = image, size of rows, size of columns, ( code * columns, row_end ) * rows, image_end

In: a vocabulary, the allowed grids, and the budget of one reply. Out, for every next position: the one id that must
follow (it is fed, not sampled), or a `Choice` to sample from, or None when the reply is over. Choices are built once and
shared, so that rows in the same state are sampled together and nothing of the vocabulary's size is made in a step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unimodal.tokenizer.grid import Grid

from .vocabulary import Vocabulary

FORCES = (None, "text", "picture")


@dataclass(frozen=True, eq=False)
class Choice:
    """Ids that may follow: `first` .. `last` - 1, of these where `allowed` (bool (last - first,); None: all)."""

    first: int
    last: int
    allowed: np.ndarray | None
    drawing: bool

    def __contains__(self, token: int) -> bool:
        inside = self.first <= token < self.last
        return inside and (self.allowed is None or bool(self.allowed[token - self.first]))


def picture_length(grid: Grid) -> int:
    """The positions that a picture of this grid takes: begin, two sizes, codes with a row end each, end."""
    return 3 + grid.height * (grid.width + 1) + 1


class Grammar:
    """The choices of one vocabulary and the grids that pictures may have."""

    def __init__(self, vocabulary: Vocabulary, grids: Sequence[Grid]):
        if not grids:
            raise ValueError("a grammar needs at least one grid that pictures may have")
        self.vocabulary = vocabulary
        self.grids = tuple(grids)
        self.longest_picture = max(map(picture_length, grids))
        self.codes = Choice(vocabulary.first_code, vocabulary.size, None, drawing=True)
        self._choices: dict[tuple[int, ...], Choice] = {}

    def text(self, *controls: str) -> Choice:
        """Any text id, or one of these control tokens."""
        ids = tuple(self.vocabulary.control(name) for name in controls)
        return self._choice(ids, with_text=True)

    def rows(self) -> int | Choice:
        """The size tokens of rows."""
        return self._sides(grid.height for grid in self.grids)

    def columns(self, height: int) -> int | Choice:
        """The size tokens of columns that go with `height` rows."""
        return self._sides(grid.width for grid in self.grids if grid.height == height)

    def _sides(self, lengths: Iterable[int]) -> int | Choice:
        ids = tuple(sorted({self.vocabulary.side(length) for length in lengths}))
        return ids[0] if len(ids) == 1 else self._choice(ids, with_text=False)

    def _choice(self, ids: tuple[int, ...], with_text: bool) -> Choice:
        key = (int(with_text), *ids)
        if key not in self._choices:
            # Control tokens follow the text in the head, so one slice of it holds all of these.
            last = self.vocabulary.first_code
            allowed = np.zeros(last, dtype=bool)
            allowed[: self.vocabulary.num_text] = with_text
            allowed[list(ids)] = True
            self._choices[key] = Choice(0, last, allowed, drawing=not with_text)
        return self._choices[key]


class Reply:
    """The state of one reply: what may follow, and what it holds so far.

    room: positions that the context has left; max_text_tokens and max_pictures: its budget; force: 'text' for
    text alone, 'picture' for exactly one picture and nothing else, None for what the model chooses.
    """

    def __init__(
        self,
        grammar: Grammar,
        room: int,
        max_text_tokens: int = 256,
        max_pictures: int = 4,
        force: str | None = None,
    ):
        if force not in FORCES:
            raise ValueError(f"force {force!r}: one of {FORCES}")
        self.grammar = grammar
        self.force = force
        self.room = room
        self.max_text_tokens = max_text_tokens
        self.max_pictures = 1 if force == "picture" else 0 if force == "text" else max_pictures
        self.num_text_tokens = 0
        self.num_pictures = 0
        self.ids: list[int] = []
        self.codes: list[int] = []
        self.grid: Grid | None = None
        self.drawing = False  # between a picture's begin and its end
        self.over = False
        self._height: int | None = None
        self._next = self._after_text()

    @property
    def next(self) -> int | Choice | None:
        """The id that must follow, the ids that may, or None when the reply is over."""
        return self._next

    @property
    def most_ids(self) -> int:
        """The most ids that it can still take."""
        pictures = (self.max_pictures - self.num_pictures) * self.grammar.longest_picture
        text = 0 if self.force == "picture" else self.max_text_tokens - self.num_text_tokens
        return min(self.room, text + pictures + 1)

    def take(self, token: int) -> None:
        """Go on with an id; one that may not follow is an error, never replaced by another."""
        follows = self._next
        allowed = token == follows if isinstance(follows, int) else follows and token in follows
        assert allowed, f"id {token} may not follow {self.ids[-3:]} in a reply"
        self.ids.append(token)
        self.room -= 1
        self._next = self._step(token)

    def _step(self, token: int) -> int | Choice | None:
        vocabulary = self.grammar.vocabulary
        if token < vocabulary.num_text:
            self.num_text_tokens += 1
            return self._after_text()
        if token >= vocabulary.first_code:
            return self._after_code(token)
        return self._after_control(vocabulary.name(token), token)

    def _after_control(self, name: str, token: int) -> int | Choice | None:
        if name == "turn_end":
            self.over = True
            return None
        if name == "image":
            self.drawing = True
            self.codes, self.grid, self._height = [], None, None
            return self.grammar.rows()
        if name == "row_end":
            return self._after_row()
        if name == "image_end":
            self.drawing = False
            self.num_pictures += 1
            return self._after_text()
        return self._after_side(self.grammar.vocabulary.side_length(token))

    def _after_side(self, length: int) -> int | Choice:
        if self._height is None:
            self._height = length
            return self.grammar.columns(length)
        self.grid = Grid(self._height, length)
        return self.grammar.codes

    def _after_code(self, token: int) -> int | Choice:
        assert self.grid is not None, "a code came before the size of its picture"
        self.codes.append(token)
        if len(self.codes) % self.grid.width:
            return self.grammar.codes
        return self.grammar.vocabulary.control("row_end")

    def _after_row(self) -> int | Choice:
        assert self.grid is not None, "a row ended before the size of its picture"
        if len(self.codes) < self.grid.size:
            return self.grammar.codes
        return self.grammar.vocabulary.control("image_end")

    def _after_text(self) -> int | Choice:
        """At the start, after a text id or after a picture: the budget decides what is still open."""
        control = self.grammar.vocabulary.control
        if self.force == "picture":
            return control("turn_end" if self.num_pictures else "image")
        # A picture is begun only when it fits with the turn's end: it is never cut.
        picture = self.num_pictures < self.max_pictures and self.room > self.grammar.longest_picture
        text = self.num_text_tokens < self.max_text_tokens and self.room > 1
        if not text:
            return control("turn_end")
        begins = ("image",) if picture else ()
        return self.grammar.text(*begins, *(("turn_end",) if self.ids else ()))  # never an empty reply
