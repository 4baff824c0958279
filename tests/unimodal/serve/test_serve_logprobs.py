"""`logprobs` of the server: those of the model's own logits, as `openai`'s client reads them."""

import math

import pytest
import torch
from api_server import CHAT, Served, data_url, png

from unimodal.attention import DenseAttention
from unimodal.document import Document, Text
from unimodal.events import ReplyDone, TokenScored
from unimodal.generation import Generation
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.serve.logprobs import logprobs_of

QUESTION = "is there a red circle?"


def body(content: bytes) -> dict:
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(content)}},
        {"type": "text", "text": QUESTION},
    ]
    return {"messages": [{"role": "user", "content": parts}], "modalities": ["text"], "seed": 1}


@torch.inference_mode()
def logits(model: Model, ids: list[int]) -> torch.Tensor:
    """The logits of the last token, (V,), by one forward over all ids."""
    causal_1TT = torch.ones(1, len(ids), len(ids), dtype=torch.bool).tril()
    x_1TD = model.transformer.embed(torch.tensor([ids]))
    hidden_1TD = model.transformer(x_1TD, torch.arange(len(ids))[None], DenseAttention(causal_1TT))
    return model.transformer.logits(hidden_1TD)[0, -1].double()


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_scores_are_those_of_a_forward_over_the_whole(
    tiny_model: Model, temperature: float
) -> None:
    document = Document((Text(QUESTION, role="user"),))
    sampling = Sampling(text_temperature=temperature, max_text_tokens=3, seed=4)
    generation = Generation(tiny_model)
    generation.submit(document, sampling, "text", likeliest=5)
    generation.submit(document, sampling, "text")  # which wants no scores
    events = list(generation.run())
    scored = [one for one in events if isinstance(one, TokenScored)]
    (reply,) = (one for one in events if isinstance(one, ReplyDone) and one.request == 0)
    assert {one.request for one in scored} == {0}
    assert [one.token for one in scored] == list(reply.ids[: len(scored)]) and scored
    ids = tiny_model.sequencer.prompt(document).ids.tolist()
    for one in scored:
        expected_V = logits(tiny_model, ids)
        (first, best), *others = one.likeliest
        for token, logprob in [*others, (one.token, one.logprob)]:
            difference = float(expected_V[token] - expected_V[first])
            assert logprob - best == pytest.approx(difference, abs=1e-4)
        assert [p for _, p in one.likeliest] == sorted((p for _, p in one.likeliest), reverse=True)
        ids.append(one.token)


def test_the_openai_client_reads_what_the_words_were_worth(served: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model="tiny", logprobs=True, top_logprobs=20, temperature=0, **body(png(seed=5))
    )
    (choice,) = answer.choices
    told = choice.logprobs.content
    assert "".join(one.token for one in told).strip() == choice.message.content.strip() != ""
    for one in told:
        assert len(one.top_logprobs) == 20 and one.top_logprobs[0].token == one.token
        assert one.logprob == one.top_logprobs[0].logprob and bytes(one.bytes).decode() == one.token
        assert 0.5 < math.fsum(math.exp(other.logprob) for other in one.top_logprobs) <= 1 + 1e-6


def test_nothing_is_told_unasked(small: Served) -> None:
    plain = body(png((16, 24))) | {"max_tokens": 2}
    assert small.ask(CHAT, plain)[1]["choices"][0]["logprobs"] is None
    told = small.ask(CHAT, plain | {"logprobs": True})[1]["choices"][0]["logprobs"]["content"]
    assert told and all(one["top_logprobs"] == [] for one in told)


def test_of_a_single_token_all_are_told(small: Served, tiny_model: Model) -> None:
    one = body(png((16, 24))) | {"max_tokens": 1, "logprobs": True, "top_logprobs": 1000}
    (told,) = small.ask(CHAT, one)[1]["choices"][0]["logprobs"]["content"]
    likeliest = [other["logprob"] for other in told["top_logprobs"]]
    assert len(likeliest) >= tiny_model.text_tokenizer.num_ids
    assert math.fsum(map(math.exp, likeliest)) == pytest.approx(1, abs=1e-5)
    status, refusal = small.ask(CHAT, one | {"max_tokens": 2})
    assert status == 400 and "of a single token to 1000" in refusal["error"]["message"]


def test_special_tokens_are_no_content_and_halves_of_characters_have_no_bytes(
    tiny_model: Model,
) -> None:
    special = tiny_model.vocabulary.special("turn_end")
    half, letter = (
        tiny_model.text_tokenizer.encode("é")[0],
        tiny_model.text_tokenizer.encode("b")[0],
    )
    likeliest = ((letter, -0.5), (special, -1.5), (half, -2.5))
    scored = [TokenScored(0, letter, -0.5, likeliest), TokenScored(0, special, -0.1, ())]
    (one,) = logprobs_of(scored, tiny_model)["content"]
    assert one["token"] == "b" and one["bytes"] == [98]
    assert [other["token"] for other in one["top_logprobs"]] == ["b", "<turn_end>", "\ufffd"]
    assert one["top_logprobs"][2]["bytes"] is None
