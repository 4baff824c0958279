"""Generation as a service: requests come and go at any step, and none is changed by another."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_branches import counted
from test_generation import Logits, image, lively, question, seen  # noqa: F401  (fixtures)

from unimodal.document import Document, Image
from unimodal.generation import Event, Generation, ReplyDone, generate
from unimodal.grammar import Modality
from unimodal.heads.head import Ask, Draw, Drawing, Read
from unimodal.heads.next_code import NextCode
from unimodal.model import Model
from unimodal.sampling import Sampling

Asked = tuple[Document, Sampling, Modality | None]


def requests(model: Model, num: int, seed: int) -> list[Asked]:
    """Requests of all kinds; some prompts are equal, some replies greedy, some guided."""
    random = np.random.default_rng(seed)
    found: list[Asked] = []
    for k in range(num):
        words = "draw " + "a red circle " * int(random.integers(4))
        shown = [image(model, int(random.integers(3)))] * int(random.integers(2))
        temperature = float(random.integers(2))
        sampling = Sampling(
            text_temperature=temperature,
            image_temperature=temperature,
            guidance=[None, 2.0, 1.0][int(random.integers(3))],
            image_top_k=[None, 9][int(random.integers(2))],
            seed=seed * 100 + k,
            max_text_tokens=int(random.integers(2, 9)),
            max_images=2,
        )
        modality = (None, "image", "text")[int(random.integers(3))]
        found.append((question(words, *shown), sampling, modality))
    return found


def logits_of(seen: Logits, number: int) -> dict[int, torch.Tensor]:  # noqa: F811
    return {at: logits for (request, at), logits in seen.items() if request == number}


@pytest.mark.parametrize("seed", range(6))
def test_who_comes_and_goes_changes_nothing_for_the_others(
    lively: Model,  # noqa: F811
    seen: Logits,  # noqa: F811
    seed: int,
) -> None:
    random, asked = np.random.default_rng(seed), requests(lively, 16, seed)
    generation = Generation(lively, batch=int(random.integers(2, 6)))
    waiting, open_now = list(asked), set()
    done: dict[int, ReplyDone] = {}
    cancelled: dict[int, list[Event]] = {}
    num_steps = 0
    while waiting or not generation.idle:
        while waiting and random.random() < 0.4:
            open_now.add(generation.submit(*waiting.pop(0)))
        if open_now and random.random() < 0.15:
            number = int(random.choice(sorted(open_now)))
            generation.cancel(number)
            open_now.discard(number)
            cancelled[number] = []
        for event in generation.step():
            if event.request in cancelled:
                cancelled[event.request].append(event)
            if isinstance(event, ReplyDone):
                done[event.request] = event
                open_now.discard(event.request)
        num_steps += 1
    assert len(done) + len(cancelled) == len(asked) and cancelled and num_steps > 15
    assert not any(cancelled.values()), "nothing is heard of a request that was cancelled"
    assert not generation._branches._rows, "no memory is held for what is over"
    served = dict(seen)
    for number, reply in done.items():
        seen.clear()
        alone = Generation(lively)
        alone.submit(*asked[number])
        (found,) = [event for event in alone.run() if isinstance(event, ReplyDone)]
        assert found.ids == reply.ids
        mine, theirs = logits_of(served, number), logits_of(seen, 0)
        assert mine.keys() == theirs.keys()
        for at in theirs:
            torch.testing.assert_close(mine[at], theirs[at], atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance", [None, 2.0])
def test_equal_prompts_are_read_once(lively: Model, monkeypatch, guidance: float | None) -> None:  # noqa: F811
    document = question("draw a red circle", image(lively, 1))
    samplings = [Sampling(guidance=guidance, seed=seed) for seed in (1, 2, 1, 3)]
    alone = [generate(lively, [document], sampling, "image")[0] for sampling in samplings]
    sizes = counted(monkeypatch)
    together = generate(lively, [document] * 4, samplings, "image")
    num_branches = 1 if guidance is None else 2  # one prompt, and perhaps the unconditional one
    assert sizes == [num_branches] + [4 * num_branches] * (lively.grid.size - 1)
    drawn = [
        [part.codes.tolist() for part in parts if isinstance(part, Image)] for parts in together
    ]
    assert drawn == [[part.codes.tolist() for part in parts] for parts in alone]
    assert drawn[0] == drawn[2] != drawn[1]


def test_equal_prompts_that_come_together_share_beside_others(lively: Model, monkeypatch) -> None:  # noqa: F811
    """Two equal ones, another, and one that is in work already."""
    generation, sampling = Generation(lively), Sampling(seed=1, max_text_tokens=6)
    sizes = counted(monkeypatch)
    generation.submit(question("draw"), sampling, "text")
    generation.step()
    for words in ("make it blue", "draw", "make it blue"):
        generation.submit(question(words), sampling, "text")
    generation.step()
    assert sizes == [1, 1, 2]
    replies = [event for event in generation.run() if isinstance(event, ReplyDone)]
    assert len({reply.ids for reply in replies}) == 2


def test_a_step_with_nothing_to_do_returns_nothing(lively: Model, monkeypatch) -> None:  # noqa: F811
    sizes = counted(monkeypatch)
    generation = Generation(lively)
    assert generation.idle and generation.step() == [] and list(generation.run()) == []
    number = generation.submit(question("draw"), Sampling(), "image")
    assert not generation.idle
    generation.cancel(number)
    assert generation.idle and generation.step() == [] and not sizes
    number = generation.submit(question("draw"), Sampling(), "image")
    assert any(isinstance(event, ReplyDone) for event in generation.run())
    num_forwards = len(sizes)
    for gone in (number, number - 1, 99):  # what is done, cancelled or unknown may be cancelled
        generation.cancel(gone)
    assert generation.idle and generation.step() == [] and len(sizes) == num_forwards


def test_a_cancelled_request_makes_room_for_the_next(lively: Model) -> None:  # noqa: F811
    """With room for one; the others wait in order, and one of these is cancelled too."""
    generation, sampling = Generation(lively, batch=1), Sampling(guidance=2.0)
    numbers = [generation.submit(question(f"draw {k}"), sampling, "image") for k in range(4)]
    for _ in range(3):
        assert {event.request for event in generation.step()} <= {numbers[0]}
    generation.cancel(numbers[0])
    generation.cancel(numbers[2])
    heard = [event.request for event in generation.run()]
    assert heard == sorted(heard) and set(heard) == {numbers[1], numbers[3]}


def test_a_refused_request_leaves_no_trace(lively: Model) -> None:  # noqa: F811
    generation = Generation(lively)
    with pytest.raises(ValueError, match="and a reply needs"):
        generation.submit(question("word " * lively.context), Sampling())
    with pytest.raises(ValueError, match="modality 'song'"):
        generation.submit(question("draw"), Sampling(), "song")
    assert generation.idle
    first = generation.submit(question("draw"), replace(Sampling(), seed=7), "image")
    (reply,) = [event for event in generation.run() if isinstance(event, ReplyDone)]
    (expected,) = generate(lively, [question("draw")], Sampling(seed=7), "image")
    assert reply.request == first
    assert reply.parts[0].codes.tolist() == expected[0].codes.tolist()


def test_requests_may_come_in_answer_to_events(lively: Model) -> None:  # noqa: F811
    """As a conversation: the next turn is asked when the reply to the one before is there."""
    generation, sampling = Generation(lively), Sampling(seed=3, max_text_tokens=5, max_images=1)
    document, replies = question("draw"), []
    generation.submit(document, sampling)
    for event in generation.run():
        if isinstance(event, ReplyDone):
            replies.append(event)
            if len(replies) < 4:
                document = Document((*document.parts, *event.parts, *question("more").parts))
                generation.submit(document, sampling)
    assert [reply.request for reply in replies] == [0, 1, 2, 3]
    again = question("draw")
    for reply in replies:
        (parts,) = generate(lively, [again], sampling)
        assert [str(getattr(part, "text", None)) for part in parts] == [
            str(getattr(part, "text", None)) for part in reply.parts
        ]
        again = Document((*again.parts, *parts, *question("more").parts))


class Blank(NextCode):
    """Draws code 5 everywhere, and looks at nothing for it."""

    def draw(self, drawing: Drawing) -> Draw:
        codes = np.full((drawing.grid.size, 1), 5)
        image = Image(codes=codes, grid=drawing.grid, codec_hash=drawing.codec_hash)
        ids, _ = drawing.layout.content(codes[:, 0], drawing.grid)
        yield Ask({None: Read([drawing.opened, *ids.tolist()])})
        return image


def test_a_reply_may_be_over_before_anything_is_read(lively: Model, monkeypatch) -> None:  # noqa: F811
    """Beside one that reads; what is drawn without a look is in context as any image is."""
    transformer = copy.deepcopy(lively.transformer)
    transformer.head.__class__ = Blank
    model, sizes = replace(lively, transformer=transformer), counted(monkeypatch)
    (parts,) = generate(model, [question("draw")], modality="image")
    assert parts[0].codes.tolist() == [[5]] * 6 and not sizes
    generation = Generation(model, batch=2)
    talking = generation.submit(question("talk"), Sampling(max_text_tokens=8), "text")
    drawing = [generation.submit(question("draw"), Sampling(), "image") for _ in range(3)]
    over = [event.request for event in generation.run() if isinstance(event, ReplyDone)]
    assert sorted(over) == [talking, *drawing] and not generation._branches._rows
