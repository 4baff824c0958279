"""A toy image head, all in one file: two passes, as a diffusion head would take many.

An image that is learned stands twice: first as vectors of noise, private and seeing each other both
ways, each of which predicts the code in its place; then as its codes, a block for what follows. It
is drawn in two passes: the noise is read and forgotten, then the codes are read and kept.

A config names it as `model.head: toy_head:ToyHead`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal.architecture import Architecture
from unimodal.document import Image
from unimodal.embedder import ImageEmbedder, ModelInput
from unimodal.heads.head import Ask, Draw, Drawing, ImageHead, ImageTokens, Read, targets_of
from unimodal.layout import OWN_LAYOUT, BoundLayout, Layout
from unimodal.sequence import IMAGE, Batch, Span, placed_spans
from unimodal.tokenizer.grid import Grid

LATENT_WIDTH = 3


def noise(key: tuple[int, ...], count: int) -> np.ndarray:
    """Return the noise of an image, float32 (count, LATENT_WIDTH), a pure function of its key."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    return rng.standard_normal((count, LATENT_WIDTH)).astype(np.float32)


@dataclass(frozen=True)
class ToyInputs:
    """Lays an image out: noise, where it is learned, then its codes."""

    layout: Layout = replace(OWN_LAYOUT, image=replace(OWN_LAYOUT.image, row_end=None))
    key: str = "toy"

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens the noise takes."""
        return grid.size if learned else 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return opening, noise, codes and closing; noise and codes share their positions."""
        grid, n = image.grid, image.grid.size
        opening, closing = layout.opening(grid), layout.closing
        content, _ = layout.content(image.codes[:, 0], grid)
        plain = ImageTokens.causal([*opening, *content, *closing], 0 * np.arange(n + 4))
        k = len(opening)
        block = np.array([0] * k + [1] * n + [0] * len(closing), np.int32)
        clean = replace(
            plain,
            weights=np.array([image.weight] * k + [0] * (n + len(closing)), np.float32)
            if learned
            else plain.weights,
            block=block,
            spans=(Span(k, k + n, grid),),
        )
        if not learned:
            return clean
        span = Span(k, k + n, grid, latents=noise(key, n), key=key)
        before = {name: getattr(clean, name)[k : k + n] for name in FIELDS}
        noised = before | {
            "ids": np.full(n, layout.vocabulary.special("pad")),
            "own_labels": content,
            "own_weights": np.full(n, image.weight, np.float32),
            "block": np.full(n, 2, np.int32),
            "private": np.ones(n, np.int32),
        }
        both = {
            name: np.concatenate([getattr(clean, name)[:k], noised[name], getattr(clean, name)[k:]])
            for name in FIELDS
        }
        return ImageTokens(
            **both, num_positions=clean.num_positions, spans=(span, clean.spans[0].moved(n))
        )


FIELDS = ("ids", "weights", "is_image", "own_labels", "own_weights", "block", "private",
          "positions", "address")  # fmt: skip


class ToyEmbedder(ImageEmbedder):
    """Noise enters by a projection, everything else as its id."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.project = nn.Linear(LATENT_WIDTH, shape.transformer.width)

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the vectors of noise in their places."""
        x_BTD = x_BTD.clone()
        found = [
            (row, span) for row, span in placed_spans(tokens.spans) if span.latents is not None
        ]
        latents = np.concatenate([np.zeros((0, LATENT_WIDTH), np.float32)]
                                 + [span.latents for _, span in found])  # fmt: skip
        vectors_MD = self.project(torch.from_numpy(latents).to(x_BTD))
        at = [(row, place) for row, span in found for place in range(span.start, span.stop)]
        rows, places = (torch.tensor([one[k] for one in at], dtype=torch.long) for k in (0, 1))
        return x_BTD.index_put((rows.to(x_BTD.device), places.to(x_BTD.device)), vectors_MD)


class ToyHead(ImageHead):
    """Scores codes by weights of its own."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__(shape)
        self.inputs = ToyInputs()
        self.vocabulary = shape.vocabulary
        self.num_targets = shape.vocabulary.num_codes
        self.score = nn.Linear(shape.transformer.width, self.num_targets)

    @classmethod
    def embedder(cls, shape: Architecture) -> ImageEmbedder:
        """Make the module by which noise enters."""
        return ToyEmbedder(shape)

    def forward(
        self,
        hidden_ND: Tensor,
        table_VD: Tensor,
        batch: Batch,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the cross entropy of the code in each place."""
        at_M, weights_M = targets_of(batch, IMAGE)
        ids_M = batch.labels.flatten()[at_M].cpu().numpy()
        codes_M = torch.from_numpy(self.vocabulary.code_of_id[ids_M]).to(hidden_ND.device)
        losses_M = F.cross_entropy(self.score(hidden_ND[at_M]).float(), codes_M, reduction="none")
        return (scale * weights_M * losses_M).sum(), losses_M.detach()

    def draw(self, drawing: Drawing) -> Draw:
        """Read noise, take the likeliest codes, and read these."""
        grid, pad = drawing.grid, drawing.layout.vocabulary.special("pad")
        yield Ask({None: Read([drawing.opened])})
        latents = noise((drawing.sampling.seed,), grid.size)
        span = Span(0, grid.size, grid, latents=latents)
        read = Read([pad] * grid.size, span=span, bidirectional=True, keep=False)
        codes = yield Ask({None: read}, likeliest, num_hidden=grid.size)
        ids = drawing.layout.vocabulary.code_to_id(codes).tolist()
        yield Ask({None: Read(ids, bidirectional=True)}, done=grid.size)
        return Image(codes=codes[:, None], grid=grid, codec_hash=drawing.codec_hash)


def likeliest(
    head: ToyHead, table_VD: Tensor, hidden: Sequence[Tensor], settings: None, args: Sequence[None]
) -> list[np.ndarray]:
    """Return the likeliest codes of each request, int64 (n,)."""
    return list(head.score(hidden[0]).argmax(-1).cpu().numpy())
