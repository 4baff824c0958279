"""A server that speaks OpenAI's protocol: one object is posted, one comes back.

Busy servers and broken connections are tried again. What fails is a ValueError that says what the
server said; a run then stops, and goes on from its predictions. No redirect is followed: the key is
for this server alone. Nothing that a reply names is fetched.
"""

import json
import time
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from .options import KEY_VARIABLE

TRIES = 5
BUSY = (408, 409, 429, 500, 502, 503, 504)  # what OpenAI's own client tries again
MOST_BYTES = 1 << 26  # of a reply, an image in base64 among them
TIMEOUT_S = 600.0


class Endpoint:
    """A server's address, and the key to it."""

    def __init__(self, url: str, key: str | None = None, wait_s: float = 1.0) -> None:
        """Raise ValueError for what is no address, or holds a secret.

        url: up to /v1, without what follows. wait_s: before the first try again; then twice as long
        each time.
        """
        _check_url(url)
        self.url, self._key, self._wait_s = url.rstrip("/"), key, wait_s
        self._opener = build_opener(_NoRedirect)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the server's object; ValueError where there is none after all tries."""
        place = f"{self.url}/{path}"
        for again in range(TRIES):
            try:
                return self._once(place, body)
            except HTTPError as error:
                if error.code not in BUSY or again + 1 == TRIES:
                    _refuse(place, f"{error.code} {error.reason}: {_told(error)}", error)
            except (URLError, HTTPException, OSError) as error:  # no connection, or a broken one
                if again + 1 == TRIES:
                    _refuse(place, str(error), error)
            time.sleep(self._wait_s * 2**again)
        raise AssertionError("the last try returns or raises")

    def _once(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        head = {"Content-Type": "application/json"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body, allow_nan=False).encode()
        request = Request(place, data, head, method="POST")
        with self._opener.open(request, timeout=TIMEOUT_S) as reply:
            content = reply.read(MOST_BYTES)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            _refuse(place, f"it sent no JSON: {content[:80]!r}", error)
        if not isinstance(value, dict):
            raise ValueError(f"{place} sent no object: {content[:80]!r}")
        return value


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _check_url(url: str) -> None:
    """Raise ValueError for what is no address, and for one that holds a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"the address of {parts.hostname} holds a name, password or query, which results would "
            f"tell: the key comes from the environment ({KEY_VARIABLE})"
        )


def _told(error: HTTPError) -> str:
    return error.read(400).decode("utf-8", "replace").strip()


def _refuse(place: str, why: str, error: Exception) -> NoReturn:
    raise ValueError(f"{place} does not answer: {why}") from error
