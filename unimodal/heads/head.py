"""What an image head is: how an image stands in a sequence, what is learned of it, how it is drawn.

A head has two sides. `ImageInputs` lays images out as tokens; it holds no weights, so that loader
workers can do it. `ImageHead` is a module beside the transformer: it turns hidden vectors into a
loss, and draws: `draw` is a generator that says what each branch of a request reads next and which
function of the head looks at the hidden vectors then, so that one loop serves requests of all kinds
together.

Letters: N hidden vectors, M targets, R requests, D width, V rows of the output table.
"""

from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..cross_entropy import Targets
from ..document import Image
from ..embedder import CodeEmbedder, ImageEmbedder
from ..layout import BoundLayout, Layout
from ..sampling import Sampling
from ..sequence import IGNORE, Batch, Span


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """How one image, or a run of text, stands in a sequence: arrays of n tokens.

    ids int64. weights float32: with which a token is learned by the one before it, and is_image
    bool: whether as an image's target. own_labels int64 and own_weights float32: what a token
    predicts in its own place instead; weight 0: nothing. block, private int32: as in Sequence,
    numbered from 1 within these tokens. positions int64: from 0; address int16 (n, 2): as in
    Sequence. num_positions: how far on in positions what follows stands.
    """

    ids: np.ndarray
    weights: np.ndarray
    is_image: np.ndarray
    own_labels: np.ndarray
    own_weights: np.ndarray
    block: np.ndarray
    private: np.ndarray
    positions: np.ndarray
    address: np.ndarray
    num_positions: int
    spans: tuple[Span, ...] = ()

    @classmethod
    def causal(
        cls,
        ids: np.ndarray | list[int],
        weights: np.ndarray | list[float],
        is_image: np.ndarray | None = None,
        address: np.ndarray | None = None,
        spans: tuple[Span, ...] = (),
    ) -> "ImageTokens":
        """Return tokens that each see all before them and are learned by the one before."""
        n = len(ids)
        return cls(
            ids=np.asarray(ids, np.int64),
            weights=np.asarray(weights, np.float32),
            is_image=np.zeros(n, bool) if is_image is None else is_image,
            own_labels=np.full(n, IGNORE, np.int64),
            own_weights=np.zeros(n, np.float32),
            block=np.zeros(n, np.int32),
            private=np.zeros(n, np.int32),
            positions=np.arange(n, dtype=np.int64),
            address=np.zeros((n, 2), np.int16) if address is None else address,
            num_positions=n,
            spans=spans,
        )

    def numbered(self, blocks: int, privates: int) -> "ImageTokens":
        """Return the same tokens with so many added to the numbers of blocks and privates."""
        if not self.block.any() and not self.private.any():
            return self
        return replace(
            self,
            block=np.where(self.block > 0, self.block + blocks, 0).astype(np.int32),
            private=np.where(self.private > 0, self.private + privates, 0).astype(np.int32),
        )


class ImageInputs(Protocol):
    """An image head's side of a sequence; holds no weights and can be sent to another process."""

    @property
    def layout(self) -> Layout:
        """The spelling of documents."""
        ...

    @property
    def key(self) -> str:
        """What the number of an image's tokens depends on, beside the layout's version."""
        ...

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens more an image takes than its layout alone says."""
        ...

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return an encoded image's tokens, with what opens and closes it.

        learned: whether it is predicted, with the image's weight. key: what noise on it is drawn
        with, counter-based: a pure function of the key.
        """
        ...


@dataclass(frozen=True, eq=False)
class Read:
    """What a branch reads next, behind all that it has read: n tokens.

    ids: of each; where latents stand the id does not matter. span: what of the image is needed
    beside ids, its tokens counted from the first of these. address: row and column from 1 of each,
    or None where it stands for no code. bidirectional: whether these tokens see each other both
    ways. keep: whether they stay in what the branch has read, or are forgotten once their hidden
    vectors have been seen.
    """

    ids: list[int]
    span: Span | None = None
    address: list[tuple[int, int]] | None = None
    bidirectional: bool = False
    keep: bool = True
    forget: int = 0
    """So many of the tokens that were kept last are forgotten before these are read."""


@dataclass(frozen=True, eq=False)
class Ask:
    """What a drawing wants next: what its branches read, and who looks at the hidden vectors.

    reads: by branch, a name of sequencer.DROPS (None: the request as it is). look(head, table_VD,
    hidden, settings, args) is called once for all requests that wait with the same function,
    settings and branches: hidden is (R, n, D) for each branch, the last `num_hidden` vectors of
    each request; args holds the R requests' `arg`. It returns R results, each of which goes back
    into its generator. Without `look` the reads wait for the next ones, and nothing comes back.
    """

    reads: Mapping[str | None, Read]
    look: Callable[..., list[Any]] | None = None
    settings: Hashable = None
    arg: Any = None
    done: int = 0
    """Of the grid's codes, how many are drawn; for progress."""
    num_hidden: int = 1

    @property
    def kind(self) -> Hashable:
        """Return what requests must share to be looked at together."""
        return self.look, self.settings, tuple(self.reads), self.num_hidden


@dataclass(frozen=True, eq=False)
class Drawing:
    """An image that a request is about to draw, behind what opens it."""

    layout: BoundLayout
    grid: Grid
    sampling: Sampling
    opened: int
    """The last id of what opens the image, which no branch has read yet."""
    noise: Callable[[int], float]
    """Token of the image, from 0 behind its opening -> the number in [0, 1) that picks it."""
    codec_hash: str


Draw = Generator[Ask, Any, Image]
"""Yields what it wants and is sent what `look` found; returns the image."""


class ImageHead(nn.Module):
    """One way to predict images: causal codes, masked codes, latents under noise, scales.

    `forward` is the loss, so that a sharded engine gathers the head's weights around it; every rank
    calls it in every step, whatever is in its batch.
    """

    inputs: ImageInputs
    num_targets: int
    """Over how many ids an image's target is normalised, for FLOPs; 0: its targets are no ids."""
    exports: ClassVar[bool] = False
    """Whether a plain language model can stand for it: a Hugging Face export exists."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Make the module by which clean images enter; codes by default."""
        return CodeEmbedder(architecture)

    @property
    def has_own_loss(self) -> bool:
        """Whether `forward` is its loss, and not the cross entropy of its `targets`."""
        return type(self).targets is ImageHead.targets

    def targets(self, batch: Batch, scale: float, sliced: bool = True) -> Targets | None:
        """Return the batch's image targets, weighted by scale times their weights, where their loss
        is the cross entropy of rows of the output table: text and images are then scored in one
        pass, and `forward` is not called. None, always, for other heads.

        sliced: normalise over what may stand there, not over all ids.
        """
        return None

    def forward(
        self,
        hidden_ND: Tensor,
        table_VD: Tensor,
        batch: Batch,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Return scale times the weighted sum of the losses of the batch's image targets, with its
        gradient, and each target's loss (M,) without one, in the order of the batch.

        hidden_ND: of all tokens of the batch. table_VD: the language model's output rows.
        """
        raise NotImplementedError

    def draw(self, drawing: Drawing) -> Draw:
        """Draw one image."""
        raise NotImplementedError


def targets_of(batch: Batch, modality: int) -> tuple[Tensor, Tensor]:
    """Return where the batch's targets of a modality are, int64 (M,) in its flattened tokens, and
    their weights (M,).
    """
    chosen_BT = batch.modality == modality
    (at_M,) = chosen_BT.flatten().nonzero(as_tuple=True)
    return at_M, batch.weights[chosen_BT]
