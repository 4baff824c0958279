"""Heads and embedders beside next_code: a toy head, factorised codes, addresses."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_head
from head_models import hidden_of, next_code_model, picked_from, rows_of
from tiny_runs import exact, metrics, recipe
from transformers import AutoModelForCausalLM

from unimodal.attention import DenseAttention
from unimodal.bundle import load, load_tokenizer, save_bundle
from unimodal.data.sizes import ImageRule
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation, generate
from unimodal.heads import next_code
from unimodal.hub.export import export, restore
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import IMAGE, Batch, Row, span_mask
from unimodal.tokenizer.grid import Grid
from unimodal.train import lm
from unimodal.train.run import LmRun

ROOT = Path(__file__).resolve().parents[2]
TOY = "toy_head:ToyHead"


def shaped(run: LmRun, **changes: object) -> LmRun:
    assert run.model is not None
    return replace(run, model=replace(run.model, **changes))


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory, shards, tokenizer) -> LmRun:
    """A toy head after 8 steps, a checkpoint at each fourth."""
    output = tmp_path_factory.mktemp("toy") / "run"
    run = shaped(recipe(output, shards, tokenizer, 8, save_every_steps=4), head=TOY)
    lm.train(run)
    return run


@pytest.fixture(scope="module")
def toy_model(toy_run: LmRun) -> Model:
    return load(toy_run.output / "bundle")


def drawing(model: Model, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, model.vocabulary.num_codes, (model.grid.size, 1))
    return Image(codes=codes, grid=model.grid, codec_hash=model.codec.hash)


# --- a head of two passes -----------------------------------------------------------------------


def test_a_toy_head_learns(toy_run: LmRun) -> None:
    found = metrics(toy_run.output)
    assert found[-1]["loss_image"] < found[0]["loss_image"] < 1.05 * np.log(64)
    assert all(line["targets_image"] > 0 for line in found)


def test_it_goes_on_bit_for_bit(tmp_path, shards, tokenizer, toy_run) -> None:
    run = shaped(recipe(tmp_path / "run", shards, tokenizer, 4, save_every_steps=4), head=TOY)
    run = replace(run, schedule=toy_run.schedule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(run, schedule=replace(run.schedule, num_steps=4)))
    lm.train(run)
    assert exact(tmp_path / "run") == exact(toy_run.output)


def test_packed_rows_hold_both_copies_of_an_image(toy_model: Model) -> None:
    image = replace(drawing(toy_model, 0), role="assistant")
    document = Document((Text("draw", role="user"), image, Text("there", role="assistant")))
    sequence = toy_model.sequencer.sequence(document, key=(1, 2))
    assert len(sequence) == toy_model.sequencer.measure(document)[None]
    noised = sequence.private > 0
    (clean,) = (sequence.block == 1).nonzero()
    n = toy_model.grid.size
    assert noised.sum() == n == len(clean)
    np.testing.assert_array_equal(sequence.positions[noised], sequence.positions[clean])
    assert (sequence.modality[noised] == IMAGE).all() and (sequence.modality == IMAGE).sum() == n
    seen = toy_model.sequencer.sequence(replace_weight(document, 0.0))
    assert len(sequence) == len(seen) + n and sequence.positions[-1] == seen.positions[-1]
    mask = span_mask(*(torch.from_numpy(x)[None] for x in (
        np.zeros(len(sequence), int), sequence.block, sequence.private)))[0].numpy()  # fmt: skip
    assert not mask[~noised][:, noised].any() and mask[np.ix_(noised, noised)].all()
    assert not mask[np.ix_(noised, clean)].any() and mask[np.ix_(clean, clean)].all()


def replace_weight(document: Document, weight: float) -> Document:
    return Document(tuple(replace(part, weight=weight) for part in document.parts))


@torch.inference_mode()
def test_it_draws_what_a_training_row_would_predict(toy_model: Model) -> None:
    """The hidden vectors of the noise, read and forgotten, are those of the private copy."""
    question = Document((Text("draw", role="user"),))
    (parts,) = generate(toy_model, [question], Sampling(seed=5), "image")
    (drawn,) = (part for part in parts if isinstance(part, Image))
    answered = Document((*question.parts, drawn))
    sequence = toy_model.sequencer.sequence(answered, key=(5,))
    # The key of a training row has the part's number; a request has its seed alone.
    spans = tuple(
        replace(span, latents=toy_head.noise((5,), span.grid.size)) if span.has_content else span
        for span in sequence.spans
    )
    row = Row.pack([replace(sequence, spans=spans)], len(sequence), 0)
    batch = Batch.stack([row])
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    hidden = toy_model.transformer.hidden_states(batch, batch.positions, attend)[0]
    logits = toy_model.transformer.head.score(hidden[batch.private[0] > 0])
    np.testing.assert_array_equal(logits.argmax(-1).numpy(), drawn.codes[:, 0])


def test_it_draws_in_a_batch_beside_text_requests(toy_model: Model) -> None:
    documents = [Document((Text(f"draw {'a red circle ' * k}", role="user"),)) for k in range(6)]
    modalities = ["image", "text", None, "image", "text", "image"]
    samplings = [Sampling(seed=k, max_text_tokens=12) for k in range(6)]
    together = generate(toy_model, documents, samplings, modalities)
    for document, sampling, modality, parts in zip(
        documents, samplings, modalities, together, strict=True
    ):
        (alone,) = generate(toy_model, [document], sampling, modality)
        assert [spelled(part) for part in parts] == [spelled(part) for part in alone]
    assert all(isinstance(parts[0], Image) for parts in (together[0], together[3], together[5]))


def spelled(part: Text | Image) -> object:
    return part.text if isinstance(part, Text) else part.codes.ravel().tolist()


def test_a_drawing_stays_in_context(toy_model: Model) -> None:
    """What was drawn is read as its codes: the same conversation read anew goes on alike."""
    generation = Generation(toy_model)
    question = Document((Text("draw a story", role="user"),))
    sampling = Sampling(seed=3, text_temperature=1.0, max_images=3, max_text_tokens=30)
    generation.submit(question, sampling)
    (done,) = [event for event in generation.run() if isinstance(event, ReplyDone)]
    assert toy_model.sequencer.prompt(question).positions[-1] + len(done.ids) < toy_model.context


def test_it_survives_saving(toy_model: Model, tmp_path: Path) -> None:
    again = load(save_bundle(tmp_path / "again", toy_model))
    question = [Document((Text("draw", role="user"),))]
    first, second = (
        generate(one, question, Sampling(seed=1), "image") for one in (toy_model, again)
    )
    assert spelled(first[0][0]) == spelled(second[0][0])
    names = set(toy_model.transformer.state_dict())
    assert {"head.score.weight", "embedder.project.weight"} <= names


def test_a_bundle_may_not_import_what_its_user_did_not(toy_run: LmRun) -> None:
    code = "import sys, unimodal; unimodal.load(sys.argv[1])"
    words = [sys.executable, "-c", code, str(toy_run.output / "bundle")]
    refused = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode and "import toy_head first" in refused.stderr
    words[2] = f"import sys; sys.path.append('tests'); import toy_head; {code}"
    assert subprocess.run(words, capture_output=True, text=True, cwd=ROOT).returncode == 0


# --- factorised codes and addresses --------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"factorised": True}, {"addresses": True},
                                     {"residual_lambdas": True, "two_way": True},
                                     {"value_embeddings": True},
                                     {"factorised": True, "addresses": True}])  # fmt: skip
def test_they_train_resume_and_draw(tmp_path, shards, tokenizer, changes: dict[str, bool]) -> None:
    whole = shaped(recipe(tmp_path / "a", shards, tokenizer, 6, save_every_steps=3), **changes)
    lm.train(whole)
    assert metrics(whole.output)[-1]["loss"] < metrics(whole.output)[0]["loss"]
    part = replace(whole, output=tmp_path / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(part, schedule=replace(part.schedule, num_steps=3)))
    lm.train(part)
    assert exact(tmp_path / "b") == exact(whole.output)
    model = load(whole.output / "bundle")
    trained = [name for name in model.transformer.state_dict()
               if name.startswith(("embedder.", "code_factors.", "model.residual",
                                   "model.value_embeddings"))]  # fmt: skip
    state = model.transformer.state_dict()
    begun = {"model.residual": torch.tensor([1.0, 0.0])}
    assert trained and all(
        (state[name] != begun.get(name[:14], torch.zeros(1))).any() for name in trained
    )


@pytest.mark.parametrize(
    ("addresses", "why"), [(True, "embeddings .model.addresses. of 64 rows"), (False, "sides are")]
)
def test_sizes_that_no_model_reads_stop_before_anything_is_measured(
    tmp_path, shards, tokenizer, addresses: bool, why: str
) -> None:
    """Without addresses it is the own layout that has no name for such sides."""
    run = shaped(recipe(tmp_path / "a", shards, tokenizer, 1), addresses=addresses)
    patch = load_tokenizer(tokenizer).patch
    rule = ImageRule(4 * 66 * patch**2, patch, 100.0)
    with pytest.raises(
        ValueError, match=rf"target_pixels .* may be \d+ x \d+ pixels, a grid.*{why}"
    ):
        lm.train(replace(run, loader=replace(run.loader, images=rule)))
    assert not (run.output / "metrics.jsonl").exists()


def test_both_are_nothing_at_first(tmp_path, shards, tokenizer) -> None:
    """They begin at zero, so that the first step's loss is that of a plain model."""
    plain = recipe(tmp_path / "plain", shards, tokenizer, 1)
    both = shaped(recipe(tmp_path / "both", shards, tokenizer, 1), factorised=True, addresses=True)
    lm.train(plain)
    lm.train(both)
    first, second = (metrics(run.output)[0]["loss"] for run in (plain, both))
    assert abs(first - second) < 1e-6


def test_a_bundle_that_gets_them_goes_on_from_what_it_was(tmp_path, shards, tokenizer) -> None:
    first = recipe(tmp_path / "first", shards, tokenizer, 2)
    lm.train(first)
    common = {"weights": first.output / "bundle", "text_ids": None}
    plain = replace(recipe(tmp_path / "plain", shards, tokenizer, 1), **common)
    both = replace(
        shaped(recipe(tmp_path / "both", shards, tokenizer, 1), factorised=True, addresses=True),
        **common,
    )
    lm.train(plain)
    lm.train(both)
    before, after = (metrics(run.output)[0]["loss"] for run in (plain, both))
    assert abs(before - after) < 1e-6


def test_a_grid_of_scales_is_addressed_scale_by_scale() -> None:
    grid = Grid(2, 3, ((1, 1), (2, 3)))
    assert grid.size == 7
    np.testing.assert_array_equal(
        grid.addresses, [(0, 0), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    )
    with pytest.raises(ValueError, match="the last one is 2 x 3"):
        Grid(2, 3, ((1, 1), (2, 2)))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def both_model(request, tmp_path_factory, shards, tokenizer) -> Model:
    """Factorised codes and addresses after some steps."""
    run = recipe(tmp_path_factory.mktemp("both") / "run", shards, tokenizer, 4)
    run = shaped(run, factorised=True, addresses=True, tied_head=request.param)
    lm.train(run)
    return load(run.output / "bundle")


@torch.inference_mode()
def test_cached_steps_see_the_logits_of_teacher_forcing(both_model: Model, monkeypatch) -> None:
    """Each code is drawn from what the whole sequence, read at once, gives in its place."""
    seen = picked_from(monkeypatch, next_code)
    model = both_model
    question = Document((drawing(model, 1), Text("and draw", role="user")))
    (parts,) = generate(model, [question], Sampling(seed=2), "image")
    answered = Document((*question.parts, *parts))
    sequence = model.sequencer.sequence(answered)
    hidden = hidden_of(model, sequence)
    logits = hidden @ model.transformer.output_table().T
    first, last = model.vocabulary.code_slice
    forced = logits[rows_of(sequence).modality[0] == IMAGE][-model.grid.size :, first:last]
    torch.testing.assert_close(torch.cat(seen), forced, atol=1e-4, rtol=0)


def test_addresses_say_where_a_code_stands(both_model: Model) -> None:
    """Two equal codes in unlike places enter unlike, which a plain embedding cannot tell."""
    image = drawing(both_model, 0)
    same = replace(image, codes=np.zeros_like(image.codes))
    sequence = both_model.sequencer.sequence(Document((same,)))
    batch = Batch.stack([Row.pack([sequence], len(sequence), 0)])
    x = both_model.transformer.embedder(both_model.transformer.embed(batch.ids), batch)[0]
    rows, columns = batch.address[0].long().T
    assert (rows > 0).sum() == both_model.grid.size
    assert [int(rows.max()), int(columns.max())] == [both_model.grid.height, both_model.grid.width]
    for at in (rows > 0).nonzero()[:, 0].tolist():
        expected = (
            both_model.transformer.embed(batch.ids)[0, at]
            + both_model.transformer.embedder.rows.weight[rows[at]]
            + both_model.transformer.embedder.columns.weight[columns[at]]
        )
        torch.testing.assert_close(x[at], expected)


@pytest.mark.parametrize("tied", [True, False])
def test_the_export_of_factorised_codes_has_equal_logits(
    tmp_path, shards, tokenizer, tied: bool
) -> None:
    run = shaped(recipe(tmp_path / "run", shards, tokenizer, 4), factorised=True, tied_head=tied)
    lm.train(run)
    model = load(run.output / "bundle")
    export(run.output / "bundle", tmp_path / "exported")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32).eval()
    sequence = model.sequencer.sequence(Document((drawing(model, 0), Text("a star"))))
    batch = Batch.stack([Row.pack([sequence], len(sequence), 0)])
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    hidden = model.transformer.hidden_states(batch, batch.positions, attend)
    ours = hidden @ model.transformer.output_table().T
    with torch.no_grad():
        assert (ours - theirs(batch.ids).logits).abs().max() <= 1e-5
    back = load(restore(tmp_path / "exported", tmp_path / "back"))
    assert not back.transformer.architecture.image.levels
    again = back.transformer.hidden_states(batch, batch.positions, attend)
    torch.testing.assert_close(again @ back.transformer.output_table().T, ours, atol=1e-5, rtol=0)


def test_what_no_plain_model_can_be_is_not_exported(toy_run, both_model, tmp_path) -> None:
    with pytest.raises(ValueError, match="toy_head:ToyHead, which no model of"):
        export(toy_run.output / "bundle", tmp_path / "toy")
    for part in ("residual_lambdas", "value_embeddings"):
        model = next_code_model(64, Grid(3, 4), addresses=False, **{part: True})
        with pytest.raises(ValueError, match=f"trained without model.{part} has an export"):
            export(save_bundle(tmp_path / part, model), tmp_path / "exported")
    bundle = save_bundle(tmp_path / "both", both_model)
    with pytest.raises(ValueError, match="row and column .* trained without model.addresses"):
        export(bundle, tmp_path / "exported")
    assert not (tmp_path / "exported").exists() and not (tmp_path / "toy").exists()
