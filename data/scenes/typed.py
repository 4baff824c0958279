"""Type a sentence as people do: capitals, missing or doubled stops, and slips of the keys.

In: a plain sentence in lower case. Out: the same sentence as somebody may have typed it. Meaning is
kept: no slip changes a short word, a number, or one known word into another.
"""

import re
from string import capwords

import numpy as np

from .wording import meanings

TYPO_RATE = 0.14  # of sentences have a slip
MIN_LETTERS = 5  # of a word with a slip
KEPT = ("three", "there", "right", "seven", "eight", "other", "first", "second")  # one slip apart
NEIGHBOURS = {  # on a keyboard of the usual layout
    "a": "s", "b": "v", "c": "x", "d": "f", "e": "r", "f": "g", "g": "h", "h": "j", "i": "o",
    "j": "k", "k": "l", "l": "k", "m": "n", "n": "m", "o": "i", "p": "o", "q": "w", "r": "t",
    "s": "d", "t": "y", "u": "i", "v": "b", "w": "e", "x": "z", "y": "u", "z": "x",
}  # fmt: skip


def typed(text: str, rng: np.random.Generator, typos: bool = True) -> str:
    """Return the sentence as typed; a question keeps its mark or loses it."""
    stop, case, slip = rng.random(3).tolist()
    if typos and slip < TYPO_RATE:
        text = with_typo(text, rng)
    return _cased(_stopped(text, stop), case)


def with_typo(text: str, rng: np.random.Generator) -> str:
    """Return the text with one slip in one of its long words; the same text if it has none."""
    long = re.findall(rf"[a-z]{{{MIN_LETTERS},}}", text)
    words = [word for word in long if word not in KEPT]
    if not words:
        return text
    which, where, kind = rng.random(3).tolist()
    word = words[int(which * len(words))]
    slipped = _slip(word, 1 + int(where * (len(word) - 2)), kind)
    return text if slipped in meanings() else text.replace(word, slipped, 1)


def _slip(word: str, at: int, kind: float) -> str:
    """Return the word with its letter `at` swapped with the next, lost, doubled or missed."""
    if kind < 0.3:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.6:
        return word[:at] + word[at + 1 :]
    if kind < 0.8:
        return word[:at] + word[at] + word[at:]
    return word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]


def _stopped(text: str, chance: float) -> str:
    """Return the text with the stop that people put, or none."""
    bare, is_question = text.rstrip("?.! "), text.endswith("?")
    if is_question:
        return bare + ("?" if chance < 0.7 else "" if chance < 0.92 else "??")
    if chance < 0.55:
        return bare
    return bare + (
        "." if chance < 0.82 else "!" if chance < 0.94 else "!!" if chance < 0.97 else "..."
    )


def _cased(text: str, chance: float) -> str:
    """Return the text in small letters, as a sentence, in capitals, or with every word capital."""
    if chance < 0.5:
        return text
    if chance < 0.9:
        text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
        return re.sub(r"\bi\b", "I", text)
    return text.upper() if chance < 0.96 else capwords(text)
