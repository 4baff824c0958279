"""`unimodal serve` answers over HTTP until it is stopped."""

import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import DEFAULT, directory_of
from ..model import Weights
from ..terminal import load_named
from ..threads import one_thread
from .keys import VARIABLE, Keys, read_keys
from .limits import IDLE_S, MAX_CONNECTIONS, STOP_S, Limits

if TYPE_CHECKING:
    import uvicorn

    from .credentials import ContentCredentials
    from .server import Server

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CLOSE_S = 3  # for the last answers, once replies go on no more


def run(
    model: Path | None,
    host: str,
    port: int,
    name: str | None,
    keys: Path | None,
    is_open: bool,
    image_urls: bool,
    c2pa_certificate: Path | None,
    c2pa_key: Path | None,
    weights: Weights,
    device: str | None = None,
    dtype: str | None = None,
    **limits: int | None,
) -> None:
    """Load a model and serve it; raise ValueError for everything that the user can fix.

    weights, device, dtype: as for terminal.load_named. is_open: whether others than this machine
    are served without API keys. image_urls: whether images are fetched by their addresses.
    c2pa_certificate, c2pa_key: what images are signed with. limits: those of Limits; None leaves
    one as it is.
    """
    try:
        import fastapi
        import httpcore2
        import python_multipart
        import uvicorn
    except ImportError as error:
        raise ValueError(
            f"a server needs {error.name}: pip install 'unimodal[serve]', or make install"
        ) from error
    assert fastapi and httpcore2 and python_multipart and uvicorn, "they are there"
    from .connections import HttpServer
    from .fetcher import Fetcher
    from .server import Server

    known = read_keys(keys)
    _check_host(host, known, is_open)
    bounds = Limits(**{one: value for one, value in limits.items() if value is not None})
    credentials = _credentials(c2pa_certificate, c2pa_key)
    fetcher = Fetcher(bounds) if image_urls else None
    listening = _listening(host, port)
    with one_thread():  # OpenMP's threads are the serving loop's alone (threads.py)
        loaded = load_named(model, device, weights, dtype)
    server = Server(loaded, name or name_of(model), known, bounds, is_open, fetcher, credentials)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    shown = f"[{host}]" if ":" in host else host
    root = f"http://{shown}:{listening.getsockname()[1]}/"
    print(f"serving {root}v1; the page is {root}; Ctrl-C stops it", flush=True)
    HttpServer(configured(server), server.loop.end).run(sockets=[listening])


def configured(server: "Server") -> "uvicorn.Config":
    """Return how uvicorn runs a server's application."""
    import uvicorn

    from .app import application
    from .connections import Connection

    return uvicorn.Config(
        application(server), log_level="warning", server_header=False, proxy_headers=False,
        http=Connection, ws="none", timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_S + CLOSE_S,
    )  # fmt: skip


def _credentials(certificate: Path | None, key: Path | None) -> "ContentCredentials | None":
    """Return what signs images; raise ValueError where a file or the library is missing."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("images are signed with both --c2pa-certificate and --c2pa-key")
    try:
        from .credentials import ContentCredentials
    except ImportError as error:
        raise ValueError(
            f"to sign images needs {error.name}: pip install 'unimodal[c2pa]'"
        ) from error
    return ContentCredentials(certificate, key)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise ValueError where that cannot be. Port 0 is a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise ValueError(f"{host}, port {port}: {reason}; name another by --port") from error


def _check_host(host: str, keys: Keys, is_open: bool) -> None:
    """Raise ValueError where others than this machine would be served without keys unasked."""
    if host not in LOOPBACK and not keys and not is_open:
        raise ValueError(
            f"--host {host} answers other machines: give API keys by --keys FILE or {VARIABLE}, or"
            " say --open to answer whoever asks"
        )


def name_of(model: Path | None) -> str:
    """Return what clients call a model: its folder's name, of a run's `bundle` the run's."""
    directory = directory_of(model)
    if directory == DEFAULT:
        return "unimodal"
    whole = directory.resolve()
    return whole.parent.name if whole.name == "bundle" else whole.name
