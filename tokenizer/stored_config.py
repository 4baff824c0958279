"""Read a config of nested dataclasses from the JSON that was stored with weights."""

import dataclasses
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def of_tree(cls: type[T], tree: Any) -> T:
    """Return an instance of the dataclass `cls` from plain values, lists as tuples; ValueError for
    keys that it does not have, TypeError for values of another kind.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"expected the keys of {cls.__name__}, got {tree!r}")
    hints = typing.get_type_hints(cls)
    if unknown := tree.keys() - hints.keys():
        raise ValueError(f"unknown keys of {cls.__name__}: {', '.join(sorted(unknown))}")
    return cls(**{name: _value(hints[name], value) for name, value in tree.items()})


def _value(hint: Any, value: Any) -> Any:
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
    if kinds and value is not None:
        return of_tree(typing.cast(type, kinds[0]), value)
    if typing.get_origin(hint) is not tuple:
        return value
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return tuple(value)
