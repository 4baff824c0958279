"""The grammar of replies is a state machine that says which ids may come next.

    reply    = ( text | image )+ stop
    image    = opening, content, closing

In: a layout in ids, the grids that images may have, and the budget of one reply. Out, for what
comes next: the one id that must follow (it is read, not sampled), a `Choice` of ids to sample from,
the `Grid` of an image that the image head is to draw, or None when the reply is over.

The state depends on what came before, never on the range of an id: an opening may be spelled in
text, and codes may lie anywhere. Each Choice is made once and shared, so that replies in the same
state are sampled together and a step allocates nothing of the vocabulary's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from unimodal.tokenizer.grid import Grid

from .layout import BoundLayout, Modality

MODALITY_CONSTRAINTS: tuple[Modality | None, ...] = (None, "text", "image")
End = Literal["stop", "text budget", "image budget", "context"]
"""Why a reply ended: it said so itself, or its text, its images or the context were used up."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A Choice is a set of ids to sample from: first .. last - 1, where `allowed` is True.

    allowed: bool (last - first,).
    """

    first: int
    last: int
    allowed: np.ndarray
    drawing: bool
    """Whether the choice is within the opening of an image: of its size."""
    withheld: np.ndarray | None = None
    """Ids that would be allowed too were the budget or the context larger, as `allowed` has them:
    what begins an image. None: there are none."""

    def __contains__(self, token: int) -> bool:
        return self.first <= token < self.last and bool(self.allowed[token - self.first])


@dataclass
class _Node:
    """A _Node is one of the trie of all grids' openings: it has next ids or, at a leaf, a grid."""

    after: "dict[int, _Node]" = field(default_factory=dict)
    grid: Grid | None = None
    choice: Choice | None = None


class Grammar:
    """A Grammar holds the choices that replies have in one layout with some grids of images.

    Raises ValueError where there is no grid, or an opening does not tell its grid from others.
    """

    def __init__(
        self, layout: BoundLayout, grids: Sequence[Grid], spelled: np.ndarray | None = None
    ):
        """Make the trie of openings.

        spelled: which ids the encoding of a text can hold, bool (num_text,), so that no others are
        sampled; None: all text ids.
        """
        if not grids:
            raise ValueError("a grammar needs at least one grid that images may have")
        self.layout, self.grids = layout, tuple(grids)
        self.longest_image = max(map(layout.length, grids))
        # All choices are in one slice of the output table, which holds all text and special tokens.
        self._spelled = layout.vocabulary.text_mask[: layout.vocabulary.num_words].copy()
        if spelled is not None:
            self._spelled[: len(spelled)] &= spelled
        self._choices: dict[tuple[tuple[int, ...], tuple[int, ...]], Choice] = {}
        self.root = _Node()
        for grid in grids:
            self._add(grid)
        self.begins = list(self.root.after)
        self._word_ids = np.setdiff1d(np.flatnonzero(self._spelled), self.begins)

    def _add(self, grid: Grid) -> None:
        """Add a grid's opening to the trie."""
        node = self.root
        for token in self.layout.opening(grid):
            node = node.after.setdefault(token, _Node())
            if node.grid is not None:
                break
        # An opening must be neither empty, nor the prefix of another, nor that of another grid.
        if node is self.root or node.after or node.grid not in (None, grid):
            sides = f"{grid.height} x {grid.width}"
            raise ValueError(
                f"what opens an image of {sides} codes opens another too: the layout says no sizes,"
                " so give one grid"
            )
        node.grid = grid

    def num_words(self, ids_N: np.ndarray) -> int:
        """Return how many ids (int (N,)), from the first, are of text and begin no image."""
        is_word_N = np.isin(ids_N, self._word_ids)
        return len(ids_N) if is_word_N.all() else int(is_word_N.argmin())

    def text(self, *ids: int, withheld: Sequence[int] = ()) -> Choice:
        """Return the choice of any id of text, and of `ids`; those withheld are not in it."""
        key = ids, tuple(withheld)
        if key not in self._choices:
            choice = _choice(self._spelled, ids, drawing=False)
            if withheld:
                mask = np.isin(np.arange(choice.last), withheld)
                choice = replace(choice, withheld=mask & ~choice.allowed)
            self._choices[key] = choice
        return self._choices[key]

    def next(self, node: _Node) -> int | Choice:
        """Return what may follow at a node of the trie: an id, or a choice of ids."""
        ids = sorted(node.after)
        if len(ids) == 1:
            return ids[0]
        if node.choice is None:
            node.choice = _choice(np.zeros_like(self._spelled), ids, drawing=True)
        return node.choice


def _choice(allowed: np.ndarray, ids: Sequence[int], drawing: bool) -> Choice:
    """Return the choice of the ids where `allowed` is True, and of `ids`."""
    allowed = allowed.copy()
    allowed[list(ids)] = True
    return Choice(0, len(allowed), allowed, drawing)


class ReplyState:
    """A ReplyState knows the ids of one reply so far, and what may come next."""

    def __init__(
        self,
        grammar: Grammar,
        room: int,
        max_text_tokens: int,
        max_images: int,
        modality: Modality | None = None,
        max_plan_tokens: int = 0,
    ):
        """Begin a reply.

        room: how many tokens the context has left. modality: the modality constraint: 'text' allows
        no images, 'image' one image, behind at most `max_plan_tokens` tokens of text, None what the
        model chooses. Raise ValueError for another modality.
        """
        if modality not in MODALITY_CONSTRAINTS:
            raise ValueError(f"modality {modality!r}: one of {MODALITY_CONSTRAINTS}")
        self._grammar, self._layout = grammar, grammar.layout
        self._modality, self._room = modality, room
        self._max_text_tokens = max_plan_tokens if modality == "image" else max_text_tokens
        self.max_images = {None: max_images, "text": 0, "image": 1}[modality]
        self._num_text_tokens = self._num_images = 0
        self._node: _Node | None = None  # the place within an opening; None outside of one
        self._closing_left: list[int] = []  # ids of an image's closing that are still to come
        self.ids: list[int] = []
        self.drawing = False  # from an image's first id to its last
        self.over = False
        self.end: End | None = None
        """Why it ended, once it is over."""
        self._cut: End | None = None  # what was used up so far
        self.grid: Grid | None = None  # of the latest image, once its opening has named it
        self._next: int | Choice | Grid | None = self._after_part()

    @property
    def next(self) -> int | Choice | Grid | None:
        """Return the id that must follow, a choice of ids, the grid to draw, or None at the end."""
        return self._next

    @property
    def max_ids(self) -> int:
        """Return the most ids that the whole reply can have."""
        images = self.max_images * self._grammar.longest_image
        return min(len(self.ids) + self._room, self._max_text_tokens + images + 1)

    def take(self, token: int) -> None:
        """Add an id to the reply; an id that may not follow is an error and never replaced."""
        expected = self._next
        fits = token in expected if isinstance(expected, Choice) else token == expected
        assert fits, f"id {token} may not follow ids {self.ids[-3:]} of a reply"
        self._add([token])
        self._next = self._after(token)

    def miss(self, token: int) -> None:
        """Note what it would have gone on with, had nothing been withheld: what is withheld at the
        end has cut the reply.
        """
        assert isinstance(self._next, Choice) and self._next.withheld is not None, "nothing was"
        wished = self._next.withheld[token - self._next.first]
        full = self._num_images >= self.max_images
        self._cut = ("image budget" if full else "context") if wished else None

    def take_image(self, ids: Sequence[int]) -> None:
        """Add the ids of a drawn image, without its opening and closing."""
        assert isinstance(self._next, Grid), "an image came where none was asked for"
        length = self._layout.content_length(self._next)
        assert len(ids) == length, f"an image of {len(ids)} tokens instead of {length}"
        self._add(ids)
        self._closing_left = list(self._layout.closing)
        self._next = self._after_content()

    def _add(self, ids: Sequence[int]) -> None:
        self.ids.extend(ids)
        self._room -= len(ids)

    def _after(self, token: int) -> int | Choice | Grid | None:
        """Return what follows an id that was just added."""
        if self._closing_left:
            self._closing_left.pop(0)
            return self._after_content()
        # Within an opening an id is a step in the trie, even where text has the same id.
        if self._node is None and token in self._layout.stops:
            self._over()
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
        """Return what follows an image's content or an id of its closing."""
        if self._closing_left:
            return self._closing_left[0]
        self.drawing = False
        self._num_images += 1
        if self._layout.layout.image.ends_reply:
            self._over()
            return None
        return self._after_part()

    def _over(self) -> None:
        self.over, self.end = True, self._cut or "stop"

    def _after_part(self) -> int | Choice | None:
        """Return what may follow at the start, after a text id or after an image, by the budget."""
        # An image that would not fit, with a stop behind it, is never begun, so that none is cut.
        fits = self._room > self._grammar.longest_image
        image = fits and self._num_images < self.max_images
        begins, stops = self._grammar.begins, self._layout.stops
        if self._modality == "image":
            return self._after_plan() if image else stops[0]
        if self._num_text_tokens >= self._max_text_tokens or self._room <= 1:
            self._cut = "context" if self._room <= 1 else "text budget"
            return stops[0]
        ends = stops if self.ids else ()  # no reply is empty
        if image:
            return self._grammar.text(*begins, *ends)
        return self._grammar.text(*ends, withheld=() if self._modality == "text" else begins)

    def _after_plan(self) -> int | Choice:
        """Return what may follow before an image that has to come: more of a plan, or the image."""
        fits = self._room - 1 > self._grammar.longest_image  # behind one more token too
        if self._num_text_tokens < self._max_text_tokens and fits:
            return self._grammar.text(*self._grammar.begins)
        return self._grammar.next(self._grammar.root)
