"""Images by their addresses: what may be reached, and that nothing else is dialled."""

import asyncio
import ipaddress
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from api_server import CHAT, EDITS, Served, data_url, png, serving

from unimodal.model import Model
from unimodal.serve.addresses import IPAddress, is_public
from unimodal.serve.errors import ApiError
from unimodal.serve.fetcher import Fetcher
from unimodal.serve.limits import Limits

HERE = ip_address("127.0.0.1")
KEYS = {"message", "type", "param", "code"}


class Site:
    """A web server of a test: answers by path, and what it was asked."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], Sequence[bytes], float]] = {}
        self.asked: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(
                    {"path": self.path} | {k.lower(): v for k, v in self.headers.items()}
                )
                status, head, chunks, pause_s = site.answers[self.path]
                self.send_response(status)
                for name, value in head.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for chunk in chunks:
                        self.wfile.write(chunk)
                        self.wfile.flush()
                        time.sleep(pause_s)
                except OSError:  # the client has left
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def put(
        self, path: str, *chunks: bytes, status: int = 200, pause_s: float = 0, **head: str
    ) -> str:
        """Answer at a path with chunks; `_` in a header's name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in head.items()}
        self.answers[path] = status, named, chunks, pause_s
        return f"http://pictures.test:{self.port}{path}"

    def redirect(self, path: str, to: str, status: int = 302) -> str:
        """Answer at a path with a redirect."""
        return self.put(path, status=status, Location=to)

    def close(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Names:
    """A resolver of a test: names have addresses, the last of several look-ups' stays."""

    def __init__(self, **addresses: list[list[str]]) -> None:
        self.addresses = addresses
        self.num_asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.num_asked += 1
        try:
            return [str(ip_address(host))]
        except ValueError:
            given = self.addresses.get(host.partition(".")[0], [[]])
            return given.pop(0) if len(given) > 1 else given[0]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.close()


def only_here(address: IPAddress) -> bool:
    """The seam of these tests: 127.0.0.1, and no other address that is not public."""
    return address == HERE or is_public(address)


def fetcher(*looked_up: list[str], **limits: int) -> Fetcher:
    """A fetcher to which `pictures.test` has these addresses, one look-up after the other."""
    names = Names(pictures=[*looked_up] or [["127.0.0.1"]])
    return Fetcher(Limits(**limits), only_here, names)


def fetched(one: Fetcher, url: str) -> bytes:
    return asyncio.run(one.fetch(url, "image"))


def refused(one: Fetcher, url: str) -> str:
    """The words of the refusal."""
    with pytest.raises(ApiError) as error:
        fetched(one, url)
    assert (error.value.status, error.value.param) == (400, "image")
    assert error.value.code == "invalid_image_url"
    return str(error.value)


def test_an_image_is_fetched_with_its_hosts_name_and_nothing_of_ours(site: Site) -> None:
    url = site.put("/a.png?b=1&c", png())
    assert fetched(fetcher(), f"{url}#part") == png()
    asked = site.asked[-1]
    assert asked["path"] == "/a.png?b=1&c" and asked["host"] == f"pictures.test:{site.port}"
    assert asked.keys() == {"path", "host", "accept", "accept-encoding", "user-agent"}


def test_nothing_local_is_reached_without_the_seam(site: Site) -> None:
    site.put("/secret", b"secret")
    before = len(site.asked)
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
                 "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "LOCALHOST.",
                 "[64:ff9b::7f00:1]", "[2002:7f00:1::]"):  # fmt: skip
        said = refused(Fetcher(Limits()), f"http://{host}:{site.port}/secret")
        assert "not of the public Internet" in said, host
    assert len(site.asked) == before, "nothing was dialled"


def test_one_internal_address_among_public_ones_refuses_the_name(site: Site) -> None:
    for mixed in (["8.8.8.8", "10.0.0.1"], ["127.0.0.1", "fd00::1"], ["169.254.169.254"], []):
        said = refused(fetcher(mixed), site.put("/a", b"a"))
        assert "not of the public Internet" in said
        assert not any(one in said for one in mixed), "which one is not told"


def test_the_checked_address_is_dialled_whatever_the_name_is_next() -> None:
    good = Site()
    bad = Site("127.0.0.2", good.port)
    try:
        url = good.put("/a", b"good")
        bad.put("/a", b"bad")
        one = fetcher(["127.0.0.1"], ["127.0.0.2"])
        assert fetched(one, url) == b"good" and one.resolve.num_asked == 1  # type: ignore[attr-defined]
        assert "not of the public" in refused(one, url) and not bad.asked
        again = fetcher(["127.0.0.1"], ["127.0.0.2"])
        before = len(good.asked)
        assert "not of the public" in refused(again, good.redirect("/again", "/a"))
        assert len(good.asked) == before + 1 and not bad.asked, "a redirect is looked up anew"
    finally:
        good.close()
        bad.close()


def test_the_next_address_is_tried_where_one_does_not_answer(site: Site) -> None:
    def allowed(address: IPAddress) -> bool:
        return address in ipaddress.ip_network("127.0.0.0/8")

    one = Fetcher(Limits(), allowed, Names(pictures=[["127.0.0.3", "127.0.0.1"]]))
    assert fetched(one, site.put("/b", b"found")) == b"found"
    none = Fetcher(Limits(), allowed, Names(pictures=[["127.0.0.3"]]))
    assert "connection failed" in refused(none, site.put("/b", b"found"))


def test_redirects_are_followed_three_times_and_checked(site: Site) -> None:
    last = site.put("/3", b"found")
    site.redirect("/2", "3", 307)
    site.redirect("/1", f"//pictures.test:{site.port}/2", 308)
    three = site.redirect("/0", last.replace("/3", "/1"), 301)
    assert fetched(fetcher(), three) == b"found"
    four = site.redirect("/-1", "/0", 303)
    assert "more than 3 times" in refused(fetcher(), four)
    for to, words in (
        ("http://169.254.169.254/latest/meta-data", "public Internet"),
        (f"http://[::1]:{site.port}/3", "public Internet"),
        (f"http://127.0.0.2:{site.port}/3", "public Internet"),
        ("http://2852039166/", "public Internet"),
        ("file:///etc/passwd", "only http: and https:"), ("ftp://pictures.test/a", "only http:"),
        ("data:image/png;base64,AAAA", "only http:"), ("http://ann:b@pictures.test/", "user's"),
        ("http://pictures.test:25/", "port 25"), ("http://[::1/", "no URL"), ("/\xe9", "ASCII"),
    ):  # fmt: skip
        names = Names(pictures=[["127.0.0.1"]])
        names.addresses["2852039166"] = [["169.254.169.254"]]  # as inet_aton(3) reads it
        found = refused(Fetcher(Limits(), only_here, names), site.redirect("/to", to))
        assert words in found, (to, found)


def test_urls_that_are_none(site: Site) -> None:
    for url, words in (
        ("http://ann:secret@pictures.test/", "user's name"), ("http://@pictures.test/", "user's"),
        ("http://pictures.test:22/", "port 22"), ("https://pictures.test:80/", "port 80"),
        ("http://pictures.test:99999/", "no URL"), ("http://", "no host"), ("http:a", "no host"),
        ("http://a b/", "ASCII"), ("http://pictures.test\\@evil.test/", "ASCII"),
        ("http://pictures.test/\r\nHost: evil", "ASCII"), ("http://b\xfccher.test/", "ASCII"),
        ("http://[fe80::1%25eth0]/", "no "), ("http://a..test/", "no address"),
        (f"http://pictures.test/{'a' * 2048}", "2,048"), ("ftp://pictures.test/a", "only http"),
        ("http://nowhere.test/", "no address"), ("http://%31%32%37.0.0.1/", "no host"),
    ):  # fmt: skip
        found = refused(Fetcher(Limits(), only_here, Names(pictures=[["127.0.0.1"]])), url)
        assert words in found, (url, found)


def test_too_large_too_slow_cut_or_no_answer(site: Site) -> None:
    one = fetcher(max_fetched_bytes=1000, fetch_seconds=1)
    assert fetched(one, site.put("/large", bytes(1000))) == bytes(1000)
    said_or_not = site.put("/large", bytes(1001)), site.put("/said", b"a", Content_Length="1001")
    assert "1,000 bytes are the most" in refused(one, said_or_not[0])
    assert "broke off" in refused(one, said_or_not[1]), "it was cut"
    endless = site.put("/endless", *[bytes(600)] * 100, pause_s=0.05)
    start = time.monotonic()
    assert "1,000 bytes are the most" in refused(one, endless)
    assert time.monotonic() - start < 0.9, "it is not read to its end"
    slow = site.put("/slow", *[b"a"] * 30, pause_s=0.1)
    start = time.monotonic()
    assert "within 1 seconds" in refused(one, slow)
    assert time.monotonic() - start < 2, "the limit is over all, though each byte came in time"
    assert "status 404" in refused(one, site.put("/none", status=404))
    assert "status 206" in refused(one, site.put("/part", b"a", status=206))
    assert "compressed" in refused(one, site.put("/gzip", b"a", Content_Encoding="gzip"))
    assert "broke off" in refused(one, site.put("/head", b"a", A="b" * 150_000))
    assert "status 302" in refused(one, site.put("/nowhere", status=302))


def test_a_slow_look_up_ends_in_time() -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(1.5)
        return []

    start = time.monotonic()

    async def ask() -> float:
        with pytest.raises(ApiError, match="within 1 seconds"):
            await Fetcher(Limits(fetch_seconds=1), only_here, slow).fetch("http://a.test/", "image")
        return time.monotonic() - start

    assert asyncio.run(ask()) < 1.4


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of pictures.test alone, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=pictures.test", "-addext",
         "subjectAltName=DNS:pictures.test", "-keyout", folder / "key", "-out", folder / "crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "crt", folder / "key"


def test_tls_is_of_the_name_though_an_address_is_dialled(certificate: tuple[Path, Path]) -> None:
    names_seen: list[str | None] = []
    at_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_server.load_cert_chain(*certificate)
    at_server.sni_callback = lambda _, name, __: names_seen.append(name)
    site = Site()
    site.server.socket = at_server.wrap_socket(site.server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    try:
        url = site.put("/a", b"a").replace("http:", "https:")
        known = Names(pictures=[["127.0.0.1"]], other=[["127.0.0.1"]])
        one = Fetcher(Limits(), only_here, known, trusting)
        assert fetched(one, url) == b"a" and names_seen == ["pictures.test"]
        assert site.asked[-1]["host"] == f"pictures.test:{site.port}"
        for wrong in (url.replace("pictures", "other"), url.replace("pictures.test", "127.0.0.1")):
            assert "connection failed" in refused(one, wrong), "the certificate is another's"
        assert "connection failed" in refused(Fetcher(Limits(), only_here, known), url)
        assert len(site.asked) == 1
    finally:
        site.close()


def by_address(url: str) -> dict[str, Any]:
    """A question about an image; its answer is greedy."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]
    return {"messages": [{"role": "user", "content": content}], "seed": 1, "max_tokens": 4,
            "modalities": ["text"]}  # fmt: skip


@pytest.fixture(scope="module")
def fetching(tiny_model: Model) -> Iterator[Served]:
    with serving(tiny_model, requests_a_minute=100_000, fetcher=fetcher()) as found:
        yield found


def test_an_address_means_what_its_data_url_means(fetching: Served, site: Site) -> None:
    url, data = site.put("/image.png", png(seed=5)), data_url(png(seed=5))
    status, answer = fetching.ask(CHAT, by_address(url))
    expected = fetching.ask(CHAT, by_address(data))[1]
    assert status == 200 and answer["choices"] == expected["choices"]
    assert answer["notes"] == expected["notes"]
    asked = {"prompt": "make it blue", "seed": 2}
    drawn = [
        fetching.ask(EDITS, asked | {"image": data})[1]["data"],
        fetching.ask(EDITS, asked | {"image": [url]})[1]["data"],
        fetching.ask(EDITS, asked | {"images": [{"image_url": url}]})[1]["data"],
        fetching.form(EDITS, [*((k, str(v)) for k, v in asked.items()), ("image", url)])[1]["data"],
    ]  # fmt: skip
    assert drawn == drawn[:1] * 4
    item = {"role": "user", "content": [{"type": "input_image", "image_url": url},
                                        {"type": "input_text", "text": "what?"}]}  # fmt: skip
    status, answer = fetching.ask("/v1/responses", {"input": [item], "seed": 1})
    assert status == 200 and answer["notes"]


def test_what_comes_is_held_to_the_limits_of_what_is_sent(fetching: Served, site: Site) -> None:
    for content, words in (
        (b"<svg/>", "PNG, JPEG, WEBP, GIF are opened"), (png()[:200], "damaged or truncated"),
        (png((7, 7)), "too small"), (b"", "no known kind"),
    ):  # fmt: skip
        status, answer = fetching.ask(CHAT, by_address(site.put("/bad", content)))
        assert status == 400 and words in answer["error"]["message"], answer
        assert answer["error"]["param"] == "messages.0"
    for url, words in (
        ("file:///etc/passwd", "no address but of http: and https:"),
        ("gopher://127.0.0.1/", "no address but of http: and https:"),
        ("http://127.0.0.2/", "not of the public Internet"),
    ):
        status, answer = fetching.ask(CHAT, by_address(url))
        assert status == 400 and words in answer["error"]["message"], answer
    assert fetching.ask(CHAT, by_address(site.put("/good", png())))[0] == 200


def test_neither_redirects_nor_names_lead_a_server_inside(
    tiny_model: Model, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    names = Names(pictures=[["127.0.0.1"]], inside=[["10.0.0.1"]], both=[["8.8.8.8", "::1"]],
                  turning=[["127.0.0.1"], ["169.254.169.254"]])  # fmt: skip
    port = site.port
    good, turning = site.put("/good", png()), f"http://turning.test:{port}/turn"
    site.redirect("/turn", turning)
    with serving(tiny_model, fetcher=Fetcher(Limits(), only_here, names)) as found:
        for url in (
            site.redirect("/to-metadata", "http://169.254.169.254/latest/meta-data/"),
            site.redirect("/to-name", f"http://inside.test:{port}/good"),
            site.redirect("/to-file", "file:///etc/passwd"),
            f"http://inside.test:{port}/good", f"http://both.test:{port}/good",
            turning, f"http://[::ffff:10.0.0.1]:{port}/good", f"http://nowhere.test:{port}/good",
        ):  # fmt: skip
            status, answer = found.ask(CHAT, by_address(url))
            assert (status, answer["error"]["code"]) == (400, "invalid_image_url"), url
            assert answer["error"]["param"] == "messages.0" and answer["error"].keys() == KEYS
            told = answer["error"]["message"].replace(repr(url), "")
            assert not any(one in told for one in ("10.0.0.1", "169.254", "::1", "Error", "/etc"))
            assert found.ask(CHAT, by_address(good))[0] == 200, "beside it, others are answered"
        assert found.metric("failed_total") == 0 and not caplog.records


def test_images_on_their_way_have_room_or_are_refused(tiny_model: Model, site: Site) -> None:
    slow = site.put("/wait", *[b"a"] * 10, pause_s=0.1)
    limits = {"max_bodies_bytes": 4000, "max_body_bytes": 1000, "max_fetched_bytes": 1500}
    with serving(tiny_model, fetcher=fetcher(max_fetched_bytes=1500), **limits) as found:
        first = threading.Thread(target=found.ask, args=(CHAT, by_address(slow)))
        first.start()
        time.sleep(0.3)
        status, answer = found.ask(CHAT, by_address(slow))
        assert status == 429 and answer["error"]["code"] == "too_many_large"
        first.join()
        status, answer = found.ask(CHAT, by_address(site.put("/small", png((16, 24)))))
        assert status == 200, "its room is free again"
        assert json.loads(found.get("/health")[1])["status"] == "ok"
