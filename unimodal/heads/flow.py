"""The `flow` head draws images as continuous latents, by rectified flow (rectified_flow.py).

One transformer predicts the next token of text and the velocity of noised images (Transfusion: Zhou
et al., arXiv:2408.11039): it sees an image both ways and all else causally. An image that is
learned stands twice, in the same positions: as x_t, private, each token of which predicts its part
of the velocity; then as it is, at time 1, for what follows. Of the patches of an image a linear map
makes tokens, to which the embedding of the time is added, and another one makes velocities of
hidden vectors.

    loss of a token = mean over its d numbers of (v(x_t, t) - (data - noise))^2

Letters: B rows, T tokens of a row, N of all rows, M tokens that stand for latents or are targets, S
images, R requests, n tokens of an image, d numbers of a token, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..document import Image
from ..embedder import CodeEmbedder, ImageEmbedder, ModelInput
from ..layout import OWN_LAYOUT, BoundLayout, Layout, Side, Special
from ..rectified_flow import FlowConfig, mixed, solve
from ..sampling import guide
from ..sequence import IGNORE, IMAGE, Batch, Span, placed_spans
from .head import UNCONDITIONAL, Ask, Draw, Drawing, ImageHead, ImageTokens, Read, targets_of

NUM_STEPS = 25  # of a drawing, unless the sampling says another number
SINUSOIDS = 256  # numbers of a time's first embedding


def flow_layout(patch: int) -> Layout:
    """Return the layout of documents: sides are counted in tokens, and rows have no end."""
    opening = Special("image"), Side("height", "size_", patch), Side("width", "size_", patch)
    return replace(
        OWN_LAYOUT,
        image=replace(OWN_LAYOUT.image, opening=opening, row_end=None, patch=patch),
    )


def to_tokens(latents_md: np.ndarray, grid: Grid, patch: int) -> np.ndarray:
    """Return an image's latents (m, c) as tokens in reading order, each of patch x patch of them,
    float32 (n, patch * patch * c).
    """
    h, w = grid.height // patch, grid.width // patch
    blocks = latents_md.reshape(h, patch, w, patch, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(h * w, -1), np.float32)


def to_latents(tokens_nd: np.ndarray, grid: Grid, patch: int) -> np.ndarray:
    """Return the latents (m, c) of an image's tokens: the inverse of `to_tokens`."""
    h, w = grid.height // patch, grid.width // patch
    blocks = tokens_nd.reshape(h, w, patch, patch, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(grid.size, -1), np.float32)


def addresses(grid: Grid, patch: int) -> np.ndarray:
    """Return the row and column, from 1, of each token of an image, int16 (n, 2)."""
    return (Grid(grid.height // patch, grid.width // patch).addresses + 1).astype(np.int16)


@dataclass(frozen=True)
class FlowInputs:
    """FlowInputs lay an image out as its latents: noised and clean where it is learned."""

    layout: Layout
    flow: FlowConfig

    @property
    def key(self) -> str:
        """Return what, beside the layout, an image's number of tokens depends on."""
        return f"flow of patches of {self.flow.patch}"

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens the noised copy takes."""
        return self.layout.image.content_length(grid) if learned else 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return opening, noised copy, clean copy and closing.

        Raise ValueError for an image without latents.
        """
        assert image.grid is not None, "an encoded image has a grid"
        if image.latents is None:
            raise ValueError("the head flow reads the latents of an image, and it has codes")
        opening, closing = layout.opening(image.grid), layout.closing
        data_nd = to_tokens(image.latents, image.grid, self.flow.patch)
        k, n, c = len(opening), len(data_nd), len(closing)
        clean = Span(k, k + n, image.grid, latents=data_nd)
        copies = [clean]
        if learned:
            time, noise_nd = self.flow.noised(key, image.grid.size, data_nd.shape)
            copies = [replace(clean, noise=noise_nd, time=time, key=key), clean.moved(n)]
        # Of each token: the opening's, those of the noised copy (no times or once), the rest.
        noised, total = n * (len(copies) - 1), k + n * len(copies) + c
        place = np.arange(total)
        is_noised = (k <= place) & (place < k + noised)
        is_clean = (k + noised <= place) & (place < total - c)
        address = np.zeros((total, 2), np.int16)
        address[k : total - c] = np.tile(addresses(image.grid, self.flow.patch), (len(copies), 1))
        pad = layout.vocabulary.special("pad")
        weight = image.weight if learned else 0.0
        return ImageTokens(
            ids=np.array([*opening, *[pad] * (n * len(copies)), *closing], np.int64),
            # That an image begins, and its size, are learned as text is.
            weights=np.where(place < k, weight, 0).astype(np.float32),
            is_image=np.zeros(total, bool),
            own_labels=np.full(total, IGNORE, np.int64),
            own_weights=np.where(is_noised, weight, 0).astype(np.float32),
            block=(is_clean + 2 * is_noised).astype(np.int32),
            private=is_noised.astype(np.int32),
            positions=np.where(place < k + noised, place, place - noised),
            address=address,
            num_positions=total - noised,
            spans=tuple(copies),
        )


class TimeEmbedding(nn.Module):
    """A TimeEmbedding gives each time a vector: sinusoids, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SINUSOIDS, width), nn.Linear(width, width)

    def forward(self, times_S: Tensor) -> Tensor:
        """Return the vectors of times from 0 to 1, (S, D)."""
        # Sinusoids of 1000 t as of positions (arXiv:1706.03762, sec. 3.5), then two layers (Peebles
        # and Xie, arXiv:2212.09748, sec. 3.2).
        half = SINUSOIDS // 2
        place = torch.arange(half, device=times_S.device, dtype=torch.float32)
        angles_Sh = 1000 * times_S.float()[:, None] * (-math.log(10_000) * place / half).exp()
        waves = torch.cat((angles_Sh.cos(), angles_Sh.sin()), dim=-1)
        return self.second(F.silu(self.first(waves.to(self.first.weight.dtype))))


class FlowEmbedder(CodeEmbedder):
    """A FlowEmbedder lets latents enter by a linear map, with the embedding of their time added.

    Addresses are added as by CodeEmbedder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width = architecture.transformer.width
        self.project = nn.Linear(token_width(architecture), width)
        self.time = TimeEmbedding(width)

    def products(self, tokens: ModelInput) -> int:
        """Return those of the linear map of each latent, and of the embedding of each time."""
        spans = [span for _, span in _latent_spans(tokens)]
        a_time = self.time.first.weight.numel() + self.time.second.weight.numel()
        count = sum(span.stop - span.start for span in spans)
        return count * self.project.weight.numel() + len(spans) * a_time

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the vectors of latents in their places.

        Without an image nothing changes, and all weights are used all the same, so that no rank
        waits for another one's.
        """
        spans = list(_latent_spans(tokens))
        counts = [span.stop - span.start for _, span in spans]
        T, width, device = x_BTD.shape[1], self.project.in_features, x_BTD.device
        entering = [np.zeros((0, width), np.float32)]
        entering += [_entering(span) for _, span in spans]
        places = [range(row * T + span.start, row * T + span.stop) for row, span in spans]
        at_M = torch.tensor([place for one in places for place in one], dtype=torch.int64)
        times_S = torch.tensor([span.time for _, span in spans], dtype=torch.float32)
        latents_Md = torch.from_numpy(np.concatenate(entering)).to(device)
        times_SD = self.time(times_S.to(device))
        times_MD = times_SD.repeat_interleave(torch.tensor(counts, dtype=torch.int64).to(device), 0)
        vectors_MD = self.project(latents_Md.to(self.project.weight.dtype)) + times_MD
        x_ND = x_BTD.flatten(0, 1).index_copy(0, at_M.to(device), vectors_MD.to(x_BTD.dtype))
        return super().forward(x_ND.view(x_BTD.shape), tokens)


def token_width(architecture: Architecture) -> int:
    """Return the numbers of latents that a token stands for."""
    image = architecture.image
    assert image.flow is not None and image.latent_width, "an architecture of latents has both"
    return image.flow.patch**2 * image.latent_width


def _latent_spans(tokens: ModelInput) -> Iterator[tuple[int, Span]]:
    """Yield (row, span) of every image that is given by latents."""
    return ((row, span) for row, span in placed_spans(tokens.spans) if span.latents is not None)


def _entering(span: Span) -> np.ndarray:
    """Return the latents of a span as they enter: x_t where it has noise."""
    assert span.latents is not None, "only images given by latents come here"
    return span.latents if span.noise is None else mixed(span.noise, span.latents, span.time)


class Flow(ImageHead):
    """Flow predicts the velocity of noised latents, and draws by solving its equation."""

    section = "flow"
    code_rows = False
    reads_latents = True
    follows = ("image_steps", "image_solver", "guidance_interval")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        assert architecture.image.flow is not None, "an architecture of latents has it"
        self.flow, self.num_targets = architecture.image.flow, token_width(architecture)
        self.inputs = FlowInputs(flow_layout(self.flow.patch), self.flow)
        self.project = nn.Linear(architecture.transformer.width, self.num_targets)

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder of latents."""
        return FlowEmbedder(architecture)

    def forward(
        self, hidden_ND: Tensor, table_VD: Tensor, batch: Batch, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the velocities of all noised images; see ImageHead.forward."""
        at_M, weights_M = targets_of(batch, IMAGE)
        targets = [np.zeros((0, self.num_targets), np.float32)]
        # The velocity, data - noise: arXiv:2209.03003, eq. 1.
        targets += [
            span.latents - span.noise
            for _, span in _latent_spans(batch)
            if span.latents is not None and span.noise is not None
        ]
        target_Md = torch.from_numpy(np.concatenate(targets)).to(hidden_ND.device)
        assert len(target_Md) == len(at_M), "every noised token is a target, and nothing else"
        error_Md = self.project(hidden_ND[at_M]).float() - target_Md
        losses_M = error_Md.square().mean(dim=-1)
        return (scale * weights_M * losses_M).sum(), losses_M.detach()

    def draw(self, drawing: Drawing) -> Draw:
        """Solve the equation from the request's noise to an image, and read that.

        x_t is read and forgotten at each step, in the positions that the image will take. Guidance
        has a second branch, but only at times within its interval.
        """
        sampling, grid = drawing.sampling, drawing.grid
        n = self.inputs.layout.image.content_length(grid)
        times = self.flow.times(sampling.image_steps or NUM_STEPS, grid.size)
        solving = solve(drawing.normal((n, self.num_targets)), times, sampling.image_solver)
        x_nd, time = next(solving)
        yield Ask({None: Read([drawing.opened])})
        guided_before, partial = False, None
        while True:
            guided, done = sampling.guides(time), int(time * grid.size)
            if guided and not guided_before:
                opening = Read([drawing.opened])
                yield Ask({UNCONDITIONAL: opening}, done=done, partial=partial)
            read = replace(self._read(drawing, x_nd, time), keep=False)
            reads = dict.fromkeys((None, UNCONDITIONAL) if guided else (None,), read)
            v_nd = yield Ask(reads, velocities, None, sampling.guidance, done, n, partial)
            # x_1 as the velocity of now predicts it: the line through x_t, at its end.
            partial = self._image(drawing, x_nd + np.float32(1 - time) * v_nd)
            try:
                x_nd, time = solving.send(v_nd)
            except StopIteration as end:
                x_nd = end.value
                break
            guided_before = guided
        image = self._image(drawing, x_nd)
        yield Ask({None: self._read(drawing, x_nd, 1.0)}, done=grid.size, partial=image)
        return image

    def _read(self, drawing: Drawing, x_nd: np.ndarray, time: float) -> Read:
        """Return how the latents of an image at a time are read."""
        pad = drawing.layout.vocabulary.special("pad")
        places = [tuple(place) for place in addresses(drawing.grid, self.flow.patch).tolist()]
        span = Span(0, len(x_nd), drawing.grid, latents=x_nd, time=time)
        return Read([pad] * len(x_nd), span, address=places, bidirectional=True)

    def _image(self, drawing: Drawing, x_nd: np.ndarray) -> Image:
        latents = to_latents(x_nd, drawing.grid, self.flow.patch)
        return Image(latents=latents, grid=drawing.grid, codec_hash=drawing.codec_hash)


def velocities(
    head: Flow,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: None,
    args: Sequence[float | None],
) -> list[np.ndarray]:
    """Return the velocity of each request's latents, float32 (n, d); the `look` of an Ask.

    hidden: (R, n, D) for each branch; with two, the second is the unconditional one. args: for each
    request the guidance scale. Raise ValueError where velocities are not finite.
    """
    v_Bnd = head.project(torch.cat([branch_RnD for branch_RnD in hidden])).float()
    if not bool(v_Bnd.isfinite().all()):
        raise ValueError("the model's velocities are not finite: its weights are damaged")
    if len(hidden) == 2:
        conditional_Rnd, unconditional_Rnd = v_Bnd.chunk(2)
        scale_R11 = v_Bnd.new_tensor(args)[:, None, None]
        v_Bnd = guide(conditional_Rnd, unconditional_Rnd, scale_R11)
    return list(v_Bnd.cpu().numpy())
