"""Generation on small random models: equal to teacher forcing, sound whatever is sampled."""

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from unimodal import generation
from unimodal.attention import DenseAttention
from unimodal.bundle import Model
from unimodal.document import Document, Image, Text
from unimodal.generation import (
    Event,
    ImageDone,
    ImageProgress,
    ReplyDone,
    Sampling,
    TextDelta,
    generate,
    stream,
)
from unimodal.grammar import Choice, Grammar, State
from unimodal.sampling import guide
from unimodal.text import Characters, TextTokenizer

Logits = dict[tuple[int, int], torch.Tensor]  # by (request, position in its reply)


@pytest.fixture(scope="module")
def lively(tiny_model: Model) -> Model:
    """Attention far from uniform, and special tokens likely: texts and images mix."""
    transformer = copy.deepcopy(tiny_model.transformer)
    control = tiny_model.vocabulary.control
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
        for name in ("image", "turn_end"):
            transformer.model.embed_tokens.weight[control(name)] *= 12
    return dataclasses.replace(tiny_model, transformer=transformer)


@pytest.fixture(scope="module")
def storyteller(drawing_model: Model) -> Model:
    """Answers anything with 'ok', one image of random codes, and 'h'."""
    transformer = copy.deepcopy(drawing_model.transformer)
    control, letter = drawing_model.vocabulary.control, drawing_model.text.encode("h")[0]
    with torch.no_grad():
        head_VD = transformer.lm_head.weight
        head_VD[:, control("image_end")] = 0
        head_VD[letter, control("image_end")] = 2
        head_VD[control("turn_end"), letter] = 2
    return dataclasses.replace(drawing_model, transformer=transformer)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Logits:
    """The logits that every id was sampled from, filled while a test generates."""
    logits: Logits = {}
    original = generation._logits

    def record(model, choice, guided, members, hidden_BD):  # type: ignore[no-untyped-def]
        logits_BV = original(model, choice, guided, members, hidden_BD)
        for member, logits_V in zip(members, logits_BV, strict=True):
            logits[member.number, len(member.state.ids)] = logits_V
        return logits_BV

    monkeypatch.setattr(generation, "_logits", record)
    return logits


def question(text: str, *images: Image) -> Document:
    return Document((*images, Text(text, role="user")))


def image(model: Model, seed: int) -> Image:
    codes = np.random.default_rng(seed).integers(0, model.vocabulary.num_codes, model.grid.size)
    return Image(
        codes=codes, grid=model.grid, tokenizer_hash=model.sequencer.tokenizer_hash, role="user"
    )


def replies(events: Iterator[Event]) -> dict[int, ReplyDone]:
    return {event.request: event for event in events if isinstance(event, ReplyDone)}


@torch.inference_mode()
def forced_logits(model: Model, ids: list[int]) -> torch.Tensor:
    """Logits (T, V) of a sequence read at once, without a cache."""
    causal_1TT = torch.ones(1, len(ids), len(ids), dtype=torch.bool).tril()
    x_1TD = model.transformer.embed(torch.tensor([ids]))
    positions_1T = torch.arange(len(ids))[None]
    hidden_1TD = model.transformer(x_1TD, positions_1T, DenseAttention(causal_1TT))
    return model.transformer.logits(hidden_1TD)[0]


def teacher_forced(
    model: Model, document: Document, ids: list[int], sampling: Sampling, force: str | None
) -> dict[int, torch.Tensor]:
    """What each id of a reply should be sampled from, by its position in the reply."""
    prompts = [model.sequencer.prompt(document, drop).ids.tolist() for drop in (None, "text")]
    conditional, unconditional = (
        forced_logits(model, prompt + ids)[len(prompt) - 1 :] for prompt in prompts
    )
    grammar = Grammar(model.vocabulary, [model.grid])
    room = model.context - len(prompts[0])
    state = State(grammar, room, sampling.max_text_tokens, sampling.max_images, force)
    expected = {}
    for at, token in enumerate(ids):
        choice = state.next
        if isinstance(choice, Choice):
            logits_V = conditional[at]
            if choice.drawing and sampling.guidance is not None:
                scale = torch.tensor(sampling.guidance)
                logits_V = guide(conditional[at], unconditional[at], scale)
            logits_V = logits_V[choice.first : choice.last]
            if choice.allowed is not None:
                logits_V = logits_V.masked_fill(torch.from_numpy(~choice.allowed), -torch.inf)
            expected[at] = logits_V
        state.take(token)
    return expected


def assert_equal_logits(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for key, logits_V in expected.items():
        torch.testing.assert_close(actual[key], logits_V, atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_cached_steps_equal_teacher_forcing(
    lively: Model, seen: Logits, guidance: float | None
) -> None:
    documents = [
        question("draw a red circle"),
        question("make it blue", image(lively, 0)),
        question("what?", image(lively, 1), image(lively, 2)),
        question("a much longer question, so that rows have quite different lengths"),
    ] * 3
    forces = ["image", None, None, None] * 3
    samplings = [
        Sampling(text_temperature=1.0, guidance=guidance, seed=seed, max_text_tokens=20)
        for seed in range(12)
    ]
    done = replies(stream(lively, documents, samplings, forces))
    kinds = ["".join(type(part).__name__[0] for part in reply.parts) for reply in done.values()]
    assert any(kind.count("I") > 1 for kind in kinds) and any("IT" in kind for kind in kinds), kinds
    for k, document in enumerate(documents):
        actual = {at: logits for (number, at), logits in seen.items() if number == k}
        ids = list(done[k].ids)
        expected = teacher_forced(lively, document, ids, samplings[k], forces[k])
        assert_equal_logits(actual, expected)


@pytest.mark.parametrize("batch", [2, 32])
def test_a_batch_equals_the_same_requests_alone(lively: Model, seen: Logits, batch: int) -> None:
    documents = [
        question("draw " + "a red circle " * k, *[image(lively, k)] * (k % 3)) for k in range(7)
    ]
    forces = [None, "image", "text", None, None, "image", None]
    samplings = [
        Sampling(
            text_temperature=float(k % 2),
            guidance=[None, 2.0, 1.0][k % 3],
            image_top_k=[None, 9][k % 2],
            seed=k,
            max_text_tokens=5 + k,
        )
        for k in range(7)
    ]
    together = replies(stream(lively, documents, samplings, forces, batch))
    batched = dict(seen)
    for k, request in enumerate(zip(documents, samplings, forces, strict=True)):
        seen.clear()
        alone = replies(stream(lively, *([value] for value in request)))[0]
        assert alone.ids == together[k].ids
        mine = {(0, at): logits for (number, at), logits in batched.items() if number == k}
        assert_equal_logits(mine, seen)


@pytest.mark.parametrize("guidance", [None, 2.0])
def test_text_image_and_text_again(storyteller: Model, guidance: float | None) -> None:
    (parts,) = generate(storyteller, [question("draw")], Sampling(guidance=guidance))
    first, drawn, last = parts
    assert isinstance(first, Text) and first.text == "ok" and first.role == "assistant"
    assert isinstance(drawn, Image) and drawn.role == "assistant"
    assert drawn.grid == storyteller.grid and drawn.codes is not None
    assert isinstance(last, Text) and last.text == "h"


def test_events_tell_the_whole_reply(storyteller: Model) -> None:
    events = list(stream(storyteller, [question("draw")], Sampling(seed=3)))
    size = storyteller.grid.size
    done = events[-1]
    assert isinstance(done, ReplyDone)
    progress = [event for event in events if isinstance(event, ImageProgress)]
    images = [event.image for event in events if isinstance(event, ImageDone)]
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert [(event.done, event.total) for event in progress] == [
        (k + 1, size) for _ in images for k in range(size)
    ]
    assert images == [part for part in done.parts if isinstance(part, Image)]
    assert "".join(texts) == "".join(part.text for part in done.parts if isinstance(part, Text))
    heard: list[Event] = []
    (parts,) = generate(storyteller, [question("draw")], Sampling(seed=3), on_event=heard.append)
    assert [type(event) for event in heard] == [type(event) for event in events]
    assert len(parts) == len(done.parts)


def test_replies_read_back_as_they_were_sampled(lively: Model) -> None:
    """The layout of a reply is that of training: the sequencer spells the same ids again."""
    documents = [question("draw"), question("what is this", image(lively, 5))] * 3
    samplings = [Sampling(seed=seed, guidance=2.0) for seed in range(6)]
    for k, reply in replies(stream(lively, documents, samplings, "image")).items():
        prompt = lively.sequencer.prompt(documents[k]).ids.tolist()
        whole = lively.sequencer.sequence(Document((*documents[k].parts, *reply.parts)))
        assert whole.ids.tolist() == [*prompt, *reply.ids, lively.vocabulary.control("end")]


def test_a_seed_is_a_reply(lively: Model) -> None:
    def drawn(seed: int) -> list[int]:
        (parts,) = generate(lively, [question("draw")], Sampling(seed=seed), "image")
        assert isinstance(parts[0], Image) and parts[0].codes is not None
        return parts[0].codes.tolist()

    assert drawn(7) == drawn(7)
    assert len({tuple(drawn(seed)) for seed in range(5)}) == 5


def test_guidance_of_one_is_off(lively: Model, seen: Logits) -> None:
    off = replies(stream(lively, [question("draw")], Sampling(guidance=None), "image"))[0]
    without = dict(seen)
    seen.clear()
    one = replies(stream(lively, [question("draw")], Sampling(guidance=1.0), "image"))[0]
    assert one.ids == off.ids
    assert all(torch.equal(without[key], seen[key]) for key in without)


def test_temperature_zero_takes_the_likeliest(lively: Model, seen: Logits) -> None:
    sampling = Sampling(image_temperature=0.0, guidance=2.0, max_text_tokens=9)
    forces = ["image", "text"]
    for number, reply in replies(stream(lively, [question("go")] * 2, sampling, forces)).items():
        mine = {at: logits for (k, at), logits in seen.items() if k == number}
        first = [lively.vocabulary.first_code if forces[number] == "image" else 0] * len(mine)
        best = [start + int(mine[at].argmax()) for start, at in zip(first, mine, strict=True)]
        assert [reply.ids[at] for at in mine] == best


def test_forced_ids_cost_no_step(lively: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = []
    original = generation._forward
    monkeypatch.setattr(generation, "_forward", lambda *args: forwards.append(1) or original(*args))
    generate(lively, [question("draw")], Sampling(guidance=2.0), "image")
    assert len(forwards) == lively.grid.size, "one for each code: the prompt's gives the first"


class Spelled:
    """A stand-in for a tokenizer whose ids are bytes."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_characters_are_never_cut() -> None:
    text = "naïve 画 🟥 e\u0301 ok"
    characters = Characters(Spelled())  # type: ignore[arg-type]
    pushed = [characters.push(byte) for byte in text.encode()]
    assert "".join(pushed) == text and characters.flush() == ""
    assert set(pushed) - {""} == set(text)
    for byte in "a🟥".encode()[:-1]:
        characters.push(byte)
    assert characters.flush() == "", "an unfinished character is left out"
    broken = [characters.push(byte) for byte in b"a\xe2b\xff\xffc"]
    assert "".join(broken) == b"a\xe2b\xff\xffc".decode("utf-8", errors="replace")


def test_streamed_text_of_a_real_tokenizer_is_whole() -> None:
    text = "größer, 红色的圆 🟥🟥"
    tokenizer = TextTokenizer.train(["red circle größer"], 270)
    characters = Characters(tokenizer)
    pushed = [characters.push(token) for token in tokenizer.encode(text)]
    assert "".join(pushed) == text and not any("\ufffd" in delta for delta in pushed)


def test_a_conversation_that_does_not_fit_is_refused_before_any_work(lively: Model) -> None:
    long = question("word " * lively.context)
    with pytest.raises(ValueError, match=r"takes \d+ of 512 positions, and its reply needs"):
        stream(lively, [question("fits"), long])
    # One id less than what a image needs is refused, and just enough is answered.
    needed = Grammar(lively.vocabulary, [lively.grid]).longest_image + 1
    prompt = len(lively.sequencer.prompt(question("draw")))
    short = dataclasses.replace(lively, context=prompt + needed - 1)
    with pytest.raises(ValueError, match=f"takes {prompt} of {short.context} positions"):
        generate(short, [question("draw")], force="image")
    enough = dataclasses.replace(lively, context=prompt + needed)
    (parts,) = generate(enough, [question("draw")], Sampling(guidance=2.0), "image")
    assert isinstance(parts[0], Image)


def test_a_reply_ends_at_its_budget(lively: Model) -> None:
    sampling = Sampling(text_temperature=3.0, max_text_tokens=3)
    for reply in replies(stream(lively, [question("talk")] * 4, sampling, "text")).values():
        assert 1 <= len(reply.ids) - 1 <= 3
        assert reply.ids[-1] == lively.vocabulary.control("turn_end")


def test_arguments_are_checked(lively: Model) -> None:
    two = [question("a"), question("b")]
    with pytest.raises(ValueError, match="3 samplings for 2 documents"):
        generate(lively, two, [Sampling()] * 3)
    with pytest.raises(ValueError, match="1 forces for 2 documents"):
        generate(lively, two, Sampling(), ["text"])
    with pytest.raises(ValueError, match="force 'song'"):
        generate(lively, two, Sampling(), "song")
    with pytest.raises(ValueError, match="batch 0"):
        generate(lively, two, Sampling(), batch=0)
    assert generate(lively, [], Sampling()) == []


def test_damaged_weights_are_said(tiny_model: Model) -> None:
    transformer = copy.deepcopy(tiny_model.transformer)
    with torch.no_grad():
        transformer.model.norm.weight[0] = torch.nan
    damaged = dataclasses.replace(tiny_model, transformer=transformer)
    with pytest.raises(ValueError, match="not finite"):
        generate(damaged, [question("draw")], Sampling())
