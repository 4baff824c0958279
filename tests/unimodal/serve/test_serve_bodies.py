"""What the body of a request is: its charset and coding, its numbers, its many fields and nulls."""

import json
import time
from typing import Any

import pytest
from api_server import CHAT, IMAGES, Served, data_url, png, serving

from unimodal.model import Model

RESPONSES = "/v1/responses"
DRAW = {"prompt": "draw a red circle", "seed": 1}
WORDS = {"role": "user", "content": "hello"}
TALK: dict[str, Any] = {"messages": [WORDS], "modalities": ["text"], "max_tokens": 2, "seed": 1}


def form_of(words: str, charset: str, served: Served) -> tuple[int, Any]:
    """The answer to a form in a charset that its head names."""
    field = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    content = field + words.encode() + b"\r\n--x--\r\n"
    status, _, answer = served.send("POST", IMAGES, content, Content_Type=kind)
    return status, json.loads(answer)


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "utf-16", '"PunyCode"'])
def test_a_form_of_another_charset_is_refused_at_once(small: Served, charset: str) -> None:
    """punycode of 600 KB took 19 s, in which nobody was answered."""
    started = time.monotonic()
    status, answer = form_of(f"{'a' * 200_000}-{'b' * 200_000}", charset, small)
    assert status == 400 and answer["error"]["code"] == "unsupported_charset"
    assert charset.strip('"') in answer["error"]["message"]
    assert "utf-8 is read" in answer["error"]["message"]
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "us-ascii"])
def test_forms_of_the_usual_charsets_are_read(small: Served, charset: str) -> None:
    assert form_of("draw a red circle", charset, small)[0] == 200


@pytest.mark.parametrize("ending", [b"", b"\r\n", b"\r\n--x", b"\r\n--x\r\n"])
def test_a_form_that_was_cut_is_refused(small: Served, ending: bytes) -> None:
    """Its last field would be dropped."""
    field = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b'
    content = field % (b"prompt", b"a red circle") + b"\r\n" + field % (b"seed", b"7") + ending
    kind = "multipart/form-data; boundary=x"
    status, _, answer = small.send("POST", IMAGES, content, Content_Type=kind)
    assert status == 400 and json.loads(answer)["error"]["code"] == "invalid_form"


@pytest.mark.parametrize("name, text", [("seed", "1_0"), ("seed", " 7"), ("guidance", "inf"),
                                        ("guidance", "1_0.5"), ("n", "+1"), ("seed", "1.0"),
                                        ("seed", "01"), ("guidance", "01.5"),
                                        ("stream", "yes"), ("stream", "1"),
                                        ("stream", "True")])  # fmt: skip
def test_numbers_and_truth_of_forms_are_those_of_json(small: Served, name: str, text: str) -> None:
    status, answer = small.form(IMAGES, [("prompt", "a red circle"), (name, text)])
    assert status == 400 and answer["error"]["param"] == name, "python would read most of them"


@pytest.mark.parametrize("name, text", [("seed", b"1"), ("stream", b"true"), ("guidance", b"2"),
                                        ("size", b"64x64"), ("user", b"me"),
                                        ("boxes", b"a red circle, 4, 10, 24, 30")])  # fmt: skip
def test_a_file_is_no_text(small: Served, name: str, text: bytes) -> None:
    status, answer = small.form(IMAGES, [("prompt", "a red circle"), (name, text)])
    assert status == 400 and answer["error"]["param"] == name
    assert "send it as text" in answer["error"]["message"]


def test_a_body_ends_in_one_way(small: Served) -> None:
    """A proxy that believes the other header would take the rest for a request of its own."""
    talk = json.dumps(TALK).encode()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(talk), talk)
    kind = {"Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    status, _, _ = small.send("POST", CHAT, chunked, **kind)
    assert status == 200
    status, _, answer = small.send("POST", CHAT, chunked, Content_Length=str(len(talk)), **kind)
    assert status == 400 and b"Transfer-Encoding" in answer


def test_an_offer_of_another_protocol_is_passed_over(small: Served, caplog) -> None:
    talk = json.dumps(TALK).encode()
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
    status, _, _ = small.send("POST", CHAT, talk, Content_Type="application/json", **offer)
    assert status == 200 and not caplog.records


def test_forms_are_utf_8(small: Served) -> None:
    """Latin-1 would be another prompt; a name may have letters of any kind."""
    head = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
    kind = "multipart/form-data; boundary=x"
    for words, expected in (("r\u00e9d \u5186".encode(), 200), (b"r\xe9d", 400), (b"\xff", 400)):
        content = head + words + b"\r\n--x--\r\n"
        status, _, answer = small.send("POST", IMAGES, content, Content_Type=kind)
        assert status == expected
        if status == 400:
            assert "of 'prompt' is not UTF-8" in json.loads(answer)["error"]["message"]


def test_too_many_parts_are_refused_before_they_are_looked_at(tiny_model: Model) -> None:
    """80,000 parts of one message took 4.5 s, in which nobody was answered."""
    parts = [{"type": "text", "text": "a"}] * 80_000
    spread = [{"role": "user", "content": parts[:300]}] * 200
    whole = [{"role": "user", "content": parts}]
    with serving(tiny_model) as found:
        for messages, count in ((whole, "80,001"), (spread, "60,200")):
            started = time.monotonic()
            status, answer = found.ask(CHAT, {"messages": messages})
            assert status == 400 and f"messages: {count} items: 4,096" in answer["error"]["message"]
            assert time.monotonic() - started < 2


def test_json_of_another_charset_or_coding_is_refused(small: Served) -> None:
    for value in ("utf-16", "latin-1"):
        kind = f"application/json; charset={value}"
        status, answer = small.ask(IMAGES, DRAW, Content_Type=kind)
        assert status == 400 and value in answer["error"]["message"]
    assert small.ask(IMAGES, DRAW, Content_Type="Application/JSON; Charset=UTF-8")[0] == 200
    status, answer = small.ask(IMAGES, DRAW, Content_Encoding="gzip")
    assert status == 415 and "Content-Encoding says 'gzip'" in answer["error"]["message"]
    assert small.ask(IMAGES, DRAW, Content_Encoding="identity")[0] == 200


def test_a_number_of_thousands_of_digits_is_refused_in_our_words(small: Served) -> None:
    status, answer = small.ask(IMAGES, b'{"prompt": "a", "seed": -' + b"1" * 5000 + b"}")
    assert status == 400 and answer["error"]["code"] == "invalid_json"
    assert "a number has 5,001 digits: 400 are the most" in answer["error"]["message"]


def test_an_object_of_too_many_fields_is_refused_before_it_is_looked_at(small: Served) -> None:
    """To describe each of 120,000 that are unknown took a second, in which nobody was answered."""
    many = {f"a{number}": 1 for number in range(60_000)}
    choice = {"type": "image_generation"} | many
    for path, body in (
        (CHAT, TALK | {"messages": [WORDS | many]}),
        (RESPONSES, {"input": "a", "tool_choice": choice}),
    ):
        status, answer = small.ask(path, body)
        assert status == 400 and "fields: 64 are the most" in answer["error"]["message"]


def test_null_is_as_if_a_field_were_not_there(small: Served) -> None:
    image = {"url": data_url(png()), "detail": None}
    shown = [{"type": "image_url", "image_url": image}, {"type": "text", "text": "hello"}]
    expected = small.ask(CHAT, TALK)[1]["choices"]
    named = WORDS | {"name": None, "tool_calls": None}
    assert small.ask(CHAT, TALK | {"messages": [named], "stop": None})[1]["choices"] == expected
    assert small.ask(CHAT, TALK | {"messages": [{"role": "user", "content": shown}]})[0] == 200
    body = json.dumps(TALK | {"stream": True, "stream_options": {"include_usage": None}})
    kind = "application/json"
    status, _, told = small.send("POST", CHAT, body.encode(), Content_Type=kind)
    assert status == 200 and b'"usage"' not in told
    tool = {"type": "image_generation", "size": None, "partial_images": None}
    assert small.ask(RESPONSES, {"input": "a", "tools": [tool], "seed": 1})[0] == 200
    status, answer = small.ask(CHAT, TALK | {"messages": [{"role": None, "content": "a"}]})
    assert status == 400 and answer["error"]["param"] == "messages.0.role"


CONTENT: list[tuple[Any, str, str]] = [
    (5, "messages.0.content", "valid string"),
    ([0], "messages.0.content.0", "an object"),
    ([{}], "messages.0.content.0.type", "required"),
    ([{"type": "input_text", "text": "a"}], "messages.0.content.0.type",
     "'input_text': what can be is 'text', 'image_url'"),
    ([{"type": "text"}], "messages.0.content.0.text", "required"),
    ([{"type": "text", "text": 5}], "messages.0.content.0.text", "valid string"),
    ([{"type": "text", "text": "a", "image_url": 1}], "messages.0.content.0.image_url",
     "not read here"),
    ([{"type": "image_url"}], "messages.0.content.0.image_url", "required"),
    ([{"type": "image_url", "image_url": {}}], "messages.0.content.0.image_url.url", "required"),
    ([{"type": "image_url", "image_url": {"url": "a", "detail": "high"}}],
     "messages.0.content.0.image_url.detail", "'auto'"),
]  # fmt: skip
INPUT: list[tuple[Any, str, str]] = [
    ({"input": 5}, "input", "valid string"),
    ({"input": [0]}, "input.0", "an object"),
    ({"input": [{"type": "reasoning", "id": "a"}]}, "input.0.type", "'image_generation_call'"),
    ({"input": [{"type": "image_generation_call", "id": "a"}]}, "input.0.result", "required"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
     "input.0.content.0.image_url", "required"),
    ({"input": [{"role": "user", "content": "a", "name": "b"}]}, "input.0.name", "not read here"),
    ({"input": "a", "tool_choice": "b"}, "tool_choice", "'auto', 'none' or 'required'"),
    ({"input": "a", "tool_choice": {"type": "b"}}, "tool_choice.type", "'image_generation'"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CONTENT) + len(INPUT)))
def test_an_error_names_the_field_and_only_what_was_meant(small: Served, case: int) -> None:
    asked = [(CHAT, {"messages": [{"role": "user", "content": content}]}, param, said)
             for content, param, said in CONTENT]  # fmt: skip
    asked += [(RESPONSES, body, param, said) for body, param, said in INPUT]
    path, body, param, said = asked[case]
    status, answer = small.ask(path, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    message = answer["error"]["message"]
    assert message.startswith(f"{param}: ") and said in message
    assert ";" not in message, "errors of what was not meant are left out"
