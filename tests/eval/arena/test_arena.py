"""The arena by real HTTP: blind, fair, kept vote by vote, and closed to everything else."""

import http.client
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np
import pytest
from browser import document, screenshot
from PIL import Image, PngImagePlugin

from unimodal.eval.arena.arena import Arena, Due
from unimodal.eval.arena.page import page
from unimodal.eval.arena.pairs import left_of, order, read_pairs
from unimodal.eval.arena.server import Server
from unimodal.eval.arena.votes import VotesFile, read_votes, report_of
from unimodal.eval.geneval.folder import sample_file, write_prompt
from unimodal.eval.geneval.prompts import make_prompts

PROMPTS = make_prompts(("circle", "star"), 2, seed=3)[:6]
SIZE = 2  # images of each prompt
NAMES = ("secretalpha", "secretbeta")
SHADES = {NAMES[0]: 50, NAMES[1]: 200}  # of A's images and of B's
SEED = 9


def write_drawn(root: Path, samples: int = SIZE) -> Path:
    """Draw images whose red tells whose they are; a text in the file tells it too."""
    told = PngImagePlugin.PngInfo()
    told.add_text("model", root.name)
    for number, prompt in enumerate(PROMPTS):
        write_prompt(root, number, prompt)
        for sample in range(samples):
            image = Image.new("RGB", (24, 16), (SHADES[root.name], 30 * number, 100 * sample))
            image.save(sample_file(root, number, sample), pnginfo=told)
    return root


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return write_drawn(tmp_path / NAMES[0]), write_drawn(tmp_path / NAMES[1])


@contextmanager
def served(folders: tuple[Path, Path], votes: Path) -> Iterator[Server]:
    pairs = read_pairs(*folders, NAMES, PROMPTS, SEED)
    with VotesFile(votes, pairs.recipe) as kept, Server(Arena(pairs, SEED, kept), 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Address(NamedTuple):
    """Where a command serves."""

    server_port: int


class Browser:
    """An HTTP client that keeps its cookie, and everything that it was sent."""

    def __init__(self, server: "Server | Address") -> None:
        self.server, self.cookie = server, ""
        self.sent = b""

    def ask(
        self, path: str, form: dict | bytes | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        body = urlencode(form).encode() if isinstance(form, dict) else form
        if body is not None:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        if self.cookie:
            headers = {"Cookie": self.cookie} | headers
        connection.request("GET" if body is None else "POST", path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        if "Set-Cookie" in reply.headers:
            self.cookie = reply.headers["Set-Cookie"].partition(";")[0]
        self.sent += str(reply.headers).encode() + content
        return reply.status, content, reply.headers

    def number(self) -> int | None:
        """The number of the pair that the page shows."""
        found = re.search(rb'name="number" value="(\d+)"', self.ask("/")[1])
        return None if found is None else int(found[1])

    def red(self, number: int, side: str) -> int:
        """The red of an image: whose it is."""
        status, content, headers = self.ask(f"/image/{number}/{side}")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        with open_png(content) as image:
            return int(np.asarray(image)[0, 0, 0])

    def vote(self, choice: str) -> int:
        return self.ask("/vote", {"number": self.number(), "choice": choice})[0]


@contextmanager
def open_png(content: bytes) -> Iterator[Image.Image]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.info == {}, "nothing is told but pixels"
        yield image


def test_a_voter_who_prefers_b_lets_b_win(folders, tmp_path):
    with served(folders, tmp_path / "votes.jsonl") as server:
        browser = Browser(server)
        lefts = Counter()
        while (number := browser.number()) is not None:
            reds = {side: browser.red(number, side) for side in ("left", "right")}
            assert sorted(reds.values()) == sorted(SHADES.values())
            lefts[reds["left"]] += 1
            better = max(reds, key=reds.__getitem__)
            assert browser.vote(better if number else "tie") == 303
        assert b"All pairs are judged" in browser.ask("/")[1]
        for name in NAMES:
            assert name.encode() not in browser.sent
    assert len(lefts) == 2, "both stand on the left at times"
    settings, votes = read_votes(tmp_path / "votes.jsonl")
    assert Counter(vote["winner"] for vote in votes) == {"b": 11, "tie": 1}
    assert {vote["pair"] for vote in votes} == {
        f"{p:05d}/{s:04d}" for p in range(6) for s in (0, 1)
    }
    scores = report_of(settings, votes)["scores"]
    assert scores["win_rate"]["secretbeta"].value == pytest.approx(11.5 / 12)
    assert scores["win_rate"]["secretalpha"].value == pytest.approx(0.5 / 12)
    assert scores["win_rate_without_ties"]["secretbeta"].value == 1
    assert scores["votes"]["ties"].value == pytest.approx(1 / 12)


def test_voters_have_orders_and_sides_of_their_own(folders):
    pairs = read_pairs(*folders, NAMES, PROMPTS, SEED).pairs
    orders = {voter: [pair.id for pair in order(pairs, SEED, voter)] for voter in ("x", "y")}
    assert orders["x"] != orders["y"] and sorted(orders["x"]) == sorted(orders["y"])
    assert orders["x"] == [pair.id for pair in order(pairs, SEED, "x")]
    assert orders["x"] != [pair.id for pair in order(pairs, SEED + 1, "x")]
    sides = Counter(left_of(pair, SEED, str(voter)) for pair in pairs for voter in range(100))
    assert abs(sides["a"] - 600) < 4 * 17.3  # four standard deviations of 1200 coins
    firsts = Counter(order(pairs, SEED, str(voter))[0].id for voter in range(600))
    assert len(firsts) == 12 and max(firsts.values()) < 100


def test_votes_outlast_a_kill_and_are_gone_on_with(folders, tmp_path):
    votes = tmp_path / "votes.jsonl"
    with served(folders, votes) as server:
        browser = Browser(server)
        for _ in range(5):
            browser.vote("left")
        killed = votes.read_bytes()  # what is on the disk while it serves
    assert killed.count(b"\n") == 6
    votes.write_bytes(killed + b'{"id": "cut by a k')
    with served(folders, votes) as server:
        again = Browser(server)
        again.cookie = browser.cookie
        assert again.number() == 5
        again.vote("right")
        other = Browser(server)
        assert other.number() == 0 and other.cookie != again.cookie
        other.vote("tie")
    _, kept = read_votes(votes)
    assert [Counter(vote["voter"] for vote in kept)[b.cookie[6:]] for b in (again, other)] == [6, 1]


def test_votes_of_other_images_are_not_gone_on_with(folders, tmp_path):
    votes = tmp_path / "votes.jsonl"
    with served(folders, votes):
        pass
    Image.new("RGB", (24, 16), (1, 2, 3)).save(sample_file(folders[1], 0, 0))
    with pytest.raises(ValueError, match="another recipe.*b_images"), served(folders, votes):
        pass


def test_a_pair_is_judged_once(folders, tmp_path):
    with served(folders, tmp_path / "votes.jsonl") as server:
        browser = Browser(server)
        assert browser.number() == 0
        threads = [
            Thread(target=browser.ask, args=("/vote", {"number": 0, "choice": "left"}))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert browser.number() == 1
    assert len(read_votes(tmp_path / "votes.jsonl")[1]) == 1


PATHS = (
    "/image/../../../../etc/passwd", "/image/0/../../etc/passwd", "/image/0/left/../../x.png",
    "/image/%2e%2e%2fetc%2fpasswd/left", "/image/0/left?file=/etc/passwd", "//etc/passwd",
    "/image/-1/left", "/image/0/a", "/image/%D9%A0/left", "/image/99999999999999/left",
    "/votes.jsonl", "/secretalpha/00000/samples/0000.png",
)  # fmt: skip


def test_no_path_reaches_the_disk(folders, tmp_path):
    with served(folders, tmp_path / "votes.jsonl") as server:
        browser = Browser(server)
        browser.number()
        for path in PATHS:
            status, content, _ = browser.ask(path)
            assert (status, content) == (404, b"there is no such page\n"), path
        for path in ("/image/1/left", "/image/11/right"):  # not due yet
            assert browser.ask(path)[0] == 404
        assert browser.red(0, "left") in SHADES.values()


def test_what_is_no_vote_is_refused(folders, tmp_path):
    with served(folders, tmp_path / "votes.jsonl") as server:
        browser = Browser(server)
        browser.number()
        bad: list[dict | bytes] = [
            {"number": 0, "choice": "secretalpha"}, {"number": -1, "choice": "left"},
            {"choice": "tie"}, {"number": "0" * 20, "choice": "left"}, b"", b"\xff\xfe",
            b"number=0&choice=left&x=" * 40, b"number=0&choice=left&number=1",
        ]  # fmt: skip
        for form in bad:
            assert browser.ask("/vote", form)[0] == 400, form
        vote = {"number": 0, "choice": "left"}
        assert browser.ask("/vote", vote, **{"Content-Type": "application/json"})[0] == 400
        assert browser.ask("/other", vote)[0] == 404
        for headers in (
            {"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"},
            {"Host": "127.0.0.1.evil.example:80"}, {"Host": "["},
        ):  # fmt: skip
            assert browser.ask("/vote", vote, **headers)[0] == 403, headers
        for cookie in ("voter=made-up", "voter=" + "0" * 32, "other=1", 'voter="', "voter=;;=,"):
            assert browser.ask("/vote", vote, Cookie=cookie)[0] == 403, cookie
        assert browser.number() == 0, "nothing was counted"
        assert b"secret" not in browser.sent and str(tmp_path).encode() not in browser.sent


def test_headers_let_nothing_in(folders, tmp_path):
    with served(folders, tmp_path / "votes.jsonl") as server:
        assert server.server_address[0] == "127.0.0.1"
        _, content, headers = Browser(server).ask("/")
        assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
        assert headers["Cache-Control"] == "no-store" and headers["Server"].strip() == "unimodal"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        # no-referrer would make of the Origin of this page's own form `null`, which is refused
        assert headers["Referrer-Policy"] == "same-origin"
        assert b"http://" not in content and b"https://" not in content


def test_a_browser_shows_a_pair(folders, tmp_path):
    """The policy lets the page's own images, style and script through."""
    with served(folders, tmp_path / "votes.jsonl") as server:
        shown = screenshot(server.url, tmp_path, (700, 500))
    reds = [int(shown[200, x, 0]) for x in (200, 500)]
    assert sorted(reds) == sorted(SHADES.values())


PRESS = """<script>
document.title = "";
document.querySelector("form").addEventListener("submit", event => {
  document.title += `${event.submitter.value}:${event.defaultPrevented};`;
  event.preventDefault();
});
for (const key of ["x", "2", "1", "0"])
  document.dispatchEvent(new KeyboardEvent("keydown", {key}));
document.dispatchEvent(new KeyboardEvent("keydown", {key: "1", ctrlKey: true}));
</script>"""


def test_keys_press_buttons_and_a_pair_is_sent_once(folders, tmp_path):
    pairs = read_pairs(*folders, NAMES, PROMPTS, SEED)
    due = Due(3, 12, pairs.pairs[0], "a", is_small=True)
    (tmp_path / "keys.html").write_text(page(due) + PRESS)
    shown = document((tmp_path / "keys.html").as_uri(), tmp_path)
    assert "<title>right:false;left:true;tie:true;</title>" in shown
