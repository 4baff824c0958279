"""Words that are guessed: as they stood before, and never others than without guesses."""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import unimodal
from unimodal import generation
from unimodal.branches import Branches
from unimodal.document import Document, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation
from unimodal.lookup import DRAFTS_AN_ID, LONGEST, continuation
from unimodal.model import Model
from unimodal.sampling import Sampling

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = "red red circle, red red square"


def by_hand(ids: Sequence[int]) -> list[int]:
    """The continuation, place by place."""
    best, found = 0, []
    for place in range(len(ids) - 1):
        length = 0
        while length < min(LONGEST, place + 1) and ids[place - length] == ids[-1 - length]:
            length += 1
        if length and length >= best:
            best = length
            found = list(ids[place + 1 : place + 1 + DRAFTS_AN_ID * length])
    return found


@pytest.mark.parametrize("seed", range(200))
def test_what_followed_the_longest_match_is_guessed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, rng.integers(1, 30))
    assert continuation(ids).tolist() == by_hand(ids.tolist())


def test_nothing_follows_a_new_id() -> None:
    assert not len(continuation(np.array([1, 2, 3])))
    assert not len(continuation(np.array([7])))


@pytest.fixture(scope="module")
def repeating(tiny_model: Model) -> Model:
    """Attention far from uniform: texts that repeat themselves now and then."""
    transformer = copy.deepcopy(tiny_model.transformer)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return dataclasses.replace(tiny_model, transformer=transformer)


def answered(
    model: Model, samplings: Sequence[Sampling], patch: pytest.MonkeyPatch, drafts: bool,
    likeliest: int | None = None,
) -> tuple[list[ReplyDone], int]:  # fmt: skip
    """Replies in words, and how often the transformer read; drafts: whether there is room."""
    reads, read = [], Branches.read

    def counted(self, branches, num=None):  # type: ignore[no-untyped-def]
        reads.append(len(branches))
        read(self, branches, num)

    with patch.context() as now:
        now.setattr(Branches, "read", counted)
        now.setattr(generation, "WORTH_READING", 24 if drafts else 0)
        asked = Generation(model)
        for sampling in samplings:
            asked.submit(Document((Text(WORDS, role="user"),)), sampling, "text", likeliest)
        done = [event for event in asked.run() if isinstance(event, ReplyDone)]
    return sorted(done, key=lambda one: one.request), len(reads)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("requests", [1, 3])
def test_guesses_change_no_reply(
    repeating: Model, monkeypatch: pytest.MonkeyPatch, temperature: float, requests: int
) -> None:
    samplings = [
        Sampling(text_temperature=temperature, seed=seed, max_text_tokens=40 + seed)
        for seed in range(requests)
    ]
    plain, passes = answered(repeating, samplings, monkeypatch, drafts=False)
    guessed, fewer = answered(repeating, samplings, monkeypatch, drafts=True)
    assert [one.ids for one in guessed] == [one.ids for one in plain]
    assert [one.end for one in guessed] == [one.end for one in plain]
    assert passes >= max(len(one.ids) for one in plain) - 1  # the end of a budget costs none
    assert fewer < 0.6 * passes if temperature == 0 else fewer <= passes


def test_a_budget_ends_a_reply_in_the_midst_of_guesses(
    repeating: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for budget in range(1, 24):
        sampling = [Sampling(max_text_tokens=budget)]
        (plain,), _ = answered(repeating, sampling, monkeypatch, drafts=False)
        (guessed,), _ = answered(repeating, sampling, monkeypatch, drafts=True)
        assert guessed.ids == plain.ids and len(guessed.ids) <= budget + 1


def test_scored_words_are_read_one_by_one(
    repeating: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = [Sampling(max_text_tokens=30)]
    (done,), passes = answered(repeating, sampling, monkeypatch, drafts=True, likeliest=2)
    assert passes >= len(done.ids) - 1


def test_a_conversation_of_the_default_model_repeats_its_plans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drawn and edited with guesses and without: equal words and codes, in fewer passes."""

    default_model = unimodal.load()

    def talk(room: int) -> tuple[list[tuple[int, ...]], int]:
        reads, read = [], Branches.read
        with monkeypatch.context() as now:
            now.setattr(Branches, "read", lambda *args: (reads.append(1), read(*args)))
            now.setattr(generation, "WORTH_READING", room)
            sampling = dataclasses.replace(default_model.sampling, image_drafts=None)
            document, ids = Document(()), []
            for words in ("draw a red circle", "make it blue", "draw a star", "make it green"):
                document = Document((*document.parts, Text(words, role="user")))
                asked = Generation(default_model, num_prefixes=4)
                asked.submit(document, sampling)
                (done,) = [one for one in asked.run() if isinstance(one, ReplyDone)]
                ids.append(done.ids)
                document = Document((*document.parts, *done.parts))
        return ids, len(reads)

    (plain, passes), (guessed, fewer) = talk(0), talk(24)
    assert guessed == plain and fewer < passes - 20
