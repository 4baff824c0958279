"""Checks are questions about a drawing, made from the words that asked for it by a few rules.

Of "draw two red circles and a star" they are "how many red circles are there?" (two) and "is there
a star?" (yes); of "a ring left of a star" there is a third, "is the ring left of the star?" (yes).

1. A thing begins with `a`, `an`, `another` or a number from one to ten, and goes on to a stop or a
   joining word (`and`, `with`, `on` ...); `in red` and `that is red` behind it belong to it.
2. A thing alone is asked for by "is there ...?", several by "how many ... are there?".
3. Two things with `left of`, `above` and the like between them, or behind them with `it`, are asked
   for by "is the ... left of the ...?".
4. Words for the picture itself ("a photo of", "on a white background") and for amounts ("a lot of")
   name no thing. Words that take away or replace ("remove", "without") leave nothing to ask.

Words of any subject can be asked about so, in English; what the rules do not see is not checked.
"""

import re
from dataclasses import dataclass

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
MAX_CHECKS = 8  # of one request; what comes later is not asked
ALONE = {"a", "an", "another", "one", "1"}
SEVERAL = {word: word for word in NUMBERS[2:]}
SEVERAL |= {str(number): NUMBERS[number] for number in range(2, len(NUMBERS))}
JOINING = {
    "above", "and", "appear", "at", "behind", "below", "beneath", "beside", "between", "by", "for",
    "from", "in", "inside", "is", "it", "its", "left", "me", "my", "near", "next", "of", "on",
    "or", "over", "please", "right", "that", "the", "to", "together", "too", "under", "which",
    "with",
}  # fmt: skip
NO_THINGS = {
    "background", "backdrop", "bit", "canvas", "couple", "drawing", "few", "group", "illustration",
    "image", "lot", "number", "pair", "painting", "photo", "photograph", "picture", "pictures",
    "drawings", "images", "photos", "scene", "sketch",
}  # fmt: skip
TAKING = {
    "away", "change", "delete", "don't", "erase", "except", "instead", "into", "never", "no", "not",
    "remove", "replace", "rid", "swap", "turn", "without",
}  # fmt: skip
TOKEN = re.compile(r"[\w'-]+|[^\w\s]")
RELATION = r"(?:(?:to|on) the )?(?:left|right) of|above|over|below|under|beneath"
FORWARD = re.compile(rf"(?:, )?(?:(?:that|which) is )?({RELATION})")
BACKWARD = re.compile(rf"(?:and )?(?:, )?({RELATION}) it(?: ,)?")
BEHIND = re.compile(rf"(?:, )?({RELATION}) it\b")
MOST_BEHIND = 6  # words that BEHIND can take: ", to the left of it"


@dataclass(frozen=True)
class Check:
    """A Check is a question with the first word of the answer that is hoped for."""

    question: str
    answer: str
    """`yes`, or a number in words."""
    wanted: str
    """What the question is about, in the words of the request."""


@dataclass(frozen=True)
class _Thing:
    """A _Thing stands at start .. stop - 1 of the words; `number` is None where it is alone."""

    start: int
    stop: int
    number: str | None
    words: str

    def check(self) -> Check:
        if self.number is None:
            article = "an" if self.words[0] in "aeiou" else "a"
            wanted = f"{article} {self.words}"
            return Check(f"is there {wanted}?", "yes", wanted)
        wanted = f"{self.number} {self.words}"
        return Check(f"how many {self.words} are there?", self.number, wanted)


def checks_of(words: str) -> tuple[Check, ...]:
    """Return the checks of a request's words, each once; none where nothing can be asked."""
    tokens = TOKEN.findall(words.lower())
    if TAKING.intersection(tokens):
        return ()
    things = _things(tokens)
    found = [one.check() for one in things] + _relations(tokens, things)
    return tuple(dict.fromkeys(found))[:MAX_CHECKS]


def _things(tokens: list[str]) -> list[_Thing]:
    """Return the things that words name, in order."""
    found, at = [], 0
    while at < len(tokens):
        opens = tokens[at] in ALONE or tokens[at] in SEVERAL
        stop = _end(tokens, at + 1) if opens else at + 1
        if stop > at + 1 and tokens[stop - 1] not in NO_THINGS:
            stop = _end_of_attribute(tokens, stop)
            words = " ".join(tokens[at + 1 : stop])
            found.append(_Thing(at, stop, SEVERAL.get(tokens[at]), words))
        at = stop
    return found


def _end(tokens: list[str], at: int) -> int:
    """Return where the words of a thing end that go on at `at`."""
    while at < len(tokens) and not _joins(tokens[at]):
        at += 1
    return at


def _joins(token: str) -> bool:
    return token in JOINING or token in ALONE or token in SEVERAL or not token[0].isalnum()


def _end_of_attribute(tokens: list[str], stop: int) -> int:
    """Return where `in red` or `that is red` behind a thing ends; `stop` where there is none."""
    for opening in (["in"], ["that", "is"], ["which", "is"]):
        at = stop + len(opening)
        if tokens[stop:at] != opening or _end(tokens, at) != at + 1:
            continue
        return at + 1
    return stop


def _relations(tokens: list[str], things: list[_Thing]) -> list[Check]:
    """Return the checks of where neighbouring things are, which are alone each."""
    found = []
    for one, two in zip(things, things[1:], strict=False):
        if one.number is not None or two.number is not None or one.words == two.words:
            continue
        between = " ".join(tokens[one.stop : two.start])
        after = " ".join(tokens[two.stop : two.stop + MOST_BEHIND]) if between == "with" else ""
        if said := FORWARD.fullmatch(between):
            found.append(_relation(one, said[1], two))
        elif said := BACKWARD.fullmatch(between) or BEHIND.match(after):
            found.append(_relation(two, said[1], one))
    return found


def _relation(one: _Thing, relation: str, two: _Thing) -> Check:
    wanted = f"the {one.words} {relation} the {two.words}"
    return Check(f"is {wanted}?", "yes", wanted)
