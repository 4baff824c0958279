"""The web page's files and heads, and what of the API is there for it."""

import json
import re
from pathlib import Path

import pytest
from api_server import CHAT, IMAGES, Served, serving

from unimodal.model import Model
from unimodal.serve import web

KEY = "0123456789abcdef-of-a-test"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which nobody fetches
FILES = sorted(web.FOLDER.iterdir())


def user(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


def test_the_page_is_served_with_its_heads(small: Served) -> None:
    status, head, content = small.send("GET", "/")
    assert status == 200 and content == (web.FOLDER / "index.html").read_bytes()
    policy = dict(one.split(" ", 1) for one in head["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "img-src": "'self' data:", "connect-src": "'self'", "base-uri": "'none'",
        "form-action": "'none'", "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'", "trusted-types": "'none'",
    }  # fmt: skip
    assert head["x-content-type-options"] == "nosniff"
    assert head["referrer-policy"] == "no-referrer"
    assert small.send("HEAD", "/")[0] == 200 and small.send("POST", "/")[0] == 405


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_of_the_page_is_served_and_names_nothing_elsewhere(small: Served, file) -> None:
    status, head, content = small.send("GET", f"/page/{file.name}")
    assert status == 200 and content == file.read_bytes()
    assert head["content-type"].startswith(TYPES[file.suffix])
    assert head["content-security-policy"] == web.POLICY
    text = content.decode().replace(NAMESPACE, "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|\burl\(|@import", text) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text) == []


def test_the_pictures_of_the_page_are_small() -> None:
    pictures = sorted((Path(__file__).parents[3] / "docs").glob("page-*.png"))
    assert len(pictures) == 4 and max(one.stat().st_size for one in pictures) < 150_000


def test_what_a_file_names_is_there() -> None:
    names = {file.name for file in FILES}
    named = set()
    for file in FILES:
        text = file.read_text()
        named |= set(re.findall(r'"(?:/page|\.)/([\w.-]+)"', text))
    assert named and named == names - {"index.html"}
    page, scripts = (web.FOLDER / "index.html").read_text(), web.FOLDER.glob("*.js")
    ids = set(re.findall(r'\bid="([\w-]+)"', page))
    asked = {one for file in scripts for one in re.findall(r'byId\("([\w-]+)"\)', file.read_text())}
    assert len(asked) > 20 and asked - ids == set()
    assert not re.search(r"\sstyle=|\son\w+=", page), "the policy would refuse it"


@pytest.mark.parametrize("path", ["/page/", "/page/none.js", "/page/../web.py",
                                  "/page/%2e%2e/web.py", "/page/..%2fweb.py"])  # fmt: skip
def test_nothing_else_is_served(small: Served, path: str) -> None:
    status, text = small.get(path)
    assert status == 404
    assert json.loads(text)["error"]["message"] == "there is nothing at this address"


def test_the_page_needs_no_key_and_all_else_does(tiny_model: Model) -> None:
    with serving(tiny_model, KEY) as keyed:
        assert keyed.get("/")[0] == keyed.get("/page/main.js")[0] == 200
        assert keyed.get("/v1/models")[0] == 401
        lines = keyed.get("/metrics", Authorization=f"Bearer {KEY}")[1]
        assert 'requests_total{route="/page/{file}",status="200"} 1' in lines


def test_the_model_tells_what_the_page_offers(small: Served, served: Served) -> None:
    (model,) = json.loads(served.get("/v1/models")[1])["data"]
    assert model["sizes"] == ["64x64"] and model["max_images"] == 16
    assert model["settings"] == {
        "guidance": 1.0, "negative_prompt": None, "partial_images": 3, "candidates": 8,
        "drafts": 8, "boxes": 16,
    }  # fmt: skip
    refused = served.ask(IMAGES, {"prompt": "a", "steps": 4})
    assert refused[0] == 400, "what is not among the settings is refused"


def test_a_chat_has_the_size_that_the_model_draws(small: Served) -> None:
    (model,) = json.loads(small.get("/v1/models")[1])["data"]
    asked = {"messages": user("a"), "modalities": ["image"], "seed": 1}
    answers = [small.ask(CHAT, asked | {"size": size}) for size in ("auto", *model["sizes"])]
    assert [status for status, _ in answers] == [200] * 2
    assert answers[0][1]["choices"] == answers[1][1]["choices"]
    status, answer = small.ask(CHAT, asked | {"size": "999x999"})
    assert (status, answer["error"]["param"]) == (400, "size")


def test_a_conversation_that_the_context_cannot_hold_has_openais_code(small: Served) -> None:
    long = small.ask(CHAT, {"messages": user("what do you see? " * 1000)})
    assert long[0] == 400 and long[1]["error"]["code"] == "context_length_exceeded"
    wrong = small.ask(CHAT, {"messages": user("a"), "guidance": 5000})
    assert wrong[0] == 400 and wrong[1]["error"]["code"] == "invalid_value"
