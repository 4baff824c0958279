"""A sampled batch, replayed: its choices and their probabilities are those of generation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_families import MAKERS

import unimodal
from unimodal import generation
from unimodal.architecture import Architecture, ImageConfig
from unimodal.branch import Branch
from unimodal.document import Document, Image, Text
from unimodal.generation import Generation
from unimodal.grammar import Modality
from unimodal.heads import next_code
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import IMAGE, Sequence
from unimodal.train.rl.actor import sampled
from unimodal.train.rl.learner import PolicyLearner
from unimodal.train.rl.replay import CODE, Replay
from unimodal.train.rl.samples import Sample, pack
from unimodal.unified import UnifiedModel

SAMPLING = Sampling(text_temperature=1.0, max_text_tokens=12, max_images=1)
WORDS = ("draw two red circles", "make it blue", "how many stars are there?")


def asked(model: Model) -> list[Document]:
    """Conversations, one of which begins with an image."""
    seen = Image(
        codes=np.arange(6, dtype=np.int64)[:, None], grid=model.grid,
        codec_hash=model.sequencer.codec_hash, role="user",
    )  # fmt: skip
    words = [Text(one, role="user") for one in WORDS]
    return [Document((words[0],)), Document((seen, words[1])), Document((words[2],))] * 4


@pytest.mark.parametrize("draws", [False, True], ids=["babbles", "draws"])
@pytest.mark.parametrize("modality", [None, "text", "image"])
def test_probabilities_are_those_that_were_sampled_with(
    tiny_model: Model,
    drawing_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    modality: Modality | None,
    draws: bool,
) -> None:
    """Generation's own logits are recorded, one request at a time."""
    model = drawing_model if draws else tiny_model
    recorded: list[torch.Tensor] = []
    logits_of, pick = Generation._logits, next_code.pick

    def of_words(*args: object) -> torch.Tensor:
        recorded.append(logits_of(*args))
        return recorded[-1]

    def of_codes(logits: torch.Tensor, *args: object) -> torch.Tensor:
        recorded.append(logits)
        return pick(logits, *args)

    monkeypatch.setattr(generation.Generation, "_logits", of_words)
    monkeypatch.setattr(next_code, "pick", of_codes)
    replay = Replay(model, SAMPLING, modality)
    learner = PolicyLearner(model.transformer, replay.masks)
    samples, expected, drawn = [], [], 0
    for number, document in enumerate(asked(model)):
        recorded.clear()
        sampling = replace(SAMPLING, seed=number)
        ((parts, ids),) = sampled(model, [document], [sampling], modality, 1)
        (trajectory,) = replay(document, [ids])
        assert len(recorded) == len(trajectory)
        drawn += sum(isinstance(part, Image) for part in parts)
        first = model.vocabulary.code_slice[0]
        for logits, token, mask in zip(recorded, trajectory.ids_n, trajectory.mask_n, strict=True):
            if mask == CODE:
                of_choice, at = logits[0], token - first
            else:
                allowed = torch.from_numpy(replay.masks[mask])
                of_choice, at = logits[0].masked_fill(~allowed, -torch.inf), token
            expected.append(float(of_choice.log_softmax(-1)[at]))
        samples.append(Sample("any", trajectory, 0.0, 0.0))
    with torch.no_grad():
        learner(samples, None)
    found = np.concatenate([one.log_p_n for one in learner.scored])
    assert drawn == 12 if modality == "image" or (draws and modality is None) else drawn < 12
    assert np.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "modality"),
    [
        ("lumina", "image"),
        ("emu3", None),
        ("emu3", "image"),
        ("janus", "image"),
        ("liquid", "image"),
    ],
)
def test_a_reply_of_a_family_is_replayed_after_the_prompt_that_it_answered(
    family: str, modality: Modality | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family may lay a request to draw out in another way than a conversation."""
    MAKERS[family](tmp_path)
    model = unimodal.load(tmp_path)
    asked = Document((Text("a dog", role="user"),))
    read: list[Sequence] = []
    init = Branch.__init__

    def begin(branch: Branch, prompt: Sequence, *args: Any, **names: Any) -> None:
        read.append(prompt)
        init(branch, prompt, *args, **names)

    monkeypatch.setattr(Branch, "__init__", begin)
    sampling = replace(SAMPLING, max_text_tokens=8)
    ((_, ids),) = sampled(model, [asked], [sampling], modality, 1)
    (trajectory,) = Replay(model, sampling, modality)(asked, [ids])
    assert trajectory.prompt.ids.tolist() == read[0].ids.tolist()
    assert trajectory.reply_ids == ids


@pytest.mark.parametrize("modality", [None, "text", "image"])
def test_replies_that_share_a_prompt_are_what_they_are_alone(
    drawing_model: Model, modality: Modality | None
) -> None:
    """Scores and gradients of groups and of single replies, the prompt once and for each reply."""
    model = drawing_model
    replay = Replay(model, SAMPLING, modality)
    samples = []
    for number, document in enumerate(asked(model)[:3]):
        seeds = [replace(SAMPLING, seed=10 * number + k) for k in range(1, 5)]
        replies = sampled(model, [document] * len(seeds), seeds, modality, 8)
        made = replay(document, [ids for _, ids in replies])
        assert len({one.reply.ids.tobytes() for one in made}) > 1, "the replies are different"
        samples += [Sample("any", one, 0.0, 0.0) for one in made]
    samples += [samples[0]]  # after others: a document of its own
    learner = PolicyLearner(model.transformer, replay.masks)
    packs = [pack(samples, 0, "cpu", shared) for shared in (True, False)]
    prompts = [int((one.batch.doc.diff() != 0).sum()) + 1 for one in packs]
    assert prompts == [4, 13]
    saved = sum(len(one.trajectory.prompt) for one in samples[:12]) * 3 // 4
    assert packs[1].batch.ids.numel() - packs[0].batch.ids.numel() == saved
    weights_M = torch.randn(len(packs[0].at_M), generator=torch.Generator().manual_seed(0))
    found = []
    for packed in packs:
        log_p_M, entropy_M = learner.scores(packed)
        total = (weights_M * log_p_M).sum() + entropy_M.sum()
        wanted = [one for one in model.transformer.parameters() if one.requires_grad]
        grads = torch.autograd.grad(total, wanted, allow_unused=True)
        found.append([log_p_M, entropy_M, *(one for one in grads if one is not None)])
    for ours, alone in zip(*found, strict=True):
        torch.testing.assert_close(ours, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("head", ["next_code", "independent_levels", "causal_levels"])
@pytest.mark.parametrize("addresses", [False, True])
def test_a_batch_of_any_head_equals_its_recomputation(
    tiny_model: Model, head: str, addresses: bool
) -> None:
    """The tokens that are replayed have the labels and addresses that training gives them, and the
    probability of a code is one over all codes.
    """
    rows = head == "next_code"
    image = ImageConfig(head, () if rows else (4, 4, 4), addresses, code_rows=rows)
    config = tiny_model.transformer.config
    if not rows:
        config = replace(config, num_ids=tiny_model.vocabulary.num_words)
    shape = Architecture(config, tiny_model.vocabulary, image)
    model = replace(tiny_model, transformer=UnifiedModel(shape, 3).eval())
    documents = asked(model)
    seeds = [replace(SAMPLING, seed=number) for number in range(len(documents))]
    replies = sampled(model, documents, seeds, "image", 8)
    replay = Replay(model, SAMPLING, "image")
    for document, (parts, ids) in zip(documents, replies, strict=True):
        (made,) = replay(document, [ids])
        trained = model.sequencer.sequence(Document((*document.parts, *parts)))
        start, stop = len(made.prompt), len(made.prompt) + len(made.reply)
        for name in ("ids", "positions", "address"):
            theirs = getattr(trained, name)
            assert np.array_equal(getattr(made.prompt, name), theirs[:start]), name
            assert np.array_equal(getattr(made.reply, name), theirs[start:stop]), name
        codes = np.flatnonzero(trained.modality == IMAGE)
        codes = codes[codes >= start - 1]
        assert np.array_equal(made.at_n[made.mask_n == CODE] + start, codes)
    hidden = torch.randn(1, config.width, generator=torch.Generator().manual_seed(0))
    every = torch.from_numpy(model.vocabulary.code_ids)
    log_p, entropy = model.transformer.head.log_probability(
        hidden.expand(len(every), -1), model.transformer.output_table(), every
    )
    assert float(log_p.exp().sum().detach()) == pytest.approx(1.0, abs=1e-5)
    mean = float((log_p.exp() * entropy).sum().detach())
    assert mean == pytest.approx(float(-(log_p.exp() * log_p).sum().detach()), rel=1e-4)
