"""Judge free answers to MMMU's open questions, as its eval_utils.py does.

In: an answer and the right ones. Out: whether one of them is in it: as a number equal to two
decimals, or as words.
"""

import re
from collections.abc import Iterator, Sequence

INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")  # of lower-case text: only its lines
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Normal = str | float


def is_right(answer: str, right: Sequence[str]) -> bool:
    """Return whether one of the right answers is in it (MMMU's eval_open)."""
    wanted = [one for text in right for one in normal_forms(text)]
    words = [one for one in wanted if isinstance(one, str)]
    return any(
        any(word in found for word in words) if isinstance(found, str) else found in wanted
        for found in parsed(answer)
    )


def parsed(answer: str) -> set[Normal]:
    """Return the phrases and numbers that an answer may mean (MMMU's parse_open_response)."""
    phrases = key_phrases(answer)
    texts = [*phrases, *(number for phrase in phrases for number in numbers(phrase))]
    return {one for text in texts for one in normal_forms(text)}


def key_phrases(answer: str) -> list[str]:
    """Return what follows 'is', 'so' and the like in each line, the shortest; all where nothing
    does. In the last line an equals sign counts too.
    """
    answer = answer.strip().strip(".").lower()
    lines = SENTENCES.split(answer)
    found = []
    for number, line in enumerate(lines):
        signs = (*INDICATORS, "=") if number == len(lines) - 1 else INDICATORS
        tails = [line.split(sign)[-1].strip() for sign in signs if sign in line]
        shortest = _shortest(tails)
        if shortest and shortest not in TRIVIAL:
            found.append(shortest)
    return found or [answer]


def _shortest(tails: Sequence[str]) -> str:
    """Return the first of the shortest; one that follows an empty tail takes its place."""
    best = ""
    for tail in tails:
        if not best or len(tail) < len(best):
            best = tail
    return best


def numbers(text: str) -> Iterator[str]:
    """Yield the numbers in a text: with commas, in scientific notation, plain."""
    for pattern in NUMBERS:
        yield from pattern.findall(text)


def normal_forms(text: str) -> list[Normal]:
    """Return a number to two decimals, or words in lower case; a single letter beside a space, so
    that it is not found within a word.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
