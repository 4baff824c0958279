"""Which ids a reply may go on with: a state machine that every id of a reply passes through.

    reply    = ( text | image )+ stop
    image    = opening, content, closing

In: a layout in ids, the grids that images may have, and the budget of one reply. Out, for what
comes next: the one id that must follow (it is read, not sampled), a `Choice` to sample from, the
`Grid` of an image that the head is to draw, or None when the reply is over. The state goes by where
it stands, never by the range of an id: an opening may be spelled in text, and codes may lie
anywhere. Choices are made once and shared, so that replies in the same state are sampled together
and a step makes nothing of the vocabulary's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unimodal.tokenizer.grid import Grid

from .layout import BoundLayout

Modality = Literal["text", "image"]
MODALITY_CONSTRAINTS: tuple[Modality | None, ...] = (None, "text", "image")


@dataclass(frozen=True, eq=False)
class Choice:
    """Ids that may follow: those of `first` .. `last` - 1 that `allowed`, bool (last - first,),
    says.
    """

    first: int
    last: int
    allowed: np.ndarray
    drawing: bool
    """Whether it stands inside an image."""

    def __contains__(self, token: int) -> bool:
        return self.first <= token < self.last and bool(self.allowed[token - self.first])


@dataclass
class _Node:
    """A place in the openings of all grids: the ids that lead on, or the grid that is said."""

    after: "dict[int, _Node]" = field(default_factory=dict)
    grid: Grid | None = None
    choice: Choice | None = None


class Grammar:
    """The choices of one layout and the grids that images may have."""

    def __init__(
        self, layout: BoundLayout, grids: Sequence[Grid], spelled: np.ndarray | None = None
    ):
        """spelled: which text ids a text can hold, bool (num_text,); None: all of them."""
        if not grids:
            raise ValueError("a grammar needs at least one grid that images may have")
        self.layout, self.grids = layout, tuple(grids)
        self.longest_image = max(map(layout.length, grids))
        # One slice of the output table holds whatever is no code and may be chosen.
        self._spelled = layout.vocabulary.text_mask[: layout.vocabulary.num_words].copy()
        if spelled is not None:
            self._spelled[: len(spelled)] &= spelled
        self._choices: dict[tuple[int, ...], Choice] = {}
        self.root = _Node()
        for grid in grids:
            self._add(grid)
        self.begins = list(self.root.after)

    def _add(self, grid: Grid) -> None:
        node = self.root
        for token in self.layout.opening(grid):
            node = node.after.setdefault(token, _Node())
            if node.grid is not None:
                break
        if node is self.root or node.after or node.grid not in (None, grid):
            sides = f"{grid.height} x {grid.width}"
            raise ValueError(
                f"what opens an image of {sides} codes opens another too: the layout says no sizes,"
                " so give one grid"
            )
        node.grid = grid

    def text(self, *ids: int) -> Choice:
        """Return any id that a text can hold, or one of these."""
        if ids not in self._choices:
            self._choices[ids] = _choice(self._spelled, ids, drawing=False)
        return self._choices[ids]

    def next(self, node: _Node) -> int | Choice:
        """Return what may follow in an image's opening."""
        ids = sorted(node.after)
        if len(ids) == 1:
            return ids[0]
        if node.choice is None:
            node.choice = _choice(np.zeros_like(self._spelled), ids, drawing=True)
        return node.choice


def _choice(allowed: np.ndarray, ids: Sequence[int], drawing: bool) -> Choice:
    """Return the choice of what is allowed and of these ids."""
    allowed = allowed.copy()
    allowed[list(ids)] = True
    return Choice(0, len(allowed), allowed, drawing)


class ReplyState:
    """Where one reply stands: what it holds so far and what may follow."""

    def __init__(
        self,
        grammar: Grammar,
        room: int,
        max_text_tokens: int,
        max_images: int,
        modality: Modality | None = None,
    ):
        """room: tokens that the context has left. modality: 'text' for no images, 'image' for one
        image and nothing else, None for what the model chooses.
        """
        if modality not in MODALITY_CONSTRAINTS:
            raise ValueError(f"modality {modality!r}: one of {MODALITY_CONSTRAINTS}")
        self._grammar, self._layout = grammar, grammar.layout
        self._modality, self._room = modality, room
        self._max_text_tokens = 0 if modality == "image" else max_text_tokens
        self.max_images = {None: max_images, "text": 0, "image": 1}[modality]
        self._num_text_tokens = self._num_images = 0
        self._node: _Node | None = None  # in an opening
        self._forced: list[int] = []  # of a closing, what is left
        self.ids: list[int] = []
        self.drawing = False  # between an image's first id and its last
        self.over = False
        self.grid: Grid | None = None  # of the latest image
        self._next: int | Choice | Grid | None = self._after_part()

    @property
    def next(self) -> int | Choice | Grid | None:
        """The id that must follow, the ids that may, the grid to draw, or None when it is over."""
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
        self._add([token])
        self._next = self._after(token)

    def take_image(self, ids: Sequence[int]) -> None:
        """Go on with the drawn image's ids, without what opens and closes it."""
        assert isinstance(self._next, Grid), "an image came where none was asked for"
        length = self._layout.content_length(self._next)
        assert len(ids) == length, f"an image of {len(ids)} tokens instead of {length}"
        self._add(ids)
        self._forced = list(self._layout.closing)
        self._next = self._after_content()

    def _add(self, ids: Sequence[int]) -> None:
        self.ids.extend(ids)
        self._room -= len(ids)

    def _after(self, token: int) -> int | Choice | Grid | None:
        if self._forced:
            self._forced.pop(0)
            return self._after_content()
        if self._node is None and token in self._layout.stops:
            self.over = True
            return None
        if self._node is None and token not in self._grammar.root.after:
            self._num_text_tokens += 1
            return self._after_part()
        node = (self._node or self._grammar.root).after[token]
        self._node, self.drawing, self.grid = node, True, node.grid
        if node.grid is None:
            return self._grammar.next(node)
        self._node = None
        return node.grid

    def _after_content(self) -> int | Choice | None:
        """After an image's content and within its closing."""
        if self._forced:
            return self._forced[0]
        self.drawing = False
        self._num_images += 1
        if self._layout.layout.image.ends_reply:
            self.over = True
            return None
        return self._after_part()

    def _after_part(self) -> int | Choice | None:
        """At the start, after a text id and after an image: what the budget leaves."""
        # An image that would not fit, with the turn's end behind it, is not begun: none is cut.
        fits = self._room > self._grammar.longest_image
        image = fits and self._num_images < self.max_images
        begins, stops = self._grammar.begins * image, self._layout.stops
        if self._modality == "image":
            return self._grammar.next(self._grammar.root) if image else stops[0]
        if self._num_text_tokens >= self._max_text_tokens or self._room <= 1:
            return stops[0]
        return self._grammar.text(*begins, *(stops if self.ids else ()))  # no reply is empty
