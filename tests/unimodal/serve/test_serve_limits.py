"""What a server that is full, or stops, does: connections, waiting replies, memory, the end."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from api_server import CHAT, IMAGES, Served, serving

from unimodal.generation import Generation
from unimodal.model import Model
from unimodal.serve import command, connections
from unimodal.serve.connections import HttpServer
from unimodal.serve.keys import Keys
from unimodal.serve.limits import Limits
from unimodal.serve.server import Server

DRAW = {"prompt": "draw a red circle", "seed": 1}
HEAD = f"POST {IMAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def connected(served: Served) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", served.port))
    found.settimeout(10)
    return found


# --- connections --------------------------------------------------------------------------------


def test_silent_connections_make_way(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of more than there may be are closed; who asks something is answered."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    with serving(tiny_model) as found:
        silent = [connected(found) for _ in range(20)]
        assert found.ask(IMAGES, DRAW)[0] == 200
        assert silent[0].recv(1) == b"", "it was closed"
        silent[-1].sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert silent[-1].recv(100).startswith(b"HTTP/1.1 200")
        resting = [http.client.HTTPConnection("127.0.0.1", found.port) for _ in range(8)]
        for one in resting:
            one.request("GET", "/health")
            assert one.getresponse().read()
        assert found.ask(IMAGES, DRAW)[0] == 200, "who was answered makes way, too"


def test_too_many_requests_at_once_are_refused_as_openai_does(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    with serving(tiny_model) as found:
        asking = [connected(found) for _ in range(3)]
        for one in asking:
            one.sendall(f"{HEAD}Content-Length: 9\r\n\r\n".encode())
        while len(found.server._room._held) == 0 or found.server._room._held["127.0.0.1"] < 27:
            time.sleep(0.01)
        status, answer = found.ask(IMAGES, DRAW)
        assert status == 503 and answer["error"]["code"] == "overloaded"
        assert "3 requests" in answer["error"]["message"]
        for one in asking:
            one.close()
        while found.server._room._held:
            time.sleep(0.01)
        assert found.ask(IMAGES, DRAW)[0] == 200


@pytest.mark.parametrize("begun", [b"", b"GE", b"GET /health HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_ends_its_connection(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    with serving(tiny_model) as found:
        slow = connected(found)
        slow.sendall(begun)
        assert slow.recv(1) == b""
        again = http.client.HTTPConnection("127.0.0.1", found.port, timeout=10)
        for _ in range(2):
            again.request("GET", "/health")
            assert b"ok" in again.getresponse().read()
            time.sleep(0.5)  # it may rest for longer
        again.sock.sendall(begun or b"G")
        assert again.sock.recv(1) == b"", "the head of another request is awaited no longer"


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"G T /x\r\n\r\n"]
)
def test_what_is_no_request_is_refused_as_openai_does(tiny_model: Model, sent: bytes) -> None:
    with serving(tiny_model) as found:
        other = connected(found)
        other.sendall(sent + b"\r\n\r\n")
        answer = http.client.HTTPResponse(other)
        answer.begin()
        assert answer.status == 400 and answer.headers["Content-Type"] == "application/json"
        error = json.loads(answer.read())["error"]
        assert error["type"] == "invalid_request_error" and error["code"] == "invalid_http"
        assert "HTTP" in error["message"] and other.recv(1) == b""
        assert found.ask(IMAGES, DRAW)[0] == 200


def test_a_long_answer_is_not_cut(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    with serving(tiny_model) as found, slowed(monkeypatch, 0.02):
        assert found.ask(IMAGES, DRAW)[0] == 200


@contextmanager
def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Steps that take so many seconds more."""
    step: Callable[[Generation], Any] = Generation.step

    def slow(self: Generation) -> Any:
        time.sleep(seconds)
        return step(self)

    monkeypatch.setattr(Generation, "step", slow)
    yield
    monkeypatch.setattr(Generation, "step", step)


# --- waiting replies and memory -----------------------------------------------------------------


def test_more_replies_than_may_ever_wait_are_refused_for_good(tiny_model: Model) -> None:
    limits = {"batch": 1, "max_waiting": 6, "max_waiting_of_client": 4}
    with serving(tiny_model, **limits) as found:
        for more in ({"n": 7}, {"n": 5}, {"n": 3, "candidates": 2}):
            status, answer = found.ask(IMAGES, DRAW | more)
            assert status == 400 and answer["error"]["param"] == "n", answer
            number = more["n"] * more.get("candidates", 1)
            assert f"n x candidates is {number}: 4 replies" in answer["error"]["message"]
        assert found.ask(IMAGES, DRAW | {"n": 4})[0] == 200


def test_a_full_queue_says_so(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"batch": 1, "max_waiting": 6, "max_waiting_of_client": 4}
    keys = "1" * 16, "2" * 16
    with serving(tiny_model, *keys, **limits) as found, slowed(monkeypatch, 0.05):
        given = [{"Authorization": f"Bearer {key}"} for key in keys]
        asks = [threading.Thread(target=found.ask, args=(IMAGES, DRAW | {"n": 4}), kwargs=given[0])]
        asks[0].start()
        while found.server.loop.num_waiting < 3:
            time.sleep(0.001)
        status, answer = found.ask(IMAGES, DRAW | {"n": 2}, **given[0])
        assert status == 429 and answer["error"]["code"] == "too_many_waiting"
        status, answer = found.ask(IMAGES, DRAW | {"n": 4}, **given[1])
        assert status == 503 and answer["error"]["code"] == "queue_full"
        asks[0].join()


def test_a_refusal_of_memory_names_no_fields_that_are_not_here(tiny_model: Model) -> None:
    with serving(tiny_model, memory_bytes=5_000) as found:
        message = found.ask(IMAGES, DRAW)[1]["error"]["message"]
        assert "fewer images or less text, or draw without guidance" in message
        assert "max_" not in message


# --- the end ------------------------------------------------------------------------------------


@contextmanager
def stoppable(
    model: Model, monkeypatch: pytest.MonkeyPatch, **limits: int
) -> Iterator[tuple[Served, Callable[[], None]]]:
    """A server as `unimodal serve` runs it, and what stops it as SIGTERM does, but sooner."""
    for module, name in ((connections, "STOP_S"), (command, "STOP_S"), (command, "CLOSE_S")):
        monkeypatch.setattr(module, name, 1)
    server = Server(model, "tiny", Keys(()), Limits(**limits))
    running = HttpServer(command.configured(server), server.loop.end)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    found = Served(server, listening.getsockname()[1])
    assert found.get("/health")[0] == 200
    yield found, lambda: setattr(running, "should_exit", True)
    thread.join(10)
    assert not thread.is_alive() and not server.loop.is_alive


def test_a_servers_first_thread_leaves_all_cores_to_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(*_: object) -> Model:
        raise ValueError(f"loaded by {torch.get_num_threads()}")

    monkeypatch.setattr(command, "load_named", told)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="loaded by 1$"):
            command.run(None, "127.0.0.1", 0, None, None, False, False, None, None, "fp32")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_whoever_waits_when_a_server_stops_is_told(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In work and waiting, whole and as a stream."""
    answers: list[tuple[int, bytes]] = []
    talk = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200, "seed": 1}

    def ask(found: Served, body: dict[str, Any]) -> None:
        content, kind = json.dumps(body).encode(), "application/json"
        status, _, told = found.send("POST", CHAT, content, Content_Type=kind)
        answers.append((status, told))

    with stoppable(tiny_model, monkeypatch, batch=2) as (found, stop), slowed(monkeypatch, 0.2):
        asks = [threading.Thread(target=ask, args=(found, talk | {"stream": stream}))
                for stream in (True, False, False, False)]  # fmt: skip
        for one in asks:
            one.start()
            time.sleep(0.1)
        while found.server.loop.num_waiting < 2:
            time.sleep(0.01)
        stop()
        for one in asks:
            one.join(10)
    assert sorted(status for status, _ in answers) == [200, 503, 503, 503]
    for status, told in answers:
        said = told.decode().strip().rpartition("data: ")[2] if status == 200 else told.decode()
        assert json.loads(said)["error"]["code"] == "stopping", said
    assert not caplog.records


def test_a_body_that_still_comes_when_a_server_stops_is_awaited_no_longer(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with stoppable(tiny_model, monkeypatch) as (found, stop):
        slow = connected(found)
        slow.sendall(f"{HEAD}Content-Length: 900\r\n\r\n{{".encode())
        while not found.server._room._held:
            time.sleep(0.01)
        stop()
        answer = b"".join(iter(lambda: slow.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 503") and b'"code":"stopping"' in answer
    assert "Traceback" not in capfd.readouterr().err
