"""Read a config of nested dataclasses from the JSON that was stored with weights."""

import dataclasses
import typing
from typing import Any, Literal, TypeVar

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
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r}")
        return tuple(_value(typing.get_args(hint)[0], one) for one in value)
    if not _fits(hint, value):
        raise TypeError(f"expected {getattr(hint, '__name__', hint)}, got {value!r}")
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a plain value is of the kind that a hint names; true is no number."""
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if options := typing.get_args(hint):
        return any(_fits(one, value) for one in options)
    kinds = (int, float) if hint is float else hint
    return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
