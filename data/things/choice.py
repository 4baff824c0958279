"""Choose things: which icons are spoken of, which keywords lead to them, what may stand together.

In: a table of icons. Out: a `Choice` that draws icons, colours and claims, never a held-out icon or
pair, unless asked for.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np

from ..scenes.wording import pick
from ..scenes.world import COLOURS, SHAPES
from ..scenes.world import is_held_out as is_held_out_shapes
from .icons import is_held_out, is_held_out_pair
from .names import NAMES
from .table import Things
from .wording import ThingClaim, can_be_counted, name_of
from .world import is_own_colour

Generator = np.random.Generator
What = tuple[str, bool, str | None]  # name, is it an icon, colour
KEYWORD_ICONS = (2, 12)  # a keyword is used that so many icons share


class Choice:
    """The icons of a table that training may use; `rare` is the share of uncommon ones."""

    def __init__(self, things: Things, rare: float) -> None:
        trained = [icon for icon in things.icons if not is_held_out(icon.name)]
        self.things, self.rare = things, rare
        self.common = [icon.name for icon in trained if icon.name in NAMES]
        self.uncommon = [icon.name for icon in trained if icon.name not in NAMES]
        self.counted = [name for name in self.common if can_be_counted(name)]
        self.keywords = _keywords(things, self.common)

    def icon(self, rng: Generator, counted: bool = False) -> str:
        """Draw an icon; `counted`: one whose name can follow 'two'."""
        if self.uncommon and not counted and rng.random() < self.rare:
            return pick(rng, self.uncommon)
        return pick(rng, self.counted if counted else self.common)

    def tint(self, rng: Generator, name: str) -> str:
        """Draw a colour that training may give an icon."""
        return pick(rng, tints(self.things, name))

    def thing(self, rng: Generator, count: int = 1, tinted: float = 0.15) -> ThingClaim:
        """Draw a claim about an icon."""
        name = self.icon(rng, counted=count > 1)
        colour = self.tint(rng, name) if rng.random() < tinted else None
        return ThingClaim(count, (name,), True, colour)

    def shape(self, rng: Generator, count: int = 1) -> ThingClaim:
        """Draw a claim about a coloured shape."""
        return ThingClaim(count, (pick(rng, SHAPES),), False, pick(rng, tuple(COLOURS)))

    def claims(
        self, rng: Generator, counts: Sequence[int], shapes: float = 0.3, tinted: float = 0.15
    ) -> tuple[ThingClaim, ...]:
        """Draw claims of different things that training may show together, the first an icon."""
        while True:
            found = tuple(
                self.shape(rng, count)
                if k and rng.random() < shapes
                else self.thing(rng, count, tinted)
                for k, count in enumerate(counts)
            )
            names = {claim.names for claim in found}
            if len(names) == len(found) and self.permits(whats(found)):
                return found

    def permits(self, items: Sequence[What]) -> bool:
        """Return whether these may stand together."""
        return not any_held_out(items)


class UnseenIcons(Choice):
    """The common icons that training holds out, in no pair that it holds out."""

    def __init__(self, things: Things) -> None:
        super().__init__(things, rare=0.0)
        names = [icon.name for icon in things.icons if icon.name in NAMES]
        self.common = [name for name in names if is_held_out(name)]
        self.counted = [name for name in self.common if can_be_counted(name)]
        self.keywords = _keywords(things, self.common)
        if not self.counted:
            raise ValueError(f"none of {len(things.icons)} icons is held out: give a whole table")

    def permits(self, items: Sequence[What]) -> bool:
        """Return whether no two of these are held out together."""
        return not has_held_out_pair(items)


class UnseenPairs(Choice):
    """Common icons that training shows, in pairs or tints that it holds out."""

    def __init__(self, things: Things) -> None:
        super().__init__(things, rare=0.0)

    def tint(self, rng: Generator, name: str) -> str:
        """Draw a colour that training never gives an icon; any where there is none."""
        return pick(rng, tints(self.things, name, held_out=True) or tints(self.things, name))

    def permits(self, items: Sequence[What]) -> bool:
        """Return whether two of these, or a name and its tint, are held out together."""
        return has_held_out_pair(items)


@cache
def tints(things: Things, name: str, held_out: bool = False) -> tuple[str, ...]:
    """Return the colours that training may give an icon: none that it has, no orange orange.

    `held_out`: those that it never gives, in place of these.
    """
    words = " ".join(name_of(name).words)
    return tuple(
        colour
        for colour in COLOURS
        if colour not in words
        and is_held_out_pair(name, colour) == held_out
        and not is_own_colour(things, name, colour)
    )


def whats(claims: Sequence[ThingClaim]) -> list[What]:
    """Return every item that claims state."""
    return [
        (claim.names[0], claim.is_icon, claim.colour)
        for claim in claims
        for _ in range(claim.count)
    ]


def any_held_out(items: Sequence[What]) -> bool:
    """Return whether training must not show these together: an icon, a tint or two of them."""
    if any(is_icon and is_held_out(name) for name, is_icon, _ in items):
        return True
    return has_held_out_pair(items)


def has_held_out_pair(items: Sequence[What]) -> bool:
    """Return whether training holds out a name with its tint, or two of these together."""
    if any(is_icon and c is not None and is_held_out_pair(name, c) for name, is_icon, c in items):
        return True
    return any(_apart(first, second) for first, second in combinations(items, 2))


def _apart(first: What, second: What) -> bool:
    if not first[1] and not second[1]:
        assert first[2] is not None and second[2] is not None, "shapes have colours"
        return is_held_out_shapes((first[0], first[2]), (second[0], second[2]))
    return first[0] != second[0] and is_held_out_pair(first[0], second[0])


def _keywords(things: Things, common: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the keywords of one word that a few common icons share, each with those."""
    shared: dict[str, list[str]] = {}
    for name in common:
        for keyword in things.icons[things.numbers[name]].keywords[1:]:
            if keyword.isalpha() and keyword.isascii():
                shared.setdefault(keyword, []).append(name)
    least, most = KEYWORD_ICONS
    return {
        keyword: tuple(names)
        for keyword, names in sorted(shared.items())
        if least <= len(names) <= most
    }


@cache
def choice_of(things: Things, rare: float) -> Choice:
    """Return the choice from a table, made once a process."""
    return Choice(things, rare)
