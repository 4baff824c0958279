"""Tiny models of random weights with the head `scale`, and an oracle that reads rows at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flow_cases import NUM_TEXT, half_images
from tiny_models import tiny
from tiny_runs import TINY, recipe

from unimodal.architecture import Architecture, ImageConfig
from unimodal.attention import DenseAttention
from unimodal.document import Document, Image, Text
from unimodal.heads.scale import ScaleInputs
from unimodal.model import Model
from unimodal.sequence import Batch, Row, Sequence, span_mask
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
    transformer = UnifiedModel(Architecture(config, base.vocabulary, image)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if parameter.ndim == 2 and "layernorm" not in name:
                scale = 0.5 if name.startswith("lm_head") else 0.3
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
                if name.startswith(("embedder.rows", "embedder.columns")):
                    parameter[0] = 0  # of tokens without an address
    return replace(base, transformer=transformer, image_tokenizer=tokenizer, grid=grid)


def picture(model: Model, seed: int, role: str = "assistant", weight: float = 1.0) -> Image:
    codes = np.random.default_rng(seed).integers(0, model.vocabulary.num_codes, model.grid.size)
    return Image(
        codes=codes[:, None], grid=model.grid, codec_hash=model.codec.hash, role=role, weight=weight
    )


def request(words: str) -> Document:
    return Document((Text(words, role="user"),))


def rows_of(sequence: Sequence) -> Batch:
    return Batch.stack([Row.pack([sequence], len(sequence), 0)])


def hidden_of(model: Model, sequence: Sequence) -> torch.Tensor:
    """The hidden vectors (T, D) of a sequence that is read at once, under the dense mask."""
    batch = rows_of(sequence)
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    return model.transformer.hidden_states(batch, batch.positions, attend)[0]
