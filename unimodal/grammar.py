"""Which ids a reply may go on with: a state machine that every id of a reply passes through.

    reply    = ( text | image )+ turn_end
    image  = image, size of rows, size of columns, ( code * columns, row_end ) * rows, image_end

In: a vocabulary, the grids that images may have, and the budget of one reply. Out, for each next
position: the one id that must follow (it is read, not sampled), or a `Choice` to sample from, or
None when the reply is over. Choices are made once and shared, so that replies in the same state
are sampled together and a step makes nothing of the vocabulary's size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unimodal.tokenizer.grid import Grid

from .vocabulary import Vocabulary

FORCES = (None, "text", "image")


@dataclass(frozen=True, eq=False)
class Choice:
    """Ids that may follow: those of `first` .. `last` - 1 that `allowed` says."""

    first: int
    last: int
    allowed: np.ndarray | None
    """bool (last - first,); None: all of them."""
    drawing: bool
    """Whether it stands inside a image."""

    def __contains__(self, token: int) -> bool:
        inside = self.first <= token < self.last
        return inside and (self.allowed is None or bool(self.allowed[token - self.first]))


def image_length(grid: Grid) -> int:
    """The positions of a image: begin, two sizes, its codes, an end for each row, end."""
    return 3 + grid.height * (grid.width + 1) + 1


class Grammar:
    """The choices of one vocabulary and the grids that images may have."""

    def __init__(
        self, vocabulary: Vocabulary, grids: Sequence[Grid], spelled: np.ndarray | None = None
    ):
        """spelled: which text ids a text can hold, bool (num_text,); None: all of them."""
        if not grids:
            raise ValueError("a grammar needs at least one grid that images may have")
        self.vocabulary, self.spelled = vocabulary, spelled
        self.grids = tuple(grids)
        self.longest_image = max(map(image_length, grids))
        self.codes = Choice(vocabulary.first_code, vocabulary.size, None, drawing=True)
        self._choices: dict[tuple[bool, tuple[int, ...]], Choice] = {}

    def text(self, *controls: str) -> Choice:
        """Any id that a text can hold, or one of these special tokens."""
        return self._choice(True, tuple(map(self.vocabulary.control, controls)))

    def rows(self) -> int | Choice:
        """The size tokens of rows."""
        return self._sides(grid.height for grid in self.grids)

    def columns(self, height: int) -> int | Choice:
        """The size tokens of columns that go with `height` rows."""
        return self._sides(grid.width for grid in self.grids if grid.height == height)

    def _sides(self, lengths: Iterable[int]) -> int | Choice:
        ids = tuple(sorted(map(self.vocabulary.side, set(lengths))))
        return ids[0] if len(ids) == 1 else self._choice(False, ids)

    def _choice(self, text: bool, controls: tuple[int, ...]) -> Choice:
        key = (text, controls)
        if key not in self._choices:
            # Control tokens follow the text ids, so one slice of the head holds all of these.
            allowed = np.zeros(self.vocabulary.first_code, dtype=bool)
            every = self.spelled is None or not text
            allowed[: self.vocabulary.num_text] = text if every else self.spelled
            allowed[list(controls)] = True
            self._choices[key] = Choice(0, len(allowed), allowed, drawing=not text)
        return self._choices[key]


class State:
    """Where one reply stands: what it holds so far and what may follow.

    room: positions that the context has left. max_text_tokens, max_images: the reply's budget.
    force: 'text' for text alone, 'image' for one image and nothing else, None for what the
    model chooses.
    """

    def __init__(
        self,
        grammar: Grammar,
        room: int,
        max_text_tokens: int = 256,
        max_images: int = 4,
        force: str | None = None,
    ):
        if force not in FORCES:
            raise ValueError(f"force {force!r}: one of {FORCES}")
        self._grammar, self._vocabulary = grammar, grammar.vocabulary
        self._force, self._room = force, room
        self._max_text_tokens = 0 if force == "image" else max_text_tokens
        self.max_images = {None: max_images, "text": 0, "image": 1}[force]
        self._num_text_tokens = self._num_images = 0
        self._height: int | None = None
        self.ids: list[int] = []
        self.drawing = False  # between a image's begin and its end
        self.over = False
        self.grid: Grid | None = None  # of the latest image, and how many of its codes are there
        self.num_codes = 0
        self._next: int | Choice | None = self._after_part()

    @property
    def next(self) -> int | Choice | None:
        """The id that must follow, the ids that may, or None when the reply is over."""
        return self._next

    @property
    def max_ids(self) -> int:
        """The most ids that the whole reply can have."""
        images = self.max_images * self._grammar.longest_image
        return min(len(self.ids) + self._room, self._max_text_tokens + images + 1)

    def take(self, token: int) -> None:
        """Go on with an id; one that may not follow is an error, never replaced by another."""
        expected = self._next
        fits = token in expected if isinstance(expected, Choice) else token == expected
        assert fits, f"id {token} may not follow ids {self.ids[-3:]} of a reply"
        self.ids.append(token)
        self._room -= 1
        self._next = self._after(token)

    def _after(self, token: int) -> int | Choice | None:
        if token < self._vocabulary.num_text:
            self._num_text_tokens += 1
            return self._after_part()
        if token >= self._vocabulary.first_code:
            return self._after_code()
        return self._after_control(token)

    def _after_control(self, token: int) -> int | Choice | None:
        name = self._vocabulary.name(token)
        if name == "turn_end":
            self.over = True
            return None
        if name == "image":
            self.drawing, self.num_codes, self.grid, self._height = True, 0, None, None
            return self._grammar.rows()
        if name == "row_end":
            return self._after_row()
        if name == "image_end":
            self.drawing = False
            self._num_images += 1
            return self._after_part()
        return self._after_side(self._vocabulary.side_length(token))

    def _after_side(self, length: int) -> int | Choice:
        if self._height is None:
            self._height = length
            return self._grammar.columns(length)
        self.grid = Grid(self._height, length)
        return self._grammar.codes

    def _after_code(self) -> int | Choice:
        assert self.grid is not None, "a code came before the size of its image"
        self.num_codes += 1
        row_is_open = self.num_codes % self.grid.width
        return self._grammar.codes if row_is_open else self._vocabulary.control("row_end")

    def _after_row(self) -> int | Choice:
        assert self.grid is not None, "a row ended before the size of its image"
        is_open = self.num_codes < self.grid.size
        return self._grammar.codes if is_open else self._vocabulary.control("image_end")

    def _after_part(self) -> int | Choice:
        """At the start, after a text id and after a image: what the budget leaves."""
        # A image that would not fit, with the turn's end behind it, is not begun: none is cut.
        fits = self._room > self._grammar.longest_image
        image = fits and self._num_images < self.max_images
        if self._force == "image":
            return self._vocabulary.control("image" if image else "turn_end")
        if self._num_text_tokens >= self._max_text_tokens or self._room <= 1:
            return self._vocabulary.control("turn_end")
        controls = ("image",) * image + ("turn_end",) * bool(self.ids)  # no reply is empty
        return self._grammar.text(*controls)
