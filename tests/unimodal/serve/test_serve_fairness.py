"""Who is served next, who may ask, how often and how much; and what errors never tell."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unimodal.document import Document, Image, Text
from unimodal.serve.body import Room
from unimodal.serve.command import name_of, run
from unimodal.serve.drawn import DrawnImages
from unimodal.serve.errors import ApiError, plain
from unimodal.serve.keys import Keys, read_keys
from unimodal.serve.limits import Limits
from unimodal.serve.metrics import Metrics
from unimodal.serve.queue import FairQueue
from unimodal.serve.rates import Rates
from unimodal.tokenizer.grid import Grid

ROOT = Path(__file__).resolve().parents[3]


def test_clients_take_turns_and_their_users_too() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.put(f"a{number}", ("a", "ann"))
    for job, path in (("b0", ("b", "")), ("a4", ("a", "ben")), ("b1", ("b", "")), ("c", ("c", ""))):
        queue.put(job, path)
    assert len(queue) == 8
    assert queue.remove("a1", ("a", "ann")) and not queue.remove("a1", ("a", "ann"))
    assert not queue.remove("c", ("d", "")) and queue.remove("c", ("c", ""))
    order = [queue.pop() for _ in range(len(queue))]
    assert order == ["a0", "b0", "a4", "b1", "a2", "a3"]
    with pytest.raises(IndexError):
        queue.pop()


def test_a_queue_is_fair_whatever_comes() -> None:
    """Of clients that always wait, none is served twice more than another; each user keeps its
    order.
    """
    random, queue = np.random.default_rng(0), FairQueue[tuple[str, str, int]]()
    sent: Counter[str] = Counter()
    for client in "aaaaaaabbbbbcccc" * 20:
        user = client + str(random.integers(3))
        queue.put((client, user, sent[user]), (client, user))
        sent.update((client, user))
    served: Counter[str] = Counter()
    while len(served) < 3 or min(sent[one] - served[one] for one in "abc"):
        client, user, number = queue.pop()
        assert number == served[user]
        served.update((client, user))
        assert max(served.values()) - min(served[one] for one in "abc") <= 1


def test_no_client_holds_all_room_of_bodies() -> None:
    room = Room(1000)

    def refused(num_bytes: int, client: str) -> int:
        with pytest.raises(ApiError) as error, room.taken(num_bytes, client):
            pass
        return error.value.status

    with room.taken(400, "a"), room.taken(100, "a"):
        assert refused(1, "a") == 429, "it has its half"
        with room.taken(400, "b"):
            assert refused(101, "c") == 503, "there is no more"
            with room.taken(100, "c"):
                assert refused(1, "b") == 503
    for client in "ab":
        with room.taken(1000, client):
            assert refused(1, "c") == 503, "a single one may be larger"


def test_rates_fill_up_again() -> None:
    now = 0.0
    rates = Rates(60, clock=lambda: now)
    assert [rates.wait_s("a") for _ in range(7)] == [0] * 6 + [1]
    assert rates.wait_s("b") == 0, "others have their own"
    now = 1.0
    assert [rates.wait_s("a"), rates.wait_s("a")] == [0, 1]
    now = 1000.0
    assert [rates.wait_s("a") for _ in range(7)] == [0] * 6 + [1], "no more than at first"


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the lab\n\nfirst-key-of-the-file  # ann\nsecond-key-of-the-file\n")
    monkeypatch.setenv("UNIMODAL_API_KEYS", "key-of-environment, another-of-environment")
    keys = read_keys(file)
    names = [keys.client(key) for key in ("key-of-environment", "another-of-environment",
                                          "first-key-of-the-file", "# of the lab", "")]  # fmt: skip
    assert names == ["key 1", "key 2", "key 3", None, None]
    monkeypatch.delenv("UNIMODAL_API_KEYS")
    assert not read_keys(None)
    for wrong, said in ((["short"], "API key 1 has 5 characters"), (["x" * 20] * 2, "twice"),
                        (["y" * 20, "a key with spaces in it"], "API key 2")):  # fmt: skip
        with pytest.raises(ValueError, match=said) as error:
            Keys(wrong)
        assert not any(key in str(error.value) for key in wrong), "a log tells no key"
    file.write_text("# none\n")
    with pytest.raises(ValueError, match="holds no API key"):
        read_keys(file)


def test_all_limits_that_are_wrong_are_named() -> None:
    with pytest.raises(ValueError, match="batch 0: .*; max_n '3': .*at least 1"):
        Limits(batch=0, max_n="3")  # type: ignore[arg-type]
    assert Limits(prefixes=0, known_images=0).problems() == []


def test_errors_tell_no_address_and_no_path() -> None:
    told = "cannot identify <_io.BytesIO object at 0x7f12ab34cd56> of /srv/app/a.py, 0x7f12ab34cd"
    assert plain(told) == "cannot identify an object of a file, ..."
    assert plain("16/24 of http://a.b/c/d and 3 / 4") == "16/24 of http://a.b/c/d and 3 / 4"
    assert len(plain("a" * 10**6)) < 1010


def test_metrics_are_what_prometheus_reads() -> None:
    metrics = Metrics()
    for seconds, status in ((0.02, 200), (0.5, 200), (200.0, 429)):
        metrics.add("/v1/models", status, seconds)
    text = metrics.text({"images_total": ("Images.", 3)}, {"replies_waiting": ("Waiting.", 1)})
    lines = text.splitlines()
    assert 'unimodal_requests_total{route="/v1/models",status="200"} 2' in lines
    assert 'unimodal_request_seconds_bucket{le="0.03"} 1' in lines
    assert 'unimodal_request_seconds_bucket{le="100"} 2' in lines
    assert 'unimodal_request_seconds_bucket{le="+Inf"} 3' in lines
    assert {"unimodal_images_total 3", "unimodal_replies_waiting 1"} <= set(lines)
    kinds = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    named = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            for name in named} == kinds  # fmt: skip


def test_a_drawn_image_is_known_by_its_pixels() -> None:
    drawn = DrawnImages(2)
    images = [
        Image(np.full((8, 8, 3), n, np.uint8), np.full((1, 1), n), grid=Grid(1, 1), codec_hash="h")
        for n in range(3)
    ]
    for image in images:
        drawn.add(image)
    fresh = [Image(image.pixels, role="assistant") for image in images]
    mine = Image(images[2].pixels, role="user")
    restored = drawn.restored(Document((*fresh, mine, Text("a")))).parts
    assert [None if one.codes is None else one.codes.item() for one in restored[:4]] == [
        None, 1, 2, None
    ], "the oldest is forgotten, and what a user shows is encoded"  # fmt: skip


def test_what_cannot_be_served_is_refused_before_it_begins(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("UNIMODAL_API_KEYS", raising=False)
    usual = {"model": None, "port": 0, "name": None, "keys": None, "is_open": False,
             "image_urls": False, "c2pa_certificate": None, "c2pa_key": None,
             "weights": "fp32"}  # fmt: skip
    with pytest.raises(ValueError, match="--host 0.0.0.0 answers other machines: give API keys"):
        run(host="0.0.0.0", **usual)
    with pytest.raises(ValueError, match="limits: batch 0"):
        run(host="127.0.0.1", **usual, batch=0)
    with pytest.raises(ValueError, match="both --c2pa-certificate and --c2pa-key"):
        run(host="127.0.0.1", **usual | {"c2pa_key": tmp_path / "a.key"})
    assert name_of(None) == name_of(Path("default")) == "unimodal"
    assert name_of(tmp_path / "mine" / "bundle") == "mine"


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = subprocess.Popen(
        [sys.executable, "-m", "unimodal", "serve", "--port", "0", "--name", "mine"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert command.stdout is not None
    line = command.stdout.readline()
    url = line.split()[1].removesuffix(";")
    assert line.startswith("serving http://127.0.0.1:") and url.endswith("/v1")
    with urllib.request.urlopen(f"{url}/models", timeout=30) as answer:
        assert b'"id":"mine"' in answer.read()
    taken = url.split(":")[2].removesuffix("/v1")
    with pytest.raises(ValueError, match=f"port {taken}: Address already in use; name another"):
        run(None, "127.0.0.1", int(taken), None, None, False, False, None, None, "fp32")
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert "Traceback" not in said, said
