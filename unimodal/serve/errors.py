"""Errors as OpenAI's servers send them: {"error": {"message", "type", "param", "code"}}.

What a client is told never holds an object's address, a path of this machine or a traceback
(CVE-2026-22778): messages are our own words, and `plain` takes out what a library put in.
"""

import re
from typing import Any

OBJECT = re.compile(r"<[^<>]*\bat 0x[0-9a-fA-F]+[^<>]*>")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
FILE = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+[\w.+-]+")  # a path of this machine
MOST = 1000  # characters of a message: a request is not sent back in an error
KINDS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 500: "server_error", 503: "server_error",
}  # fmt: skip


class ApiError(Exception):
    """An ApiError is a refusal that a client is told of, with the way out."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """status: of HTTP. param: the field of the request that is wrong. retry_after_s: when
        another try may succeed.
        """
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        kind = KINDS.get(self.status, "invalid_request_error")
        message = plain(_spelled(str(self)))
        param = None if self.param is None else _spelled(self.param)
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}


def _spelled(words: str) -> str:
    """Return words with lone surrogates, which UTF-8 cannot have, as escapes."""
    return words.encode("utf-8", "backslashreplace").decode("utf-8")


def client_left() -> ApiError:
    """Return what ends the work for a client that has gone; nobody hears it."""
    return ApiError(499, "the client has left", code="left")


def failed() -> ApiError:
    """Return what a client is told of an error of ours, whose traceback is in the log."""
    return ApiError(500, "the server failed at this request; its log says why", code="failed")


def stopping() -> ApiError:
    """Return what is told of a request that does not end before the server does."""
    return ApiError(503, "the server is stopping: try again later", code="stopping",
                    retry_after_s=5)  # fmt: skip


def plain(message: str) -> str:
    """Return a message without objects' addresses, paths of this machine and a long tail."""
    message = ADDRESS.sub("...", OBJECT.sub("an object", message))
    message = FILE.sub("a file", message)
    return message if len(message) <= MOST else f"{message[:MOST]}..."
