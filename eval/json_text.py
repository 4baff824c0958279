"""JSON text that others wrote: what Python's parser takes without a word is an error here.

In: text. Out: its value. NaN and numbers that no float holds would make scores of nothing; of a key
that is there twice the last would take the place of the others.
"""

import json
import math
from typing import Any, NoReturn


def value_of(text: str, place: str) -> Any:
    """Return the value of JSON text; `place` names it in errors.

    ValueError where it is none, or holds NaN, a key twice or half a character.
    """
    try:
        value = parsed(text)
        if "\\ud" in text.lower():  # perhaps half a character, which no text can hold
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except ValueError as error:
        raise ValueError(f"{place} is no JSON: {error}") from error


def parsed(text: str) -> Any:
    """Return the value of JSON text, whose strings may hold half a character, as a reply of a
    server may; ValueError where it is none, or holds NaN or a key twice.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_distinct
        )
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}")


def _finite(word: str) -> float:
    return float(word) if math.isfinite(float(word)) else _refuse(word)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; ValueError where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"it holds the key {twice!r:.80} twice")
    return found
