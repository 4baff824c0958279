"""A training step of other image heads against one of next_code, at equal positions of a row.

The transformers have the same shape and rows of the same length, full of documents of a text and a
learned image of 64 places. An image is 76 positions of next_code, whose rows have ends, 132 of
masked and flow, which have a masked or noised copy too, and 153 of scale, whose scales have 1, 2, 4
and 8 places a side: so what is compared is the cost of a position, and images seen are stated
beside it. Steps have losses, gradients and AdamW. Exact: of
one batch, the loss of the head's own attention against that under a dense mask.

    python tests/benchmarks/image_heads.py [--threads N] [--quick]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.measured import Line, interleaved, ratios, spread, table

from unimodal.architecture import Architecture, ImageConfig
from unimodal.attention import DenseAttention
from unimodal.document import Document, Image, Text
from unimodal.heads import head_class
from unimodal.rectified_flow import FlowConfig
from unimodal.sequence import IMAGE, PADDING, Batch, Row, Sequence, span_mask
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train import heap, objectives
from unimodal.train.loop import LoopConfig, set_threads
from unimodal.train.objectives import LossConfig, language
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

HEADS = ("masked", "flow", "scale")
BAR, SAME = 1.15, 1e-6
GRID, NUM_CODES, LATENT_WIDTH = Grid(8, 8), 4096, 16
SCALES = Grid(8, 8, ((1, 1), (2, 2), (4, 4), (8, 8)))
WORDS = "draw two red circles beside a small blue star on a white ground "


@dataclass(frozen=True)
class HeadScale:
    """How much is measured; by default a laboratory's model."""

    width: int = 192
    num_layers: int = 6
    rows: int = 4
    sequence_length: int = 1024
    repeats: int = 7


QUICK = HeadScale(64, 2, 1, 512, 1)


def model_of(head: str, num_text: int, scale: HeadScale) -> UnifiedModel:
    """Return an untrained model with this head."""
    kind = head_class(head)
    num_codes = 0 if kind.reads_latents else NUM_CODES
    vocabulary = Vocabulary.new(num_text, num_codes, kind.special_tokens)
    heads = max(1, scale.width // 64)
    transformer = TransformerConfig(
        vocabulary.size, scale.width, scale.num_layers, heads, heads, 64, scale.width * 8 // 3,
        qk_norm=True,
    )  # fmt: skip
    image = ImageConfig(head)
    if kind.reads_latents:
        image = ImageConfig(head, code_rows=False, latent_width=LATENT_WIDTH, flow=FlowConfig())
    return UnifiedModel(Architecture(transformer, vocabulary, image)).train()


def image_of(model: UnifiedModel, rng: np.random.Generator) -> Image:
    """Return an image of what the model's head reads."""
    if model.head.reads_latents:
        latents = rng.standard_normal((GRID.size, LATENT_WIDTH)).astype(np.float32)
        return Image(latents=latents, grid=GRID, codec_hash="hash")
    grid = SCALES if model.head.reads_scales else GRID
    codes = rng.integers(0, NUM_CODES, (grid.size, 1))
    return Image(codes=codes, grid=grid, codec_hash="hash")


def rows_of(model: UnifiedModel, text: TextTokenizer, scale: HeadScale) -> Batch:
    """Return rows full of documents as the model's head lays them out, text at their ends."""
    rng, vocabulary = np.random.default_rng(0), model.architecture.vocabulary
    sequencer = Sequencer(vocabulary, text, "hash", model.head.inputs)
    filling = text.encode(WORDS * scale.sequence_length)
    rows = []
    for row in range(scale.rows):
        found: list[Sequence] = []
        free = scale.sequence_length
        while True:
            words = Text(WORDS * int(rng.integers(1, 4)))
            document = Document((words, image_of(model, rng)))
            sequence = sequencer.sequence(document, key=(row, free))
            if len(sequence) > free:
                break
            found.append(sequence)
            free -= len(sequence)
        words = Text(text.decode(filling[: max(1, free - 4)]))
        rest = sequencer.sequence(Document((words,)))
        found += [rest] if len(rest) <= free else []
        rows.append(Row.pack(found, scale.sequence_length, vocabulary.special("pad")))
    return Batch.stack(rows)


def step(model: UnifiedModel, rows: Batch) -> Callable[[], None]:
    """Return a function that takes a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def taken() -> None:
        language(model, rows, LossConfig()).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return taken


@torch.no_grad()
def apart(model: UnifiedModel, rows: Batch) -> float:
    """Return how far the loss is from that under a dense mask, as a share."""
    ours = language(model, rows, LossConfig()).total
    kernels = objectives.attention
    try:
        objectives.attention = lambda *spans: DenseAttention(span_mask(*spans[:3]))
        dense = language(model, rows, LossConfig()).total
    finally:
        objectives.attention = kernels
    return abs(float(ours - dense)) / float(dense)


def lines(scale: HeadScale) -> list[Line]:
    """Return a line for each of HEADS."""
    text = TextTokenizer.train([WORDS], 300)
    models = {head: model_of(head, text.num_ids, scale) for head in ("next_code", *HEADS)}
    rows = {head: rows_of(model, text, scale) for head, model in models.items()}
    distances = {head: apart(model, rows[head]) for head, model in models.items()}
    taken = interleaved(scale.repeats, *(step(models[head], rows[head]) for head in models))
    times = dict(zip(models, taken, strict=True))
    return [
        _line(
            head,
            scale,
            times,
            {name: rows[name] for name in ("next_code", head)},
            distances,
            models[head].architecture.vocabulary.special("image"),
        )  # fmt: skip
        for head in HEADS
    ]


def _line(
    head: str,
    scale: HeadScale,
    times: dict[str, list[float]],
    rows: dict[str, Batch],
    distances: dict[str, float],
    opening: int,
) -> Line:
    ratio = ratios(times[head], times["next_code"])
    said = [
        f"{name}: {(batch.doc != PADDING).float().mean():.1%} of {batch.ids.numel():,} positions"
        f" used, {int((batch.ids == opening).sum())} images,"
        f" {int((batch.modality == IMAGE).sum())} places predicted"
        for name, batch in rows.items()
    ]
    check = f"loss equal to a dense mask's to {distances[head]:.0e}; {'; '.join(said)}"
    return Line(
        f"training step, width {scale.width}, {scale.num_layers} layers: {head}",
        spread(times[head], " s"), f"next_code {spread(times['next_code'], ' s')}", spread(ratio),
        f"<= {BAR}", median(ratio) <= BAR, check, (check,) if distances[head] > SAME else (),
    )  # fmt: skip


@click.command()
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, and no more.")
def main(threads: int, quick: bool) -> None:
    """Print the table."""
    set_threads(LoopConfig(num_threads=threads))
    heap.keep_freed()
    found = lines(QUICK if quick else HeadScale())
    print(table(found))
    sys.exit(any(line.wrong for line in found))


if __name__ == "__main__":
    main()
