"""/v1/responses by OpenAI's client: the reply of a chat as items, whole and as a stream."""

import numpy as np
import pytest
from api_server import CHAT, Served, data_url, pixels, png

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
    (call,) = first.output
    assert (first.status, call.type, call.status) == ("completed", "image_generation_call",
                                                      "completed")  # fmt: skip
    words = {"role": "user", "content": "draw a red circle"}
    chat = {"messages": [words], "modalities": ["image"], **settings}
    message = served.ask(CHAT, chat)[1]["choices"][0]["message"]
    assert data_url(b"") + call.result == message["images"][0]["image_url"]["url"]
    more = {"role": "user", "content": "make it blue"}
    second = client.responses.create(
        input=[words, call.model_dump(exclude_none=True), more], tool_choice="required", **asked
    )
    chat["messages"] += [message, more]
    expected = served.ask(CHAT, chat)[1]["choices"][0]["message"]["images"][0]
    edited = pixels(second.output[0].result)
    assert np.array_equal(edited, pixels(expected["image_url"]["url"]))
    assert not np.array_equal(edited, pixels(call.result))
    assert second.usage.input_tokens > first.usage.input_tokens + 76


def test_a_stream_is_the_whole_in_events(small: Served) -> None:
    """Words and images of random weights, in any order."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=small.url, api_key="none", max_retries=0)
    kinds = set()
    for seed in range(8):
        body = {"input": "draw", "tools": [DRAWS[0] | {"partial_images": 1}],
                "extra_body": {"seed": seed, "temperature": 1}}  # fmt: skip
        stream = list(client.responses.create(model="tiny", stream=True, **body))
        assert [one.sequence_number for one in stream] == list(range(len(stream)))
        body["tools"] = DRAWS
        whole = client.responses.create(model="tiny", **body)
        assert stream[-1].type == f"response.{whole.status}"
        mine, theirs = stream[-1].response, whole
        assert [one.type for one in mine.output] == [one.type for one in theirs.output]
        assert mine.output_text == theirs.output_text and mine.usage == theirs.usage
        deltas = [one.delta for one in stream if one.type == "response.output_text.delta"]
        assert "".join(deltas) == theirs.output_text
        results = [[one.result for one in response.output if hasattr(one, "result")]
                   for response in (mine, theirs)]  # fmt: skip
        assert results[0] == results[1]
        kinds |= {one.type for one in stream}
    drawing = {f"response.image_generation_call.{one}" for one in ("partial_image", "completed")}
    assert drawing | {"response.output_text.delta", "response.output_item.done"} <= kinds


@pytest.mark.parametrize(
    ("body", "param", "way_out"),
    [
        ({"input": "a", "store": True}, "store", "what can be is False"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id", "leave it out"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools.0.type", "image_generation"),
        ({"input": "a", "tool_choice": "required"}, "tool_choice", "give tools"),
        ({"input": "a", "tools": [DRAWS[0] | {"size": "1x1"}]}, "size", "draws 16x24"),
        ({"input": "a", "tools": [DRAWS[0] | {"partial_images": 1}]}, "partial_images", "stream"),
        ({"input": "a", "n": 2}, "n", "what can be is 1"),
        ({"input": "a", "songs": 2}, "songs", "What is read here"),
        ({"input": [{"type": "image_generation_call", "id": "a", "result": "?"},
                    {"role": "user", "content": "a"}]}, "messages.0", "not base64"),
        ({"input": [{"role": "user", "content": [{"type": "input_image",
                                                   "image_url": "http://10.0.0.1/a.png"}]}]},
         "messages.0", "no address is fetched"),
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
