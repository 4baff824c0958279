"""Put things into words: 'a blue cat', 'two pizzas and a red heart', 'jeans'.

In: claims about items, and a generator. Out: text.
"""

import re
from dataclasses import dataclass

import numpy as np

from ..scenes.wording import COLOUR_WORDS, SHAPE_WORDS, listed, pick, spell, word_for
from .names import ALWAYS_MANY, NAMES, PLURALS, UNCOUNTED, Name
from .world import Item, ThingScene

SYNONYM_RATE = 0.25
LIKE_CONSONANTS = ("uni", "ufo", "euro", "one")  # begin with a sound that takes 'a'
SILENT = ("hour",)


@dataclass(frozen=True)
class ThingClaim:
    """`count` items, each of one of the `names`, of a colour where one is stated."""

    count: int
    names: tuple[str, ...]
    is_icon: bool
    colour: str | None = None

    def fits(self, item: Item) -> bool:
        """Return whether an item is of this kind; a thing without a stated colour may have any."""
        return (
            item.is_icon == self.is_icon
            and item.name in self.names
            and self.colour in (None, item.colour)
        )


def name_of(icon: str) -> Name:
    """Return what an icon is called."""
    return NAMES.get(icon) or Name((icon.replace("-", " "),), "thing")


def word_of(
    name: str, is_icon: bool, rng: np.random.Generator | None = None, many: bool = False
) -> str:
    """Return a word for a thing or shape: the usual one, with a generator sometimes another.

    `many`: one that can be counted, in the plural.
    """
    words = name_of(name).words if is_icon else SHAPE_WORDS[name]
    if many:
        words = tuple(word for word in words if is_counted(word))
    if rng is not None and len(words) > 1 and rng.random() < SYNONYM_RATE:
        word = pick(rng, words)
    else:
        word = words[0]
    return plural(word) if many else word


def is_counted(word: str) -> bool:
    """Return whether a word can follow 'two'."""
    return word not in ALWAYS_MANY and word not in UNCOUNTED


def can_be_counted(icon: str) -> bool:
    """Return whether one of an icon's words can follow 'two'."""
    return any(map(is_counted, name_of(icon).words))


def plural(word: str) -> str:
    """Return the plural of a word that can be counted."""
    if word in PLURALS:
        return PLURALS[word]
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    if word.endswith(("s", "x", "ch", "sh", "z")) or word in ("potato", "tomato", "mango"):
        return word + "es"
    return word + "s"


def with_article(words: str) -> str:
    """Return words with 'a' or 'an' before them, as they are spoken."""
    vowel = words.startswith(SILENT) or (
        words[0] in "aeiou" and not words.startswith(LIKE_CONSONANTS)
    )
    return f"an {words}" if vowel else f"a {words}"


def noun(
    claim: ThingClaim,
    rng: np.random.Generator | None = None,
    size: str | None = None,
) -> str:
    """Put a claim in words: 'a small blue cat', 'two cats', 'blue jeans'.

    With a generator words vary; without one they are the usual ones, as in answers.
    """
    many = claim.count > 1
    name = claim.names[0] if rng is None else pick(rng, claim.names)
    word = word_of(name, claim.is_icon, rng, many)
    colour = claim.colour
    if colour is not None and rng is not None:
        colour = word_for(rng, COLOUR_WORDS[colour])
    words = " ".join(part for part in (size, colour, word) if part)
    if many:
        return f"{spell(claim.count, rng)} {words}"
    if is_counted(word):
        return with_article(words)
    return f"some {words}" if rng is not None and rng.random() < 0.3 else words


def claims_of(shown: ThingScene) -> tuple[ThingClaim, ...]:
    """Return a claim for each kind of item, counted, from left to right."""
    counts: dict[tuple[str, bool, str | None], int] = {}
    for item in sorted(shown.items, key=lambda item: item.x):
        counts[item.what] = counts.get(item.what, 0) + 1
    return tuple(
        ThingClaim(count, (name,), is_icon, colour)
        for (name, is_icon, colour), count in counts.items()
    )


def told(shown: ThingScene, rng: np.random.Generator | None = None) -> str:
    """Tell all items of a scene: 'a cat and two red circles'."""
    return listed([noun(claim, rng) for claim in claims_of(shown)])


def the(shown: ThingScene, item: Item, rng: np.random.Generator | None = None) -> str | None:
    """Name an item behind 'the': 'the cat', 'the red circle'; None where another has that name."""
    for colour in (None, item.colour):
        if colour is None and not item.is_icon:
            continue  # shapes are told by their colours too
        claim = ThingClaim(1, (item.name,), item.is_icon, colour)
        if sum(claim.fits(other) for other in shown.items) == 1:
            word = word_of(item.name, item.is_icon, rng)
            return f"the {colour} {word}" if colour else f"the {word}"
    return None
