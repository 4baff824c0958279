"""Runs with a vision tower, their models, and what these are given and make of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import recipe
from towers import images, write_tower

from unimodal.attention import DenseAttention
from unimodal.bundle import load
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.model import Model
from unimodal.sequence import Batch, Row, Sequence, span_mask
from unimodal.tower import NETWORK
from unimodal.train import lm
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.run import LmRun
from unimodal.train.tower import TowerConfig


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    """A CLIP of 16 patches, whose images are cropped out of the middle."""
    return write_tower(tmp_path_factory.mktemp("tower"), "clip")


def configured(output: Path, shards: Path, tokenizer: Path, tower: Path, **changes) -> LmRun:
    """Return a run of four steps, a checkpoint at each second, with averaged weights."""
    run = recipe(output, shards, tokenizer, 4, save_every_steps=2)
    setting = TowerConfig(str(tower), layer=-2, **changes)
    held_out = HeldOutConfig({"scenes": SourceConfig(str(shards))}, rows=1, every_steps=2)
    optimizer = replace(run.optimizer, ema_decay=0.5)
    return replace(run, tower=setting, optimizer=optimizer, held_out=held_out)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, tokenizer, tower) -> LmRun:
    """A run with a frozen tower."""
    found = configured(tmp_path_factory.mktemp("frozen") / "run", shards, tokenizer, tower)
    lm.train(found)
    return found


@pytest.fixture(scope="module")
def both_run(tmp_path_factory, shards, tokenizer, tower) -> LmRun:
    """A run with a trained tower, where given images enter as codes too."""
    output = tmp_path_factory.mktemp("both") / "run"
    found = configured(output, shards, tokenizer, tower, trained=True, codes=True)
    lm.train(found)
    return found


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    return load(run.output / "bundle")


@pytest.fixture(scope="module")
def both_model(both_run: LmRun) -> Model:
    return load(both_run.output / "bundle")


@pytest.fixture(params=["soft", "both"])
def either(request, model: Model, both_model: Model) -> Model:
    return model if request.param == "soft" else both_model


def given(model: Model, seed: int) -> Image:
    (pixels,) = images(1, seed, (64, 64))
    (image,) = model.codec.encode([Image(pixels, role="user", weight=0.0)])
    return image


def asked(model: Model, seed: int, text: str) -> Document:
    return Document((given(model, seed), Text(text, role="user", weight=0.0)))


@torch.no_grad()
def hidden_of(model: Model, *sequences: Sequence) -> torch.Tensor:
    """Return the hidden vectors of a packed row that is read at once, by a dense mask."""
    batch = Batch.stack([Row.pack(sequences, sum(map(len, sequences)), 0)])
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    return model.transformer.hidden_states(batch, batch.positions, attend)[0]


def network(path: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(path).items() if k.startswith(NETWORK)}
