"""Read configuration from YAML files and command-line overrides; no other file does.

In: a frozen dataclass, which may hold others, a YAML file, and overrides `key.sub=value`. Out: an
instance of it. The dataclass gives the defaults, the file's values replace them, and the overrides
replace those. An override's value is read as YAML. None (`null`) means off.

Every problem is found before any is reported: unknown keys (with the nearest name), wrong types,
missing values, and the problems that a dataclass reports in its method `problems() -> list[str]`.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, Field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from . import yaml_tree
from .atomic import write_bytes
from .yaml_tree import ConfigError, Entries, fields_of, put, shown, tree_of

T = TypeVar("T")
CONFIGS = Path(__file__).parent / "configs"  # what is shipped: recipes, and DeepSpeed's files

# Old name -> new name of keys, in every dataclass that has the new one; an old name is refused with
# the new one. Options of commands are named as keys are, with hyphens; fields of `data scenes
# --mix` are here too.
RENAMED = {
    "area": "target_pixels",
    "average": "ema_decay",
    "form": "format",
    "least_questions": "min_questions",
    "max_pictures": "max_images",
    "micro_rows": "micro_batch_rows",
    "most_follows": "max_follows",
    "most_questions": "max_questions",
    "part": "split",
    "part_by": "split_by",
    "picture": "image",
    "picture_weight": "image_weight",
    "pictures": "images",
    "row_length": "sequence_length",
    "smallest": "min_side",
    "widest": "max_aspect_ratio",
}

# Old key -> where it stands now, below the section that it was in.
MOVED = {
    "levels": "quantizer.fsq.levels",
    **{
        name: f"patches.{name}"
        for name in (
            "patch", "margin", "encoder_width", "decoder_width", "num_blocks", "pixel_width"
        )
    },
}  # fmt: skip


def load(
    cls: type[T],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    partial: bool = False,
) -> T:
    """Return an instance of the dataclass `cls`, from a YAML file (if any) and overrides.

    `path` may be the name of a recipe that is shipped (see `shipped`).
    A section or a dotted key changes only the named fields of a nested dataclass. A mapping field
    (`dict[str, X]`) is replaced by the file's mapping, while a dotted key changes one entry of it.
    With `partial`, sections of the file that `cls` does not know are ignored.
    Raise ConfigError with all problems.
    """
    path = shipped(path) if path is not None else None
    tree = yaml_tree.read(path) if path is not None else {}
    if partial:
        known = {field.name for field in fields_of(cls)}
        tree = {key: value for key, value in tree.items() if key in known}
    problems: list[str] = []
    for override in overrides:
        problems += put(tree, override)
    config = _build(cls, tree, MISSING, "", problems)
    if not problems:
        problems += _own_problems(config, "")
    if problems:
        raise ConfigError(problems, path)
    return config


def shipped(name: str | Path, suffix: str = ".yaml") -> Path:
    """Return the file that is meant: one at that path, or else the one of that name among those
    that are shipped, as `scenes_lm`, `scenes_lm.yaml` or `configs/scenes_lm.yaml`.

    Raises ConfigError, with the names of those there are, where there is none.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    here = CONFIGS / f"{path.name.removesuffix(suffix)}{suffix}"
    if path.parent in (Path(), Path("configs")) and here.is_file():
        return here
    names = ", ".join(sorted(one.name.removesuffix(suffix) for one in CONFIGS.glob(f"*{suffix}")))
    raise ConfigError([f"No such file, and none of that name is shipped: {names}"], path)


def of_tree(cls: type[T], tree: dict) -> T:
    """Return an instance of the dataclass `cls` from plain values, as those of JSON.

    Raise ConfigError with all problems.
    """
    problems: list[str] = []
    config = _build(cls, tree, MISSING, "", problems)
    if not problems:
        problems += _own_problems(config, "")
    if problems:
        raise ConfigError(problems)
    return config


def saved(cls: type[T], path: Path) -> T:
    """Return the dataclass `cls` that `save` once wrote, perhaps by another version of this code or
    on another machine: renamed keys count as what they are called now, unknown ones are left out,
    and what the dataclass objects to is nobody's problem any more.

    Raises ConfigError for what is no longer understood.
    """
    problems: list[str] = []
    config = _build(cls, _current(cls, yaml_tree.read(path)), MISSING, "", problems)
    if problems:
        raise ConfigError(problems, path)
    return config


def _current(hint: Any, value: Any) -> Any:
    """A saved value of an annotated type under the names of today."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and value is not None:
        return _current(next((arg for arg in args if arg is not type(None)), None), value)
    if origin is dict and isinstance(value, dict):
        return {key: _current(args[1], entry) for key, entry in value.items()}
    if origin is tuple and isinstance(value, list):
        return [_current(args[0], entry) for entry in value]
    if not dataclasses.is_dataclass(hint) or not isinstance(value, dict):
        return value
    names, hints = {field.name for field in fields_of(hint)}, typing.get_type_hints(hint)
    value = _in_place(value, names)
    now = {key if key in names else RENAMED.get(key): entry for key, entry in value.items()}
    return {key: _current(hints[key], entry) for key, entry in now.items() if key in names}


def _in_place(tree: dict, names: Collection[str]) -> dict:
    """A saved section whose moved keys stand where they belong today."""
    moved = _moved(tree, names)
    kept = {key: entry for key, entry in tree.items() if key not in moved}
    for old, new in moved.items():
        here, (*sections, last) = kept, new.split(".")
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = tree[old]
    return kept


def replaced(settings: T, changes: dict[str, Any]) -> T:
    """Return a dataclass with other values of some fields, as they are given in Python.

    ConfigError names every field that it does not have, with the nearest that it has.
    """
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    problems: list[str] = []
    for name in changes:
        if _renamed(name, names, "", problems) not in names:
            problems.append(_unknown(name, name, names))
    if problems:
        raise ConfigError(problems, Path(type(settings).__name__.lower()))
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def save(config: Any, path: str | Path) -> None:
    """Write every value of a dataclass as YAML that `load` reads back to an equal instance."""
    write_bytes(path, yaml_tree.dumped(config).encode())


def read(path: str | Path) -> dict[str, Any]:
    """Return what a YAML file says, as plain mappings, lists and scalars, unchecked."""
    return yaml_tree.read(Path(path))


def changes(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, old value, new value) of all that differs between two instances of a
    dataclass, as plain values; None stands for an entry that is not there.
    """
    old, new = tree_of(old), tree_of(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from changes(old.get(name), new.get(name), _join(key, name))
    elif old != new:
        yield key, old, new


# --- trees to dataclasses -----------------------------------------------------------------------


def _build(cls: Any, tree: Any, base: Any, path: str, problems: list[str]) -> Any:
    """Return an instance of `cls` with the tree's values over those of `base`, if there is one.

    Problems are appended to the list. Return MISSING where there are some.
    """
    if not isinstance(tree, dict):
        problems.append(f"{path}: expected the keys of {cls.__name__}, got {shown(tree)}")
        return MISSING
    fields = {field.name: field for field in fields_of(cls)}
    hints, num_before, values = typing.get_type_hints(cls), len(problems), {}
    moved = _moved(tree, fields)
    problems += [_called(path, old, new) for old, new in moved.items()]
    tree = {
        _renamed(key, fields, path, problems): value
        for key, value in tree.items()
        if key not in moved
    }
    problems += [_unknown(_join(path, key), key, list(fields)) for key in tree if key not in fields]
    for name, field in fields.items():
        default = _default(field) if base is MISSING else getattr(base, name)
        if name in tree:
            here = _join(path, name)
            values[name] = _convert(hints[name], tree[name], default, here, problems)
        elif default is MISSING:
            problems.append(f"{_join(path, name)}: a value is needed")
        else:
            values[name] = default
    if len(problems) > num_before:  # no instance, but the values that are valid are still checked
        problems += _own_problems(values, path)
        return MISSING
    try:
        return cls(**values)
    except ValueError as error:  # the dataclass's own __post_init__
        problems.append(f"{path}: {error}" if path else str(error))
        return MISSING


def _convert(hint: Any, value: Any, default: Any, path: str, problems: list[str]) -> Any:
    """Return `value` as the annotated type; append a problem where it is not one."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(args, value, default, path, problems)
    if dataclasses.is_dataclass(hint):
        base = default if type(default) is hint else MISSING
        return _build(hint, value, base, path, problems)
    if origin is tuple and isinstance(value, list):
        hints = args[:1] * len(value) if args[1:] == (...,) else args
        if len(hints) == len(value):
            trees = enumerate(zip(hints, value, strict=True))
            return tuple(_convert(h, v, MISSING, _join(path, i), problems) for i, (h, v) in trees)
    if origin is dict and isinstance(value, dict):
        old = default if isinstance(value, Entries) and isinstance(default, dict) else {}
        new = {
            key: _convert(args[1], entry, old.get(key, MISSING), _join(path, key), problems)
            for key, entry in value.items()
        }
        problems += [f"{path}: the key {shown(key)} is no text" for key in new if key != str(key)]
        return {**old, **new}
    if origin is Literal and any(value == arg and type(value) is type(arg) for arg in args):
        return value
    plain = _plain(hint, value)
    if plain is MISSING:
        problems.append(f"{path}: expected {_named(hint)}, got {shown(value)}")
    return plain


def _plain(hint: Any, value: Any) -> Any:
    """Return `value` as bool, int, float, str or Path; MISSING where it is not one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (bool, str) and type(value) is hint:
        return value
    if hint is int and number and value == value // 1:  # 4e9 tokens is a whole number
        return int(value)
    if hint is float and number and abs(value) <= sys.float_info.max:
        return float(value)
    return Path(value) if hint is Path and isinstance(value, str) else MISSING


def _one_of(args: tuple, value: Any, default: Any, path: str, problems: list[str]) -> Any:
    """Return `value` as the first member of a union that it fits; append a problem if none."""
    members = [arg for arg in args if arg is not type(None)]
    if value is None and len(members) < len(args):
        return None
    if len(members) == 1:
        return _convert(members[0], value, default, path, problems)
    for member in members:
        met: list[str] = []
        result = _convert(member, value, default, path, met)
        if not met:
            return result
    problems.append(f"{path}: expected {' or '.join(map(_named, args))}, got {shown(value)}")
    return MISSING


def _own_problems(value: Any, path: str) -> Iterator[str]:
    """Yield what the dataclasses in a value report in their own `problems()`."""
    if hasattr(value, "problems"):
        yield from (f"{path}: {problem}" if path else problem for problem in value.problems())
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields_of(value)}
    if isinstance(value, tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _own_problems(entry, _join(path, key))


# --- words --------------------------------------------------------------------------------------


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _renamed(key: Any, names: Collection[str], path: str, problems: list[str]) -> Any:
    """Return the present name of a key; append a problem where that is not its name."""
    new = RENAMED.get(key) if key not in names else None
    if new not in names:
        return key
    problems.append(_called(path, key, new))
    return new


def _moved(tree: dict, names: Collection[str]) -> dict[str, str]:
    """Return the keys of a section that moved into one of its sections, and where they are now."""
    return {
        old: new
        for old, new in MOVED.items()
        if old in tree and old not in names and new.partition(".")[0] in names
    }


def _called(path: str, old: Any, new: Any) -> str:
    return f"{_join(path, old)}: it is called {_join(path, new)} now"


def _unknown(path: str, key: Any, names: list[str]) -> str:
    nearest = get_close_matches(str(key), names, n=1, cutoff=0.5)
    return f"{path}: unknown key; " + (
        f"did you mean {nearest[0]!r}?" if nearest else f"the keys here are {', '.join(names)}"
    )


def _named(hint: Any) -> str:
    """Return a type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is tuple:
        return "a list" if args[1:] == (...,) else f"a list of {len(args)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    words |= {Path: "a path", dict: "keys and values", type(None): "null"}
    return words.get(origin or hint, str(hint))
