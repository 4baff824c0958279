"""A server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, or a company's.

In: questions. Out: its words. Images are sent inside the request, as PNG in `data:` URLs: the
server is never told an address or a path. Questions of a batch are sent at the same time.

Before the first question a probe asks for one token, so that a wrong address, key or model is told
at once; it also learns which version answers. A later answer of another version is an error: the
scores would be of nobody. Busy servers and broken connections are tried again, and then stop the
run, which goes on from its predictions; nothing that failed counts as an answer.
"""

import base64
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from PIL import Image as PILImage

from unimodal.document import Document, Text
from unimodal.transcript import png_bytes

from .answerer import UNKNOWN, Answerer, Question
from .options import KEY_VARIABLE

TRIES = 5
BUSY = (408, 409, 429, 500, 502, 503, 504)  # what OpenAI's own client tries again
MOST_BYTES = 1 << 24  # of a reply
TIMEOUT_S = 600.0
PROBE = "Say yes."


class Server(Answerer):
    """A model behind a server."""

    kind = "server"

    def __init__(self, url: str, model: str, key: str | None = None, wait_s: float = 1.0) -> None:
        """Ask the probe; ValueError where the server does not answer it.

        url: up to /v1, without /chat/completions. wait_s: before the first try again; then twice
        as long each time.
        """
        _check_url(url)
        self._url, self._name, self._key, self._wait_s = url.rstrip("/"), model, key, wait_s
        self._opener = build_opener(_NoRedirect)
        reply = self._complete([{"type": "text", "text": PROBE}], 1)
        self._version = _version(reply)
        self._fingerprint = reply.get("system_fingerprint")

    def identity(self) -> dict[str, str]:
        """Return the name that was asked for, and the version that the server says."""
        said = f"{self._version}, {self._fingerprint}" if self._fingerprint else self._version
        return {"model": self._name, "revision": said, "hash": UNKNOWN}

    def settings(self) -> dict[str, Any]:
        """Return its identity and address."""
        return {**super().settings(), "server": self._url}

    def answers(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """Return the answers, all asked at the same time."""
        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(lambda question: self._answer(question, max_tokens), questions))

    def _answer(self, question: Question, max_tokens: int) -> str:
        reply = self._complete(content_of(question.document), max_tokens)
        if (version := _version(reply)) != self._version:
            raise ValueError(
                f"{question.id}: {self._url} answers as {version} now, and answered as "
                f"{self._version} before: these are two models; begin again"
            )
        return _words(reply, f"{self._url}, {question.id}")

    def _complete(self, content: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        """Return the server's object; ValueError where there is none after all tries."""
        body = {
            "model": self._name,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        for again in range(TRIES):
            try:
                return self._post(body)
            except HTTPError as error:
                if error.code not in BUSY or again + 1 == TRIES:
                    _refuse(self._url, f"{error.code} {error.reason}: {_told(error)}", error)
            except (URLError, HTTPException, OSError) as error:  # no connection, or a broken one
                if again + 1 == TRIES:
                    _refuse(self._url, str(error), error)
            time.sleep(self._wait_s * 2**again)
        raise AssertionError("the last try returns or raises")

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        head = {"Content-Type": "application/json"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body, allow_nan=False).encode()
        request = Request(f"{self._url}/chat/completions", data, head, method="POST")
        with self._opener.open(request, timeout=TIMEOUT_S) as reply:
            content = reply.read(MOST_BYTES)
        try:
            value = json.loads(content)
        except ValueError as error:
            _refuse(self._url, f"it sent no JSON: {content[:80]!r}", error)
        if not isinstance(value, dict):
            raise ValueError(f"{self._url}/chat/completions sent no object: {content[:80]!r}")
        return value


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the key is for this server alone."""

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


def content_of(document: Document) -> list[dict[str, Any]]:
    """Return texts and images of a turn in the form of chat completions."""
    content: list[dict[str, Any]] = []
    for part in document.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
            continue
        assert part.pixels is not None, "evaluators show pixels"
        png = base64.b64encode(png_bytes(PILImage.fromarray(part.pixels))).decode()
        url = {"url": f"data:image/png;base64,{png}"}
        content.append({"type": "image_url", "image_url": url})
    return content


def _version(reply: dict[str, Any]) -> str:
    return reply["model"] if isinstance(reply.get("model"), str) else UNKNOWN


def _words(reply: dict[str, Any], place: str) -> str:
    """Return the words of the first choice; an answer may be empty, but not absent."""
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{place}: the server sent no answer: {reply!r:.200}") from error
    if content is None:  # the model said nothing, or was kept from it
        return ""
    if not isinstance(content, str):
        raise ValueError(f"{place}: an answer is text, not {content!r:.80}")
    return content


def _told(error: HTTPError) -> str:
    return error.read(400).decode("utf-8", "replace").strip()


def _refuse(url: str, why: str, error: Exception) -> NoReturn:
    raise ValueError(f"{url}/chat/completions does not answer: {why}") from error
