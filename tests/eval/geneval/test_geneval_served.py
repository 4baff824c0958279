"""Prompts drawn by a model behind a server, over real HTTP, and scored as any folder."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, served
from click.testing import CliRunner, Result
from PIL import Image

from unimodal.command import main
from unimodal.data.scenes.world import Background, Scene, SceneObject, render
from unimodal.eval.geneval.folder import sample_file
from unimodal.eval.geneval.prompts import make_prompts
from unimodal.transcript import png_bytes

PROMPTS = make_prompts(("circle", "star"), 1, seed=3)[:2]  # one of each shape


def answer(body: dict) -> str:
    """A red circle, whatever is asked for, in base64."""
    scene = Scene(Background("plain", "grey"), (SceneObject("circle", "red", "large", 0.5, 0.5),))
    side = int(body["size"].partition("x")[0])
    return base64.b64encode(png_bytes(Image.fromarray(render(scene, side)))).decode()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with served(answer) as found:
        yield found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f"{json.dumps(prompt.json())}\n" for prompt in PROMPTS))
    return file


def draw(server: ChatServer, prompts: Path, *words: str) -> Result:
    base = ("eval", "geneval", "draw-served", str(prompts.parent / "drawn"), "--server", server.url)
    more = ("--served-model", "seer", "--prompts", str(prompts), "--size", "64x64")
    return CliRunner().invoke(main, [*base, *more, "--samples", "2", *words])


def test_they_are_drawn_and_scored(server: ChatServer, prompts: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SEER_KEY", "secret")
    assert draw(server, prompts, "--key-variable", "SEER_KEY").exit_code == 0
    path, head, body = server.requests[0]
    assert path == "/v1/images/generations" and head["Authorization"] == "Bearer secret"
    assert body == {"model": "seer", "prompt": PROMPTS[0].text, "n": 1, "size": "64x64"}
    assert len(server.requests) == 4
    root, report = tmp_path / "drawn", tmp_path / "report.json"
    for words in (
        ("detect", root, tmp_path / "found.jsonl"),
        ("score", tmp_path / "found.jsonl", "--prompts", prompts, "--json", report),
    ):
        done = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
        assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert found["scores"]["geneval_by_scenes"]["overall"]["value"] == 0.5, "a circle is no star"
    recipe = found["recipe"]
    assert (recipe["model"], recipe["hash"], recipe["seed"]) == ("seer", "unknown", "unknown")
    assert "secret" not in report.read_text() + (root / "drawn.jsonl").read_text()


def test_it_goes_on_where_it_stopped(server: ChatServer, prompts: Path, tmp_path: Path):
    server.failures.append((400, {}, b"no such size"))
    stopped = draw(server, prompts, "--batch-size", "1")
    assert stopped.exit_code == 2 and "no such size" in stopped.output
    assert draw(server, prompts).exit_code == 0
    sample_file(tmp_path / "drawn", 1, 0).unlink()
    before = len(server.requests)
    assert draw(server, prompts, "--base64").exit_code == 0 and len(server.requests) == before + 1
    assert server.bodies()[-1]["response_format"] == "b64_json"
    other = draw(server, prompts, "--size", "128x128")
    assert other.exit_code == 2 and "resolution 64x64, not 128x128" in other.output
    before = len(server.requests)
    (tmp_path / "drawn" / "drawn.jsonl").unlink()
    others = draw(server, prompts)
    assert others.exit_code == 2 and "0000.png was not drawn here" in others.output
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"data": [{"url": "http://169.254.169.254/x.png"}]}, "nothing is fetched"),
        ({"data": []}, "nothing is fetched"),
        ({"data": [{"b64_json": 3}]}, "an image is base64"),
        ({"data": [{"b64_json": "?!"}]}, "no image came"),
        ({"data": [{"b64_json": base64.b64encode(b"hello").decode()}]}, "no image came"),
    ],
)
def test_what_is_no_image_is_one_error(server: ChatServer, prompts: Path, reply: dict, told: str):
    server.failures.append((200, {}, json.dumps(reply).encode()))
    done = draw(server, prompts, "--batch-size", "1")
    assert done.exit_code == 2 and told in done.output and len(server.requests) == 1
    assert len(done.output.strip().splitlines()) == 1
