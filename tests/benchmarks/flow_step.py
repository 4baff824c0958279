"""A training step of the head flow against one of next_code, at equal positions of a row.

Both transformers have the same shape and rows of the same length, full of documents of a text and a
learned image of 64 places. An image is 76 positions of next_code (its row ends are some) and 132 of
flow, which has a noised and a clean copy of 64: rows of flow hold fewer documents, and what is
compared is the cost of a position. Both steps have losses, gradients and AdamW.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from unimodal.architecture import Architecture, ImageConfig
from unimodal.document import Document, Image, Text
from unimodal.rectified_flow import FlowConfig
from unimodal.sequence import PADDING, Batch, Row
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train.objectives import LossConfig, language
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

from .measured import Line, interleaved, ratios, spread

BAR = 1.15
GRID, NUM_CODES, LATENT_WIDTH, NUM_TEXT = Grid(8, 8), 4096, 16, 300
FULL = 0.9  # share of positions that documents take, at least
WORDS = "draw two red circles beside a small blue star on a white ground "


@dataclass(frozen=True)
class StepScale:
    """How much is measured; by default the laboratory's model."""

    width: int = 192
    num_layers: int = 6
    rows: int = 4
    sequence_length: int = 1024
    repeats: int = 5


QUICK = StepScale(64, 2, 1, 512, 1)


def architecture(head: str, num_text: int, scale: StepScale) -> Architecture:
    """Return the shape of a model with this head."""
    is_flow = head == "flow"
    vocabulary = Vocabulary.new(num_text, 0 if is_flow else NUM_CODES)
    heads = max(1, scale.width // 64)
    transformer = TransformerConfig(
        vocabulary.size, scale.width, scale.num_layers, heads, heads, 64, scale.width * 8 // 3,
        tied_head=True, qk_norm=True,
    )  # fmt: skip
    image = ImageConfig(head)
    if is_flow:
        image = ImageConfig(head, code_rows=False, latent_width=LATENT_WIDTH, flow=FlowConfig())
    return Architecture(transformer, vocabulary, image)


def batch(model: UnifiedModel, text: TextTokenizer, scale: StepScale) -> Batch:
    """Return rows of documents that the model's head lays out."""
    rng, vocabulary = np.random.default_rng(0), model.architecture.vocabulary
    sequencer = Sequencer(vocabulary, text, "hash", model.head.inputs)

    def image() -> Image:
        if model.architecture.image.latent_width:
            latents = rng.standard_normal((GRID.size, LATENT_WIDTH)).astype(np.float32)
            return Image(latents=latents, grid=GRID, codec_hash="hash")
        codes = rng.integers(0, NUM_CODES, (GRID.size, 1))
        return Image(codes=codes, grid=GRID, codec_hash="hash")

    rows = []
    for row in range(scale.rows):
        sequences, free = [], scale.sequence_length
        while True:
            document = Document((Text(WORDS * int(rng.integers(1, 4))), image()))
            sequence = sequencer.sequence(document, key=(row, free))
            if len(sequence) > free:
                break
            sequences.append(sequence)
            free -= len(sequence)
        # What is left is one more text, so that rows are as full of either head.
        ids = text.encode(WORDS * scale.sequence_length)[: max(1, free - 3)]
        last = sequencer.sequence(Document((Text(text.decode(ids)),)))
        sequences += [last] if len(last) <= free else []
        rows.append(Row.pack(sequences, scale.sequence_length, vocabulary.special("pad")))
    return Batch.stack(rows)


def step(model: UnifiedModel, rows: Batch) -> Callable[[], float]:
    """Return a function that takes a step and returns its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def taken() -> float:
        optimizer.zero_grad()
        total = language(model, rows, LossConfig()).total
        total.backward()
        optimizer.step()
        return float(total.detach())

    return taken


def lines(scale: StepScale) -> list[Line]:
    """Return the line of a step of flow beside one of next_code."""
    text = TextTokenizer.train([WORDS], NUM_TEXT)
    steps, used, wrong = [], [], []
    for head in ("next_code", "flow"):
        model = UnifiedModel(architecture(head, text.num_ids, scale))
        rows = batch(model, text, scale)
        share = float((rows.doc != PADDING).float().mean())
        used.append(f"{head} {share:.1%} of {rows.ids.numel():,}")
        steps.append(step(model, rows))
        losses = [steps[-1]() for _ in range(3)]
        if share < FULL or not losses[2] < losses[0]:
            wrong.append(f"{head}: {share:.1%} of positions used, losses {losses}")
    theirs, ours = interleaved(scale.repeats, *steps)
    ratio = ratios(ours, theirs)
    return [
        Line(
            f"training step, width {scale.width}, {scale.num_layers} layers: flow",
            spread(ours, " s"), f"next_code {spread(theirs, ' s')}", spread(ratio), f"<= {BAR}",
            median(ratio) <= BAR, f"positions used: {', '.join(used)}; both learn", tuple(wrong),
        )
    ]  # fmt: skip
