"""The masked head: what is masked, who sees it, its loss, and drawings against an oracle.

The oracle of a drawing is MaskGIT's loop over whole training rows, read at once under a dense mask.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from head_models import (
    deviation,
    drawn,
    hidden_of,
    picture,
    private_logits,
    request,
    rows_of,
    sampled,
    talk,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_models import masked_model

from unimodal.architecture import Architecture, ImageConfig
from unimodal.attention import DenseAttention
from unimodal.document import Document, Text
from unimodal.generation import generate
from unimodal.heads import masked
from unimodal.heads.head import ImageHead
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.heads.masked import MASK, Masked
from unimodal.model import Model
from unimodal.sampling import Sampling, noise, noises
from unimodal.sequence import IGNORE, IMAGE, TEXT, Batch, Row, Sequence, span_mask
from unimodal.tokenizer.grid import Grid
from unimodal.train.objectives import LossConfig, language
from unimodal.vocabulary import Vocabulary

SCHEDULES = st.sampled_from(["cosine", "linear", "square"])


@pytest.fixture(scope="module")
def model() -> Model:
    return replace(masked_model(MaskSchedule(steps=4)), grid=Grid(3, 4))


# --- the schedule -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SCHEDULES, st.integers(1, 300), st.integers(1, 40))
def test_each_pass_keeps_a_code_and_the_last_one_all(kind: str, n: int, steps: int) -> None:
    left = MaskSchedule(kind).left(n, steps)
    assert len(left) == min(n, steps) and left[-1] == 0
    assert all(before > after for before, after in itertools.pairwise([n, *left]))


def test_shares_are_those_of_the_formulas() -> None:
    assert MaskSchedule("cosine").left(64, 4) == [59, 45, 24, 0]  # 64 cos(pi t / 8)
    assert MaskSchedule("linear").left(64, 4) == [48, 32, 16, 0]
    assert MaskSchedule("square").left(64, 4) == [60, 48, 28, 0]
    assert MaskSchedule("cosine").left(9, 9) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    for kind in ("cosine", "linear", "square"):
        schedule = MaskSchedule(kind)
        assert schedule.count(0.0, 64) == 64 and schedule.count(1 - 1e-9, 64) == 1


def test_what_is_masked_is_a_function_of_the_key(model: Model) -> None:
    inputs = model.transformer.head.inputs
    assert np.array_equal(inputs.masked(64, (1, 2, 3)), inputs.masked(64, (1, 2, 3)))
    found = np.array([inputs.masked(64, (7, k)) for k in range(3000)])
    # The mean of ceil(64 cos(pi r / 2)) is a little more than 64 * 2 / pi; every place is alike.
    expected = np.mean([math.ceil(64 * math.cos(math.pi / 2 * r)) for r in np.arange(0, 1, 1e-4)])
    assert abs(found.sum(1).mean() - expected) < 4 * found.sum(1).std() / 3000**0.5
    assert abs(found.mean(0) - expected / 64).max() < 4 * (0.25 / 3000) ** 0.5


def test_noises_are_the_noise_of_each_place() -> None:
    expected = [noise(2**63 + 5, 9 + k, 3) for k in range(7)]
    assert noises(2**63 + 5, 9, 7, 3).tolist() == expected
    assert noise(0, 0) == 0.011546754286331562


# --- sequences ----------------------------------------------------------------------------------


def test_a_masked_copy_is_private_and_shares_its_positions(model: Model) -> None:
    sequence = model.sequencer.sequence(talk(model), key=(3,))
    plain = model.sequencer.sequence(talk(model, weight=0.0))
    n, mask_id = model.grid.size, model.vocabulary.special(MASK)
    copies = sequence.private > 0
    assert len(sequence) == model.sequencer.measure(talk(model))[None] == len(plain) + 2 * n
    for name in ("ids", "positions"):  # without the copies it is the sequence of a chat
        np.testing.assert_array_equal(getattr(sequence, name)[~copies], getattr(plain, name))
    np.testing.assert_array_equal(sequence.address[~copies], plain.address)
    np.testing.assert_array_equal(sequence.block[~copies] > 0, plain.block > 0)
    seen = span_mask(*(torch.from_numpy(x)[None] for x in (
        np.zeros(len(sequence), int), sequence.block, sequence.private)))[0].numpy()  # fmt: skip
    for number in (1, 2):
        copy = np.flatnonzero(sequence.private == number)
        clean = copy + n
        assert len(copy) == n and seen[np.ix_(copy, copy)].all()
        np.testing.assert_array_equal(sequence.positions[copy], sequence.positions[clean])
        np.testing.assert_array_equal(sequence.address[copy], sequence.address[clean])
        others = np.setdiff1d(np.arange(len(sequence)), copy)
        assert not seen[np.ix_(others, copy)].any(), "nothing else sees a copy"
        assert not seen[np.ix_(copy, clean)].any(), "nor does it see what it is to find out"
        assert seen[np.ix_(clean, clean)].all() and seen[clean[-1] + 1 :, clean].all()
        assert seen[copy][:, np.flatnonzero(~copies & (np.arange(len(sequence)) < copy[0]))].all()
        is_masked = sequence.ids[copy] == mask_id
        assert is_masked.any() and (sequence.modality[copy] == np.where(is_masked, IMAGE, 0)).all()
        expected = np.where(is_masked, sequence.ids[clean], IGNORE)
        np.testing.assert_array_equal(sequence.labels[copy], expected)
        np.testing.assert_array_equal(
            sequence.ids[copy][~is_masked], sequence.ids[clean][~is_masked]
        )
        np.testing.assert_array_equal(sequence.weights[copy], is_masked)
        assert (sequence.modality[clean[:-1]] == 0).all(), "codes say nothing of the next one"
    assert (sequence.modality[~copies] != IMAGE).all()


def test_a_given_image_is_clean_and_seen_both_ways(model: Model) -> None:
    asked = Document((picture(model, 0, "user", 0.0), Text("what?", role="user")))
    for sequence in (model.sequencer.sequence(asked), model.sequencer.prompt(asked)):
        assert not (sequence.private > 0).any() and (sequence.block > 0).sum() == model.grid.size
        assert not (sequence.ids == model.vocabulary.special(MASK)).any()
        assert not (sequence.modality == IMAGE).any()


@torch.no_grad()
def test_the_loss_is_that_of_the_masked_codes(model: Model) -> None:
    """Sum over masked places of -log p(code | others, text), by the number of them."""
    sequence = model.sequencer.sequence(talk(model), key=(3,))
    found = language(model.transformer, rows_of(sequence), LossConfig(text=0.0))
    hidden, table = hidden_of(model, sequence), model.transformer.output_table()
    first, last = model.vocabulary.code_slice
    at = np.flatnonzero(sequence.ids == model.vocabulary.special(MASK))
    codes = torch.from_numpy(sequence.labels[at]) - first
    expected = F.cross_entropy(hidden[at] @ table[first:last].T, codes)
    torch.testing.assert_close(found.total, expected, rtol=1e-5, atol=1e-6)
    assert found.sums["targets_image"] == len(at) > 1


# --- drawing ------------------------------------------------------------------------------------


def filled(model: Model, document: Document, codes: np.ndarray, drop: str | None) -> Sequence:
    """The training row of an image of which -1 in `codes` is masked."""
    image = replace(picture(model, 0), codes=np.maximum(codes, 0)[:, None])
    sequence = model.sequencer.sequence(Document((*document.parts, image)), drop)
    known = np.where(
        codes < 0,
        model.vocabulary.special(MASK),
        model.vocabulary.code_to_id(np.maximum(codes, 0)),
    )
    ids = sequence.ids.copy()
    ids[sequence.private > 0] = known
    return replace(sequence, ids=ids)


@torch.no_grad()
def logits_of(model: Model, document: Document, codes: np.ndarray, sampling: Sampling):
    """The logits (n, C) of every place, of a training row under the dense mask."""
    drops = (None, "text") if sampling.guided else (None,)
    return private_logits(model, [filled(model, document, codes, one) for one in drops], sampling)


def oracle(model: Model, document: Document, sampling: Sampling) -> list[int]:
    """MaskGIT's loop, arXiv:2202.04200, sec. 3.2."""
    schedule, n = model.transformer.head.schedule, model.grid.size
    begun = 3  # ids of the reply before the image: its opening
    codes = np.full(n, -1)
    steps = min(n, sampling.image_steps or schedule.steps)
    for step, left in enumerate(schedule.left(n, steps)):
        logits = logits_of(model, document, codes, sampling)
        log_p = logits.double().log_softmax(-1).numpy()
        guesses, scores = codes.copy(), np.full(n, -np.inf)
        for place in np.flatnonzero(codes < 0):
            u = noise(sampling.seed, begun + place, 2 * step)
            gumbel = -math.log(-math.log(noise(sampling.seed, begun + place, 2 * step + 1)))
            guesses[place] = sampled(logits[place], u, sampling)
            scores[place] = gumbel
            if schedule.choice_temperature is not None:
                falls = schedule.choice_temperature * (1 - (step + 1) / steps)
                scores[place] = log_p[place, guesses[place]] + falls * gumbel
        kept = np.argsort(-scores)[: (codes < 0).sum() - left]
        codes[kept] = guesses[kept]
    return codes.tolist()


SETTINGS = [
    Sampling(seed=1),
    Sampling(seed=2, guidance=3.0),
    Sampling(seed=3, image_temperature=0.0, guidance=0.0),
    Sampling(seed=4, image_top_k=5, image_steps=7),
    Sampling(seed=5, image_top_p=0.8, image_temperature=1.5, image_steps=40),
    Sampling(seed=6, image_steps=1, guidance=1.5),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=lambda one: str(one.seed))
@pytest.mark.parametrize("choice_temperature", [2.0, None])
def test_a_drawing_is_that_of_the_oracle(
    model: Model, sampling: Sampling, choice_temperature: float | None, monkeypatch
) -> None:
    head = model.transformer.head
    schedule = replace(head.schedule, choice_temperature=choice_temperature)
    monkeypatch.setattr(head, "schedule", schedule)
    document = Document((picture(model, 8, "user", 0.0), Text("draw it anew", role="user")))
    assert drawn(model, [document], [sampling])[0] == oracle(model, document, sampling)


@torch.no_grad()
def test_cached_passes_see_the_logits_of_teacher_forcing(model: Model, monkeypatch) -> None:
    """Those of a training row whose copy is masked where the pass found masks."""
    passes: list[tuple[torch.Tensor, np.ndarray]] = []
    original, document = masked.keep_codes, request("draw")

    def noted(head, table, hidden, how, args):
        logits = head.logits(torch.cat([x.flatten(0, 1) for x in hidden]), table, len(hidden),
                             [(None, args[0].guidance)] * model.grid.size)  # fmt: skip
        found = original(head, table, hidden, how, args)
        passes.append((logits, *found))
        return found

    monkeypatch.setattr(masked, "keep_codes", noted)
    sampling = Sampling(seed=2, guidance=2.0)
    (image,) = drawn(model, [document], [sampling])
    codes = np.full(model.grid.size, -1)
    for logits, (kept, found) in passes:
        forced = logits_of(model, document, codes, sampling)
        torch.testing.assert_close(logits, forced, atol=1e-4, rtol=0)
        places = np.flatnonzero(codes < 0)
        codes[places[kept]] = found[kept]
    assert codes.tolist() == image and len(passes) == 4


# --- one code a pass, in an order of chance ---------------------------------------------------


@torch.no_grad()
def test_one_code_a_pass_has_its_own_joint() -> None:
    """Images of 2 x 2 places and 4 codes: their frequencies are the mean over orders of the chain
    rule's products, p(x) = 1/24 sum_sigma prod_k p(x_sigma(k) | x_sigma(<k)).
    """
    schedule = MaskSchedule(steps=4, choice_temperature=None)
    model = replace(masked_model(schedule, num_codes=4), grid=Grid(2, 2))
    document, count = request("draw"), 2000
    states = list(itertools.product(range(-1, 4), repeat=4))
    log_p = dict(zip(states, log_p_of(model, document, states), strict=True))
    images = list(itertools.product(range(4), repeat=4))
    exact = np.zeros(len(images))
    for at, image in enumerate(images):
        for order in itertools.permutations(range(4)):
            state, total = [-1] * 4, 0.0
            for place in order:
                total += log_p[tuple(state)][place, image[place]]
                state[place] = image[place]
            exact[at] += math.exp(total) / 24
    assert exact.sum() == pytest.approx(1, abs=1e-6)
    found = np.zeros(len(images))
    samplings = [Sampling(seed=k) for k in range(count)]
    for reply in generate(model, [document] * count, samplings, "image", batch=500):
        found[images.index(tuple(reply[0].codes[:, 0].tolist()))] += 1
    assert (exact * count >= 5).sum() > 30, "the distribution is spread out"
    assert deviation(found, exact * count) < 4
    assert deviation(found, np.full(len(found), count / len(found))) > 20, "it sees another one"


def log_p_of(model: Model, document: Document, states: list[tuple[int, ...]]) -> np.ndarray:
    """The log probabilities (states, n, C) of every place, all read at once."""
    rows = [filled(model, document, np.array(state), None) for state in states]
    batch = Batch.stack([Row.pack([row], len(row), 0) for row in rows])
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    hidden = model.transformer.hidden_states(batch, batch.positions, attend)
    first, last = model.vocabulary.code_slice
    logits = hidden[:, batch.private[0] > 0] @ model.transformer.output_table()[first:last].T
    return logits.double().log_softmax(-1).numpy()


# --- what is refused ----------------------------------------------------------------------------


def test_bad_settings_are_refused() -> None:
    assert MaskSchedule(steps=0).problems() == ["steps 0: at least 1"]
    for wrong in (-1.0, math.inf, math.nan):
        assert "choice_temperature" in MaskSchedule(choice_temperature=wrong).problems()[0]
    assert MaskSchedule(choice_temperature=None).problems() == []
    for wrong in (0, -3, 2.5):
        with pytest.raises(ValueError, match="image_steps"):
            Sampling(image_steps=wrong)


def test_steps_are_refused_by_heads_that_draw_in_order(tiny_model: Model, model: Model) -> None:
    with pytest.raises(ValueError, match="the image head next_code has no image_steps 8: leave"):
        generate(tiny_model, [request("draw")], Sampling(image_steps=8))
    assert "image_steps" in Masked.follows and "image_steps" not in ImageHead.follows


def test_a_vocabulary_without_a_mask_is_refused(model: Model) -> None:
    config = model.transformer.config
    vocabulary = Vocabulary.new(config.num_ids - 140, 64)
    with pytest.raises(ValueError, match="no special token 'mask'"):
        Masked(Architecture(config, vocabulary, ImageConfig("masked", masked=MaskSchedule())))


def test_several_codes_at_a_place_are_refused(model: Model) -> None:
    image = replace(picture(model, 0), codes=np.zeros((model.grid.size, 2), np.int64))
    with pytest.raises(ValueError, match="masked reads one code for each place"):
        model.sequencer.image(image)


def test_a_text_target_is_never_in_a_copy(model: Model) -> None:
    sequence = model.sequencer.sequence(talk(model), key=(3,))
    assert not ((sequence.modality == TEXT) & (sequence.private > 0)).any()
