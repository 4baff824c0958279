"""Tiny models of latents: their tokenizer, their runs, and batches for two ranks."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from head_models import lively
from tiny_models import tiny
from tiny_runs import TINY, recipe

from unimodal.architecture import Architecture, ImageConfig
from unimodal.data.scenes.world import render, scene
from unimodal.document import Document, Image, Text
from unimodal.heads.flow import FlowInputs, flow_layout
from unimodal.model import Model
from unimodal.rectified_flow import FlowConfig
from unimodal.sequence import Batch, Row
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.latents import LatentsConfig
from unimodal.tokenizer.pixels import to_tensor
from unimodal.train.run import LmRun
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

FLOW = FlowConfig(patch=2)
LATENTS = TokenizerConfig(patches=TINY.patches, latents=LatentsConfig(width=4))
NUM_TEXT, LATENT_WIDTH, GRID = 280, 3, Grid(4, 6)  # of the batches
VOCABULARY = Vocabulary.new(NUM_TEXT, 0)


def write_latent_tokenizer(folder: Path) -> Path:
    """Write an untrained tokenizer of latents, scaled to scenes, and return its folder."""
    folder.mkdir(exist_ok=True)
    model = ImageTokenizer(LATENTS).eval()
    model.measure_latents([to_tensor([render(scene(3, n), 64) for n in range(12)])])
    model.save(folder)
    return folder


def flow_recipe(output: Path, shards: Path, tokenizer: Path, num_steps: int, **loop: int) -> LmRun:
    """Return the config of a run of a tiny model that draws latents, with averaged weights."""
    run = recipe(output, shards, tokenizer, num_steps, **loop)
    assert run.model is not None
    shape = replace(run.model, head="flow", addresses=True, flow=FLOW)
    return replace(run, model=shape, optimizer=replace(run.optimizer, ema_decay=0.5))


def flow_model() -> Model:
    """Random weights; images of 6 x 4 latents, 6 tokens."""
    base = tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)
    tokenizer = ImageTokenizer(LATENTS).eval()
    tokenizer.measure_latents([to_tensor([render(scene(3, n), 64) for n in range(2)])])
    vocabulary = Vocabulary.new(base.vocabulary.num_text, 0)
    config = replace(base.transformer.config, num_ids=vocabulary.size, tied_head=False)
    image = ImageConfig(
        "flow", addresses=True, code_rows=False, latent_width=LATENTS.latents.width, flow=FLOW
    )
    transformer = lively(UnifiedModel(Architecture(config, vocabulary, image)))
    return replace(base, transformer=transformer, image_tokenizer=tokenizer, grid=Grid(6, 4))


@cache
def sequencer() -> Sequencer:
    text = TextTokenizer.train(["draw two red circles", "make it blue"], NUM_TEXT)
    return Sequencer(VOCABULARY, text, "hash", FlowInputs(flow_layout(FLOW.patch), FLOW))


def batch(step: int, num_rows: int, length: int, empty: bool) -> Batch:
    """Return rows of text alone, then rows of images alone: see half_images."""

    def image(rng: np.random.Generator) -> Image:
        latents = rng.standard_normal((GRID.size, LATENT_WIDTH)).astype(np.float32)
        return Image(latents=latents, grid=GRID, codec_hash="hash")

    return half_images(sequencer(), image, step, num_rows, length, empty)


def half_images(
    make: Sequencer,
    image_of: Callable[[np.random.Generator], Image],
    step: int,
    num_rows: int,
    length: int,
    empty: bool,
) -> Batch:
    """Return rows of which the first half are text alone and the second half images alone, with
    unequal weights; `empty`: the second half is padding.
    """
    rng = np.random.default_rng(step)
    rows = []
    for row in range(num_rows):
        if row < num_rows // 2:
            words = " ".join(rng.choice(["draw", "red", "circles", "blue"], 4))
            parts = (Text(words, weight=float(rng.uniform(0.5, 2))),)
        else:
            image = image_of(rng)
            parts = (replace(image, weight=float(rng.uniform(0.5, 2))),)
        sequences = [] if empty and row >= num_rows // 2 else [
            make.sequence(Document(parts), key=(step, row))
        ]  # fmt: skip
        rows.append(Row.pack(sequences, length, make.vocabulary.special("pad")))
    found = Batch.stack(rows)
    # Only images have targets in the second half: rank 1 never sees what rank 0 learns from.
    images = torch.arange(num_rows)[:, None] >= num_rows // 2
    text_target = images & (found.modality == 1)
    return replace(
        found,
        weights=found.weights.masked_fill(text_target, 0),
        modality=found.modality.masked_fill(text_target, 0),
        labels=found.labels.masked_fill(text_target, -100),
    )
