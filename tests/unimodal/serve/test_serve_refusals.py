"""Bad requests: each is refused for its own reason, and nothing is broken for others."""

import base64
import contextlib
import io
import json
import re
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, png, serving
from launching import ROOT
from PIL import Image

from unimodal.generation import Generation
from unimodal.model import Model
from unimodal.serve.completions import Completion
from unimodal.serve.errors import ApiError
from unimodal.serve.fields import Fields, checked
from unimodal.serve.images import Edit
from unimodal.serve.limits import Limits
from unimodal.serve.opening import opened
from unimodal.serve.responses import Asked

KEY = "a-key-of-this-server"
RESPONSES = "/v1/responses"
DRAW = {"prompt": "draw a red circle", "seed": 1}


def ask(words: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}]} | more


def with_image(url: str) -> dict[str, Any]:
    return ask([{"type": "image_url", "image_url": {"url": url}}])


def animated(kind: str) -> bytes:
    frames = [Image.open(io.BytesIO(png(seed=seed))) for seed in (1, 2)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in a few kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(kind: str) -> bytes:
    """A still image of 64 x 64 pixels as a file of a kind."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(png())).save(stream, kind)
    return stream.getvalue()


def stuffed(name: bytes, content: bytes) -> bytes:
    """A PNG with one chunk more."""
    chunk = struct.pack(">I", len(content)) + name + content
    whole = png()
    return whole[:33] + chunk + struct.pack(">I", zlib.crc32(name + content)) + whole[33:]


def deep(depth: int) -> bytes:
    return b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"


# By rule: path, body, status, the field that is named, and what is said of the way out.
BAD: list[tuple[str, str, Any, int, str | None, str]] = [
    ("unknown field", IMAGES, DRAW | {"sead": 1}, 400, "sead", "What is read here: .*seed"),
    ("unknown field", CHAT, ask(guidanse=3), 400, "guidanse", "What is read here: .*guidance"),
    ("unknown field", CHAT, {"messages": [{"role": "user", "content": "hi", "name": "x"}]}, 400,
     "messages.0.name", "not read here: leave it out"),
    ("no such effect", IMAGES, DRAW | {"quality": "hd"}, 400, "quality",
     'quality "hd": .* what can be is "auto"$'),
    ("no such effect", CHAT, ask(store=True), 400, "store", "store true: .* what can be is false$"),
    ("unknown field", IMAGES + "?seed=7", DRAW, 400, "seed", "settings are read from the body"),
    ("no such effect", IMAGES, DRAW | {"response_format": "url"}, 400, "response_format",
     'what can be is "b64_json"'),
    ("no such effect", EDITS, DRAW | {"image": data_url(png()), "mask": "x"}, 400, "mask",
     "leave it out"),
    ("no such effect", CHAT, ask(tools=[{"type": "function"}]), 400, "tools", "what can be is"),
    ("no such effect", CHAT, ask(logprobs=True, stream=True), 400, "logprobs", "whole answer"),
    ("number", CHAT, ask(logprobs=True, top_logprobs=21), 400, "top_logprobs", "from 0 to 20"),
    ("number", CHAT, ask(top_logprobs=2), 400, "top_logprobs", "with logprobs: true"),
    ("no such effect", IMAGES, DRAW | {"steps": 20}, 400, "steps",
     "^steps 20: the image head next_code has none; leave it out$"),
    ("a temperature below 0", IMAGES, DRAW | {"temperature": -1}, 400, "temperature",
     "^temperature -1.0: a number of at least 0 is wanted$"),
    ("size", IMAGES, DRAW | {"size": "1024x1024"}, 400, "size", "this model draws 16x24"),
    ("size", IMAGES, DRAW | {"size": "../16x24"}, 400, "size", "this model draws 16x24"),
    ("number", IMAGES, DRAW | {"n": 0}, 400, "n", "from 1 to 8"),
    ("number", IMAGES, DRAW | {"n": 10**9}, 400, "n", "from 1 to 8"),
    ("number", IMAGES, DRAW | {"drafts": 33}, 400, "drafts", "from 1 to 32"),
    ("number", IMAGES, DRAW | {"n": 2, "stream": True}, 400, "n", "a stream is of one reply"),
    ("number", IMAGES, DRAW | {"partial_images": 2}, 400, "partial_images", "without stream"),
    ("number", CHAT, ask(max_tokens=10**9), 400, "max_tokens", "from 1 to 512"),
    ("number", CHAT, ask(max_completion_tokens=0), 400, "max_completion_tokens", "from 1 to 512"),
    ("number", RESPONSES, {"input": "a", "max_output_tokens": 0}, 400, "max_output_tokens",
     "from 1 to 512"),
    ("number", CHAT, ask(max_tokens=1, max_completion_tokens=2), 400, "max_tokens", "give one"),
    ("number", CHAT, ask(seed=-1), 400, "seed", "seed -1: a whole number below"),
    ("number", CHAT, ask(temperature=-1), 400, "temperature", "a number of at least 0"),
    ("number", IMAGES, DRAW | {"guidance": 10**9}, 400, "guidance", "from 0 to 1000"),
    ("number", IMAGES, DRAW | {"negative_prompt": "a star"}, 400, "negative_prompt",
     "a guidance other than 1"),
    ("number", CHAT, ask(seed=-1, temperature=-1), 400, None, "temperature.*seed -1"),
    ("type", IMAGES, DRAW | {"n": "2"}, 400, "n", "valid integer"),
    ("type", IMAGES, DRAW | {"seed": 1.5}, 400, "seed", "valid integer"),
    ("type", IMAGES, {"seed": 1}, 400, "prompt", "Field required"),
    ("type", CHAT, {"messages": "hello"}, 400, "messages", "valid list"),
    ("model", IMAGES, DRAW | {"model": "../../etc/passwd"}, 404, "model", "'tiny' is"),
    ("JSON", IMAGES, b'{"prompt": ', 400, None, "Expecting value at line 1"),
    ("JSON", IMAGES, b'{"prompt": "a", "guidance": NaN}', 400, None, "NaN is no number"),
    ("JSON", IMAGES, b'{"prompt": "a", "prompt": "b"}', 400, None, "'prompt' is given twice"),
    ("JSON", IMAGES, b'["a"]', 400, None, "an object"),
    ("JSON", IMAGES, b'{"prompt": "\xff"}', 400, None, "is not UTF-8"),
    ("JSON", IMAGES, deep(100_000), 400, None, "nested too deeply"),
    ("JSON", IMAGES, b'{"prompt": [' + b"0, " * 250_000 + b"0]}", 400, None, "250,000 values"),
    ("half a character", IMAGES, b'{"prompt": "\\ud800"}', 400, "prompt", "surrogate"),
    ("half a character", IMAGES, b'{"prompt": "a", "negative_prompt": "\\ud800"}', 400,
     "negative_prompt", "surrogate"),
    ("half a character", IMAGES, b'{"prompt": "a", "\\ud800": 1}', 400, r"\ud800", "is read here"),
    ("too long", IMAGES, {"prompt": "x" * 100_001}, 400, "prompt", "100,000 are the most"),
    ("too long", IMAGES, DRAW | {"negative_prompt": "x" * 100_001}, 400, "negative_prompt",
     "100,000 are the most"),
    ("too long", IMAGES, {"prompt": "circle " * 2000}, 400, None, "of the model's 512 tokens"),
    ("too long", CHAT, {"messages": [{"role": "user", "content": "a"}] * 257}, 400, "messages",
     "256 are the most"),
    ("too long", CHAT, {"messages": [{"role": "user", "content": "a"}] * 5000}, 400, "messages",
     "5,000 items: 4,096 are the most"),
    ("too long", IMAGES, b" " * (2**20 + 1), 413, None, "1,048,576 bytes are the most"),
    ("place", CHAT, ask([{"type": "image_url", "image_url": {"url": data_url(png())}, "index": 0}]),
     400, "messages.0.content", "in their order"),
    ("place", CHAT, ask([{"type": "image_url", "image_url": {"url": data_url(png())},
                          "position": 9}]), 400, "messages.0.content", "leave them out"),
    ("nothing asked", CHAT, ask(modalities=[]), 400, "modalities", "nothing is left to answer"),
    ("nothing asked", IMAGES, {"prompt": " "}, 400, "prompt", "say what to draw"),
    ("nothing asked", CHAT, {"messages": []}, 400, "messages", "the last message is the user's"),
    ("nothing asked", CHAT, ask([]), 400, "messages.0", "is empty"),
    ("address", CHAT, with_image("http://169.254.169.254/latest"), 400, "messages.0",
     "no address is fetched"),
    ("address", CHAT, with_image("https://example.org/a.png"), 400, "messages.0", "no address"),
    ("address", CHAT, with_image("file:///etc/passwd"), 400, "messages.0", "no file is read"),
    ("address", EDITS, DRAW | {"image": "../../etc/passwd"}, 400, "image", "no file is read"),
    ("base64", CHAT, with_image("data:image/png;base64,???"), 400, "messages.0", "not base64"),
    ("base64", EDITS, DRAW | {"image": data_url(png())[:-1]}, 400, "image", "not base64"),
    ("image", CHAT, with_image(data_url(b"<svg onload=alert(1)>")), 400, "messages.0", "PNG"),
    ("image", CHAT, with_image(data_url(png()[:200])), 400, "messages.0", "damaged or truncated"),
    ("image", CHAT, with_image(data_url(png((7, 7)))), 400, "messages.0", "too small"),
    ("image", CHAT, with_image(data_url(bomb(100_000))), 400, "messages.0", "too large"),
    ("image", CHAT, with_image(data_url(bomb(7000))), 400, "messages.0", "16,000,000 are the most"),
    ("image", CHAT, with_image(data_url(saved("TIFF"))), 400, "messages.0", "are opened"),
    ("image", CHAT, with_image(data_url(saved("ICO"))), 400, "messages.0", "are opened"),
    ("cut image", CHAT, with_image(data_url(png()[:-1])), 400, "messages.0", "the end of a PNG"),
    ("cut image", CHAT, with_image(data_url(png()[:-12])), 400, "messages.0", "the end of a PNG"),
    ("cut image", CHAT, with_image(data_url(saved("GIF")[:-1])), 400, "messages.0",
     "the end of a GIF"),
    ("cut image", CHAT, with_image(data_url(saved("JPEG")[:-400])), 400, "messages.0", "truncated"),
    ("cut image", CHAT, with_image(data_url(saved("WEBP")[:60])), 400, "messages.0", "damaged"),
    ("cut image", CHAT, with_image(data_url(saved("GIF")[:60])), 400, "messages.0", "truncated"),
    ("image", EDITS, DRAW | {"image": [data_url(png())] * 17}, 400, "image", "from 1 to 16"),
    ("image", EDITS, DRAW, 400, "image", "an edit has `image`"),
    ("role", CHAT, {"messages": [{"role": "tool", "content": "a"}]}, 400, "messages.0.role",
     "'user'"),
    ("role", CHAT, {"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages",
     "the last message is the user's"),
    ("stored", RESPONSES, {"input": "a", "previous_response_id": "resp_1"}, 400,
     "previous_response_id", "leave it out"),
    ("stored", RESPONSES, {"input": "a", "store": True}, 400, "store", "what can be is false"),
    ("picture", RESPONSES, {"instructions": "be brief", "input": [
        {"role": "user", "content": "a"}, {"role": "user", "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]},
     400, "input.1", "image"),
    ("order", RESPONSES, {"input": [{"role": "assistant", "content": "a"}]}, 400, "input",
     "the last message is the user's"),
    ("tool", RESPONSES, {"input": "a", "tools": [{"type": "web_search"}]}, 400, "tools.0.type",
     "'image_generation'"),
    ("tool", RESPONSES, {"input": "a", "tool_choice": "required"}, 400, "tool_choice",
     "give tools"),
    ("animated", CHAT, with_image(data_url(animated("GIF"))), 400, "messages.0", "is animated"),
    ("animated", CHAT, with_image(data_url(animated("PNG"))), 400, "messages.0", "is animated"),
    ("animated", CHAT, with_image(data_url(animated("WEBP"))), 400, "messages.0", "is animated"),
]  # fmt: skip


def secrets_of(text: str) -> list[str]:
    """What no client may be told: addresses of objects, paths, tracebacks."""
    return re.findall(
        rf"0x[0-9a-f]{{6,}}|/srv/|{re.escape(str(ROOT))}|site-packages|Traceback|\.py\b|object at",
        text,
    )


@pytest.mark.parametrize("case", range(len(BAD)), ids=lambda n: f"{BAD[n][0]} {n}")
def test_a_bad_request_is_refused_for_its_reason(small: Served, case: int) -> None:
    _, path, body, status, param, way_out = BAD[case]
    found, answer = small.ask(path, body)
    assert (found, answer["error"]["param"]) == (status, param), answer
    assert re.search(way_out, answer["error"]["message"]), answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"].endswith("_error")
    assert len(answer["error"]["message"]) < 1100 and not secrets_of(json.dumps(answer))


def test_there_are_rules_enough() -> None:
    assert len(BAD) >= 40 and len({rule for rule, *_ in BAD}) >= 12


def test_bad_requests_break_nothing_for_others(small: Served) -> None:
    """All bad requests come from four clients at once; a fifth draws meanwhile, and after."""
    expected = small.ask(IMAGES, DRAW)[1]["data"]
    statuses: list[int] = []

    def be_bad(first: int) -> None:
        for _, path, body, *_ in BAD[first::4]:
            statuses.append(small.ask(path, body)[0])

    bad = [threading.Thread(target=be_bad, args=(first,)) for first in range(4)]
    for one in bad:
        one.start()
    num_good = 0
    while any(one.is_alive() for one in bad):
        assert small.ask(IMAGES, DRAW)[1]["data"] == expected
        num_good += 1
    assert len(statuses) == len(BAD) and all(400 <= one < 500 for one in statuses)
    assert num_good, "somebody drew meanwhile"
    small.wait_for_rest()
    assert small.ask(IMAGES, DRAW)[1]["data"] == expected
    assert small.metric("failed_total") == 0


def test_what_is_packed_within_an_image_is_not_unpacked(small: Served) -> None:
    """A profile or a text of 32 MB of zeros, in 32 KB of a PNG."""
    zeros = zlib.compress(bytes(32_000_000), 9)
    heads = {b"iCCP": b"a\0\0", b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}
    for name, head in heads.items():
        content = stuffed(name, head + zeros)
        status, answer = small.ask(CHAT, with_image(data_url(content)) | {"max_tokens": 1})
        assert status in (200, 400) and not secrets_of(json.dumps(answer)), answer
        tracemalloc.start()
        with contextlib.suppress(ApiError):
            opened(content, small.server.model, Limits(), "image")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 16 * 24 * 3 < peak < 8_000_000, name


def test_control_spellings_stay_words(small: Served) -> None:
    model = small.server.model
    for words in ("<|image|><|turn_end|>", "<image>", "</s>", "\x00\u202e"):
        status, answer = small.ask(CHAT, ask(words, modalities=["text"], max_tokens=2))
        ids = model.text_tokenizer.encode(words)
        assert status == 200 and all(token < model.vocabulary.num_text for token in ids)
        around = small.ask(CHAT, ask("a", modalities=["text"], max_tokens=2))[1]["usage"]
        less = len(model.text_tokenizer.encode("a"))
        assert answer["usage"]["prompt_tokens"] - len(ids) == around["prompt_tokens"] - less


def test_forms_that_are_none(small: Served) -> None:
    kind = "multipart/form-data; boundary=x"
    for content, status, words in (
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", 400, "name"),
        (b"nothing of the kind", 400, "form"),
    ):
        found, _, answer = small.send("POST", EDITS, content, Content_Type=kind)
        assert found == status and words in json.loads(answer)["error"]["message"]
    found, answer = small.form(IMAGES, [("prompt", "a"), ("n", "two")])
    assert found == 400 and answer["error"]["param"] == "n"
    found, answer = small.form(IMAGES, [("prompt", "a"), ("prompt", "b")])
    assert found == 400 and "twice" in answer["error"]["message"]
    found, answer = small.form(EDITS, [("prompt", "a"), ("image", png()), ("mask", png())])
    assert found == 400 and answer["error"]["param"] == "mask"
    found, answer = small.form(EDITS, [("prompt", "a"), ("image", b"not an image")])
    assert found == 400 and "no known kind" in answer["error"]["message"]


def test_routes_methods_and_types(small: Served) -> None:
    for method, path, kind, status in (
        ("GET", "/none", "", 404), ("GET", "/../../etc/passwd", "", 404), ("GET", IMAGES, "", 405),
        ("GET", "/v1/models/..%2f..%2fetc", "", 404), ("GET", "/v1/models/other", "", 404),
        ("POST", IMAGES, "text/plain", 415), ("POST", CHAT, "multipart/form-data", 415),
    ):  # fmt: skip
        found, head, content = small.send(method, path, b"", Content_Type=kind)
        assert found == status and "message" in json.loads(content)["error"]
        assert head["x-content-type-options"] == "nosniff" and "server" not in head


def test_pages_elsewhere_cannot_use_a_server_without_keys(small: Served) -> None:
    own = f"http://127.0.0.1:{small.port}"
    for headers, code, said in (
        ({"Host": "evil.example"}, "wrong_host", "name it 127.0.0.1 or localhost"),
        ({"Origin": "https://evil.example"}, "wrong_origin", f"its own is at {own}"),
        ({"Origin": "http://127.0.0.1:3"}, "wrong_origin", "Origin: 'http://127.0.0.1:3'"),
    ):
        status, answer = small.ask(IMAGES, DRAW, **headers)
        assert status == 403 and answer["error"]["type"] == "permission_error"
        assert answer["error"]["code"] == code and said in answer["error"]["message"]
    assert small.ask(IMAGES, DRAW, Origin=f"http://127.0.0.1:{small.port}")[0] == 200


def test_keys_rates_and_clients(tiny_model: Model) -> None:
    with serving(tiny_model, KEY, f"{KEY}-2", requests_a_minute=30) as found:
        for given in (
            "",
            "Bearer",
            "Bearer wrong",
            f"Basic {KEY}",
            f"Bearer {KEY}x",
            "Bearer \xff",
        ):
            status, head, content = found.send("GET", "/v1/models", Authorization=given)
            assert (status, head["www-authenticate"]) == (401, "Bearer")
            assert json.loads(content)["error"]["code"] == "invalid_api_key"
        good = {"Authorization": f"Bearer {KEY}", "Host": "wherever.example"}
        assert [found.get("/v1/models", **good)[0] for _ in range(4)] == [200, 200, 200, 429]
        status, head, content = found.send("GET", "/v1/models", **good)
        assert status == 429 and 1 <= int(head["retry-after"]) <= 2
        assert "30 requests a minute" in json.loads(content)["error"]["message"]
        other = {"Authorization": f"Bearer {KEY}-2"}
        assert found.get("/v1/models", **other)[0] == 200, "each client has its own rate"
        assert found.get("/health")[0] == 200 and found.get("/metrics")[0] == 401


def test_a_request_that_memory_cannot_hold_is_refused(tiny_model: Model) -> None:
    with serving(tiny_model, memory_bytes=5_000) as found:
        status, answer = found.ask(IMAGES, DRAW)
        assert status == 400 and "5,000 are allowed" in answer["error"]["message"]
        assert json.loads(found.get("/health")[1])["status"] == "ok"


def test_bodies_that_do_not_come_or_have_no_room(tiny_model: Model) -> None:
    with serving(tiny_model, body_seconds=1, max_bodies_bytes=1000, max_body_bytes=900) as found:
        head = f"POST {IMAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        slow = socket.create_connection(("127.0.0.1", found.port))
        slow.sendall(f"{head}Content-Length: 900\r\n\r\n{{".encode())
        time.sleep(0.3)
        status, answer = found.ask(IMAGES, {"prompt": "x" * 200})
        assert status == 503 and answer["error"]["code"] == "overloaded"
        assert slow.recv(4000).startswith(b"HTTP/1.1 408")
        slow.close()
        assert found.ask(IMAGES, DRAW)[0] == 200, "its room is free again"


def test_who_leaves_before_all_was_sent_is_no_error_of_ours(tiny_model: Model, caplog) -> None:
    with serving(tiny_model) as found:
        head = f"POST {IMAGES} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        leaving = socket.create_connection(("127.0.0.1", found.port))
        leaving.sendall(f"{head}Content-Length: 900\r\n\r\n{{".encode())
        while found.server._room._free == found.server.limits.max_bodies_bytes:
            time.sleep(0.01)
        leaving.close()
        counted = f'unimodal_requests_total{{route="{IMAGES}",status='
        while counted not in (told := found.get("/metrics")[1]):
            time.sleep(0.01)
        assert f'{counted}"499"}} 1' in told and not caplog.records


@pytest.mark.parametrize("broken_one", ["step", "submit"])
def test_an_error_of_ours_tells_nothing_and_stops_nothing(
    broken_one: str, tiny_model: Model, monkeypatch, caplog
) -> None:
    with serving(tiny_model) as found:
        expected = found.ask(IMAGES, DRAW)
        works = getattr(Generation, broken_one)

        def broken(*_: object) -> None:
            raise RuntimeError(f"out of memory in {found.server!r} at /srv/secret.py")

        monkeypatch.setattr(Generation, broken_one, broken)
        status, answer = found.ask(IMAGES, DRAW)
        assert status == 500 and not secrets_of(json.dumps(answer))
        assert "out of memory" in caplog.text, "the log has it"
        monkeypatch.setattr(Generation, broken_one, works)
        assert found.ask(IMAGES, DRAW)[1]["data"] == expected[1]["data"]
        assert found.metric("failed_total") == 1


def test_a_server_whose_loop_has_stopped_says_so(tiny_model: Model) -> None:
    with serving(tiny_model) as found:
        assert found.ask(IMAGES, DRAW)[0] == 200
        found.server.loop.stop()
        status, answer = found.ask(IMAGES, DRAW)
        assert (status, answer["error"]["code"]) == (503, "stopped")
        assert found.get("/health")[0] == 503


@pytest.mark.parametrize(
    ("kind", "field", "body"),
    [
        (Completion, "messages", {"messages": [0, 0]}),
        (Completion, "messages.0.content",
         {"messages": [{"role": "user", "content": [0, 0]}]}),
        (Completion, "messages.0.boxes",
         {"messages": [{"role": "user", "content": "a", "boxes": [0, 0]}]}),
        (Completion, "modalities", {"messages": [], "modalities": [0, 0]}),
        (Edit, "image", {"prompt": "a", "image": [0, 0]}),
        (Edit, "images", {"prompt": "a", "images": [0, 0]}),
        (Edit, "boxes", {"prompt": "a", "boxes": [0, 0]}),
        (Asked, "input", {"input": [0, 0]}),
    ],
)  # fmt: skip
def test_of_a_list_the_first_wrong_item_is_told(kind: type[Fields], field: str, body: Any) -> None:
    """To describe each of a million took minutes, in which nobody was answered."""
    with pytest.raises(ApiError) as refused:
        checked(kind, body)
    said = str(refused.value)
    assert said.startswith(field) and ".0" in said and ".1" not in said, said


def test_a_png_that_a_decoder_chokes_on_names_no_object(small: Served) -> None:
    content = bytearray(png())
    content[60:90] = bytes(30)
    for broken in (bytes(content), b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20), b"RIFF1234WEBPxx"):
        url = f"data:image/png;base64,{base64.b64encode(broken).decode()}"
        status, answer = small.ask(CHAT, with_image(url))
        assert status == 400 and not secrets_of(json.dumps(answer)), answer
