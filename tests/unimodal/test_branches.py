"""Branches that read whatever a head may want, against whole sequences under the dense mask."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation import lively  # noqa: F401  (a fixture)

from unimodal import branches as reading
from unimodal.attention import DenseAttention
from unimodal.branch import Branch
from unimodal.branches import Branches
from unimodal.heads.head import ImageTokens, Read
from unimodal.model import Model
from unimodal.sequence import Sequence, Span, span_mask
from unimodal.tokenizer.grid import Grid


@dataclass
class Beside:
    """A branch, and what it should have read: (id, position, block, private) of each token."""

    branch: Branch
    kept: list[tuple[int, int, int, int]] = field(default_factory=list)
    passing: list[tuple[int, int, int, int]] = field(default_factory=list)
    num_new: int = 0

    def add(self, ids: list[int], block: int = 0, keep: bool = True) -> None:
        start = self.kept[-1][1] + 1 if self.kept else 0
        tokens = [(token, start + k, block, 0) for k, token in enumerate(ids)]
        (self.kept if keep else self.passing).extend(tokens)
        self.num_new += len(ids)


@torch.inference_mode()
def whole(model: Model, tokens: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """Hidden vectors (T, D) of tokens read at once."""
    ids, positions, block, private = torch.tensor(tokens).T[:, None]
    attend = DenseAttention(span_mask(torch.zeros_like(ids), block, private))
    return model.transformer(model.transformer.embed(ids), positions, attend)[0]


def image_tokens(random: np.random.Generator, num_ids: int) -> ImageTokens:
    """A private block of noise, a clean block that shares its positions, and what closes them."""
    n = int(random.integers(1, 4))
    block = np.array([0] + [1] * n + [2] * n + [0], np.int32)
    private = np.array([0] + [1] * n + [0] * (n + 1), np.int32)
    positions = np.array([0, *range(1, n + 1), *range(1, n + 2)])
    ids = random.integers(0, num_ids, 2 * n + 2)
    plain = ImageTokens.causal(ids, 0 * ids)
    values = vars(plain) | {"block": block, "private": private, "positions": positions}
    return ImageTokens(**values | {"num_positions": n + 2})


@pytest.fixture(autouse=True, scope="module")
def skips_any_number() -> Iterator[None]:
    """Let the last layer skip what nobody looks at, be it one token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LEAST_SKIPPED", 1)
        yield


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_read_equals_the_whole_sequence(lively: Model, seed: int) -> None:  # noqa: F811
    random, num_ids = np.random.default_rng(seed), lively.vocabulary.size
    branches, all_of_them = Branches(lively), []
    blocks: dict[int, int] = {}  # taken, by branch

    def some_ids() -> list[int]:
        return random.integers(0, num_ids, random.integers(1, 5)).tolist()

    for _ in range(7):
        if not all_of_them or random.random() < 0.4:
            prompt = some_ids()
            one = Beside(Branch(Sequence.causal(np.array(prompt))))
            one.add(prompt)
            blocks[id(one)] = 0
            if random.random() < 0.5:
                tokens = image_tokens(random, num_ids)
                one.branch.add(tokens)
                start = one.kept[-1][1] + 1
                columns = (tokens.ids, tokens.positions + start, tokens.block, tokens.private)
                one.kept += zip(*(x.tolist() for x in columns), strict=True)
                one.num_new += len(tokens.ids)
                blocks[id(one)] = 2
            all_of_them.append(one)
        for one in all_of_them:
            if one.num_new == 0 and random.random() < 0.4:  # it is not wanted now
                continue
            if one.num_new == 0 and len(one.kept) > 3 and random.random() < 0.3:
                # Causal tokens are forgotten: no token that stays has seen them.
                forget = next(k for k in range(3) if k == 2 or one.kept[-1 - k][2] > 0)
                del one.kept[len(one.kept) - forget :]
            else:
                forget = 0
            ids, bidirectional = some_ids(), bool(random.random() < 0.5)
            keep = bool(random.random() < 0.7)
            read = Read(ids, bidirectional=bidirectional, keep=keep, forget=forget)
            one.branch.add_read(read)
            blocks[id(one)] += bidirectional
            one.add(ids, blocks[id(one)] if bidirectional else 0, keep)
        readers = [one for one in all_of_them if one.num_new]
        if not readers:
            continue
        num = min(one.num_new for one in readers)
        branches.read([one.branch for one in all_of_them], num if random.random() < 0.7 else None)
        for k in {1, num}:
            found = branches.last([one.branch for one in readers], k)
            for one, hidden in zip(readers, found, strict=True):
                expected = whole(lively, one.kept + one.passing)[-k:]
                torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)
        for one in all_of_them:
            one.passing, one.num_new = [], 0
        if len(all_of_them) > 1 and random.random() < 0.3:
            gone = all_of_them.pop(int(random.integers(len(all_of_them))))
            branches.drop([gone.branch])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of branches of each forward that follows."""
    sizes: list[int] = []
    forward = Branches._forward

    def count(self, branches, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(branches))
        return forward(self, branches, *rest)

    monkeypatch.setattr(Branches, "_forward", count)
    return sizes


def branch(ids: list[int], **changes: object) -> Branch:
    return Branch(Sequence(**vars(Sequence.causal(np.array(ids))) | changes))


def test_what_reads_the_same_is_read_once(lively: Model, monkeypatch) -> None:  # noqa: F811
    sizes = counted(monkeypatch)
    branches = Branches(lively)
    ids = [5, 6, 7]
    mine = [branch(ids), branch([5, 6]), branch(ids), branch(ids)]
    branches.read(mine)
    assert sizes == [2]
    hidden = branches.last(mine)
    assert torch.equal(hidden[0], hidden[2]) and torch.equal(hidden[0], hidden[3])
    assert not torch.equal(hidden[0], hidden[1])
    for one, more in zip(mine, ([8], [8], [9], [8]), strict=True):
        one.add(more)
    branches.read(mine)
    for one, tail in zip(
        branches.last(mine), ([5, 6, 7, 8], [5, 6, 8], [5, 6, 7, 9]), strict=False
    ):
        tokens = [(token, at, 0, 0) for at, token in enumerate(tail)]
        torch.testing.assert_close(one, whole(lively, tokens)[-1:], atol=1e-4, rtol=1e-4)


def test_what_begins_alike_is_read_once(lively: Model) -> None:  # noqa: F811
    """Of questions about one image each reads its own words, behind new branches and old ones."""
    random, branches = np.random.default_rng(2), Branches(lively)
    image, other = random.integers(0, 50, 20).tolist(), random.integers(0, 50, 19).tolist()
    tails = [1, 2, 3], [4], [1, 2, 5, 6]
    asked = [branch(image + tails[0]), branch(other), branch(image + tails[1])]
    branches.read(asked, 2)
    assert branches.num_read == 23 + 19 + 2, "the last two of a prompt are looked at"
    asked[0].add([7])
    late = branch(image + tails[2])
    branches.read([*asked, late], 1)
    assert branches.num_read == 44 + 1 + 2, "the image and two words more were held"
    for one, ids in ((asked[0], [*image, *tails[0], 7]), (late, image + tails[2])):
        tokens = [(token, at, 0, 0) for at, token in enumerate(ids)]
        torch.testing.assert_close(
            branches.last([one])[0], whole(lively, tokens)[-1:], atol=1e-4, rtol=1e-4
        )
    few = [branch(image[:5] + [8] * 20), branch(image[:15])]
    branches.read([*asked, late, *few], 1)
    assert branches.num_read == 47 + 25 + 15, "a short beginning is read again"


def test_what_is_not_kept_is_read_by_each(lively: Model) -> None:  # noqa: F811
    """Though another one holds it, and fewer hidden vectors of it are looked at."""
    ids, branches = list(range(1, 26)), Branches(lively)
    held, asking = branch([*ids, 30, 31]), branch(ids[:20])
    asking.add_read(Read(ids[20:], keep=False))
    branches.read([held, asking], 1)
    assert branches.num_read == 27 + 5 and branches._cache.lengths.tolist() == [27, 20]
    tokens = [(token, at, 0, 0) for at, token in enumerate(ids)]
    torch.testing.assert_close(
        branches.last([asking])[0], whole(lively, tokens)[-1:], atol=1e-4, rtol=1e-4
    )


def test_prompts_of_like_lengths_are_read_together(lively: Model, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(reading, "MAX_CPU_PREFILL_TOKENS", 12)
    sizes, random = counted(monkeypatch), np.random.default_rng(1)
    prompts = [random.integers(0, 50, n).tolist() for n in (3, 13, 6, 2, 5, 3)]
    branches, mine = Branches(lively), [branch(ids) for ids in prompts]
    branches.read(mine, 1)
    assert sizes == [1, 2, 3], "of 13 tokens, of 6 and 5, of 3, 3 and 2"
    for one, ids in zip(branches.last(mine), prompts, strict=True):
        tokens = [(token, at, 0, 0) for at, token in enumerate(ids)]
        torch.testing.assert_close(one, whole(lively, tokens)[-1:], atol=1e-4, rtol=1e-4)


def test_what_was_not_asked_for_is_not_there(lively: Model) -> None:  # noqa: F811
    branches, one = Branches(lively), branch([5, 6, 7, 8])
    branches.read([one], 2)
    with pytest.raises(AssertionError, match="3 hidden vectors of 2 that were computed"):
        branches.last([one], 3)


def test_what_differs_beside_the_ids_is_read_apart(lively: Model, monkeypatch) -> None:  # noqa: F811
    """Positions, addresses, blocks, the content of an image, and what is to be forgotten."""
    sizes = counted(monkeypatch)
    ids, ones = [5, 6, 7], np.ones(3, np.int32)
    address = np.array([[0, 0], [1, 1], [1, 2]], np.int16)
    seen = Span(0, 3, Grid(1, 3), latents=np.zeros((3, 2), np.float32))
    passing = branch(ids)
    passing.add_read(Read([8], keep=False))
    kept = branch(ids)
    kept.add_read(Read([8]))
    apart = [
        branch(ids), branch(ids, positions=np.array([0, 1, 1])), branch(ids, address=address),
        branch(ids, block=ones), branch(ids, block=ones, private=ones), passing, kept,
        branch(ids, spans=(seen,)), branch(ids, spans=(seen,)),
    ]  # fmt: skip
    alike = [branch(ids), branch(ids, block=ones), branch(ids, address=address)]
    Branches(lively).read([*apart, *alike])
    assert sizes == [len(apart)]


def test_only_those_that_have_something_to_read_are_looked_at(lively: Model) -> None:  # noqa: F811
    branches = Branches(lively)
    one, two = branch([1, 2]), branch([3])
    branches.read([one, two])
    one.add_read(Read([4]))
    branches.read([one, two])
    branches.last([one])
    with pytest.raises(AssertionError, match="has read nothing"):
        branches.last([one, two])
    three = branch([9, 9])
    branches.read([one, two, three])
    expected = whole(lively, [(9, 0, 0, 0), (9, 1, 0, 0)])[-1:]
    torch.testing.assert_close(branches.last([three])[0], expected, atol=1e-4, rtol=1e-4)
    two.add_read(Read([5, 6]))
    branches.read([one, two, three])
    expected = whole(lively, [(3, 0, 0, 0), (5, 1, 0, 0), (6, 2, 0, 0)])[-2:]
    torch.testing.assert_close(branches.last([two], 2)[0], expected, atol=1e-4, rtol=1e-4)
