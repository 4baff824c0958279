"""Heads that predict codes by their levels: trained, resumed, saved, drawn from, refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import drawn, hidden_of, picked_from, request, rows_of
from tiny_runs import exact, metrics, recipe

from unimodal.bundle import load, save_bundle
from unimodal.document import Document, Image, Text
from unimodal.generation import generate
from unimodal.heads import levels
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import IMAGE
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.patches import PatchesConfig
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)
from unimodal.train import lm
from unimodal.train.initial import ShapeConfig
from unimodal.train.objectives import LossConfig
from unimodal.train.plan.plan import plan
from unimodal.train.run import LmRun

HEADS = ("independent_levels", "causal_levels")
PATCHES = PatchesConfig(encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)


def shaped(run: LmRun, **changes: object) -> LmRun:
    assert run.model is not None
    return replace(run, model=replace(run.model, **changes))


def saved(folder: Path, **quantizer: object) -> Path:
    """An untrained tokenizer with this quantizer."""
    folder.mkdir(exist_ok=True)
    config = TokenizerConfig(quantizer=QuantizerConfig(**quantizer), patches=PATCHES)
    ImageTokenizer(config).save(folder)
    return folder


@pytest.fixture(scope="module", params=HEADS)
def run(request, tmp_path_factory, shards, tokenizer) -> LmRun:
    """A run of 8 steps, with a checkpoint at each fourth."""
    output = tmp_path_factory.mktemp(request.param) / "run"
    run = shaped(recipe(output, shards, tokenizer, 8, save_every_steps=4), head=request.param)
    lm.train(run)
    return run


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    return load(run.output / "bundle")


# --- training -----------------------------------------------------------------------------------


def test_codes_are_learned(run: LmRun, model: Model) -> None:
    found = metrics(run.output)
    losses = [line["loss_image"] for line in found]
    assert abs(losses[0] - np.log(64)) < 0.3, "three levels of four values at random"
    assert losses[-1] < losses[0] - 0.5
    assert all(line["targets_image"] > 0 and line["flops_per_s"] > 0 for line in found)
    state = model.transformer.state_dict()
    assert state["model.embed_tokens.weight"].shape[0] == model.vocabulary.num_words
    for name in ("embedder.table.weight", "head.table"):
        assert state[name].shape[0] == 12 and state[name].abs().sum(1).all()


def test_it_goes_on_bit_for_bit(tmp_path, shards, tokenizer, run: LmRun) -> None:
    again = replace(run, output=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(again, schedule=replace(run.schedule, num_steps=4)))
    lm.train(again)
    assert exact(tmp_path / "run") == exact(run.output)


@pytest.mark.parametrize(
    "quantizer",
    [{"fsq": FsqConfig((8, 5, 3))}, {"lfq": LfqConfig(18)}, {"bsq": BsqConfig(11)}],
    ids=["fsq", "lfq", "bsq"],
)
def test_tokenizers_of_levels_train(tmp_path, shards, quantizer: dict, monkeypatch) -> None:
    tokenizer = saved(tmp_path / "tokenizer", **quantizer)
    run = shaped(recipe(tmp_path / "run", shards, tokenizer, 2), head="causal_levels")
    model = load(lm.train(run))
    bits = sum(np.log(count) for count in model.image_tokenizer.levels)
    assert abs(metrics(run.output)[0]["loss_image"] - bits) < 0.3
    assert sum(p.numel() for p in model.transformer.parameters()) < 40_000
    (codes,) = drawn(model, [request("draw")], [Sampling(seed=1)])
    pixels = model.codec.decode([Image(codes=np.array(codes)[:, None], grid=model.grid,
                                       codec_hash=model.codec.hash)])[0].pixels  # fmt: skip
    assert pixels.shape[:2] == model.canvas[::-1]


# --- drawing ------------------------------------------------------------------------------------


def test_replies_of_a_batch_are_those_of_each_alone(model: Model) -> None:
    documents = [request(f"draw {'a red circle ' * k}") for k in range(5)]
    samplings = [
        Sampling(seed=k, guidance=(None, 20.0)[k % 2], image_top_p=(None, 0.9)[k // 2 % 2])
        for k in range(5)
    ]
    together = drawn(model, documents, samplings)
    alone = [drawn(model, [d], [s])[0] for d, s in zip(documents, samplings, strict=True)]
    assert together == alone and len(set(map(tuple, together))) == 5


def test_guidance_of_one_is_none_and_text_takes_turns(model: Model) -> None:
    plain, one, much = (
        drawn(model, [request("draw a star")], [Sampling(seed=4, guidance=scale)])
        for scale in (None, 1.0, 100.0)
    )
    assert plain == one != much
    replies = generate(
        model, [request("draw"), request("say")], [Sampling(seed=k, max_text_tokens=9)
                                                   for k in range(2)], ["image", "text"]
    )  # fmt: skip
    assert [type(parts[0]) for parts in replies] == [Image, Text]


@torch.inference_mode()
def test_cached_steps_see_the_logits_of_teacher_forcing(model: Model, monkeypatch) -> None:
    """Each level is drawn from what the whole sequence, read at once, gives in its place."""
    seen = picked_from(monkeypatch, levels)
    parts = generate(model, [request("draw a star")], Sampling(seed=2), "image")[0]
    answered = Document((*request("draw a star").parts, *parts))
    sequence = model.sequencer.sequence(answered)
    hidden = hidden_of(model, sequence)
    head = model.transformer.head
    values = head.levels.values(torch.from_numpy(parts[0].codes[:, 0]))
    forced = head.logits(hidden[rows_of(sequence).modality[0] == IMAGE], values[:, :-1], 0)
    assert len(seen) == model.grid.size * len(forced)
    for k, logits in enumerate(forced):
        torch.testing.assert_close(torch.cat(seen[k :: len(forced)]), logits, atol=1e-4, rtol=0)


# --- bundles ------------------------------------------------------------------------------------


def test_it_survives_saving(model: Model, tmp_path: Path) -> None:
    again = load(save_bundle(tmp_path / "again", model))
    one, two = (drawn(each, [request("draw")], [Sampling(seed=1)]) for each in (model, again))
    assert one == two
    image = json.loads((tmp_path / "again" / "config.json").read_text())["image"]
    assert image["code_rows"] is False and image["levels"] == [4, 4, 4]


def test_a_bundle_is_gone_on_from(run: LmRun, tmp_path: Path) -> None:
    more = replace(run, output=tmp_path / "more", weights=run.output / "bundle", text_ids=None)
    lm.train(replace(more, schedule=replace(run.schedule, num_steps=1)))
    first, last = metrics(more.output)[0]["loss_image"], metrics(run.output)[-1]["loss_image"]
    assert abs(first - last) < 0.6
    other = shaped(more, head="next_code")
    with pytest.raises(ValueError, match=f"model.head next_code is {run.model.head} there"):
        lm.train(replace(other, output=tmp_path / "other"))


def test_there_is_no_plain_model_of_it(run: LmRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"image head {run.model.head}, which no model of"):
        export(run.output / "bundle", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_plans_know_its_parameters(run: LmRun, model: Model) -> None:
    made = plan(run, 1, 80.0)
    assert made.parameters == sum(one.numel() for one in model.transformer.parameters())
    plain = plan(shaped(run, head="next_code"), 1, 80.0)
    assert made.shape.num_ids == plain.shape.num_ids - 64 and made.flops > 0


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantizer", "changes", "why"),
    [
        ({"vq": VqConfig(64)}, {}, r"model\.head causal_levels: .* not made of levels.*next_code"),
        ({"fsq": FsqConfig((4, 4)), "residual": 2}, {}, "has 2 codes at each place"),
        ({}, {"factorised": True}, r"model\.factorised: with model\.head causal_levels"),
    ],
    ids=["vq", "residual", "factorised"],
)
def test_what_has_no_levels_is_refused_before_anything_is_written(
    tmp_path, shards, quantizer: dict, changes: dict, why: str
) -> None:
    tokenizer = saved(tmp_path / "tokenizer", **quantizer)
    run = recipe(tmp_path / "run", shards, tokenizer, 1)
    with pytest.raises(ValueError, match=why):
        lm.train(shaped(run, head="causal_levels", **changes))
    assert not (tmp_path / "run" / "text.json").exists()


def test_a_softmax_over_all_ids_is_refused(tmp_path, shards, tokenizer) -> None:
    run = shaped(recipe(tmp_path / "run", shards, tokenizer, 1), head=HEADS[0])
    with pytest.raises(ValueError, match=r"loss\.sliced false: .* independent_levels"):
        lm.train(replace(run, loss=LossConfig(sliced=False)))
    assert not (tmp_path / "run" / "text.json").exists()


def test_a_plan_needs_the_tokenizer(tmp_path, shards) -> None:
    run = recipe(tmp_path / "run", shards, tmp_path / "none", 1)
    run = replace(run, model=ShapeConfig(head="causal_levels"))
    with pytest.raises(ValueError, match="with model.head next_code"):
        plan(run, 1, 80.0, num_ids=1000)
