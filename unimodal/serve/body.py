"""The body of a request: read within limits, JSON or a form, as fields by name.

A form is parsed in memory: none of its files is written, whatever it is called.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from .errors import ApiError, client_left
from .limits import Limits

JSON, FORM = "application/json", "multipart/form-data"
CHARSETS = ("utf-8", "us-ascii")  # others take up to seconds to decode (punycode: their square)
MAX_FIELDS = 64  # of a form, or of an object: errors tell of each
MAX_DIGITS = 400  # of a whole number; no field wants more than 20
LISTS = ("image", "boxes")  # fields of a form that may come several times


@dataclass(frozen=True)
class Body:
    """The fields of a request; those of a form are texts or, of files, bytes."""

    fields: dict[str, Any]
    is_form: bool


class Room:
    """Room for the bodies of all requests that are being read or opened. One client has at most
    half of it, so that others find some; what a client takes alone may be larger.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free, self._share = max_bytes, max_bytes // 2
        self._held: Counter[str] = Counter()  # by client

    @contextmanager
    def taken(self, num_bytes: int, client: str) -> Iterator[None]:
        """Hold room for what a client sends; raise ApiError where there is none, or not for it."""
        if num_bytes > self._free:
            raise ApiError(503, "too many large requests come at once: try again later",
                           code="overloaded", retry_after_s=1)  # fmt: skip
        held = self._held[client]
        if held and held + num_bytes > self._share:
            raise ApiError(429, "too many of your large requests come at once: let some end first",
                           code="too_many_large", retry_after_s=1)  # fmt: skip
        self._free -= num_bytes
        self._held[client] += num_bytes
        try:
            yield
        finally:
            self._free += num_bytes
            self._held[client] -= num_bytes
            if not self._held[client]:
                del self._held[client]


class _InMemory(MultiPartParser):
    """A parser of forms whose files stay in memory; the body's limit is theirs."""

    spool_max_size = 0  # of SpooledTemporaryFile: never rolled over to a file


def length_of(request: Request, limits: Limits) -> int:
    """Return how long a body is or, where it is not said, may be; raise ApiError where that is too
    long, or said in two ways, of which a proxy may believe the other one (RFC 9112, section 6.3).
    """
    said = request.headers.get("content-length")
    if said is None:
        return limits.max_body_bytes
    if "transfer-encoding" in request.headers:
        raise ApiError(400, "Content-Length and Transfer-Encoding: one of them ends a body")
    if not (said.isascii() and said.isdigit()):
        raise ApiError(400, "the header Content-Length is no number")
    if len(said) > 18 or int(said) > limits.max_body_bytes:
        raise _too_long(limits)
    return int(said)


async def read_body(request: Request, limits: Limits, forms: bool = False) -> Body:
    """Return the body of a request. forms: whether it may be a form; else it is JSON.

    Raise ApiError for another type, a body that is too long or comes too slowly, and for one that
    is not what its type says.
    """
    kind = _kind(request, (JSON, FORM) if forms else (JSON,))
    try:
        async with asyncio.timeout(limits.body_seconds):
            content = await _content(request, limits)
    except TimeoutError as error:
        said = f"the request's body did not come within {limits.body_seconds} seconds"
        raise ApiError(408, said, code="timeout") from error
    except ClientDisconnect as error:
        raise client_left() from error
    if kind == JSON:
        return Body(parse_json(content, limits), is_form=False)
    return Body(await _parse_form(request, content, limits), is_form=True)


def _kind(request: Request, known: tuple[str, ...]) -> str:
    """Return the type of a request's body; raise ApiError for another than those known, and for
    one that is compressed or in other characters than CHARSETS.
    """
    of_type, options = parse_options_header(request.headers.get("content-type", ""))
    kind, charset = of_type.decode("latin-1"), options.get(b"charset", b"utf-8").decode("latin-1")
    if kind not in known:
        raise _unread("Content-Type", kind, " or ".join(known))
    if charset.lower() not in CHARSETS:
        said = f"the header Content-Type names the charset {charset[:80]!r}: utf-8 is read"
        raise ApiError(400, said, code="unsupported_charset")
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("identity", ""):
        raise _unread("Content-Encoding", coding, "a body as it is, without that header,")
    return kind


def _unread(header: str, value: str, known: str) -> ApiError:
    said = f"the header {header} says {value[:80]!r}: {known} is read"
    return ApiError(415, said, code="unsupported_media_type")


async def _content(request: Request, limits: Limits) -> bytes:
    chunks, num_bytes = [], 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > limits.max_body_bytes:
            raise _too_long(limits)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_long(limits: Limits) -> ApiError:
    said = f"the request is too long: {limits.max_body_bytes:,} bytes are the most"
    return ApiError(413, said, code="too_long")


def parse_json(content: bytes, limits: Limits) -> dict[str, Any]:
    """Return a JSON object, in which null is as if a field were not there; raise ApiError for
    anything else, NaN and names given twice too.
    """
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > limits.max_values:
        raise _no_json(f"it has more than {limits.max_values:,} values")
    try:
        found = json.loads(
            content.decode("utf-8"), parse_constant=_no_number, parse_int=_whole,
            object_pairs_hook=_fields,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _no_json("it is nested too deeply") from error
    except ValueError as error:  # of the three functions below
        raise _no_json(str(error)) from error
    if not isinstance(found, dict):
        raise _no_json("an object, {...}, is wanted")
    return found


def _no_json(reason: str) -> ApiError:
    return ApiError(400, f"the body is no JSON that can be used: {reason}", code="invalid_json")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits: {MAX_DIGITS} are the most")
    return int(digits)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_FIELDS:
        raise ValueError(f"an object has {len(pairs):,} fields: {MAX_FIELDS} are the most")
    found = {name: value for name, value in pairs if value is not None}
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{twice[0][:80]!r} is given twice")
    return found


async def _parse_form(request: Request, content: bytes, limits: Limits) -> dict[str, Any]:
    """Return the fields of a form, of LISTS (`image` and `image[]` alike) a list of all."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield content
        yield b""

    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    # Read as Latin-1, which keeps all bytes, since the parser falls back to it where UTF-8 fails.
    kind = f'{FORM}; boundary="{boundary.decode("latin-1")}"; charset=latin-1'
    parser = _InMemory(
        Headers({"content-type": kind}), stream(), max_files=limits.max_images + 1,
        max_fields=MAX_FIELDS, max_part_size=limits.max_body_bytes,
    )  # fmt: skip
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _no_form(error.message) from error
    if boundary and b"--" + boundary + b"--" not in content:
        raise _no_form("its last boundary is missing, so it was cut")
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        name = _as_utf8(name, "the name of a field")
        is_file = isinstance(value, UploadFile)
        content_or_text = await value.read() if is_file else _as_utf8(value, repr(name[:80]))
        if name.removesuffix("[]") in LISTS:
            found.setdefault(name.removesuffix("[]"), []).append(content_or_text)
        elif name in found:
            raise ApiError(400, f"the form has {name[:80]!r} twice", name[:80], "invalid_form")
        else:
            found[name] = content_or_text
    await form.close()
    return found


def _as_utf8(text: str, what: str) -> str:
    """Return a text of a form, whose bytes are given as Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_form(f"byte {error.start} of {what} is not UTF-8") from error


def _no_form(reason: str) -> ApiError:
    said = f"the body is no form that can be used: {reason}"
    return ApiError(400, said, code="invalid_form")
