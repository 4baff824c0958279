"""Every field is honoured or refused: those that could have no effect, and those of answers that
come back.
"""

import re
from typing import Any

import pytest
from api_server import CHAT, EDITS, IMAGES, Served, data_url, png, serving

from unimodal.model import Model

RESPONSES = "/v1/responses"
DRAWS = {"type": "image_generation"}
TEXT = {"modalities": ["text"], "max_tokens": 2, "seed": 1}
IMAGE = {"type": "image_url", "image_url": {"url": data_url(png())}}


def ask(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [*messages, {"role": "user", "content": "hello"}]} | more


def edit(**more: Any) -> dict[str, Any]:
    return {"prompt": "make it blue"} | more


def drawn(**more: Any) -> list[dict[str, Any]]:
    """An input with an image of the assistant."""
    result = data_url(png()).partition("base64,")[2]
    call = {"type": "image_generation_call", "id": "ig_1", "result": result} | more
    return [{"role": "user", "content": "draw"}, call, {"role": "user", "content": "what is it?"}]


WITHOUT_EFFECT: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, ask(modalities=["image"], max_tokens=1), "max_tokens", "leave max_tokens or modalities"),
    (CHAT, ask(modalities=["image"], max_completion_tokens=9), "max_completion_tokens", "or moda"),
    (RESPONSES, {"input": "a", "tools": [DRAWS], "tool_choice": "required",
                 "max_output_tokens": 1}, "max_output_tokens", "or tool_choice out"),
    (CHAT, ask(guidance=2, **TEXT), "guidance", "leave guidance or modalities out"),
    (CHAT, ask(negative_prompt="a", **TEXT), "negative_prompt", "words alone"),
    (CHAT, ask(drafts=2, **TEXT), "drafts", "words alone"),
    (CHAT, ask(steps=2, **TEXT), "steps", "words alone"),
    (CHAT, ask(size="16x24", **TEXT), "size", "words alone"),
    (CHAT, ask(candidates=2, **TEXT), "candidates", "words alone"),
    (RESPONSES, {"input": "a", "guidance": 2}, "guidance", "or give tools, .*image_generation"),
    (RESPONSES, {"input": "a", "drafts": 2}, "drafts", "or give tools"),
    (RESPONSES, {"input": drawn(size="999x1")}, "input.1.size", "draws 16x24"),
    (EDITS, edit(images=[]), "images", "from 1 to 16"),
    (EDITS, edit(images=[{"image_url": "http://a/"}]), "images", "no address"),
    (EDITS, edit(image="http://a/"), "image", "no address"),
    (IMAGES, edit(partial_images=2), "partial_images", "2: 0 is what can be without stream"),
    (CHAT, ask(IMAGE | {"role": "user"}), "messages.0.type", "not read here"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(WITHOUT_EFFECT)))
def test_what_would_have_no_effect_is_refused(small: Served, case: int) -> None:
    path, body, param, way_out = WITHOUT_EFFECT[case]
    status, answer = small.ask(path, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert re.search(way_out, answer["error"]["message"]), answer


def test_what_words_have_too_is_taken(small: Served) -> None:
    settings = {"guidance": 1, "drafts": 1, "candidates": 1, "size": "auto", "partial_images": 0}
    assert small.ask(CHAT, ask(**TEXT, **settings))[0] == 200
    assert small.ask(CHAT, ask(modalities=["image", "text"], max_tokens=3))[0] == 200


def said(content: Any, images: list[Any] | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return message if images is None else message | {"images": images}


@pytest.mark.parametrize(
    ("message", "way_out"),
    [
        (said([{"type": "text", "text": "abc"}, IMAGE | {"index": 7}]), "index 7: .*number 0"),
        (said([{"type": "text", "text": "abc"}, IMAGE | {"position": -5}]), "position -5: 3 char"),
        (said([IMAGE, IMAGE | {"index": 0}]), "index 0: .*number 1"),
        (said("abc", [IMAGE | {"index": 99}]), "index 99: .*number 0"),
        (said("abc", [IMAGE | {"position": 4}]), "position 4: .*within 3"),
    ],
)
def test_an_image_that_says_another_place_than_its_own_is_refused(
    small: Served, message: dict[str, Any], way_out: str
) -> None:
    status, answer = small.ask(CHAT, ask(message, **TEXT))
    assert status == 400 and re.search(way_out, answer["error"]["message"]), answer


def test_an_image_that_says_its_own_place_is_taken(small: Served) -> None:
    text = {"type": "text", "text": "abc"}
    within = [text, IMAGE | {"index": 0, "position": 3}, IMAGE | {"index": 1, "position": 3}]
    beside = [{**one} for one in within[1:]]
    both = [small.ask(CHAT, ask(message, **TEXT))
            for message in (said(within), said("abc", beside))]  # fmt: skip
    assert [status for status, _ in both] == [200, 200]
    assert both[0][1]["usage"] == both[1][1]["usage"]
    assert small.ask(RESPONSES, {"input": drawn(size="16x24"), "max_output_tokens": 2})[0] == 200


def test_empty_messages_of_others_than_the_user_are_as_if_not_there(small: Served) -> None:
    expected = small.ask(CHAT, ask(**TEXT))[1]
    for empty in (said(""), said("", []), said([]), {"role": "system", "content": ""}):
        answer = small.ask(CHAT, ask(empty, **TEXT))[1]
        assert answer["choices"] == expected["choices"] and answer["usage"] == expected["usage"]
    for content in ("", "   ", [{"type": "text", "text": " \n"}]):
        status, answer = small.ask(CHAT, {"messages": [{"role": "user", "content": content}]})
        assert status == 400 and answer["error"]["param"] == "messages.0"
        assert "ask something" in answer["error"]["message"]


def test_half_a_character_is_told_where_it_is(small: Served) -> None:
    body = b'{"input": "a", "instructions": "\\ud800"}'
    assert small.ask(RESPONSES, body)[1]["error"]["param"] == "instructions"
    body = b'{"messages": [{"role": "system", "content": "b"},'
    body += b'{"role": "user", "content": "\\ud800"}]}'
    assert small.ask(CHAT, body)[1]["error"]["param"] == "messages.1"


def test_images_are_told_of_in_the_bounds_and_names_that_hold_here(small: Served) -> None:
    for size in ((20_000, 8), (5000, 4000)):
        status, answer = small.ask(EDITS, edit(image=data_url(png(size))))
        assert status == 400 and "16,000,000" in answer["error"]["message"]
        assert "64 million" not in answer["error"]["message"]
    status, answer = small.ask(EDITS, edit(image=data_url(png(format="EPS"))))
    assert status == 400 and "is of the kind EPS; PNG" in answer["error"]["message"]


def test_the_openai_client_sends_back_what_it_was_answered(drawing_model: Model) -> None:
    openai = pytest.importorskip("openai")
    words = {"role": "user", "content": "draw"}
    with serving(drawing_model) as found:
        client = openai.OpenAI(base_url=found.url, api_key="none", max_retries=0)
        asked: dict[str, Any] = {"model": "tiny", "tools": [DRAWS], "extra_body": {"seed": 1}}
        first = client.responses.create(input=[words], parallel_tool_calls=False, **asked)
        assert first.parallel_tool_calls is False
        assert first.usage.input_tokens_details.cached_tokens == 0
        assert first.usage.output_tokens_details.reasoning_tokens == 0
        assert [one.type for one in first.output] == ["message", "image_generation_call"]
        dumped = [one.model_dump() for one in first.output]
        assert "phase" in dumped[0], "null, as all that the answer does not have"
        more = [client.responses.create(input=[words, *back, words], **asked)
                for back in (dumped, first.output)]  # fmt: skip
        assert more[0].output_text == more[1].output_text == "ok"
        assert more[0].usage == more[1].usage
        assert more[0].usage.input_tokens > first.usage.input_tokens


def test_a_name_may_have_slashes(tiny_model: Model) -> None:
    with serving(tiny_model, name="org/tiny") as found:
        for path in ("/v1/models/org/tiny", "/v1/models/org%2Ftiny"):
            assert found.get(path)[0] == 200
        assert found.get("/v1/models/org/other")[0] == 404
        assert found.get("/v1/models/tiny")[0] == 404
