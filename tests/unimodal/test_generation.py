"""Generation on small random models: equal to teacher forcing, sound whatever is sampled."""

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unimodal.attention import DenseAttention
from unimodal.branches import Branches
from unimodal.document import Document, Image, Text
from unimodal.events import Event, ImageDone, ImageProgress, ReplyDone, TextDelta
from unimodal.generation import Generation, _only, generate, stream
from unimodal.grammar import Choice, Grammar, Modality, ReplyState
from unimodal.heads import next_code
from unimodal.model import Model
from unimodal.sampling import Sampling, guide
from unimodal.text import IncrementalDecoder, TextTokenizer
from unimodal.tokenizer.grid import Grid

Logits = dict[tuple[int, int], torch.Tensor]  # by (request, token of its reply)


@pytest.fixture(scope="module")
def lively(tiny_model: Model) -> Model:
    """Attention far from uniform, and special tokens likely: texts and images mix."""
    transformer = copy.deepcopy(tiny_model.transformer)
    special = tiny_model.vocabulary.special
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
        for name in ("image", "turn_end"):
            transformer.model.embed_tokens.weight[special(name)] *= 12
    return dataclasses.replace(tiny_model, transformer=transformer)


@pytest.fixture(scope="module")
def storyteller(drawing_model: Model) -> Model:
    """Answers anything with 'ok', one image of random codes, and 'h'."""
    transformer = copy.deepcopy(drawing_model.transformer)
    special, letter = drawing_model.vocabulary.special, drawing_model.text_tokenizer.encode("h")[0]
    with torch.no_grad():
        head_VD = transformer.lm_head.weight
        head_VD[:, special("image_end")] = 0
        head_VD[letter, special("image_end")] = 2
        head_VD[special("turn_end"), letter] = 2
    return dataclasses.replace(drawing_model, transformer=transformer)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Logits:
    """The logits that every id was sampled from, filled while a test generates."""
    logits: Logits = {}
    asking: dict[int, tuple[int, int]] = {}  # what each question is about
    logits_of, looked = Generation._logits, Generation._run_heads
    pick_codes, pick = next_code.pick_codes, next_code.pick

    def record_logits(self, choice, members):  # type: ignore[no-untyped-def]
        logits_BV = logits_of(self, choice, members)
        for member, logits_V in zip(members, _only(logits_BV, choice.allowed), strict=True):
            logits[member.number, len(member.state.ids)] = logits_V
        return logits_BV

    def note_questions(self, requests):  # type: ignore[no-untyped-def]
        asking.clear()
        for request in requests:
            if (asked := request.asked) is not None:
                ends = self._grammar.layout.layout.image.row_end is not None
                num_ends = ends * (asked.done // request.state.next.width)
                at = len(request.state.ids) + asked.done + num_ends
                asking[id(asked.arg)] = request.number, at
        return looked(self, requests)

    def note_members(head, table_VD, hidden, settings, args):  # type: ignore[no-untyped-def]
        members[:] = [asking[id(arg)] for arg in args]
        return pick_codes(head, table_VD, hidden, settings, args)

    def record_codes(logits_BV, *rest):  # type: ignore[no-untyped-def]
        logits.update(zip(members, logits_BV, strict=True))
        return pick(logits_BV, *rest)

    members: list[tuple[int, int]] = []
    monkeypatch.setattr(Generation, "_logits", record_logits)
    monkeypatch.setattr(Generation, "_run_heads", note_questions)
    monkeypatch.setattr(next_code, "pick_codes", note_members)
    monkeypatch.setattr(next_code, "pick", record_codes)
    return logits


def question(text: str, *images: Image) -> Document:
    return Document((*images, Text(text, role="user")))


def image(model: Model, seed: int) -> Image:
    shape = (model.grid.size, 1)
    codes = np.random.default_rng(seed).integers(0, model.vocabulary.num_codes, shape)
    return Image(codes=codes, grid=model.grid, codec_hash=model.codec.hash, role="user")


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
    model: Model, document: Document, ids: list[int], sampling: Sampling, modality: Modality | None
) -> dict[int, torch.Tensor]:
    """What each id of a reply should be sampled from, by its place in the reply."""
    prompts = [model.sequencer.prompt(document, drop).ids.tolist() for drop in (None, "text")]
    # Each from the token before; before the first of all there is none.
    conditional, unconditional = (
        F.pad(forced_logits(model, prompt + ids), (0, 0, 1, 0), value=torch.nan)[len(prompt) :]
        for prompt in prompts
    )
    grammar = Grammar(model.sequencer.layout, [model.grid], model.text_tokenizer.spelled)
    room = model.context - len(prompts[0])
    budget = sampling.max_text_tokens, sampling.max_images
    state = ReplyState(grammar, room, *budget, modality)
    first, last = model.vocabulary.code_slice
    expected, at = {}, 0
    while at < len(ids):
        following = state.next
        if isinstance(following, Grid):
            stop = at + grammar.layout.content_length(following)
            state.take_image(ids[at:stop])
            for k in range(at, stop):
                if model.vocabulary.is_code(ids[k]):
                    logits_V = conditional[k]
                    if sampling.guidance is not None:
                        scale = torch.tensor(sampling.guidance)
                        logits_V = guide(conditional[k], unconditional[k], scale)
                    others = torch.from_numpy(~model.vocabulary.is_code(np.arange(first, last)))
                    expected[k] = logits_V[first:last].masked_fill(others, -torch.inf)
            at = stop
            continue
        if isinstance(following, Choice):
            logits_V = conditional[at][following.first : following.last]
            forbidden = torch.from_numpy(~following.allowed)
            expected[at] = logits_V.masked_fill(forbidden, -torch.inf)
        state.take(ids[at])
        at += 1
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
    modalities = ["image", None, None, None] * 3
    samplings = [
        Sampling(text_temperature=1.0, guidance=guidance, seed=seed, max_text_tokens=20)
        for seed in range(12)
    ]
    done = replies(stream(lively, documents, samplings, modalities))
    kinds = ["".join(type(part).__name__[0] for part in reply.parts) for reply in done.values()]
    assert any(kind.count("I") > 1 for kind in kinds) and any("IT" in kind for kind in kinds), kinds
    for k, document in enumerate(documents):
        actual = {at: logits for (number, at), logits in seen.items() if number == k}
        ids = list(done[k].ids)
        expected = teacher_forced(lively, document, ids, samplings[k], modalities[k])
        assert_equal_logits(actual, expected)


@pytest.mark.parametrize("batch", [2, 32])
def test_a_batch_equals_the_same_requests_alone(lively: Model, seen: Logits, batch: int) -> None:
    documents = [
        question("draw " + "a red circle " * k, *[image(lively, k)] * (k % 3)) for k in range(7)
    ]
    modalities = [None, "image", "text", None, None, "image", None]
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
    together = replies(stream(lively, documents, samplings, modalities, batch))
    batched = dict(seen)
    for k, request in enumerate(zip(documents, samplings, modalities, strict=True)):
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
        assert whole.ids.tolist() == [*prompt, *reply.ids, lively.vocabulary.special("end")]


def test_a_seed_is_a_reply(lively: Model) -> None:
    def drawn(seed: int) -> list[int]:
        (parts,) = generate(lively, [question("draw")], Sampling(seed=seed), "image")
        assert isinstance(parts[0], Image) and parts[0].codes is not None
        return parts[0].codes[:, 0].tolist()

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
    modalities = ["image", "text"]
    for number, reply in replies(
        stream(lively, [question("go")] * 2, sampling, modalities)
    ).items():
        mine = {at: logits for (k, at), logits in seen.items() if k == number}
        first = [lively.vocabulary.code_slice[0] if modalities[number] == "image" else 0] * len(
            mine
        )
        best = [start + int(mine[at].argmax()) for start, at in zip(first, mine, strict=True)]
        assert [reply.ids[at] for at in mine] == best


def test_forced_ids_cost_no_step(lively: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = []
    original = Branches._forward
    monkeypatch.setattr(Branches, "_forward", lambda *args: forwards.append(1) or original(*args))
    generate(lively, [question("draw")], Sampling(guidance=2.0), "image")
    assert len(forwards) == lively.grid.size, "one for each code: the prompt's gives the first"


class Spelled:
    """A stand-in for a tokenizer whose ids are bytes."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_characters_are_never_cut() -> None:
    text = "naïve 画 🟥 e\u0301 ok"
    characters = IncrementalDecoder(Spelled())  # type: ignore[arg-type]
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
    characters = IncrementalDecoder(tokenizer)
    pushed = [characters.push(token) for token in tokenizer.encode(text)]
    assert "".join(pushed) == text and not any("\ufffd" in delta for delta in pushed)


def test_a_conversation_that_does_not_fit_is_refused_before_any_work(lively: Model) -> None:
    long = question("word " * lively.context)
    with pytest.raises(ValueError, match=r"take 2,052 of the model's 512 tokens.* needs up to 14"):
        stream(lively, [question("fits"), long])
    # One id less than what an image needs is refused, and just enough is answered.
    needed = Grammar(lively.sequencer.layout, [lively.grid]).longest_image + 1
    prompt = len(lively.sequencer.prompt(question("draw")))
    short = dataclasses.replace(lively, context=prompt + needed - 1)
    with pytest.raises(ValueError, match=f"take {prompt} of the model's {short.context} tokens"):
        generate(short, [question("draw")], modality="image")
    enough = dataclasses.replace(lively, context=prompt + needed)
    (parts,) = generate(enough, [question("draw")], Sampling(guidance=2.0), "image")
    assert isinstance(parts[0], Image)


def test_a_reply_ends_at_its_budget(lively: Model) -> None:
    sampling = Sampling(text_temperature=3.0, max_text_tokens=3)
    for reply in replies(stream(lively, [question("talk")] * 4, sampling, "text")).values():
        assert 1 <= len(reply.ids) - 1 <= 3
        assert reply.ids[-1] == lively.vocabulary.special("turn_end")


def test_arguments_are_checked(lively: Model) -> None:
    two = [question("a"), question("b")]
    with pytest.raises(ValueError, match="3 samplings for 2 documents"):
        generate(lively, two, [Sampling()] * 3)
    with pytest.raises(ValueError, match="1 modalities for 2 documents"):
        generate(lively, two, Sampling(), ["text"])
    with pytest.raises(ValueError, match="modality 'song'"):
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
