"""The `scale` head draws an image scale by scale, from coarse to fine: all codes of one at once.

Visual autoregressive modeling (VAR: Tian et al., arXiv:2404.02905) beside text. The image tokenizer
gives residual codes over growing grids. The codes r_k of scale k are predicted from what those of
scales before it show: the sum of their enlarged vectors, averaged over the cells of grid k
(scale_maps.py).

    p(image) = prod_k p(r_k | r_1 .. r_(k-1)),    eq. 4, and within a scale places are independent

What is read at a scale is thus known before its codes are, and an image that is learned is read
once for all its scales: each is a bidirectional block that sees the text and the scales before it.
These tokens never show the codes of the last scale, by far the most. So they are private, and a
clean copy follows for what comes after: the sum of all scales, which is what the decoder reads, at
the last grid. An image that is only given is that alone. Of VAR's grids of 1 to 16 a side a learned
image takes 680 + 256 tokens, a given one 256.

VAR maps the codebook's vector e_r linearly to the model's width; here the row of a code in the
embedding table stands for W e_r, and begins as it.

Letters: B rows, T tokens, N of all rows, D width, V rows of the output table, C those of codes, M
codes that are looked up, S images, R requests, n codes of an image, c those known, m places of a
scale, h x w of the last one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..document import Image
from ..embedder import CodeEmbedder, ImageEmbedder, ModelInput
from ..layout import OWN_LAYOUT, BoundLayout, Layout
from ..sampling import pick
from ..sequence import IGNORE, Span, placed_spans
from .code_rows import CodeRowsHead
from .head import UNCONDITIONAL, Ask, Draw, Drawing, ImageHead, ImageTokens, Read
from .scale_maps import MAX_SCALES, check_scales, places, scale_after, shown, sides_after

# Rows need no ends: an image is read as a whole, at positions that its sizes explain.
SCALE_LAYOUT = replace(OWN_LAYOUT, image=replace(OWN_LAYOUT.image, row_end=None))


@dataclass(frozen=True)
class ScaleInputs:
    """ScaleInputs lay an image out as the sum of its scales, behind the scales where it is learned.

    A span holds the first codes of its image, those of some scales or of all, and its tokens stand
    for what these show at the grid of the scale that follows, or at the last one.
    """

    layout: Layout = SCALE_LAYOUT
    key: str = "scale"

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens the scales take; raise ValueError for a grid without them."""
        check_scales(grid)
        return grid.size if learned else 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the image's opening, its scales if it is learned, their sum and its closing.

        Raise ValueError for an image without codes, or whose codes are not those of several scales.
        """
        grid = image.grid
        assert grid is not None, "an encoded image has a grid"
        check_scales(grid)
        if image.codes is None or image.codes.shape != (grid.size, 1):
            raise ValueError("the head scale reads one code for each place of each scale")
        opening, closing = layout.opening(grid), layout.closing
        known = [*((0, *grid.counts[:-1]) if learned else ()), grid.size]
        spans = list(_spans(image.codes, grid, len(opening), known))
        start, stop = spans[-1].start, spans[-1].stop  # of the sum
        first, total = len(opening), stop + len(closing)
        place = np.arange(total)
        is_private = (first <= place) & (place < start)
        positions = np.where(place < start, place, place - (start - first))
        address, block = np.zeros((total, 2), np.int16), np.zeros(total, np.int32)
        address[start:stop] = Grid(grid.height, grid.width).addresses + 1
        own_labels = np.full(total, IGNORE, np.int64)
        if learned:
            address[first:start] = places(grid) + 1
            positions[first:start] = first + _order(grid)
            own_labels[first:start] = layout.vocabulary.code_to_id(image.codes[:, 0])
        for number, span in enumerate(spans, start=1):
            block[span.start : span.stop] = number
        pad = layout.vocabulary.special("pad")
        weight = image.weight if learned else 0.0
        return ImageTokens(
            ids=np.array([*opening, *[pad] * (stop - first), *closing], np.int64),
            # That an image begins, and its size, are learned as text is.
            weights=np.where(place < first, weight, 0).astype(np.float32),
            is_image=np.zeros(total, bool),
            own_labels=own_labels,
            own_weights=np.where(is_private, weight, 0).astype(np.float32),
            block=block,
            private=is_private.astype(np.int32),
            positions=positions,
            address=address,
            num_positions=total - (start - first),
            spans=tuple(spans),
        )


def _spans(codes_n1: np.ndarray, grid: Grid, start: int, known: Sequence[int]) -> Iterator[Span]:
    """Yield a span for each number of known codes, one behind another."""
    for count in known:
        rows, columns = sides_after(grid, count)
        stop = start + rows * columns
        yield Span(start, stop, grid, codes=codes_n1[:count])
        start = stop


def _order(grid: Grid) -> np.ndarray:
    """Return for each code the number, in reading order, of the place of the last grid that it
    stands at, int64 (n,): what follows one another in one scale lies beside one another.
    """
    rows_n, columns_n = places(grid).T
    return rows_n * grid.width + columns_n


class ScaleEmbedder(CodeEmbedder):
    """A ScaleEmbedder lets an image enter as the sum of the embeddings of its codes, enlarged, at
    the grid of a scale, with an embedding of that scale's number added (0: all scales).

    Addresses are added as by CodeEmbedder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.vocabulary = architecture.vocabulary
        self.scales = nn.Embedding(MAX_SCALES + 1, architecture.transformer.width)

    def more_ids(self, tokens: ModelInput) -> Tensor:
        """Return the ids of the codes of all spans, int64 (M,)."""
        codes = [codes_c1[:, 0] for _, _, codes_c1 in _coded(tokens)]
        ids_M = self.vocabulary.code_to_id(np.concatenate([np.zeros(0, np.int64), *codes]))
        return torch.from_numpy(ids_M).to(tokens.ids.device)

    def products(self, tokens: ModelInput) -> int:
        """Return those of the sums of enlarged codes."""
        spans = [(span.stop - span.start, len(codes_c1)) for _, span, codes_c1 in _coded(tokens)]
        return sum(m * count for m, count in spans) * self.scales.embedding_dim

    def forward(self, x_BTD: Tensor, tokens: ModelInput, codes_MD: Tensor | None = None) -> Tensor:
        """Return x_BTD with the vectors of images in their places.

        codes_MD: the embeddings of `more_ids`. Without an image nothing changes, and all weights
        are used all the same, so that no rank waits for another one's.
        """
        assert codes_MD is not None, "what it sums are the embeddings of codes"
        T, device = x_BTD.shape[1], x_BTD.device
        at, numbers, seen = [], [], [codes_MD[:0]]
        for (grid, count), members in self._alike(tokens).items():
            shown_mc = shown(grid, count, device).to(codes_MD.dtype)
            m = len(shown_mc)
            firsts_S = torch.tensor([first for _, _, first in members], device=device)
            codes_ScD = codes_MD[firsts_S[:, None] + torch.arange(count, device=device)]
            seen.append((shown_mc @ codes_ScD).flatten(0, 1))
            at += [row * T + start + place for row, start, _ in members for place in range(m)]
            numbers += [scale_after(grid, count)] * (m * len(members))
        at_M, numbers_M = (torch.tensor(one, dtype=torch.int64) for one in (at, numbers))
        vectors_MD = torch.cat(seen) + self.scales(numbers_M.to(device))
        x_ND = x_BTD.flatten(0, 1).index_copy(0, at_M.to(device), vectors_MD.to(x_BTD.dtype))
        return super().forward(x_ND.view(x_BTD.shape), tokens)

    def _alike(self, tokens: ModelInput) -> dict[tuple[Grid, int], list[tuple[int, int, int]]]:
        """Return (row, first token, first of its codes in more_ids) of all spans, by grid and
        number of codes.
        """
        found: dict[tuple[Grid, int], list[tuple[int, int, int]]] = {}
        first = 0
        for row, span, codes_c1 in _coded(tokens):
            key = span.grid, len(codes_c1)
            found.setdefault(key, []).append((row, span.start, first))
            first += len(codes_c1)
        return found


def _coded(tokens: ModelInput) -> Iterator[tuple[int, Span, np.ndarray]]:
    """Yield (row, span, its codes) of every image that is given by codes."""
    for row, span in placed_spans(tokens.spans):
        if span.codes is not None:
            yield row, span, span.codes


class Scale(CodeRowsHead):
    """Scale minimises the cross entropy of the codes of all scales, eq. 4 of arXiv:2404.02905."""

    reads_scales = True
    follows = ImageHead.follows  # guidance is constant over scales

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = ScaleInputs()

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder of sums of codes."""
        return ScaleEmbedder(architecture)

    def extra_tokens(self, grid: Grid) -> int:
        """Return by how many tokens all scales exceed their sum."""
        return grid.size - self.inputs.layout.image.content_length(grid)

    def draw(self, drawing: Drawing) -> Draw:
        """Draw scale by scale: yield one Ask for each, and return the image.

        What was read for the scales is then forgotten, and their sum is read to stay.
        """
        sampling, grid = drawing.sampling, drawing.grid
        branches = (None, UNCONDITIONAL) if sampling.guided else (None,)
        settings = sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
        yield Ask(dict.fromkeys(branches, Read([drawing.opened])))
        codes_c, partial = np.zeros(0, np.int64), None
        for number in range(len(grid.scales)):
            read = self._read(drawing, codes_c)
            m, done = len(read.ids), len(codes_c)
            arg = drawing.noises(m, number), sampling.guidance
            reads = dict.fromkeys(branches, read)
            codes_m = yield Ask(reads, pick_scale, settings, arg, done, m, partial)
            codes_c = np.concatenate([codes_c, codes_m])
            partial = Image(codes=codes_c[:, None], grid=grid, codec_hash=drawing.codec_hash)
        whole = replace(self._read(drawing, codes_c), forget=grid.size)
        yield Ask({None: whole}, done=grid.size, partial=partial)
        assert partial is not None, "there is a scale at least"
        return partial

    def _read(self, drawing: Drawing, codes_c: np.ndarray) -> Read:
        """Return how what the first codes show is read, at the grid of the scale that follows."""
        grid, count = drawing.grid, len(codes_c)
        rows, columns = sides_after(grid, count)
        if count == grid.size:
            order_m, address_m2 = np.arange(rows * columns), Grid(rows, columns).addresses
        else:
            here = slice(count, count + rows * columns)
            order_m, address_m2 = _order(grid)[here] - count, places(grid)[here]
        return Read(
            [drawing.layout.vocabulary.special("pad")] * (rows * columns),
            Span(0, rows * columns, grid, codes=codes_c[:, None]),
            address=[(row + 1, column + 1) for row, column in address_m2.tolist()],
            bidirectional=True,
            # Scales share positions, where the cache has counted those that were read before.
            offsets=order_m.tolist(),
        )


def pick_scale(
    head: Scale,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[np.ndarray, float | None]],
) -> list[np.ndarray]:
    """Sample all codes of a scale of each request, int64 (m,); the `look` of an Ask.

    hidden: (R, m, D) for each branch; with two, the second is the unconditional one. settings:
    temperature, top k, top p. args: for each request the uniform numbers in [0, 1) that sample,
    float64 (m,), and the guidance scale. Raise ValueError where logits are not finite.
    """
    m = hidden[0].shape[1]
    hidden_BD = torch.cat([branch_RmD.flatten(0, 1) for branch_RmD in hidden])
    scales = [(None, guidance) for _, guidance in args for _ in range(m)]
    logits_MC = head.logits(hidden_BD, table_VD, len(hidden), scales)
    uniform_M = torch.from_numpy(np.concatenate([uniform_m for uniform_m, _ in args]))
    picked_M = pick(logits_MC, uniform_M.to(logits_MC.device), *settings)
    codes_M = head.code_of_id[head.first + picked_M.cpu().numpy()]
    return list(codes_M.reshape(len(args), m))
