"""What boxes say can be learned: a tiny model draws a thing in its box, wherever that is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from other_architectures import with_boxes
from tiny_models import tiny

from unimodal.boxes import spelled
from unimodal.chat import Chat
from unimodal.document import Box, Document, Image, Text
from unimodal.model import Model
from unimodal.sequence import Batch, Row
from unimodal.tokenizer.grid import Grid
from unimodal.train.objectives import LossConfig, language

SIDE = 4  # cells of the grid, of which a thing fills one
EMPTY, THINGS = 3, {"a star": 7, "a circle": 11}  # image codes
STEPS, ROWS, LENGTH, LR = 700, 2, 512, 3e-3


def request(rng: np.random.Generator) -> tuple[Text, np.ndarray]:
    """Return a box, as drawn by hand, and the codes of the image that has its thing there."""
    cell, name = int(rng.integers(SIDE**2)), list(THINGS)[int(rng.integers(2))]
    codes_n1 = np.full((SIDE**2, 1), EMPTY)
    codes_n1[cell] = THINGS[name]
    (top, left), (low, high) = divmod(cell, SIDE), rng.uniform(0.0, 0.2, (2, 2))
    sides = left + low[0], top + low[1], left + 1 - high[0], top + 1 - high[1]
    return Text(name, "user", 0.0, Box(*(side / SIDE for side in sides))), codes_n1


def batch(model: Model, rng: np.random.Generator) -> Batch:
    rows = []
    for _ in range(ROWS):
        sequences, left = [], LENGTH
        while True:
            box, codes_n1 = request(rng)
            image = Image(codes=codes_n1, grid=model.grid, role="assistant",
                          codec_hash=model.image_tokenizer.hash)  # fmt: skip
            one = model.sequencer.sequence(Document((Text("draw", "user", 0.0), box, image)))
            if len(one) > left:
                break
            sequences.append(one)
            left -= len(one)
        rows.append(Row.pack(sequences, LENGTH, model.vocabulary.special("pad")))
    return Batch.stack(rows)


@pytest.mark.slow
def test_a_thing_is_drawn_in_its_box() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    base = tiny(width=64, num_layers=3, num_heads=4, num_kv_heads=4, head_width=16, mlp_width=128)
    model = replace(with_boxes(base), grid=Grid(SIDE, SIDE))
    optimizer = torch.optim.AdamW(model.transformer.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
    model.transformer.train()
    for _ in range(STEPS):
        loss = language(model.transformer, batch(model, rng), LossConfig()).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.transformer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.transformer.eval()
    fresh, right = np.random.default_rng(1), []
    for _ in range(40):
        box, codes_n1 = request(fresh)
        chat = Chat(model, image_temperature=0.0)
        chat("draw", (), "image", [spelled(box, model.canvas)])
        drawn = chat.document.parts[-1]
        assert isinstance(drawn, Image) and drawn.codes is not None
        right.append(np.array_equal(drawn.codes, codes_n1))
    assert np.mean(right) > 0.6, "by chance it is 1 of 32"
