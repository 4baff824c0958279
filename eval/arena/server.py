"""The arena over HTTP, for browsers on this machine.

In: requests. Out: the page, the two images of the pair that is due, and votes into the file.

- It listens on the loopback address alone, and answers no other host's name (no page elsewhere can
  point its own name at it) and no form of another origin.
- A path names a number and a side; the file is looked up among the pairs and no part of a path
  reaches the disk. Images are decoded and written anew: bytes of a file that tell who drew it, such
  as a PNG's texts, are not sent.
- A voter's id is a cookie that no script can read.
"""

import re
import sys
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from unimodal.tokenizer.pixels import ImageError, open_image
from unimodal.transcript import png_bytes

from .arena import Arena
from .page import POLICY, page
from .votes import CHOICES

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
COOKIE = "voter"
IMAGE = re.compile(r"/image/(\d{1,9})/(left|right)", re.ASCII)
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
MOST_BYTES = 1000  # of a vote
TIMEOUT_S = 30  # of a browser that begins a request and says no more
FORM, HTML, PNG, PLAIN = (
    "application/x-www-form-urlencoded", "text/html; charset=utf-8", "image/png",
    "text/plain; charset=utf-8",
)  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves one arena; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, arena: Arena, port: int) -> None:
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise ValueError(f"port {port}: {error.strerror}; name another by --port") from error
        self.arena = arena

    @property
    def url(self) -> str:
        """Return where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a browser go that has gone; tell of anything else."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one browser."""

    server: Server
    timeout = TIMEOUT_S
    server_version, sys_version = "unimodal", ""

    def do_GET(self) -> None:
        """Send the page, or an image of the pair that is due."""
        if not self._is_ours():
            return
        if self.path == "/":
            voter = self._voter()
            new = None if voter else self.server.arena.new_voter()
            due = self.server.arena.due(voter or new or "")
            self._send(HTTPStatus.OK, HTML, page(due).encode(), new)
        elif found := IMAGE.fullmatch(self.path):
            self._send_image(int(found[1]), found[2])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Take a vote, and show the next pair."""
        if not self._is_ours():
            return
        voter = self._voter()
        if self.path != "/vote":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        elif voter is None:
            self._refuse(HTTPStatus.FORBIDDEN, "votes need the page's cookie: open the page again")
        elif (said := self._form()) is None:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no vote")
        else:
            self._keep(voter, *said)

    def _keep(self, voter: str, number: int, choice: str) -> None:
        """Keep a vote and lead to the next pair; a second vote on a pair leads there too."""
        try:
            self.server.arena.vote(voter, number, choice)
        except OSError:  # a full disk; the words of the error name the file
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the vote could not be kept")
            return
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for the address and the scores."""

    def _is_ours(self) -> bool:
        """Refuse requests that were not meant for this address, or come from another's page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        name = host.rpartition(":")[0] or host
        if name in NAMES and origin in (None, f"http://{host}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "open the address that the terminal shows")
        return False

    def _voter(self) -> str | None:
        """Return the voter's id; None where the browser has none that was given here."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return None
        known = cookie is not None and self.server.arena.knows(cookie.value)
        return cookie.value if cookie is not None and known else None

    def _form(self) -> tuple[int, str] | None:
        """Return the number and the choice of a vote; None for anything else."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != FORM or not NUMBER.fullmatch(length):
            return None
        if int(length) > MOST_BYTES:
            return None
        try:
            fields = parse_qs(self.rfile.read(int(length)).decode("ascii"), max_num_fields=2)
        except ValueError:
            return None
        number, choice = (fields.get(name, [""])[0] for name in ("number", "choice"))
        is_vote = NUMBER.fullmatch(number) and choice in CHOICES
        return (int(number), choice) if is_vote else None

    def _send_image(self, number: int, side: str) -> None:
        voter = self._voter()
        due = None if voter is None else self.server.arena.due(voter)
        if due is None or due.number != number:
            self._refuse(HTTPStatus.NOT_FOUND, "this image is not due")
            return
        try:
            content = png_bytes(open_image(due.file(side)).image)
        except ImageError:  # it was there when the arena began; its path stays here
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the image can no longer be read")
            return
        self._send(HTTPStatus.OK, PNG, content)

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self.close_connection = True  # a body that was not read is no next request
        self._send(status, PLAIN, f"{words}\n".encode())

    def _send(
        self, status: HTTPStatus, kind: str, content: bytes, voter: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        # With no-referrer browsers would send forms of this very page with `Origin: null`.
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        if voter is not None:
            self.send_header(
                "Set-Cookie",
                f"{COOKIE}={voter}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Strict",
            )
        self.end_headers()
        self.wfile.write(content)
