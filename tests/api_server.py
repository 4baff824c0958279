"""The real server on a port of this machine, and requests to it without a client library."""

import base64
import http.client
import io
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from unimodal.model import Model
from unimodal.serve.command import configured
from unimodal.serve.fetcher import Fetcher
from unimodal.serve.keys import Keys
from unimodal.serve.limits import Limits
from unimodal.serve.server import Server

IMAGES, EDITS, CHAT = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Served:
    """A server that runs."""

    server: Server
    port: int

    @property
    def url(self) -> str:
        """What clients call their base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def send(
        self, method: str, path: str, content: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """The status, head and body of an answer; `_` in a header's name stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, content, named)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def ask(self, path: str, body: Any, **headers: str) -> Answer:
        """The answer to a JSON request."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content_Type": "application/json"} | headers
        status, _, answer = self.send("POST", path, content, **given)
        return status, json.loads(answer)

    def form(self, path: str, fields: list[tuple[str, str | bytes]]) -> Answer:
        """The answer to a form; fields of bytes are files."""
        mark = uuid.uuid4().hex
        lines = b""
        for name, value in fields:
            file = '; filename="../../etc/a.png"' if isinstance(value, bytes) else ""
            lines += f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode()
            lines += b"\r\n" + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        lines += f"--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        status, _, answer = self.send("POST", path, lines, Content_Type=kind)
        return status, json.loads(answer)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """The status and body of what is at a path."""
        status, _, answer = self.send("GET", path, **headers)
        return status, answer.decode()

    def metric(self, name: str) -> int:
        """A number of /metrics."""
        lines = self.get("/metrics")[1].splitlines()
        return int(next(line for line in lines if line.startswith(f"unimodal_{name} ")).split()[1])

    def wait_for_rest(self, seconds: float = 10) -> None:
        """Wait until nothing is in work."""
        until = time.monotonic() + seconds
        while json.loads(self.get("/health")[1]) != {"status": "ok", "working": 0, "waiting": 0}:
            assert time.monotonic() < until, f"work is left after {seconds} s"
            time.sleep(0.01)


@contextmanager
def serving(
    model: Model,
    *keys: str,
    name: str = "tiny",
    fetcher: Fetcher | None = None,
    credentials: Any = None,
    **limits: int,
) -> Iterator[Served]:
    """Serve a model until the block ends."""
    server = Server(model, name, Keys(keys), Limits(**limits), False, fetcher, credentials)
    running, listening = uvicorn.Server(configured(server)), socket.create_server(("127.0.0.1", 0))
    words = {"sockets": [listening]}
    thread = threading.Thread(target=running.run, kwargs=words, daemon=True)
    thread.start()
    try:
        yield Served(server, listening.getsockname()[1])
    finally:
        running.should_exit = True
        thread.join(20)
        listening.close()
    assert not server.loop.is_alive, "the loop ends with its server"


def png(size: tuple[int, int] = (64, 64), seed: int = 0, **how: Any) -> bytes:
    """A PNG file of blocks of random colours."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    stream = io.BytesIO()
    small.resize(size, Image.Resampling.NEAREST).save(stream, **({"format": "PNG"} | how))
    return stream.getvalue()


def data_url(content: bytes) -> str:
    """A file as a data: URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def pixels(text: str) -> np.ndarray:
    """The pixels of an image in base64, or of a data: URL."""
    content = base64.b64decode(text.partition("base64,")[2] or text)
    return np.asarray(Image.open(io.BytesIO(content)))
