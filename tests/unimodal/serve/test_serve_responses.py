"""/v1/responses by OpenAI's client: the reply of a chat as items, whole and as a stream."""

import numpy as np
import pytest
from api_server import CHAT, Served, data_url, pixels, png, serving

from unimodal.model import Model

RESPONSES = "/v1/responses"
DRAWS = [{"type": "image_generation"}]


def test_the_openai_client_draws_and_edits_by_the_tool(served: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    settings = {"seed": 5, "guidance": 1}
    asked = {"model": "tiny", "tools": DRAWS, "extra_body": settings}
    first = client.responses.create(
        input="draw a red circle", tool_choice={"type": "image_generation"}, **asked
    )
    *_, call = first.output  # behind a plan in words, if there is one
    assert (first.status, call.type, call.status) == ("completed", "image_generation_call",
                                                      "completed")  # fmt: skip
    words = {"role": "user", "content": "draw a red circle"}
    chat = {"messages": [words], "modalities": ["image"], **settings}
    message = served.ask(CHAT, chat)[1]["choices"][0]["message"]
    assert data_url(b"") + call.result == message["images"][0]["image_url"]["url"]
    more = {"role": "user", "content": "make it blue"}
    second = client.responses.create(
        input=[words, *(one.model_dump(exclude_none=True) for one in first.output), more],
        tool_choice="required", **asked,
    )  # fmt: skip
    chat["messages"] += [message, more]
    expected = served.ask(CHAT, chat)[1]["choices"][0]["message"]["images"][0]
    edited = pixels(second.output[-1].result)
    assert np.array_equal(edited, pixels(expected["image_url"]["url"]))
    assert not np.array_equal(edited, pixels(call.result))
    assert second.usage.input_tokens > first.usage.input_tokens + 76


def test_a_stream_is_the_whole_in_events(drawing_model: Model) -> None:
    """Of a model that says ok and draws, whatever it is asked."""
    openai = pytest.importorskip("openai")
    kinds: list[str] = []
    with serving(drawing_model) as found:
        client = openai.OpenAI(base_url=found.url, api_key="none", max_retries=0)
        for partial in (0, 1):
            tools = [DRAWS[0] | {"partial_images": partial}] if partial else DRAWS
            body = {"model": "tiny", "input": "draw", "extra_body": {"seed": 3}}
            stream = list(client.responses.create(**body, tools=tools, stream=True))
            assert [one.sequence_number for one in stream] == list(range(len(stream)))
            whole = client.responses.create(**body, tools=DRAWS)
            assert stream[-1].type == f"response.{whole.status}"
            mine = stream[-1].response
            assert [one.type for one in whole.output] == ["message", "image_generation_call"]
            assert [one.type for one in mine.output] == [one.type for one in whole.output]
            assert mine.output_text == whole.output_text == "ok" and mine.usage == whole.usage
            deltas = [one.delta for one in stream if one.type == "response.output_text.delta"]
            assert "".join(deltas) == "ok" and mine.output[1].result == whole.output[1].result
            kinds = [one.type.removeprefix("response.") for one in stream]
    assert list(dict.fromkeys(kinds)) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "image_generation_call.in_progress", "image_generation_call.generating",
        "image_generation_call.partial_image", "image_generation_call.completed", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param", "way_out"),
    [
        ({"input": "a", "store": True}, "store", "what can be is false"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id", "leave it out"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools.0.type", "image_generation"),
        ({"input": "a", "tool_choice": "required"}, "tool_choice", "give tools"),
        ({"input": "a", "tools": [DRAWS[0] | {"size": "1x1"}]}, "size", "draws 16x24"),
        ({"input": "a", "tools": [DRAWS[0] | {"partial_images": 1}]}, "partial_images", "stream"),
        ({"input": "a", "n": 2}, "n", "what can be is 1"),
        ({"input": "a", "songs": 2}, "songs", "What is read here"),
        ({"input": [{"type": "image_generation_call", "id": "a", "result": "?"},
                    {"role": "user", "content": "a"}]}, "input.0", "not base64"),
        ({"input": [{"role": "user", "content": [{"type": "input_image",
                                                   "image_url": "http://10.0.0.1/a.png"}]}]},
         "input.0", "no address is fetched"),
    ],
)  # fmt: skip
def test_what_a_response_is_not(small: Served, body: dict, param: str, way_out: str) -> None:
    status, answer = small.ask(RESPONSES, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert way_out in answer["error"]["message"]


def test_words_and_images_come_in(small: Served) -> None:
    shown = [{"type": "input_image", "image_url": data_url(png())},
             {"type": "input_text", "text": "what is it?"}]  # fmt: skip
    asked = {"input": [{"role": "user", "content": shown}], "seed": 1, "max_output_tokens": 4}
    status, answer = small.ask(RESPONSES, asked | {"instructions": "be brief"})
    assert status == 200 and answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [one["type"] for one in answer["output"]] == ["message"], "no tool, no image"
    less = small.ask(RESPONSES, asked)[1]["usage"]["input_tokens"]
    assert answer["usage"]["input_tokens"] > less and "resized" in answer["notes"][0]
