"""Two replicas under Ray Serve on this machine, started as configs/ray.yml says."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from api_server import IMAGES, Served

from unimodal.bundle import save_bundle
from unimodal.model import Model

ROOT = Path(__file__).resolve().parents[3]
KEYS = [f"a-key-of-client-{number:02}" for number in range(13)]  # odd: no two equal totals
DRAW = {"prompt": "draw a red circle", "seed": 1}
START_S = 120


@pytest.fixture(scope="module")
def whole(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What answers for two replicas of the tiny model."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    folder = tmp_path_factory.mktemp("ray")
    (folder / "keys.txt").write_text("\n".join(KEYS))
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    config = yaml.safe_load((ROOT / "configs/ray.yml").read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"] |= {
        "model": str(save_bundle(folder / "tiny", tiny_model)), "keys": str(folder / "keys.txt"),
    }  # fmt: skip
    (folder / "ray.yml").write_text(yaml.safe_dump(config))
    more = {"RAY_SERVE_SESSION_ID_HEADER_KEY": "authorization", "RAY_USAGE_STATS_ENABLED": "0"}
    log = (folder / "log").open("w")
    driver = subprocess.Popen(
        [sys.executable, "-m", "ray.serve.scripts", "run", folder / "ray.yml"], cwd=ROOT,
        env=os.environ | more, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        found = Served(None, port)  # type: ignore[arg-type]
        wait_for(found, driver, folder / "log")
        yield found
    finally:
        driver.send_signal(signal.SIGINT)
        driver.wait(60)
        log.close()


def wait_for(served: Served, driver: subprocess.Popen, log: Path) -> None:
    """Wait until requests go to both replicas, which the log of Ray's router tells."""
    until = time.monotonic() + START_S
    while not re.search("ring for .* 2 replicas", log.read_text()):
        assert driver.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.3)
    assert json.loads(served.get("/health")[1])["status"] == "ok"


def num_drawn(served: Served, key: str) -> int:
    """How many images the replica of a key has drawn."""
    lines = served.get("/metrics", Authorization=f"Bearer {key}")[1].splitlines()
    return int(next(line for line in lines if line.startswith("unimodal_images_total ")).split()[1])


def test_limits_that_there_are_not_are_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from unimodal.serve.replicas import Given, replicas

    (tmp_path / "keys.txt").write_text("\n".join(KEYS))
    for wrong, said in (({"batches": 2}, "batches"), ({"batch": 0}, "batch 0: a whole number")):
        with pytest.raises(ValueError, match=said):
            replicas(Given(keys=tmp_path / "keys.txt", limits=wrong))


@pytest.mark.slow
def test_clients_stay_with_their_replicas_which_draw_the_same(whole: Served) -> None:
    drawn = []
    for key in KEYS * 3:
        before = num_drawn(whole, key)
        status, answer = whole.ask(IMAGES, DRAW, Authorization=f"Bearer {key}")
        assert status == 200, answer
        drawn.append(answer["data"])
        assert num_drawn(whole, key) == before + 1, "counted where it is asked for: one replica"
    assert drawn == drawn[:1] * len(drawn)
    totals = {num_drawn(whole, key) for key in KEYS}
    assert len(totals) == 2 and sum(totals) == len(drawn), "both replicas work"


@pytest.mark.slow
def test_streams_and_refusals_are_those_of_a_server(whole: Served) -> None:
    body = json.dumps(DRAW | {"stream": True, "partial_images": 1}).encode()
    bearer = {"Authorization": f"Bearer {KEYS[0]}", "Content_Type": "application/json"}
    _, head, events = whole.send("POST", IMAGES, body, **bearer)
    assert head["content-type"].startswith("text/event-stream")
    assert events.count(b"event: image_generation.") == 2
    assert whole.ask(IMAGES, DRAW)[1]["error"]["code"] == "invalid_api_key"
    status, answer = whole.ask(IMAGES, DRAW | {"sead": 1}, Authorization=f"Bearer {KEYS[0]}")
    assert status == 400 and answer["error"]["param"] == "sead"
