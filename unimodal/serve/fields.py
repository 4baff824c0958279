"""Fields of a request, checked: a field is honoured or refused with what can be, never dropped.

A model of pydantic names what is honoured. Its ONLY names fields of OpenAI's that have one effect
here, with the values that ask for that effect.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ApiError

MOST_ERRORS = 5  # told of one request
MOST_SHOWN = 80  # characters of a value


class Fields(BaseModel):
    """Fields of a request's body, or of an object in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    ONLY: ClassVar[Mapping[str, tuple[Any, ...]]] = {}


T = TypeVar("T", bound=Fields)
V = TypeVar("V")
Items = Annotated[list[V], Field(fail_fast=True)]
"""A list, of which the first wrong item alone is told: to describe a million takes minutes."""


def checked(kind: type[T], fields: Mapping[str, Any], is_form: bool = False) -> T:
    """Return the fields as `kind` has them; null is as if a field were not there.

    is_form: whether numbers and truth values are given as texts. Raise ApiError for a field that is
    unknown, of another type, or asks for what is not there.
    """
    for name in fields.keys() - kind.model_fields.keys() - kind.ONLY.keys():
        known = ", ".join(sorted(kind.model_fields))
        raise ApiError(
            400, f"Unknown parameter: {name[:MOST_SHOWN]!r}. What is read here: {known}",
            name[:MOST_SHOWN], "unknown_parameter",
        )  # fmt: skip
    given = {name: value for name, value in fields.items() if value is not None}
    for name, only in kind.ONLY.items():
        if name in given and not _is_one_of(given.pop(name), only, is_form):
            raise _not_that(name, fields[name], only)
    try:
        return kind.model_validate(given, strict=not is_form)
    except ValidationError as error:
        raise _refusal(error) from error


def _is_one_of(value: Any, only: tuple[Any, ...], is_form: bool) -> bool:
    if is_form:
        return value in [_as_text(one) for one in only]
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in only)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _not_that(name: str, value: Any, only: tuple[Any, ...]) -> ApiError:
    shown = "a file" if isinstance(value, bytes) else repr(value)[:MOST_SHOWN]
    can = f"what can be is {' or '.join(map(repr, only))}" if only else "leave it out"
    return ApiError(400, f"{name} {shown}: this server has no such thing; {can}", name,
                    "unsupported_value")  # fmt: skip


def _refusal(error: ValidationError) -> ApiError:
    """Return what is wrong, field by field, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [".".join(map(str, one["loc"]))[:MOST_SHOWN] for one in found]
    said = [f"{place}: {one['msg']}" for place, one in zip(places, found, strict=True)]
    more = f"; and {len(said) - MOST_ERRORS} more" if len(said) > MOST_ERRORS else ""
    code = "unknown_parameter" if found[0]["type"] == "extra_forbidden" else "invalid_value"
    return ApiError(400, "; ".join(said[:MOST_ERRORS]) + more, places[0], code)
