"""An image head decides how an image is laid out in a sequence, learned and drawn.

A head has two sides. `ImageInputs` lays images out as tokens; it holds no weights, so loader
workers can use it. `ImageHead` is a module beside the transformer: it computes a loss from hidden
vectors, and draws. `draw` is a generator: it yields which tokens each branch of a request reads
next and which function of the head is called on the hidden vectors of these tokens. So one loop can
batch requests of all kinds.

Letters: N hidden vectors, M targets, R requests, D width, V rows of the output table.
"""

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
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
from ..sampling import Sampling, Scale, check_finite, guide
from ..sequence import IGNORE, Batch, Span

UNCONDITIONAL = "text"  # the branch that guidance adds, without the user's texts
IMAGELESS = "both"  # the branch that guidance of images adds, without the images too


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """ImageTokens hold one image, or a run of text, as arrays of n tokens of a sequence.

    ids int64: as in Sequence.
    weights float32: the loss weight of the token as the target of the token before it.
    is_image bool: whether that target has the modality image.
    own_labels int64, own_weights float32: what the token itself predicts instead of the next token,
        as in masked prediction, and the loss weight of that; 0: it predicts the next token.
    block, private int32: as in Sequence, numbered from 1 within these tokens.
    positions int64: RoPE positions from 0.
    address int16 (n, 2): as in Sequence.
    num_positions: the position, counted in the same way, of the token that follows these.
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
        """Return causal, public tokens, each of which is predicted by the token before it."""
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
        """Return the tokens with `blocks` and `privates` added to their block and private numbers.

        0, for causal and for public tokens, stays 0.
        """
        if not self.block.any() and not self.private.any():
            return self
        return replace(
            self,
            block=np.where(self.block > 0, self.block + blocks, 0).astype(np.int32),
            private=np.where(self.private > 0, self.private + privates, 0).astype(np.int32),
        )


class ImageInputs(Protocol):
    """ImageInputs lay images out as tokens; they hold no weights and can be pickled."""

    @property
    def layout(self) -> Layout:
        """Return the layout of documents for this head."""
        ...

    @property
    def key(self) -> str:
        """Return a key of all, beside the layout, that an image's number of tokens depends on."""
        ...

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens an image takes beyond those of its layout.

        learned: whether the image is predicted, which may take a noised copy of it.
        """
        ...

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the tokens of an encoded image, its opening and closing included.

        learned: whether the image is predicted, with its weight. key: the key of the counter-based
        generator that draws noise on the image.
        """
        ...


@dataclass(frozen=True, eq=False)
class Read:
    """A Read holds the n tokens that a branch reads next, behind all that it has read.

    To read tokens is to run the transformer on them: their keys and values go into the cache.

    ids: the id of each token; where the embedder replaces it by a latent, any id.
    span: the image that the tokens stand for, counted from the first of them; None where ids
        suffice.
    address: (row, column) of each token as in Sequence.address; None: all are (0, 0).
    bidirectional: whether the tokens form a bidirectional block; False: they are causal.
    keep: whether they stay in the cache; False: they are rolled back after this forward.
    """

    ids: list[int]
    span: Span | None = None
    address: list[tuple[int, int]] | None = None
    bidirectional: bool = False
    keep: bool = True
    forget: int = 0
    """How many of the last tokens in the cache are removed before these are read."""
    offsets: list[int] | None = None
    """The RoPE position of each token, counted from the one that the first would have by its place
    behind all that was read; None: 0, 1, 2, ..."""


@dataclass(frozen=True, eq=False)
class Ask:
    """An Ask is one step of a drawing: what its branches read, then a function of hidden vectors.

    reads: what each branch reads, by its name in sequencer.DROPS (None: the request as it is). A
        branch that a waiting Ask does not read is dropped; one that is named again later begins
        anew with its prompt and the reply before the image.
    look: a function look(head, table_VD, hidden, settings, args) of the hidden vectors. It is
        called once for all R requests that wait with equal look, settings and branches. hidden
        holds for each branch the last `num_hidden` hidden vectors of each request, (R, n, D); args
        the R requests' `arg`. It returns R results; each is sent into its request's generator.
        None: the reads are queued before those of the next Ask, and None is sent at once.
    """

    reads: Mapping[str | None, Read]
    look: Callable[..., list[Any]] | None = None
    settings: Hashable = None
    arg: Any = None
    done: int = 0
    """How many of the grid's codes are drawn so far, to report progress."""
    num_hidden: int = 1
    partial: Image | None = None
    """What the image will be, as far as it can be told, to show progress."""
    known: np.ndarray | None = None
    """Which codes of `partial` are drawn, bool (n,), where the others stand for nothing yet; None:
    the others are what the head expects."""

    @property
    def kind(self) -> Hashable:
        """Return the key that requests must share to be handled in one call of `look`."""
        return self.look, self.settings, tuple(self.reads), self.num_hidden


@dataclass(frozen=True, eq=False)
class Drawing:
    """A Drawing describes an image that a request is about to draw, behind its opening."""

    layout: BoundLayout
    grid: Grid
    sampling: Sampling
    opened: int
    """The last id of the image's opening, which no branch has read yet."""
    noises: Callable[[int, int], np.ndarray]
    """noises(count, part) are the uniform numbers in [0, 1) that sample the first `count` tokens of
    the image, counted from 0 behind its opening, or `part` of each, where they are sampled in
    parts, float64 (count,)."""
    normal: Callable[[tuple[int, ...]], np.ndarray]
    """normal(shape) is normal noise for the whole image, float32 of `shape`."""
    codec_hash: str
    room: Callable[[], int]
    """How many tokens a branch may read in the next pass before those that were guessed cost the
    other branches in it more than they save."""
    before: Image | None = None
    """The latest image before this one that has codes of its grid."""


Draw = Generator[Ask, Any, Image]
"""A generator that yields Asks, is sent the results of their `look`, and returns the image."""


class ImageHead(nn.Module):
    """An ImageHead predicts images in one way: causal codes, masked codes, noised latents, scales.

    `forward` computes the loss, so that a sharded engine gathers the head's weights around it.
    Every rank calls it in every step, even where its batch holds no image, or the ranks that
    gather weights would wait for it.
    """

    inputs: ImageInputs
    num_targets: int
    """How many products with a vector of the hidden width a target takes, to count FLOPs: one for
    each id or value that a softmax covers; 0 where targets are neither."""
    section: ClassVar[str | None] = None
    """The field of ImageConfig, and the section of `model` in a recipe, that configures the head;
    None: there is none."""
    special_tokens: ClassVar[tuple[str, ...]] = ()
    """Names of the special tokens that the vocabulary of a model with this head has beside those of
    all."""
    code_rows: ClassVar[bool] = True
    """Whether codes have rows in the embedding and in the output table. False: there are none, and
    the head and its embedder have parameters for codes; ids of codes are as ever."""
    reads_latents: ClassVar[bool] = False
    """Whether images enter and leave as latents; False: as codes."""
    reads_scales: ClassVar[bool] = False
    """Whether the codes of an image are those of several scales; False: of one."""
    follows: ClassVar[tuple[str, ...]] = ("image_temperature", "image_top_k", "image_top_p")
    """Which of sampling.OF_HEADS, the settings that not every head has, `draw` follows."""
    in_order: ClassVar[bool] = False
    """Whether images are drawn, and learned, code by code in reading order, from public tokens."""
    exports: ClassVar[bool] = False
    """Whether a plain language model predicts the same, so that a Hugging Face export exists."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder of clean images that this head needs; by default that of codes."""
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

        hidden_ND: of all tokens of the batch. table_VD: the language model's output rows. Where
        ranks share rows, the batch is a part of them (see Batch.part).
        """
        raise NotImplementedError

    @property
    def has_log_probability(self) -> bool:
        """Return whether the probability of a drawn image is known (see `log_probability`)."""
        return type(self).log_probability is not ImageHead.log_probability

    def log_probability(
        self, hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability with which each code is drawn at temperature 1, and the
        entropy of what it is drawn from, in nats, float32 (M,) both; they can be differentiated.

        Only heads that draw code by code in reading order have one. hidden_MD: of the token before
        each code. ids_M: int64, the codes' ids.
        """
        raise NotImplementedError

    def extra_tokens(self, grid: Grid) -> int:
        """Return how many tokens more than those of the image its drawing holds in the cache."""
        return 0

    def draw(self, drawing: Drawing) -> Draw:
        """Draw one image: yield Asks and return the image, with codes or latents."""
        raise NotImplementedError


def guided(logits_BV: Tensor, num_branches: int, args: Sequence[tuple[object, Scale]]) -> Tensor:
    """Return the logits to sample from, float32 (R, V), of R requests with one to three branches.

    logits_BV: those of all requests, then those of their other branches, in the order of
    `branches_of`. args: for each request (anything, guidance scale). Raise ValueError where they
    are not finite.
    """
    logits_BV = logits_BV.float()
    check_finite(logits_BV)
    if num_branches == 1:
        return logits_BV
    scales_RS1 = logits_BV.new_tensor([scale for _, scale in args]).view(len(args), -1, 1)
    if num_branches == 2:
        conditional_RV, unconditional_RV = logits_BV.chunk(2)
        return guide(conditional_RV, unconditional_RV, scales_RS1[:, 0])
    whole_RV, wordless_RV, empty_RV = logits_BV.chunk(3)
    # InstructPix2Pix, arXiv:2211.09800, eq. 3, on logits; so draws Chameleon's own code.
    toward_words_RV = scales_RS1[:, 0] * (whole_RV - wordless_RV)
    return guide(wordless_RV, empty_RV, scales_RS1[:, 1]) + toward_words_RV


def branches_of(sampling: Sampling) -> tuple[str | None, ...]:
    """Return the names of the branches of a drawing while it is guided, the request's own first."""
    if not sampling.guided:
        return (None,)
    return (None, UNCONDITIONAL, *([IMAGELESS] if isinstance(sampling.scale, tuple) else []))


def targets_of(batch: Batch, modality: int) -> tuple[Tensor, Tensor]:
    """Return the indices of a modality's targets, int64 (M,), and their weights (M,).

    The indices are those of tokens in the flattened batch.
    """
    chosen_BT = batch.modality == modality
    (at_M,) = chosen_BT.flatten().nonzero(as_tuple=True)
    return at_M, batch.weights[chosen_BT]
