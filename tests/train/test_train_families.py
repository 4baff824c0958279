"""The house's loss of published models, on small random weights: steps lower it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import published_models as made
import pytest
import torch
from PIL import Image as PILImage

import unimodal
from unimodal.document import Document, Image, Text
from unimodal.model import Model
from unimodal.sequence import Batch, Row
from unimodal.tokenizer.grid import Grid
from unimodal.tower import NETWORK
from unimodal.train.learner import TOTAL, LanguageLearner
from unimodal.train.objectives import LossConfig

MAKERS = {
    "emu3": lambda at: made.save_emu3(at, made.emu3_model()),
    "janus": lambda at: made.save_janus(at, made.janus_model()),
    "anole": lambda at: made.save_anole(at, made.chameleon_model()),
}


def rows(model: Model) -> Batch:
    """A question about an image with its answer, and a request with the image that grants it."""
    noise = np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)
    pixels, _ = model.fitted(PILImage.fromarray(noise))
    (shown,) = model.codec.encode([Image(pixels, role="user", weight=0.0)])
    asked = Document((shown, Text("what?", "user", 0.0), Text("a dog", "assistant")))
    drawn = Image(
        codes=np.arange(model.grid.size)[:, None] % made.NUM_CODES, grid=model.grid,
        codec_hash=shown.codec_hash, role="assistant",
    )  # fmt: skip
    wanted = Document((Text("a dog", "user", 0.0), drawn))
    sequences = [model.sequencer.sequence(asked), model.drawer.sequencer.sequence(wanted)]
    pad = model.vocabulary.special("pad")
    return Batch.stack([Row.pack(sequences, sum(map(len, sequences)) + 3, pad)])


@pytest.mark.parametrize("name", MAKERS)
def test_steps_lower_the_loss(name: str, tmp_path: Path):
    model = unimodal.load(MAKERS[name](tmp_path))
    if name == "emu3":
        model = replace(model, grid=Grid(3, 5))
    batch = rows(model)
    assert (batch.modality == 2).sum() == model.grid.size and (batch.modality == 1).sum() > 3
    before = model.image_tokenizer.hash
    learner = LanguageLearner(model.transformer.train(), LossConfig(), ["all"])
    optimizer = torch.optim.Adam(model.transformer.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        total = learner(batch)[TOTAL]
        losses.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    still = {n for n, p in model.transformer.named_parameters() if p.grad is None}
    frozen = {n for n, _ in model.transformer.named_parameters() if n.startswith(NETWORK)}
    assert still == frozen and bool(frozen) == (name == "janus")
    assert model.image_tokenizer.hash == before
