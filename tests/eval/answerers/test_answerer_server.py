"""A server that speaks OpenAI's chat completions answers benchmarks, over real HTTP."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import vqa_files
from chat_server import ChatServer, served
from click.testing import CliRunner
from PIL import Image as PILImage

from unimodal.command import main
from unimodal.document import Document, Image, Text
from unimodal.eval.answerers.answerer import UNKNOWN, Question
from unimodal.eval.answerers.endpoint import Endpoint
from unimodal.eval.answerers.server import Server, content_of
from unimodal.eval.vqa.evaluation import evaluate
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of


def shade_of(part: dict) -> int:
    """The grey of an image that was sent."""
    head, _, content = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    image = PILImage.open(io.BytesIO(base64.b64decode(content)))
    return int(np.asarray(image)[0, 0, 0])


def answer(body: dict) -> str:
    """Yes to questions about cats in dark images, no to others: it reads words and pixels."""
    parts = body["messages"][0]["content"]
    texts = " ".join(part["text"] for part in parts if part["type"] == "text")
    shades = [shade_of(part) for part in parts if part["type"] == "image_url"]
    return "yes" if "cat" in texts and shades == [0] else "no"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with served(answer) as found:
        yield found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return vqa_files.pope(tmp_path / "pope", subsets=("random",))


def connected(server: ChatServer, key: str | None = None) -> Server:
    return Server(Endpoint(server.url, key, wait_s=0.0), "seer")


def asked(text: str = "cat?") -> Question:
    image = Image(pixels=np.zeros((4, 6, 3), np.uint8), role="user")
    return Question("seen/1", Document((image, Text(text, role="user"))))


def test_answers_depend_on_no_batch(server: ChatServer, data: Path):
    found = [
        evaluate(connected(server), task_of("pope"), Source(data, data), 7, batch=batch)
        for batch in (1, 2, 7)
    ]
    assert found[0]["predictions"] == found[1]["predictions"] == found[2]["predictions"]
    seen = {p["item"]: p["answer"] for p in found[0]["predictions"] if p["pass"] == "seen"}
    assert seen == {"random/0": "yes", "random/1": "no", "random/2": "no", "random/3": "no"}
    blind = [p["answer"] for p in found[0]["predictions"] if p["pass"] == "blind"]
    assert blind == ["no"] * 4, "no image was sent"


def test_a_request_holds_all_that_is_shown_and_nothing_to_fetch(server: ChatServer):
    connected(server, "secret").answers([asked()], 16)
    path, head, body = server.requests[-1]
    assert path == "/v1/chat/completions" and head["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("seer", 0, 16)
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert "http" not in json.dumps(body) and "file:" not in json.dumps(body)
    assert shade_of(message["content"][0]) == 0


def test_the_openai_client_sends_the_same(server: ChatServer):
    openai = pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    connected(server).answers([asked()], 16)
    client = openai.OpenAI(base_url=server.url, api_key="x", max_retries=0)
    reply = client.chat.completions.create(
        model="seer", temperature=0, max_tokens=16, modalities=["text"],
        messages=[{"role": "user", "content": content_of(asked().document)}],
    )  # fmt: skip
    ours, theirs = server.bodies()[-2:]
    assert ours == theirs and server.requests[-1][0] == server.requests[-2][0]
    assert reply.choices[0].message.content == connected(server).answers([asked()], 16)[0]


def test_the_result_says_who_answered(server: ChatServer, data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SEER_KEY", "secret")
    file, kept = tmp_path / "pope.json", tmp_path / "pope.jsonl"
    words = ["eval", "vqa", "--task", "pope", "--data", str(data), "--server", server.url]
    words += ["--served-model", "seer", "--key-variable", "SEER_KEY", "--json", str(file)]
    done = CliRunner().invoke(main, [*words, "--predictions", str(kept)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    recipe = json.loads(file.read_text())["recipe"]
    assert (recipe["answerer"], recipe["model"], recipe["hash"]) == ("server", "seer", UNKNOWN)
    assert recipe["revision"] == "seer-2, fp_9" and recipe["server"] == server.url
    assert "secret" not in file.read_text() + kept.read_text() + done.output
    asked_for = len(server.requests)
    again = CliRunner().invoke(main, [*words, "--predictions", str(kept)], catch_exceptions=False)
    assert again.exit_code == 0 and len(server.requests) == asked_for + 1, "the probe alone"


def test_busy_servers_are_tried_again(server: ChatServer):
    one = connected(server)
    server.failures += [(429, {}, b"slow down"), (503, {}, b""), (500, {}, b"")]
    assert one.answers([asked()], 4) == ["yes"]
    server.failures += [(503, {}, b"not now")] * 5
    with pytest.raises(ValueError, match="503 .*not now"):
        one.answers([asked()], 4)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ((401, {}, b'{"error": "wrong key"}'), "401 .*wrong key"),
        ((404, {}, b"no model seer"), "404 .*no model seer"),
        ((302, {"Location": "http://127.0.0.1:9/"}, b""), "302"),
        ((200, {}, b"<html>"), "no JSON"),
        ((200, {}, b"[1]"), "no object"),
    ],
)
def test_what_is_wrong_is_told_before_any_question(server: ChatServer, failure, told: str):
    server.failures.append(failure)
    with pytest.raises(ValueError, match=told):
        connected(server)
    assert len(server.requests) == 1, "nothing else was fetched"


@pytest.mark.parametrize("reply", [b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}'])
def test_an_absent_answer_is_no_empty_one(server: ChatServer, reply: bytes):
    one = connected(server)
    content = json.loads(reply) | {"model": server.model}
    server.failures.append((200, {}, json.dumps(content).encode()))
    with pytest.raises(ValueError, match="seen/1: the server sent no answer"):
        one.answers([asked()], 4)
    server.answer = lambda body: None
    assert one.answers([asked()], 4) == [""], "which the rule counts as unparsed"


def test_another_version_of_the_model_stops_the_run(server: ChatServer):
    one = connected(server)
    server.model = "seer-3"
    with pytest.raises(ValueError, match="answers as seer-3 now, and answered as seer-2"):
        one.answers([asked()], 4)


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "ftp://a/v1", "http://"])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ValueError, match="is no address of a server"):
        Endpoint(url)


def test_secrets_stay_out_of_addresses():
    with pytest.raises(ValueError, match="the key comes from the environment") as told:
        Endpoint("http://me:hush@localhost/v1")
    assert "hush" not in str(told.value)


def test_a_server_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match="does not answer"):
        Server(Endpoint("http://127.0.0.1:9/v1", wait_s=0.0), "seer")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--server", "http://127.0.0.1:9"], "needs --served-model"),
        (["--served-model", "x"], "--served-model belongs to --server"),
        (["--revision", "x"], "--revision belongs to --transformers"),
        (["--server", "http://x", "--transformers", "a/b"], "--transformers and --server name"),
        (["--server", "http://x", "--served-model", "m", "--key-variable", "NO_SUCH"], "NO_SUCH"),
    ],
)
def test_options_that_would_be_ignored_are_refused(data: Path, words: list[str], told: str):
    base = ["eval", "vqa", "--task", "pope", "--data", str(data)]
    done = CliRunner().invoke(main, [*base, *words])
    assert done.exit_code == 2 and told in done.output
