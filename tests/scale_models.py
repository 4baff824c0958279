"""Tiny models of random weights with the head `scale`, their tokenizers, runs and batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flow_cases import NUM_TEXT, half_images
from head_models import lively
from tiny_models import tiny
from tiny_runs import TINY, recipe

from unimodal.architecture import Architecture, ImageConfig
from unimodal.document import Image
from unimodal.heads.scale import ScaleInputs
from unimodal.model import Model
from unimodal.sequence import Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.train.run import LmRun
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

SCALES = (1, 2, 4)
GRID = Grid(3, 4, ((1, 1), (2, 2), (3, 4)))
VOCABULARY = Vocabulary.new(NUM_TEXT, 64)  # of the batches


def of_scales(config: TokenizerConfig = TINY, scales: tuple[int, ...] = SCALES) -> TokenizerConfig:
    """Return a shape whose quantizer has these scales."""
    return replace(config, quantizer=replace(config.quantizer, scales=scales))


def write_scale_tokenizer(folder: Path) -> Path:
    """Write an untrained image tokenizer of 64 codes on grids of 1, 2, 4 and 8 a side."""
    folder.mkdir(exist_ok=True)
    ImageTokenizer(of_scales(scales=(1, 2, 4, 8))).save(folder)
    return folder


def scale_recipe(output: Path, shards: Path, tokenizer: Path, num_steps: int, **loop: int) -> LmRun:
    """Return the config of a run that draws scale by scale, with averaged weights."""
    run = recipe(output, shards, tokenizer, num_steps, **loop)
    assert run.model is not None
    run = replace(run, model=replace(run.model, head="scale", addresses=True))
    return replace(run, optimizer=replace(run.optimizer, ema_decay=0.5))


def batch(step: int, num_rows: int, length: int, empty: bool) -> Batch:
    """Return rows of text alone, then rows of images alone: see half_images."""
    text = TextTokenizer.train(["draw two red circles", "make it blue"], NUM_TEXT)
    make = Sequencer(VOCABULARY, text, "hash", ScaleInputs())

    def image(rng: np.random.Generator) -> Image:
        codes = rng.integers(0, VOCABULARY.num_codes, (GRID.size, 1))
        return Image(codes=codes, grid=GRID, codec_hash="hash")

    return half_images(make, image, step, num_rows, length, empty)


def scale_model(addresses: bool = True, factorised: bool = False, grid: Grid = GRID) -> Model:
    """Untied, with rows of unequal lengths, so that its distributions are far from uniform."""
    base = tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)
    tokenizer = ImageTokenizer(of_scales(base.image_tokenizer.config)).eval()
    config = replace(base.transformer.config, tied_head=False)
    levels = tokenizer.levels if factorised else ()
    image = ImageConfig("scale", levels, addresses)
    transformer = lively(UnifiedModel(Architecture(config, base.vocabulary, image)))
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.startswith(("embedder.rows", "embedder.columns")):
                parameter[0] = 0  # of tokens without an address
    return replace(base, transformer=transformer, image_tokenizer=tokenizer, grid=grid)
