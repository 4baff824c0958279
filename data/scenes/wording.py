"""Put the scenes world into words: noun phrases, captions, and the parser of what a caption claims.

In: objects of a `Scene` and a generator. Out: text, and from text the claims it makes.

1. A `Claim` says how many objects of a stated size, colour, shape and place there are; `noun` puts
   it in words.
2. `caption` groups the objects of a scene into claims and puts them into one of `CAPTIONS`.
3. `read_parts` undoes it: noun phrases and backgrounds become slots again, and what is left must
   be a known template; anything else is no caption. `agrees` compares claims to a scene's objects.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .phrasings import CAPTIONS
from .world import COLOURS, DIRECTIONS, GROUNDS, SHAPES, SIZES, Background, Scene, SceneObject

SHAPE_WORDS: dict[str, tuple[str, ...]] = {  # the plain word first
    "circle": ("circle", "ball", "disc", "dot"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle",),
    "diamond": ("diamond", "rhombus"),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "heart": ("heart",),
    "ring": ("ring", "hoop", "donut"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {name: (name,) for name in COLOURS} | {
    "purple": ("purple", "violet")
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "big", "huge"),
}
ANY_SHAPE = ("thing", "object", "shape")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")
PLACES = tuple("middle" if r == c else f"{r} {c}" for r in ROWS for c in COLUMNS)  # row by row
PLACE_EDGES = (0.42, 0.58)  # of the middle row and column, in fractions of the canvas
PLACE_SLACK = 3 / 64  # a place is not wrong when the centre lies this near to it
SYNONYM_RATE = 0.2


@dataclass(frozen=True)
class Claim:
    """`count` objects that have every attribute stated; None leaves an attribute open."""

    count: int
    size: str | None
    colour: str | None
    shape: str | None
    place: str | None = None  # one of PLACES

    def fits(self, obj: SceneObject) -> bool:
        """Return whether an object has what is stated, its place within PLACE_SLACK."""
        return (
            self.size in (None, obj.size)
            and self.colour in (None, obj.colour)
            and self.shape in (None, obj.shape)
            and (self.place is None or is_in_place(obj, self.place))
        )


def pick(rng: np.random.Generator, options: Sequence):
    """Draw one of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


@cache
def phrasings(templates: tuple[str, ...], held_out: bool) -> tuple[int, ...]:
    """Return the indices of the templates that are held out of training, or of the others."""
    return tuple(k for k in range(len(templates)) if (k % 5 == 0) == held_out)


def pick_phrasing(
    rng: np.random.Generator, templates: tuple[str, ...], held_out: bool
) -> tuple[int, str]:
    """Draw (index, template), uniform over the held-out templates or over the others."""
    index = pick(rng, phrasings(templates, held_out))
    return index, templates[index]


def plural(word: str) -> str:
    """Return the plural of a shape's word."""
    return word + ("es" if word.endswith(("x", "s")) else "s")


def with_article(words: str) -> str:
    """Return the words with 'a' or 'an' before them."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def word_for(rng: np.random.Generator, words: Sequence[str]) -> str:
    """Return the first word, or at SYNONYM_RATE any of the words."""
    if len(words) > 1 and rng.random() < SYNONYM_RATE:
        return pick(rng, words)
    return words[0]


def spell(number: int, rng: np.random.Generator | None = None) -> str:
    """Spell a number (0 to 6) in words; with a generator it is a digit one time in five."""
    if rng is not None and rng.random() < 0.2:
        return str(number)
    return NUMBERS[number]


def bare_noun(claim: Claim, rng: np.random.Generator) -> str:
    """Put a claim in words without its number and place: 'small red circles'."""
    shape = word_for(rng, ANY_SHAPE if claim.shape is None else SHAPE_WORDS[claim.shape])
    words = [shape if claim.count == 1 else plural(shape)]
    if claim.colour is not None:
        words.insert(0, word_for(rng, COLOUR_WORDS[claim.colour]))
    if claim.size is not None:
        words.insert(0, word_for(rng, SIZE_WORDS[claim.size]))
    return " ".join(words)


def noun(claim: Claim, rng: np.random.Generator, vary: bool = True) -> str:
    """Put a claim in words: 'a small red circle', 'two circles in blue', 'a star in the middle'.

    `vary` sometimes puts the colour behind the noun.
    """
    behind = ""
    shown = claim
    if vary and claim.colour is not None and rng.random() < 0.12:
        verb = "is" if claim.count == 1 else "are"
        colour = word_for(rng, COLOUR_WORDS[claim.colour])
        behind = pick(rng, (f" that {verb} {colour}", f" in {colour}"))
        shown = Claim(claim.count, claim.size, None, claim.shape)
    words = bare_noun(shown, rng) + behind
    words = with_article(words) if claim.count == 1 else f"{spell(claim.count, rng)} {words}"
    if claim.place is not None:
        words += f" {pick(rng, ('in', 'at'))} the {claim.place}"
    return words


def place_of(obj: SceneObject) -> str:
    """Return which of the 3 x 3 PLACES the object's centre lies in."""
    low, high = PLACE_EDGES
    row, column = ((v >= low) + (v > high) for v in (obj.y, obj.x))
    return PLACES[row * 3 + column]


def place_bounds(place: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ((left, right), (top, bottom)) of one of PLACES, in fractions of the canvas."""
    at, edges = PLACES.index(place), (0.0, *PLACE_EDGES, 1.0)
    column, row = at % 3, at // 3
    return (edges[column], edges[column + 1]), (edges[row], edges[row + 1])


def is_in_place(obj: SceneObject, place: str) -> bool:
    """Return whether the object's centre lies in the place or within PLACE_SLACK of it."""
    return all(
        low - PLACE_SLACK <= value <= high + PLACE_SLACK
        for value, (low, high) in zip((obj.x, obj.y), place_bounds(place), strict=True)
    )


def listed(items: Sequence[str]) -> str:
    """Join items as a list: 'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def ground_words(ground: Background, rng: np.random.Generator) -> str:
    """Put a background in words, to stand before 'background': 'grey', 'striped sky and mint'.

    The direction is said half of the time; a background without one says none.
    """
    if ground.kind == "plain":
        return pick(rng, (ground.first, page_words(ground)))
    if ground.direction and rng.random() < 0.5:
        return page_words(ground)
    return _pattern(ground)


def page_words(ground: Background) -> str:
    """Put a background in words that say all of it, as 'vertically striped sky and mint'."""
    if ground.kind == "plain":
        return f"plain {ground.first}"
    return f"{ground.direction}ly {_pattern(ground)}"


def _pattern(ground: Background) -> str:
    joint = "to" if ground.kind == "graded" else "and"
    return f"{ground.kind} {ground.first} {joint} {ground.second}"


def ground_agrees(told: Background, actual: Background) -> bool:
    """Return whether kind, colours (of stripes in any order) and any told direction are equal."""
    if told.kind != actual.kind or told.direction not in (None, actual.direction):
        return False
    if told.kind == "striped":
        return {told.first, told.second} == {actual.first, actual.second}
    return (told.first, told.second) == (actual.first, actual.second)


def claims_of(
    scene: Scene, sized: bool = False, placed: bool = False, grouped: bool = True
) -> tuple[Claim, ...]:
    """Return the claims that tell every object's colour and shape, and if asked size and place.

    Equal claims are counted together when `grouped`, otherwise each object is a claim of its own.
    """
    singles = [
        Claim(
            1, obj.size if sized else None, obj.colour, obj.shape, place_of(obj) if placed else None
        )
        for obj in scene.objects
    ]
    if not grouped:
        return tuple(singles)
    counts = Counter(singles)
    return tuple(Claim(n, c.size, c.colour, c.shape, c.place) for c, n in counts.items())


def caption(
    scene: Scene, rng: np.random.Generator, held_out: bool = False, index: int | None = None
) -> str:
    """Write a caption that tells all objects of a scene.

    `index` is that of the phrasing in CAPTIONS; None draws one, of the held-out ones or the others.
    """
    index = pick_phrasing(rng, CAPTIONS, held_out)[0] if index is None else index
    sized, placed = (
        (False, False), (True, False), (True, True), (False, True)
    )[int(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1)))]  # fmt: skip
    claims = claims_of(scene, sized, placed, grouped=bool(rng.random() < 0.9))
    claims = tuple(claims[k] for k in rng.permutation(len(claims)))
    objects = listed([noun(claim, rng) for claim in claims])
    verb = "is" if claims[0].count == 1 else "are"
    text = CAPTIONS[index].format(
        things=objects, ground=ground_words(scene.background, rng), **{"is": verb}
    )
    return sentence_case(text) + "." if rng.random() < 0.3 else text


def sentence_case(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def dressed(text: str, rng: np.random.Generator) -> str:
    """Return the text as people type it: sometimes with a capital, sometimes with a full stop."""
    chance = rng.random()
    if chance < 0.65:
        return text
    ended = text if text.endswith("?") else text + "."
    return text[:1].upper() + (ended[1:] if chance < 0.85 else text[1:])


def alternatives(words: Sequence[str]) -> str:
    """Return a regular expression that matches any of the words, longer ones first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


@cache
def meanings() -> dict[str, str]:
    """Return what every word of a shape (one or many), colour and size stands for."""
    table: dict[str, str] = {}
    for words in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS):
        table |= {word: name for name, synonyms in words.items() for word in synonyms}
    many = {plural(w): name for name, synonyms in SHAPE_WORDS.items() for w in synonyms}
    return table | many


@cache
def noun_pattern() -> re.Pattern[str]:
    """Return the pattern of what `noun` writes, with a named group for each attribute."""

    def words_of(table: dict[str, tuple[str, ...]]) -> str:
        return alternatives([word for synonyms in table.values() for word in synonyms])

    many = alternatives([plural(word) for words in SHAPE_WORDS.values() for word in words])
    number = "|".join(NUMBERS[1:])
    colour, size = words_of(COLOUR_WORDS), words_of(SIZE_WORDS)
    return re.compile(
        rf"\b(?P<number>an?|{number}|[1-6]) (?:(?P<size>{size}) )?(?:(?P<colour>{colour}) )?"
        rf"(?P<shape>{many}|{words_of(SHAPE_WORDS)})"
        rf"(?: (?:that (?:is|are)|in) (?P<behind>{colour}))?"
        rf"(?: (?:in|at) the (?P<place>{alternatives(PLACES)}))?(?![\w-])"
    )


@cache
def ground_pattern() -> re.Pattern[str]:
    """Return the pattern of what `ground_words` writes."""
    names, ways = "|".join(GROUNDS), "|".join(DIRECTIONS)
    return re.compile(
        rf"\b(?:(?:(?P<way>{ways})ly )?(?P<kind>striped|graded) (?P<first>{names}) "
        rf"(?P<joint>and|to) (?P<second>{names})|(?:plain )?(?P<only>{names}))\b"
    )


@cache
def skeletons() -> frozenset[str]:
    """Return the CAPTIONS with the verb 'is', whatever the number: what captions are reduced to."""
    return frozenset(re.sub(r"\{is\}", "is", template) for template in CAPTIONS)


def read_parts(text: str) -> tuple[tuple[Claim, ...], Background | None] | None:
    """Parse a caption into (claims, background or None when none is told); None for other text."""
    claims: list[Claim] = []
    grounds: list[Background | None] = []

    def take_noun(match: re.Match[str]) -> str:
        claims.append(claim_of(match))
        return "#"

    def take_ground(match: re.Match[str]) -> str:
        grounds.append(ground_of(match))
        return "{ground}"

    text = " ".join(text.lower().split()).rstrip(".! ")
    if "{" in text or "#" in text:
        return None
    text = noun_pattern().sub(take_noun, ground_pattern().sub(take_ground, text))
    text = re.sub(r"#(?:(?:, and|,| and) #)*", "{things}", text)
    text = re.sub(r"\bare\b", "is", text)
    if text not in skeletons() or any(claim.count == 0 for claim in claims):
        return None
    if grounds and grounds[0] is None:
        return None
    return tuple(claims), grounds[0] if grounds else None


def claim_of(match: re.Match[str]) -> Claim:
    """Return the claim of a match of `noun_pattern`; its count is 0 if it contradicts itself."""
    number, words, means = match["number"], match.groupdict(), meanings()
    if number in ("a", "an"):
        count = 1
    else:
        count = int(number) if number.isdigit() else NUMBERS.index(number)
    is_many = words["shape"] not in {w for synonyms in SHAPE_WORDS.values() for w in synonyms}
    if is_many != (count > 1) or (words["colour"] and words["behind"]):
        count = 0
    colour = words["colour"] or words["behind"]
    return Claim(
        count,
        means[words["size"]] if words["size"] else None,
        means[colour] if colour else None,
        means[words["shape"]],
        words["place"],
    )


def ground_of(match: re.Match[str]) -> Background | None:
    """Return the background of a match of `ground_pattern`; None if it contradicts itself."""
    if match["only"]:
        return Background("plain", match["only"])
    if (match["joint"] == "to") != (match["kind"] == "graded"):
        return None
    return Background(match["kind"], match["first"], match["second"], match["way"])


def agrees(claims: Sequence[Claim], objects: Sequence[SceneObject]) -> bool:
    """Return whether the claims tell all objects: each is claimed once, and no more are."""
    wanted = [claim for claim in claims for _ in range(claim.count)]
    return len(wanted) == len(objects) and _assigned(wanted, list(objects))


def covers(claims: Sequence[Claim], objects: Sequence[SceneObject]) -> bool:
    """Return whether every claim has its count of objects, none serving two; more may be there."""
    wanted = [claim for claim in claims for _ in range(claim.count)]
    return len(wanted) <= len(objects) and _assigned(wanted, list(objects))


def _assigned(wanted: list[Claim], objects: list[SceneObject]) -> bool:
    """Return whether each claim of one object can have a fitting object of its own."""
    if not wanted:
        return True
    return any(
        _assigned(wanted[1:], objects[:k] + objects[k + 1 :])
        for k, obj in enumerate(objects)
        if wanted[0].fits(obj)
    )


assert set(SHAPE_WORDS) == set(SHAPES) and set(SIZE_WORDS) == set(SIZES), (
    "every name needs its words"
)
