"""A server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, or a company's.

In: questions. Out: its words. Images are sent inside the request, as PNG in `data:` URLs: the
server is never told an address or a path. Questions of a batch are sent at the same time.

Before the first question a probe asks for one token, so that a wrong address, key or model is told
at once; it also learns which version answers. A later answer of another version is an error: the
scores would be of nobody. Nothing that failed counts as an answer.
"""

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image as PILImage

from unimodal.document import Document, Text
from unimodal.transcript import png_bytes

from .answerer import UNKNOWN, Answerer, Question
from .endpoint import Endpoint

PROBE = "Say yes."


class Server(Answerer):
    """A model behind a server."""

    kind = "server"

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        """Ask the probe; ValueError where the server does not answer it."""
        self._endpoint, self._name = endpoint, model
        reply = self._complete([{"type": "text", "text": PROBE}], 1)
        self._version = version_of(reply)
        self._fingerprint = reply.get("system_fingerprint")

    def identity(self) -> dict[str, str]:
        """Return the name that was asked for, and the version that the server says."""
        said = f"{self._version}, {self._fingerprint}" if self._fingerprint else self._version
        return {"model": self._name, "revision": said, "hash": UNKNOWN}

    def settings(self) -> dict[str, Any]:
        """Return its identity and address."""
        return {**super().settings(), "server": self._endpoint.url}

    def answers(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """Return the answers, all asked at the same time."""
        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(lambda question: self._answer(question, max_tokens), questions))

    def _answer(self, question: Question, max_tokens: int) -> str:
        reply = self._complete(content_of(question.document), max_tokens)
        if (version := version_of(reply)) != self._version:
            raise ValueError(
                f"{question.id}: {self._endpoint.url} answers as {version} now, and answered as "
                f"{self._version} before: these are two models; begin again"
            )
        return _words(reply, f"{self._endpoint.url}, {question.id}")

    def _complete(self, content: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        message = {"role": "user", "content": content}
        body = {"model": self._name, "messages": [message], "modalities": ["text"]}
        return self._endpoint.post(
            "chat/completions", body | {"temperature": 0, "max_tokens": max_tokens}
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


def version_of(reply: dict[str, Any]) -> str:
    """Return which version of a model a reply says it is of."""
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
