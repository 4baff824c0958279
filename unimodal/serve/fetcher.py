"""Fetch images by their addresses, for `unimodal serve --image-urls`.

1. http: and https: alone, without a user's name, at ports that web servers have.
2. `_Door` is the one way to the network. All addresses that a name resolves to are checked, and a
   checked one is dialled: no second look-up can give another (DNS rebinding). Every redirect goes
   through it again. TLS and the header Host still have the name.
3. Bytes are counted as they come, one time limit is over all of it, and nothing is decompressed.

A proxy of the environment is not used: it would dial for us, unchecked.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from ssl import SSLContext
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2

from .addresses import IPAddress, is_public
from .errors import ApiError
from .limits import Limits

PORTS = {"http": 80, "https": 443}
MIN_PORT = 1024  # of others: below it other services listen, which a request might confuse
MAX_LENGTH = 2048  # characters of a URL
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
CONNECT_S = 3  # after which the next address of a name is tried
PLAIN = re.compile(r"[!-\[\]-~]+")  # printable ASCII, without the backslash
HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")  # a name or an IPv4 address; an IPv6 address
HEADERS = (("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "unimodal"))
FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)

Resolve = Callable[[str, int], Sequence[str]]


class Unfetched(ValueError):
    """An image was not fetched; the message says why."""


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host; none where there is no such name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for a part of a name that is empty or too long
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True, eq=False)
class Fetcher:
    """A Fetcher fetches from where `is_allowed` says, within the limits."""

    limits: Limits
    is_allowed: Callable[[IPAddress], bool] = is_public
    resolve: Resolve = resolve
    tls: SSLContext | None = None
    """None: the certificates that the system trusts."""

    async def fetch(self, url: str, param: str) -> bytes:
        """Return what is at a URL; raise ApiError, naming the field `param`, where it is not
        fetched.
        """
        try:
            async with asyncio.timeout(self.limits.fetch_seconds):
                return await self._follow(url)
        except TimeoutError:
            reason = f"it did not come within {self.limits.fetch_seconds} seconds"
        except Unfetched as error:
            reason = str(error)
        except FAILURES:  # their words may tell of the network that the server stands in
            reason = "the connection failed or broke off"
        raise ApiError(
            400, f"the image at {url[:200]!r} was not fetched: {reason}", param, "invalid_image_url"
        )

    async def _follow(self, url: str) -> bytes:
        """Return what is at a URL, or where it redirects to."""
        at = _checked_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(at)
            if isinstance(answer, bytes):
                return answer
            at = _checked_url(answer, at.geturl())
        raise Unfetched(f"it redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: SplitResult) -> bytes | str:
        """Return the content of the answer, or the URL that it redirects to."""
        host, target = url.hostname or "", url.path or "/"
        target += f"?{url.query}" if url.query else ""
        address = httpcore2.URL(scheme=url.scheme, host=host, port=url.port, target=target)
        headers = [("Host", url.netloc), *HEADERS]
        door = _Door(self.is_allowed, self.resolve, self._threads)
        async with (
            httpcore2.AsyncConnectionPool(self._tls, network_backend=door) as pool,
            pool.stream("GET", address, headers=headers) as response,
        ):
            found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in found:
                return found[b"location"]
            if response.status != 200:
                raise Unfetched(f"the answer has status {response.status}")
            if found.get(b"content-encoding", "identity").lower() != "identity":
                raise Unfetched("the answer is compressed, which was not asked for")
            return await self._content(response)

    async def _content(self, response: httpcore2.Response) -> bytes:
        chunks, num_bytes = [], 0
        async for chunk in response.aiter_stream():
            num_bytes += len(chunk)
            if num_bytes > self.limits.max_fetched_bytes:
                raise Unfetched(f"{self.limits.max_fetched_bytes:,} bytes are the most")
            chunks.append(chunk)
        return b"".join(chunks)

    @cached_property
    def _tls(self) -> SSLContext:
        return self.tls or httpcore2.default_ssl_context()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Return threads for look-ups alone: slow ones hold up no other work of the server."""
        return ThreadPoolExecutor(8, "look-up")


def is_web_address(url: str) -> bool:
    """Return whether a URL is one that a Fetcher may be asked for."""
    return url.partition(":")[0].lower() in PORTS


def _checked_url(url: str, base: str = "") -> SplitResult:
    """Return the parts of a URL, which may be relative to a base; raise Unfetched for one that is
    none, or none of the web.
    """
    if len(url) > MAX_LENGTH or not PLAIN.fullmatch(url):
        raise Unfetched(f"a URL has at most {MAX_LENGTH:,} characters of ASCII, without spaces and"
                        " backslashes")  # fmt: skip
    try:
        parts = urlsplit(urljoin(base, url))
        port = parts.port
    except ValueError as error:
        raise Unfetched("it is no URL") from error
    if parts.scheme not in PORTS:
        raise Unfetched("only http: and https: are fetched")
    if "@" in parts.netloc:
        raise Unfetched("a URL with a user's name is not fetched")
    if not HOST.fullmatch(parts.hostname or ""):
        raise Unfetched("it names no host")
    if port is not None and port != PORTS[parts.scheme] and port < MIN_PORT:
        raise Unfetched(f"port {port}: the scheme's own, or one from {MIN_PORT:,}, is dialled")
    return parts


class _Door(httpcore2.AsyncNetworkBackend):
    """Dials the addresses that it has checked, and no names."""

    def __init__(
        self,
        is_allowed: Callable[[IPAddress], bool],
        resolve: Resolve,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._is_allowed, self._resolve, self._threads = is_allowed, resolve, threads
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers; raise Unfetched where one of them is
        not allowed, or the host has none: which of both is not told, for it would tell names within
        the server's network.
        """
        loop = asyncio.get_running_loop()
        texts = await loop.run_in_executor(self._threads, self._resolve, host, port)
        addresses = [ip_address(one) for one in texts]
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise Unfetched("its host has no address, or one that is not of the public Internet")
        for number, address in enumerate(addresses, start=1):
            try:
                return await self._network.connect_tcp(
                    str(address), port, CONNECT_S, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AssertionError("there is an address, which was dialled")
