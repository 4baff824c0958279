"""Several codes in a pass: the images of drawing one by one, in fewer passes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from head_models import deviation, next_code_model, request

from unimodal import generation
from unimodal.attention import DenseAttention
from unimodal.branches import Branches
from unimodal.document import Document, Image
from unimodal.events import ImageProgress
from unimodal.generation import Generation, generate, stream
from unimodal.heads import jacobi
from unimodal.model import Model
from unimodal.sampling import Sampling, guide, probabilities
from unimodal.sequence import Batch, Row, span_mask
from unimodal.tokenizer.grid import Grid
from unimodal.unified import UnifiedModel


@pytest.fixture(scope="module")
def model() -> Model:
    return next_code_model(64, Grid(3, 4), addresses=True)


def codes_of(replies: list) -> list[list[int]]:
    return [parts[0].codes[:, 0].tolist() for parts in replies]


@torch.no_grad()
def joint(model: Model, document: Document, settings: tuple, scale: float | None) -> np.ndarray:
    """The probability of each image of 4 places, by the chain rule, each image read at once."""
    images = list(itertools.product(range(4), repeat=4))
    layout, first = model.sequencer.layout, model.vocabulary.code_slice
    shares = []
    for drop in (None, "text") if scale is not None else (None,):
        prompt = [*model.sequencer.prompt(document, drop).ids, *layout.opening(model.grid)]
        content, is_code = layout.content(np.zeros(4, np.int64), model.grid)
        rows = []
        for image in images:
            ids = np.array([*prompt, *layout.content(np.array(image), model.grid)[0]])
            plain = model.sequencer.prompt(document).causal(ids)
            rows.append(Row.pack([plain], len(ids), 0))
        batch = Batch.stack(rows)
        attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
        hidden = model.transformer.hidden_states(batch, batch.positions, attend)
        at = len(prompt) + np.flatnonzero(is_code) - 1
        shares.append(hidden[:, at] @ model.transformer.output_table()[slice(*first)].T)
    logits = shares[0] if scale is None else guide(*shares, torch.tensor(scale))
    p = probabilities(logits.flatten(0, 1), *settings).reshape(len(images), 4, 4)
    return np.array([
        math.prod(float(p[n, place, code]) for place, code in enumerate(image))
        for n, image in enumerate(images)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "scale", "drafts"),
    [
        ((1.0, None, None), None, 3),
        ((1.2, None, 0.9), 1.5, 2),
        pytest.param((1.0, 3, None), None, 1, marks=pytest.mark.slow),
    ],
)
def test_images_have_their_exact_joint(settings: tuple, scale: float | None, drafts: int) -> None:
    model, document, count = next_code_model(4, Grid(2, 2), addresses=False), request("draw"), 1500
    exact = joint(model, document, settings, scale)
    assert exact.sum() == pytest.approx(1, abs=1e-6)
    names = ("image_temperature", "image_top_k", "image_top_p")
    common = dict(zip(names, settings, strict=True)) | {"guidance": scale, "image_drafts": drafts}
    samplings = [Sampling(seed=seed, **common) for seed in range(count)]
    images = list(itertools.product(range(4), repeat=4))
    found = np.zeros(len(images))
    for codes in codes_of(generate(model, [document] * count, samplings, "image", batch=500)):
        found[images.index(tuple(codes))] += 1
    assert (exact * count >= 5).sum() > 15, "the distribution is spread out"
    assert deviation(found, exact * count) < 4
    uniform = np.full(len(images), count / len(images))
    assert deviation(found, uniform) > 20, "it sees another one"


@pytest.mark.parametrize("guidance", [None, 2.0])
@pytest.mark.parametrize("drafts", [1, 3, 16])
def test_the_likeliest_codes_are_those_of_drawing_one_by_one(
    model: Model, drafts: int, guidance: float | None
) -> None:
    documents = [request("draw " + "a star " * n) for n in range(3)]
    plain = Sampling(image_temperature=0.0, guidance=guidance)
    one_by_one = codes_of(generate(model, documents, plain, "image"))
    together = codes_of(generate(model, documents, replace(plain, image_drafts=drafts), "image"))
    assert one_by_one == together


@pytest.mark.parametrize("drafts", [1, 5, 16])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"guidance": 2.0, "image_top_p": 0.9}, {"image_temperature": 1.5, "image_top_k": 7},
    ],
)  # fmt: skip
def test_a_seed_draws_what_it_draws_one_by_one(model: Model, drafts: int, settings: dict) -> None:
    """Alone, and behind images, whose codes are the first drafts: of its grid, and of another."""
    rng = np.random.default_rng(0)
    given = [
        Image(codes=rng.integers(0, 64, (grid.size, 1)), grid=grid, role="user",
              codec_hash=model.sequencer.codec_hash)
        for grid in (Grid(3, 4), Grid(2, 2))
    ]  # fmt: skip
    documents = [
        request("draw a star"), *(Document((one, *request("a star").parts)) for one in given),
    ]  # fmt: skip
    samplings = [Sampling(seed=seed, **settings) for seed in range(12) for _ in documents]
    drafted = [replace(one, image_drafts=drafts) for one in samplings]
    one_by_one, together = (
        codes_of(generate(model, documents * 12, each, "image")) for each in (samplings, drafted)
    )
    assert one_by_one == together
    assert len({tuple(codes) for codes in one_by_one}) > 30


def test_an_image_that_is_kept_takes_a_pass_or_two(model: Model, monkeypatch) -> None:
    """What a seed draws anyway, shown before: all drafts hold. Those of another image are left
    after the first pass.
    """
    forwards: list[int] = []
    original = Branches._forward
    monkeypatch.setattr(Branches, "_forward", lambda *args: forwards.append(1) or original(*args))
    transformer = UnifiedModel(model.transformer.architecture).eval()
    transformer.load_state_dict(model.transformer.state_dict())
    with torch.no_grad():
        transformer.model.norm.weight.zero_()  # all codes are as likely, whatever stands before
    even, counts = replace(model, transformer=transformer), {}
    parts, others = (
        generate(even, [request("draw")], Sampling(seed=seed), "image")[0] for seed in (1, 2)
    )
    for name, before in (("new", ()), ("kept", parts), ("other", others)):
        forwards.clear()
        asked = Document((*before, *request("draw").parts))
        sampling = Sampling(seed=1, image_drafts=2)
        assert codes_of(generate(even, [asked], sampling, "image")) == codes_of([parts])
        counts[name] = len(forwards)
    assert counts == {"new": 5, "kept": 4, "other": 5}, "12 codes: 1, 3, 3, 3, 2; and 3 each"


def test_a_request_beside_strangers_draws_what_it_draws_alone(model: Model) -> None:
    """Some draw one by one, some with more drafts, and some talk."""
    documents = [request("draw " + "two red circles " * n) for n in range(6)]
    samplings = [
        Sampling(seed=n, guidance=[None, 2.0][n % 2], image_drafts=[None, 2, 5][n % 3],
                 max_text_tokens=6)
        for n in range(6)
    ]  # fmt: skip
    modalities = ["image", "image", "image", "image", "image", "text"]
    together = generate(model, documents, samplings, modalities, batch=4)
    for n in range(5):
        alone = generate(model, documents[n : n + 1], samplings[n], "image")
        assert codes_of(alone) == codes_of([together[n]])


def test_the_cache_holds_what_was_drawn_and_nothing_else(model: Model) -> None:
    """A conversation goes on as if its image had been given."""
    sampling = Sampling(seed=2, guidance=2.0, image_drafts=4, max_images=1)
    generation = Generation(model, 1, num_prefixes=4)
    parts = request("draw").parts
    for turn in range(3):
        asked = Document(parts)
        generation.submit(asked, replace(sampling, seed=turn), "image")
        before, done = generation.num_read, [*generation.run()][-1]
        cost = generation.num_read - before
        (alone,) = generate(model, [asked], replace(sampling, seed=turn), "image")
        assert codes_of([done.parts]) == codes_of([alone])  # type: ignore[union-attr]
        parts = (*parts, *done.parts, *request("again").parts)  # type: ignore[union-attr]
    assert cost < 2 * len(model.sequencer.prompt(Document(parts)))


def test_drafts_that_equal_a_kept_drawing_are_read_again(model: Model) -> None:
    """All codes are as likely, so an edit draws the image before it: what was kept of the first
    drawing begins with the drafts of the next, whose hidden vectors are looked at.
    """
    even = replace(model, transformer=sure_of_nothing(model))
    (parts,) = generate(even, [request("draw")], Sampling(seed=1), "image")
    asked = Document((*parts, *request("draw").parts))
    generation = Generation(even, 1, num_prefixes=4)
    for _ in range(2):
        generation.submit(asked, Sampling(seed=1, image_drafts=8), "image")
        *_, done = generation.run()
        assert codes_of([done.parts]) == codes_of([parts])  # type: ignore[union-attr]


def sure_of_nothing(model: Model) -> UnifiedModel:
    """Return a copy of the transformer to which all ids are as likely."""
    transformer = UnifiedModel(model.transformer.architecture).eval()
    transformer.load_state_dict(model.transformer.state_dict())
    with torch.no_grad():
        transformer.model.norm.weight.zero_()
    return transformer


def test_passes_are_fewer_where_codes_repeat(model: Model, monkeypatch) -> None:
    """All logits are equal, so the first code is the likeliest everywhere: each pass keeps all
    drafts but the first, which has none.
    """
    sure = replace(model, transformer=sure_of_nothing(model))
    forwards: list[int] = []
    original = Branches._forward
    monkeypatch.setattr(Branches, "_forward", lambda *args: forwards.append(1) or original(*args))
    sampling = Sampling(image_temperature=0.0, image_drafts=4)
    events = list(stream(sure, [request("draw")], sampling, "image"))
    assert len(forwards) == 1 + math.ceil(11 / 5)
    progress = [event for event in events if isinstance(event, ImageProgress)]
    assert [event.done for event in progress] == [1, 6, 11, 12]


@pytest.mark.parametrize("requests", [1, 2, 4, 9, 13])
def test_requests_that_draw_together_have_fewer_drafts(
    model: Model, monkeypatch, requests: int
) -> None:
    """A pass reads no more tokens than are worth it; the images are those of each alone."""
    passes: list[tuple[int, int]] = []
    original = jacobi.check_drafts

    def watched(head, table, hidden, settings, args):
        passes.append((len(args), sum(len(one.rows) for one in args)))
        return original(head, table, hidden, settings, args)

    monkeypatch.setattr(jacobi, "check_drafts", watched)
    monkeypatch.setattr(generation, "CODES_WORTH_READING", 24)
    asked = [request(f"draw {n}") for n in range(requests)]
    samplings = [Sampling(seed=n, image_drafts=8) for n in range(requests)]
    together = codes_of(generate(model, asked, samplings, "image"))
    assert all(drafts == 0 or drafts + number <= 24 for number, drafts in passes)
    assert passes[1] == (requests, requests * min(8, 24 // requests - 1))
    passes.clear()
    alone = [codes_of(generate(model, [one], how, "image"))[0]
             for one, how in zip(asked, samplings, strict=True)]  # fmt: skip
    assert together == alone


def test_drafts_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(ValueError, match="image_drafts 0: None or a whole number from 1 to 256"):
        Sampling(image_drafts=0)
    with pytest.raises(ValueError, match="masked has no image_drafts 4"):
        Sampling(image_drafts=4).check(("image_steps",), "masked")
