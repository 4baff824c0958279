"""Fields of a request, checked: a field is honoured or refused with what can be, never dropped.

A model of pydantic names what is honoured. Its ONLY names fields of OpenAI's that have one effect
here, with the values that ask for that effect.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ApiError

WHOLE = r"-?(?:0|[1-9][0-9]*)"
KINDS = {
    bool: ("true or false", re.compile("true|false")),
    int: ("a whole number", re.compile(WHOLE)),
    float: ("a number", re.compile(WHOLE + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")),
}
"""What texts of a form may be, by what becomes of them: as JSON writes it (RFC 8259)."""
MOST_ERRORS = 5  # told of one request
MOST_SHOWN = 80  # characters of a value
MOST_ITEMS = 4096  # of a field's lists, at any depth: to look at a million would hold up the others
TYPES = ("union_tag_invalid", "union_tag_not_found")  # errors of `type` that pydantic has one above


class Fields(BaseModel):
    """Fields of a request's body, or of an object in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    ONLY: ClassVar[Mapping[str, tuple[Any, ...]]] = {}


T = TypeVar("T", bound=Fields)
V = TypeVar("V")
Items = Annotated[list[V], Field(fail_fast=True)]
"""A list, of which the first wrong item alone is told: to describe a million takes minutes."""


def checked(kind: type[T], fields: Mapping[str, Any], is_form: bool = False) -> T:
    """Return the fields as `kind` has them.

    is_form: whether numbers and truth values are given as texts. Raise ApiError for a field that is
    unknown, of another type, or asks for what is not there.
    """
    for name in fields.keys() - kind.model_fields.keys() - kind.ONLY.keys():
        known = ", ".join(sorted(kind.model_fields))
        raise ApiError(
            400, f"Unknown parameter: {name[:MOST_SHOWN]!r}. What is read here: {known}",
            name[:MOST_SHOWN], "unknown_parameter",
        )  # fmt: skip
    for name, value in fields.items():
        if (count := _num_items(value)) > MOST_ITEMS:
            raise ApiError(400, f"{name}: {count:,} items: {MOST_ITEMS:,} are the most", name,
                           "invalid_value")  # fmt: skip
    given = dict(fields)
    for name, only in kind.ONLY.items():
        if name in given and not _is_one_of(given.pop(name), only, is_form):
            raise _not_that(name, fields[name], only)
    try:
        found = kind.model_validate(given, strict=not is_form)
    except ValidationError as error:
        raise _refusal(error, given) from error
    if is_form:
        _check_form(found, given)
    return found


def _check_form(found: Fields, given: Mapping[str, Any]) -> None:
    """Raise ApiError for a file that was read as text, and for a number or a truth value that is
    not written as JSON has it: pydantic reads `1_0` and `yes` too.
    """
    for name, sent in given.items():
        value = getattr(found, name)
        if value != sent and _has_file(sent):
            raise ApiError(400, f"{name} is a file: send it as text", name, "invalid_value")
        if type(value) in KINDS and isinstance(sent, str):
            kind, pattern = KINDS[type(value)]
            if not pattern.fullmatch(sent):
                raise ApiError(400, f"{name}: Input should be {kind}, written as in JSON", name,
                               "invalid_value")  # fmt: skip


def _has_file(sent: Any) -> bool:
    return isinstance(sent, bytes) or (isinstance(sent, list) and any(map(_has_file, sent)))


def _num_items(value: Any) -> int:
    """Return how many items the lists in a field have together."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, list):
            count += len(one)
            left += one
        elif isinstance(one, dict):
            left += one.values()
    return count


def _is_one_of(value: Any, only: tuple[Any, ...], is_form: bool) -> bool:
    if is_form:
        return value in [_as_text(one) for one in only]
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in only)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _not_that(name: str, value: Any, only: tuple[Any, ...]) -> ApiError:
    shown = "a file" if isinstance(value, bytes) else json.dumps(value)[:MOST_SHOWN]
    can = f"what can be is {' or '.join(map(json.dumps, only))}" if only else "leave it out"
    return ApiError(400, f"{name} {shown}: this server has no such thing; {can}", name,
                    "unsupported_value")  # fmt: skip


def _refusal(error: ValidationError, given: Mapping[str, Any]) -> ApiError:
    """Return what is wrong, field by field, without the values."""
    places: dict[str, Any] = {}  # an error of each, that of the first branch of a union
    for one in error.errors(include_url=False, include_input=False):
        places.setdefault(".".join(_place(one, given)), one)
    # What is told of a whole besides a part of it comes from what else the whole could have been.
    wholes = {whole for whole in places if any(part.startswith(f"{whole}.") for part in places)}
    wrong = {place: one for place, one in places.items() if place not in wholes}
    told = [f"{place[:MOST_SHOWN]}: {_words(one)}" for place, one in wrong.items()]
    more = f"; and {len(told) - MOST_ERRORS} more" if len(told) > MOST_ERRORS else ""
    place, first = next(iter(wrong.items()))
    code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
    return ApiError(400, "; ".join(told[:MOST_ERRORS]) + more, place[:MOST_SHOWN], code)


def _place(error: Mapping[str, Any], given: Any) -> list[str]:
    """Return where an error is in what was given: the names of fields and the numbers of items,
    without the branches of unions, which pydantic has among them.
    """
    found, value, is_branch = [], given, False
    for number, part in enumerate(error["loc"], start=1):
        is_last = number == len(error["loc"])
        if isinstance(value, Mapping):
            # Of objects that are told apart by their type, the type stands before the field.
            is_branch = part == value.get("type") and not is_branch and not is_last
            is_missing = error["type"] == "missing" and is_last
            is_here = not is_branch and (part in value or is_missing)
        else:
            is_here = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_here:
            found.append(str(part))
            value = None if is_last else value[part]
    return [*found, "type"] if error["type"] in TYPES else found


def _words(error: Mapping[str, Any]) -> str:
    """Return what an error is, in the words of who sends JSON."""
    if error["type"] in ("model_type", "model_attributes_type"):
        return "Input should be an object"
    if error["type"] == "extra_forbidden":
        return "this is not read here: leave it out"
    if error["type"] == "too_long":
        return f"at most {error['ctx']['max_length']} can be here"
    if error["type"] == "union_tag_invalid":
        return (
            f"{error['ctx']['tag'][:MOST_SHOWN]!r}: what can be is {error['ctx']['expected_tags']}"
        )
    return "Field required" if error["type"] == "union_tag_not_found" else str(error["msg"])
