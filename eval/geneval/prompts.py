"""What GenEval asks: prompts with what an image of them must show.

In: a file of prompts, one JSON object a line, or a world's class names. Out: `Prompt`s.

    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": ...}

1. `read_prompts` reads such a file as the official one is written (djghosh13/geneval,
   `prompts/evaluation_metadata.jsonl`): a key that would be ignored is an error.
2. `read_rewritten` reads the same prompts in other words, line by line (as BAGEL publishes them).
3. `make_prompts` draws prompts of the six tasks over any class names by the rules of the official
   maker: with its 80 names, 100 prompts a task and seed 43 it returns the official 553.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data.scenes.requests import RELATIONS
from unimodal.data.scenes.world import COLOURS as WORLD_COLOURS

from ..json_text import value_of
from ..score import digest
from ..vqa.source import lines_of

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = tuple(WORLD_COLOURS)  # the world has GenEval's ten, in its order
NUMBERS = ("zero", "one", "two", "three", "four")
MOST_COUNTED = 4
PERSON = "person"  # the official maker asks for no coloured person


@dataclass(frozen=True)
class Wanted:
    """Objects of a class that must be there: `count` of them, of a colour, at a place."""

    name: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None
    """One of RELATIONS, and the index in `include` of what it is relative to."""

    def json(self) -> dict[str, Any]:
        """Return the object as GenEval's files have it."""
        found: dict[str, Any] = {"class": self.name, "count": self.count}
        if self.colour is not None:
            found["color"] = self.colour
        if self.position is not None:
            found["position"] = list(self.position)
        return found


@dataclass(frozen=True)
class Prompt:
    """A request to draw, and what tells whether an image shows it.

    `exclude` holds (class, count): as many objects of that class are too many.
    """

    tag: str
    include: tuple[Wanted, ...]
    text: str
    exclude: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return every class that the verdict depends on."""
        return tuple(dict.fromkeys([w.name for w in self.include] + [n for n, _ in self.exclude]))

    def json(self) -> dict[str, Any]:
        """Return the prompt as GenEval's files have it, keys in their order."""
        found: dict[str, Any] = {"tag": self.tag, "include": [one.json() for one in self.include]}
        if self.exclude:
            found["exclude"] = [{"class": name, "count": count} for name, count in self.exclude]
        return found | {"prompt": self.text}


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a file in order.

    ValueError, with the line's number, for what is no JSON, lacks a key or has an unknown one, and
    for a file without prompts or with a prompt twice.
    """
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}): give a file of prompts") from error
    found = [
        prompt_of_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise ValueError(f"{path} has no prompts: give a file like evaluation_metadata.jsonl")
    twice = [prompt for prompt, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: the prompt {twice[0].text!r} is there twice")
    return found


def read_rewritten(path: Path, prompts: Sequence[Prompt]) -> list[str]:
    """Return other words for each of the prompts, from a file that asks for the same line by line.

    ValueError where a line asks for something else, or there are more or fewer lines.
    """
    others = read_prompts(path)
    if len(others) != len(prompts):
        raise ValueError(f"{path} has {len(others)} prompts, not {len(prompts)}: they do not match")
    for number, (one, other) in enumerate(zip(prompts, others, strict=True), 1):
        if (one.tag, one.include, one.exclude) != (other.tag, other.include, other.exclude):
            raise ValueError(f"{path}, line {number} does not ask for the same as {one.text!r}")
    return [other.text for other in others]


def prompt_of_line(line: str, place: str) -> Prompt:
    """Return the prompt of a line of JSON; `place` names it in errors (ValueError)."""
    return prompt_of(value_of(line, place), place)


def prompt_of(value: Any, place: str) -> Prompt:
    """Return the prompt of a JSON object; `place` names it in errors (ValueError)."""
    _check_keys(value, {"tag", "include", "prompt"}, {"exclude"}, place)
    if value["tag"] not in TAGS:
        raise ValueError(f"{place}: no tag {value['tag']!r}; there are {', '.join(TAGS)}")
    if not isinstance(value["prompt"], str) or not value["prompt"].strip():
        raise ValueError(f"{place}: the prompt {value['prompt']!r} has no words")
    for name in ("include", "exclude"):
        if not isinstance(value.get(name, []), list):
            raise ValueError(f"{place}: {name} is {value[name]!r}, not a list")
    include: list[Wanted] = []
    for one in value["include"]:
        include.append(_wanted(one, len(include), place))
    if not include:
        raise ValueError(f"{place}: nothing is wanted")
    exclude = tuple(_excluded(one, place) for one in value.get("exclude", []))
    return Prompt(value["tag"], tuple(include), value["prompt"], exclude)


def _wanted(value: Any, index: int, place: str) -> Wanted:
    _check_keys(value, {"class", "count"}, {"color", "position"}, place)
    colour, position = value.get("color"), value.get("position")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"{place}: no colour {colour!r}; there are {', '.join(COLOURS)}")
    if position is not None:
        relation, target = position if isinstance(position, list) and len(position) == 2 else [0, 0]
        if relation not in RELATIONS or not _is_count(target, 0) or target >= index:
            raise ValueError(
                f"{place}: position {position!r}; give one of {', '.join(RELATIONS)} and the index "
                "of an object before"
            )
        position = (relation, target)
    return Wanted(_name(value, place), _count(value, place), colour, position)


def _excluded(value: Any, place: str) -> tuple[str, int]:
    _check_keys(value, {"class", "count"}, set(), place)
    return _name(value, place), _count(value, place)


def _name(value: Mapping[str, Any], place: str) -> str:
    if not isinstance(value["class"], str) or not value["class"]:
        raise ValueError(f"{place}: the class {value['class']!r} is no name")
    return value["class"]


def _count(value: Mapping[str, Any], place: str) -> int:
    if not _is_count(value["count"], 1):
        raise ValueError(f"{place}: count {value['count']!r}; give a whole number from 1")
    return value["count"]


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_keys(value: Any, needed: set[str], allowed: set[str], place: str) -> None:
    if not isinstance(value, dict) or not needed <= set(value) <= needed | allowed:
        told = sorted(value) if isinstance(value, dict) else repr(value)
        more = f", and may have {', '.join(sorted(allowed))}" if allowed else ""
        raise ValueError(f"{place}: {told}; it needs {', '.join(sorted(needed))}{more}")


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """Return the SHA-256 of what is asked for, in order."""
    return digest(prompt.json() for prompt in prompts)


def make_prompts(names: Sequence[str], num_prompts: int, seed: int) -> list[Prompt]:
    """Return prompts over class names: one object of each class, `num_prompts` of the other tasks.

    Drawn as the official maker draws them (numpy's `default_rng`, the same calls in the same order;
    `prompts/create_prompts.py`); what comes twice is dropped. ValueError for fewer than two names.
    """
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} class names ({', '.join(names)}): give 2 or more, distinct")
    rng = np.random.default_rng(seed)
    drawn = list(_singles(rng, names))
    for make in (_two_objects, _counting, _colours, _position, _colour_pairs):
        drawn += [make(rng, names) for _ in range(num_prompts)]
    return list(dict.fromkeys(drawn))


def _singles(rng: np.random.Generator, names: Sequence[str]) -> Iterator[Prompt]:
    for k in rng.choice(len(names), size=len(names), replace=False):
        yield Prompt(TAGS[0], (Wanted(names[k], 1),), f"a photo of {_a(names[k])}")


def _two_objects(rng: np.random.Generator, names: Sequence[str]) -> Prompt:
    first, second = (names[k] for k in rng.choice(len(names), size=2, replace=False))
    text = f"a photo of {_a(first)} and {_a(second)}"
    return Prompt(TAGS[1], (Wanted(first, 1), Wanted(second, 1)), text)


def _counting(rng: np.random.Generator, names: Sequence[str]) -> Prompt:
    name = names[rng.choice(len(names))]
    count = int(rng.integers(2, MOST_COUNTED, endpoint=True))
    text = f"a photo of {NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}"
    return Prompt(TAGS[2], (Wanted(name, count),), text, ((name, count + 1),))


def _colours(rng: np.random.Generator, names: Sequence[str]) -> Prompt:
    (name,) = _coloured(rng, names, None)
    colour = COLOURS[rng.choice(len(COLOURS))]
    return Prompt(TAGS[3], (Wanted(name, 1, colour),), f"a photo of {_a(colour)} {name}")


def _position(rng: np.random.Generator, names: Sequence[str]) -> Prompt:
    placed, target = (names[k] for k in rng.choice(len(names), size=2, replace=False))
    relation = RELATIONS[rng.choice(len(RELATIONS))]
    wanted = (Wanted(target, 1), Wanted(placed, 1, position=(relation, 0)))
    return Prompt(TAGS[4], wanted, f"a photo of {_a(placed)} {relation} {_a(target)}")


def _colour_pairs(rng: np.random.Generator, names: Sequence[str]) -> Prompt:
    pair = _coloured(rng, names, 2)
    colours = [COLOURS[k] for k in rng.choice(len(COLOURS), size=2, replace=False)]
    wanted = tuple(Wanted(n, 1, colour) for n, colour in zip(pair, colours, strict=True))
    told = [f"{_a(colour)} {name}" for name, colour in zip(pair, colours, strict=True)]
    return Prompt(TAGS[5], wanted, f"a photo of {' and '.join(told)}")


def _coloured(rng: np.random.Generator, names: Sequence[str], size: int | None) -> list[str]:
    """Draw distinct classes that may be asked for in a colour: all but `person`."""
    shift = names.index(PERSON) + 1 if PERSON in names else 0
    room = len(names) - (PERSON in names)
    drawn = np.atleast_1d(rng.choice(room, size=size, replace=size is None))
    return [names[k] for k in (drawn + shift) % len(names)]


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
