"""A server of this machine that speaks OpenAI's protocol, chat and images, for tests."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str | None]
MODEL = "seer-2"


@dataclass
class ChatServer:
    """What a server of tests does, and what it was asked."""

    answer: Answer
    """From the body of a request to the words of its answer."""
    model: str = MODEL
    failures: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Replies (status, head, content) that are sent first, one a request."""
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """Path, head and body of each."""
    url: str = ""

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of all requests."""
        return [body for _, _, body in self.requests]


@contextmanager
def served(answer: Answer) -> Iterator[ChatServer]:
    """Run a server on a port of this machine until the block ends."""
    state, lock = ChatServer(answer), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append((self.path, dict(self.headers), body))
                failure = state.failures.pop(0) if state.failures else None
            answered = image if self.path.endswith("/images/generations") else completion
            self.reply(*failure) if failure else self.reply(200, {}, answered(state, body))

        def do_GET(self) -> None:
            with lock:
                state.requests.append((self.path, dict(self.headers), {}))
            self.reply(404, {}, b"")

        def reply(self, status: int, head: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **head}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def image(state: ChatServer, body: dict[str, Any]) -> bytes:
    """The answer to a request for an image, whose base64 is what `answer` says."""
    return json.dumps({"created": 1, "data": [{"b64_json": state.answer(body)}]}).encode()


def completion(state: ChatServer, body: dict[str, Any]) -> bytes:
    """The answer to a request in OpenAI's shape."""
    message = {"role": "assistant", "content": state.answer(body)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": state.model,
        "choices": [choice], "system_fingerprint": "fp_9",
    }  # fmt: skip
    return json.dumps(whole).encode()
