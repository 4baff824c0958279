"""A bundle's card says where the model comes from and how well it does.

card.json is for programs, README.md for people.
"""

import json
from pathlib import Path
from typing import Any

from .manifest import BundleError, read_json

KEYS = ("config", "commit", "hardware", "hours")
TOKENIZER_HASH = (
    "tokenizer_hash"  # beside an image tokenizer alone: what tells it from a damaged one
)

USABLE_CONTEXT = "usable_context"
"""Where replies do not hold for as many tokens as there are positions: for how many they do."""


def check_card(card: dict[str, Any]) -> None:
    """Raise ValueError where the card lacks one of KEYS."""
    missing = [key for key in KEYS if key not in card]
    if missing:
        raise ValueError(f"the card lacks {', '.join(missing)}: it needs {', '.join(KEYS)}")


def usable_context(card: dict[str, Any], context: int) -> int:
    """Return the most tokens of a conversation: `context`, or what the card says where that is
    less. Raise BundleError where it says no number of tokens.
    """
    said = card.get(USABLE_CONTEXT, context)
    if type(said) is not int or said < 1:
        raise BundleError(f"card.json: {USABLE_CONTEXT} {said!r} is no number of tokens")
    return min(said, context)


def read_card(directory: Path) -> dict[str, Any]:
    """Return the card in a directory, an empty one where there is none; raise BundleError where it
    cannot be read.
    """
    path = directory / "card.json"
    card = read_json(path) if path.exists() else {}
    if not isinstance(card, dict):
        raise BundleError(f"{path} is no table of names and values: fetch the bundle again")
    return card


def readme(card: dict[str, Any]) -> str:
    """Return the README.md of a bundle with this card: facts, scores and configuration."""
    facts = [(name.replace("_", " "), value) for name, value in card.items()]
    facts = [(name, value) for name, value in facts if not isinstance(value, dict)]
    scores = [(name, _score(value)) for name, value in _flat(card.get("scores", {}))]
    config = json.dumps(card["config"], indent=2)
    return f"""# A model of unimodal

It reads and writes text and images. `unimodal chat --model DIRECTORY` talks with it, and
`unimodal.load(DIRECTORY)` gives it to Python.

{_table("", facts)}
## Scores

{_table("scored", scores) if scores else "Not measured yet."}

## Configuration

Of its latest run, as are the documents above; card.json tells what that began from.

```json
{config}
```
"""


def _flat(scores: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return nested scores as (dotted name, number or {"value", "low", "high", "n"})."""
    rows: list[tuple[str, Any]] = []
    for name, score in scores.items():
        nested = isinstance(score, dict) and "value" not in score
        rows += _flat(score, f"{before}{name}.") if nested else [(before + name, score)]
    return rows


def _score(score: Any) -> str:
    if not isinstance(score, dict):
        return str(score)
    if score["value"] is None:
        return "not measured"
    has_interval = score.get("low") is not None and score.get("high") is not None
    interval = f" ({score['low']:.3f} to {score['high']:.3f})" if has_interval else ""
    return f"{score['value']:.3f}{interval}"


def _table(title: str, rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {title} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines) + "\n"
