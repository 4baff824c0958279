"""Choose the icons that are not people, with their names, keywords, category and twin.

In: the packages (packages.py). Out: an `Icon` for each of the 1,252, and its two drawings as SVG.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .packages import CARTOON, FLAT, KEYWORDS, read_json

PEOPLE = "People & Body"  # the one category that is left out
STYLES = ("flat", "cartoon")  # of FLAT and of CARTOON
HOLD_OUT = 206  # begins the hash of a name; chosen so that what people ask for most is trained


@dataclass(frozen=True)
class Icon:
    """An icon: its name in FLAT, its name in CARTOON, and what emojilib says of it."""

    name: str
    twin: str
    category: str
    keywords: tuple[str, ...]


def read_icons(folder: Path | None) -> tuple[list[Icon], list[tuple[str, str]]]:
    """Return the icons, and the SVG of each in both STYLES; ValueError as `read_json` does."""
    flat = read_json(FLAT, folder, ("icons.json", "metadata.json", "chars.json"))
    cartoon = read_json(CARTOON, folder, ("icons.json", "chars.json"))
    words = read_json(KEYWORDS, folder, ("dist/emoji-en-US.json",))["dist/emoji-en-US.json"]
    points = _points(flat["chars.json"])
    icons = [
        _icon(name, category, points[name], cartoon["chars.json"], words)
        for category, names in flat["metadata.json"]["categories"].items()
        if category != PEOPLE
        for name in names
    ]
    svgs = [
        (_svg(flat["icons.json"], icon.name), _svg(cartoon["icons.json"], icon.twin))
        for icon in icons
    ]
    return icons, svgs


def _points(characters: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the code points, as '1f408-200d-2b1b', that stand for each icon."""
    points: dict[str, list[str]] = {}
    for code, name in characters.items():
        points.setdefault(name, []).append(code)
    return points


def _icon(
    name: str,
    category: str,
    codes: list[str],
    twins: Mapping[str, str],
    words: Mapping[str, list[str]],
) -> Icon:
    twin = next(twins[code] for code in codes if code in twins)
    known = next((words[text] for code in codes for text in _spellings(code) if text in words), [])
    keywords = dict.fromkeys(word.replace("_", " ").lower() for word in known)
    return Icon(name, twin, category, tuple(keywords))


def _spellings(code: str) -> tuple[str, ...]:
    """Return an emoji with and without U+FE0F, which asks for a picture in place of a sign."""
    text = "".join(chr(int(point, 16)) for point in code.split("-"))
    return text, text + "\ufe0f", text.replace("\ufe0f", "")


def _svg(icons: Mapping[str, Any], name: str) -> str:
    """Return an icon of a set in Iconify's format as an SVG file, in the middle of a square."""
    found = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    left, top = found.get("left", 0), found.get("top", 0)
    width = found.get("width", icons.get("width", 16))
    height = found.get("height", icons.get("height", 16))
    side = max(width, height)
    left, top = left - (side - width) / 2, top - (side - height) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {side} {side}">{found["body"]}</svg>'
    )


@cache
def is_held_out(name: str) -> bool:
    """Return whether training shows and names this icon never, in no style: every twelfth."""
    return _hash(f"{HOLD_OUT}{name}") % 12 == 0


@cache
def is_held_out_pair(first: str, second: str) -> bool:
    """Return whether training shows two names (of icons or shapes) never together: a tenth."""
    return _hash("+".join(sorted((first, second)))) % 10 == 0


def _hash(text: str) -> int:
    """Return a number of 64 bits that is the same everywhere (FNV-1a; Fowler, Noll and Vo)."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value >> 7
