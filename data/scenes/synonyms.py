"""Other words for colours, shapes, sizes, numbers and relations, as people say them.

In: a sentence in the plain words of `wording.py`. Out: the same sentence in other words.

1. Words come in families (shades, foods, gems); the families HELD_OUT_FAMILIES never occur in
   training, so that evaluation can score words that were never seen.
2. `freely` replaces each plain word, or an older synonym of it, at a rate. The article follows.
3. Nothing in NEVER_SAID is ever written: these word pairs belong to `tests/real_input`.
"""

import re
from collections.abc import Mapping
from functools import cache

import numpy as np

from .requests import RELATION_WORDS
from .wording import COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS, pick, plural

Families = Mapping[str, tuple[str, ...]]  # family -> words; the families' names are shared

HELD_OUT_FAMILIES = ("gems", "birds and flowers", "odd")
NEVER_SAID = (
    "crimson disk", "emerald square", "rosy one", "chunky rosy", "navy triangle", "scarlet square",
    "sunny yellow", "snow-white doughnut", "chocolate-coloured cross", "tangerine rhombus",
    "some violet", "itty-bitty cobalt", "cobalt circle", "gigantic golden", "golden heart",
)  # fmt: skip

FREE_COLOURS: dict[str, Families] = {
    "red": {
        "shades": ("crimson", "scarlet", "vermilion", "bright red", "deep red"),
        "foods": ("cherry", "tomato-red", "strawberry-red"),
        "nature": ("blood-red", "fire-red", "brick-red"),
        "gems": ("ruby", "garnet"),
        "birds and flowers": ("poppy-red",),
    },
    "orange": {
        "shades": ("amber", "bright orange"),
        "foods": ("tangerine", "apricot", "pumpkin-coloured", "carrot-coloured"),
        "nature": ("flame-coloured",),
        "gems": ("carnelian",),
        "birds and flowers": ("marigold",),
    },
    "yellow": {
        "shades": ("golden", "gold", "bright yellow"),
        "foods": ("lemon", "lemon-yellow", "banana-yellow", "mustard"),
        "nature": ("sunny", "straw-coloured"),
        "gems": ("citrine", "topaz"),
        "birds and flowers": ("canary-yellow", "buttercup-yellow"),
    },
    "green": {
        "shades": ("emerald", "viridian", "bright green", "deep green"),
        "foods": ("lime", "olive", "pea-green", "apple-green"),
        "nature": ("grassy", "leaf-green", "forest-green", "grass-green"),
        "gems": ("jade", "malachite"),
        "birds and flowers": ("fern-green",),
    },
    "blue": {
        "shades": ("navy", "navy blue", "cobalt", "azure", "royal blue", "ultramarine"),
        "foods": ("blueberry-coloured",),
        "nature": ("ocean-blue", "sea-blue", "denim-blue"),
        "gems": ("sapphire", "lapis"),
        "birds and flowers": ("cornflower-blue", "peacock-blue"),
    },
    "purple": {
        "shades": ("violet", "mauve", "lilac", "deep purple"),
        "foods": ("plum", "grape-coloured", "aubergine"),
        "nature": ("twilight-purple",),
        "gems": ("amethyst",),
        "birds and flowers": ("orchid-coloured",),
    },
    "pink": {
        "shades": ("rosy", "rose", "magenta", "hot pink", "fuchsia"),
        "foods": ("salmon-pink", "bubblegum-pink", "candy-pink"),
        "nature": ("blush-pink",),
        "gems": ("rose-quartz",),
        "birds and flowers": ("flamingo-pink", "peony-pink"),
    },
    "brown": {
        "shades": ("chestnut", "dark brown", "hazel"),
        "foods": ("chocolate", "chocolate-coloured", "coffee-brown", "cocoa", "caramel"),
        "nature": ("muddy", "wood-brown", "walnut-brown"),
        "gems": ("bronze",),
        "birds and flowers": ("sparrow-brown",),
    },
    "black": {
        "shades": ("jet-black", "ebony", "pitch-black"),
        "foods": ("liquorice-black",),
        "nature": ("coal-black", "inky", "night-black"),
        "gems": ("onyx", "obsidian"),
        "birds and flowers": ("raven-black",),
    },
    "white": {
        "shades": ("ivory", "pure white", "bright white"),
        "foods": ("milky", "milk-white", "sugar-white"),
        "nature": ("snowy", "snow-white", "chalk-white"),
        "gems": ("pearl", "alabaster"),
        "birds and flowers": ("swan-white", "lily-white"),
    },
}
FREE_SHAPES: dict[str, Families] = {
    "circle": {
        "usual": ("disk", "disc", "ball", "dot", "spot", "round", "round shape", "circular shape"),
        "odd": ("orb", "roundel"),
    },
    "square": {
        "usual": ("box", "block", "tile", "square shape"),
        "odd": ("cube", "equal-sided box"),
    },
    "triangle": {
        "usual": ("triangular shape", "three-sided shape", "wedge"),
        "odd": ("trigon", "three-cornered shape"),
    },
    "diamond": {
        "usual": ("rhombus", "rhomb", "lozenge", "diamond shape"),
        "odd": ("rhomboid", "square on its tip"),
    },
    "star": {
        "usual": ("star shape", "five-pointed star", "pointy star"),
        "odd": ("pentagram",),
    },
    "cross": {
        "usual": ("plus", "plus sign", "plus shape", "cross shape"),
        "odd": ("addition sign", "crosslet"),
    },
    "heart": {
        "usual": ("love heart", "heart shape", "valentine"),
        "odd": ("valentine heart", "sweetheart shape"),
    },
    "ring": {
        "usual": ("hoop", "donut", "doughnut", "loop", "ring shape"),
        "odd": ("annulus", "hollow disc"),
    },
}
FREE_SIZES: dict[str, Families] = {
    "small": {
        "usual": (
            "tiny", "little", "mini", "wee", "teeny", "petite", "minuscule", "itty-bitty",
        ),
        "odd": ("teeny-weeny", "pint-sized", "pocket-sized"),
    },
    "medium": {
        "usual": ("medium", "medium-sized", "mid-sized", "average", "middling", "normal-sized"),
        "odd": ("middle-sized", "run-of-the-mill"),
    },
    "large": {
        "usual": (
            "big", "huge", "giant", "massive", "enormous", "gigantic", "chunky", "hefty",
        ),
        "odd": ("ginormous", "humongous", "colossal"),
    },
}  # fmt: skip
FREE_NUMBERS: dict[str, Families] = {
    "two": {"usual": ("a couple of", "a pair of", "2", "two"), "odd": ("a duo of",)},
    "three": {"usual": ("three", "3", "a set of three"), "odd": ("a trio of",)},
    "four": {"usual": ("four", "4", "a set of four"), "odd": ("a quartet of",)},
    "five": {"usual": ("five", "5"), "odd": ("a handful of five",)},
    "six": {"usual": ("six", "6", "half a dozen"), "odd": ("a half-dozen",)},
}
FREE_RELATIONS: dict[str, Families] = {
    "left of": {
        "usual": ("on the left side of", "left of", "just left of", "to the left of"),
        "odd": ("on the left-hand side of", "leftwards of"),
    },
    "right of": {
        "usual": ("on the right side of", "right of", "just right of", "to the right of"),
        "odd": ("on the right-hand side of", "rightwards of"),
    },
    "above": {
        "usual": ("on top of", "above", "over", "higher than", "up above", "atop"),
        "odd": ("higher up than", "overlooking"),
    },
    "below": {
        "usual": ("underneath", "below", "under", "beneath", "lower than", "down below"),
        "odd": ("further down than", "at the foot of"),
    },
}


def families(words: Families, held_out: bool) -> tuple[str, ...]:
    """Return the words of the held-out families, or of the others."""
    return tuple(
        word
        for family, some in words.items()
        if (family in HELD_OUT_FAMILIES) == held_out
        for word in some
    )


def free_plural(word: str) -> str:
    """Return the plural of a free word for a shape: its last word's, or before 'on' the one's."""
    head, joint, tail = word.partition(" on ")
    return plural(head) + joint + tail


@cache
def _choices(held_out: bool) -> dict[str, tuple[str, ...]]:
    """Return for every plain word and phrase, one or many, the free words that may replace it."""
    found: dict[str, tuple[str, ...]] = {}
    tables = ((COLOUR_WORDS, FREE_COLOURS), (SHAPE_WORDS, FREE_SHAPES), (SIZE_WORDS, FREE_SIZES))
    for plain, free in (*tables, (RELATION_WORDS, FREE_RELATIONS)):
        for name, synonyms in plain.items():
            words = families(free[name], held_out)
            found |= dict.fromkeys(synonyms, words)
            if plain is SHAPE_WORDS:
                many = tuple(free_plural(word) for word in words)
                found |= dict.fromkeys(map(plural, synonyms), many)
    for name, numbers in FREE_NUMBERS.items():
        found[name] = families(numbers, held_out)
    return found


@cache
def _pattern() -> re.Pattern[str]:
    words = "|".join(map(re.escape, sorted(_choices(False), key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])(?P<article>an? )?(?P<word>{words})(?![\w-])")


def freely(text: str, rng: np.random.Generator, held_out: bool = False, rate: float = 0.5) -> str:
    """Return a sentence in lower case with plain words replaced by free ones, each at `rate`.

    `held_out` takes the words of families that training never sees.
    """
    if "small, medium or large" in text:  # a question that offers its answers
        return text
    choices = _choices(held_out)
    chances = iter(rng.random(24).tolist())

    def other(match: re.Match[str]) -> str:
        article, word = match["article"] or "", match["word"]
        chance = next(chances, 1.0)
        if chance >= rate or (article and word in FREE_NUMBERS):
            return match[0]
        words = choices[word]
        new = words[int(chance / rate * len(words))]
        return (("an " if new[0] in "aeiou" else "a ") if article else "") + new

    freed = _pattern().sub(other, text)
    return text if any(said in freed for said in NEVER_SAID) else freed


def free_word(free: Families, rng: np.random.Generator, held_out: bool = False) -> str:
    """Draw a free word of one meaning."""
    return pick(rng, families(free, held_out))
