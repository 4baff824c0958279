"""What is kept of a conversation: each turn reads its own tokens, and answers as if it read all."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_models import masked_model
from test_generation import image, lively, question  # noqa: F401  (a fixture)

from unimodal.branch import Branch
from unimodal.branches import Branches
from unimodal.chat import Chat
from unimodal.chat_events import Reply
from unimodal.document import Document, Text
from unimodal.events import ImageProgress, ReplyDone
from unimodal.generation import Generation
from unimodal.heads.head import Read
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Sequence, Span
from unimodal.tokenizer.grid import Grid
from unimodal.tokens import COLUMNS, Tokens, shared


def tokens(ids: list[int], **columns: list) -> Tokens:
    """Causal, public tokens, but for some columns."""
    plain = {
        "positions": list(range(len(ids))),
        "block": [0] * len(ids),
        "private": [0] * len(ids),
        "address": [(0, 0)] * len(ids),
    }
    return Tokens(ids, **plain | columns)


LATENTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def seen(start: int, add: float = 0.0) -> list[Span]:
    return [Span(start, start + 2, Grid(1, 2), latents=LATENTS + np.float32(add))]


@pytest.mark.parametrize(
    ("held", "wanted", "num"),
    [
        (tokens([1, 2, 3]), tokens([1, 2, 3, 4]), 3),
        (tokens([1, 2, 3, 4]), tokens([1, 2, 3]), 2),  # one is left to be read
        (tokens([1, 2, 3]), tokens([2, 2, 3]), 0),
        (tokens([1, 2, 3]), tokens([1, 2, 3, 4], positions=[0, 1, 1, 2]), 2),
        (tokens([1, 2, 3]), tokens([1, 2, 3, 4], address=[(0, 0), (1, 1)] + [(0, 0)] * 2), 1),
        # Numbers are names: the same block, whatever it is called; but never another block.
        (tokens([1, 2, 3], block=[0, 7, 7]), tokens([1, 2, 3, 4], block=[0, 1, 1, 0]), 3),
        (tokens([1, 2, 3], block=[0, 7, 8]), tokens([1, 2, 3, 4], block=[0, 1, 1, 0]), 1),
        (tokens([1, 2, 3], block=[0, 7, 7]), tokens([1, 2, 3, 4], block=[0, 1, 1, 1]), 1),
        (tokens([1, 2, 9], block=[0, 7, 7]), tokens([1, 2, 3, 4], block=[0, 1, 1, 0]), 1),
        (tokens([1, 2, 3], block=[0, 7, 7]), tokens([1, 2, 3, 4]), 1),
        (tokens([1, 2, 3], private=[0, 2, 2]), tokens([1, 2, 3, 4], private=[0, 1, 1, 0]), 3),
        # Images that are more than their ids.
        (tokens([1, 0, 0], spans=seen(1)), tokens([1, 0, 0, 4], spans=seen(1)), 3),
        (tokens([1, 0, 0], spans=seen(1)), tokens([1, 0, 0, 4], spans=seen(1, add=1e-6)), 1),
        (tokens([1, 0, 0], spans=seen(1)), tokens([1, 0, 0, 4]), 1),
        (tokens([1, 0, 0]), tokens([1, 0, 0], spans=seen(1)), 1),
    ],
)  # fmt: skip
def test_what_two_sequences_share(held: Tokens, wanted: Tokens, num: int) -> None:
    assert shared(held, wanted, len(wanted) - 1) == num


@torch.inference_mode()
def test_a_branch_goes_on_from_a_prefix_as_from_the_start(lively: Model) -> None:  # noqa: F811
    """Blocks included, whose numbers are others when they are read again."""
    ids = [5, 6, 7, 8, 9, 10]
    first = Branch(Sequence.causal(np.array(ids[:3])))
    branches = Branches(lively, num_prefixes=2)
    branches.read([first])
    first.add_read(Read([3, 3], bidirectional=True, keep=False))
    branches.read([first])
    first.add_read(Read(ids[3:5], bidirectional=True))
    branches.read([first])
    branches.keep([first], 2**40)
    branches.drop([first])
    branches.prefixes.settle(None)  # type: ignore[arg-type]
    block = np.array([0, 0, 0, 1, 1, 0, 2, 2], np.int32)
    again = Sequence(**vars(Sequence.causal(np.array([*ids, 11, 12]))) | {"block": block})
    read = branches.num_read
    kept, whole = Branch(again), Branch(again)
    branches.read([kept], 3)
    assert branches.num_read - read == 3
    plain = Branches(lively)
    plain.read([whole])
    torch.testing.assert_close(branches.last([kept], 3), plain.last([whole], 3), atol=1e-5, rtol=0)
    assert [getattr(kept.held, name) for name in COLUMNS] == [
        getattr(whole.held, name) for name in COLUMNS
    ]


def turns(model: Model, sampling: Sampling, num_prefixes: int) -> Iterator[tuple[int, ReplyDone]]:
    """Yield for each of four turns of a conversation how many tokens were read, and the reply."""
    generation = Generation(model, 1, num_prefixes)
    parts = question("draw two red circles", image(model, 0)).parts
    for turn in range(4):
        before = generation.num_read
        generation.submit(Document(parts), replace(sampling, seed=turn), "image")
        (done,) = [event for event in generation.run() if isinstance(event, ReplyDone)]
        yield generation.num_read - before, done
        parts = (*parts, *done.parts, Text("make it blue", role="user"))


@pytest.mark.parametrize("guidance", [None, 2.0])
@pytest.mark.parametrize("head", ["next_code", "masked"])
def test_a_turn_reads_its_own_tokens_only(
    lively: Model,  # noqa: F811
    head: str,
    guidance: float | None,
) -> None:
    model = lively if head == "next_code" else masked_model(MaskSchedule(steps=3))
    sampling = Sampling(guidance=guidance, image_temperature=0.0)
    kept, whole = (list(turns(model, sampling, num)) for num in (6, 0))
    for (_, mine), (_, theirs) in zip(kept, whole, strict=True):
        assert mine.ids == theirs.ids
        codes = [[part.codes.tolist() for part in one.parts] for one in (mine, theirs)]  # type: ignore[union-attr]
        assert codes[0] == codes[1]
    # The last ids of a reply, from which nothing is sampled, are not read before its next turn: the
    # last code of 'next_code' and the end of its row, all codes of 'masked', and what closes them.
    layout, words = model.sequencer.layout, len(model.text_tokenizer.encode("make it blue"))
    last = 1 + bool(layout.layout.image.row_end) if head == "next_code" else model.grid.size
    told = last + len(layout.closing) + len(layout.stops)
    new = [told + 3 + words, told + 3 + 1][: 1 if guidance is None else 2]  # 'null' for the words
    drawing = whole[0][0] - sum(
        len(model.sequencer.prompt(question("draw two red circles", image(model, 0)), drop))
        for drop in (None, "text")[: len(new)]
    )
    assert [cost for cost, _ in kept] == [whole[0][0]] + [drawing + sum(new)] * 3
    lengths = [cost for cost, _ in whole]
    assert lengths[3] - lengths[2] == lengths[2] - lengths[1] >= 15 * len(new)


def test_an_interrupted_reply_leaves_no_trace_in_what_is_kept(lively: Model) -> None:  # noqa: F811
    """The same bytes and the same cost as without it, wherever it is interrupted."""
    asked = Sampling(seed=3, guidance=2.0)

    def second(stop_after: int) -> tuple[list[bytes], int]:
        chat = Chat(lively, asked)
        chat("draw", modality="image")
        events = chat.stream("make it blue", modality="image")
        for _ in range(stop_after):
            next(events)
        events.close()  # type: ignore[attr-defined]
        assert chat._generation is not None
        before = chat._generation.num_read
        reply = chat("make it blue", modality="image")
        return [one.tobytes() for one in reply.images], chat._generation.num_read - before

    undisturbed = second(0)
    assert undisturbed[0] and undisturbed[1] > 0
    for stop_after in (1, 3, 5):
        assert second(stop_after) == undisturbed


def test_two_replies_at_once_do_not_meet(lively: Model) -> None:  # noqa: F811
    chat = Chat(lively, seed=1)
    first, alone = chat.stream("draw", modality="image"), Chat(lively, seed=1)
    assert isinstance(next(first), ImageProgress)
    other = chat("draw", modality="image")
    *_, reply = first
    assert isinstance(reply, Reply)
    expected = alone("draw", modality="image")
    assert reply.images[0].tobytes() == other.images[0].tobytes() == expected.images[0].tobytes()


def test_what_cannot_be_kept_leaves_what_is(lively: Model) -> None:  # noqa: F811
    """A branch for which there would be no room however many make way."""
    branches = Branches(lively, num_prefixes=4)

    def kept(words: str, room: int) -> int:
        """Read a prompt, keep it where so many tokens fit beside the cache; return the bytes."""
        branch = Branch(lively.sequencer.prompt(question(words)))
        branches.read([branch])
        cache = branches.held_bytes - branches.prefixes.num_bytes
        branches.keep([branch], cache + room * branches._cache.token_bytes)
        branches.drop([branch])
        return branches.prefixes.num_bytes

    first = kept("draw", room=1000)
    assert first > 0
    assert kept("draw two red circles and a large blue star beside them", room=5) == first
