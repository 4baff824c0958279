"""The `next_code` head predicts each code of an image from the codes before it, in reading order.

Within an image only a code can follow, so the softmax is over the codes alone, in training as in
drawing, and only their slice of the output table is multiplied.

Letters: N hidden vectors, M targets, R requests, D width, V rows of the table, C those of codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..cross_entropy import Targets
from ..document import Image
from ..layout import OWN_LAYOUT, BoundLayout, Layout
from ..sampling import guide, log_probability, pick
from ..sequence import IMAGE, Batch, Span
from .head import Ask, Draw, Drawing, ImageHead, ImageTokens, Read, targets_of


@dataclass(frozen=True)
class NextCodeInputs:
    """NextCodeInputs lay an image out as its codes: causal tokens, once."""

    layout: Layout = OWN_LAYOUT
    key: str = ""

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return 0: an image that is learned takes as many tokens as any other."""
        return 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the image's opening, its codes with row ends, and its closing.

        Raise ValueError for an image without codes, or with several codes in one place.
        """
        assert image.grid is not None, "an encoded image has a grid"
        if image.codes is None or image.codes.shape[1] != 1:
            raise ValueError("the head next_code reads one code for each place of an image")
        opening, closing = layout.opening(image.grid), layout.closing
        content, is_code = layout.content(image.codes[:, 0], image.grid)
        is_image = np.concatenate([[False] * len(opening), is_code, [False] * len(closing)])
        # Row ends and the closing follow from the grid: there is nothing to learn.
        fixed = np.concatenate([[False] * len(opening), ~is_code, [True] * len(closing)])
        weight = image.weight if learned else 0.0
        span = Span(len(opening), len(opening) + len(content), image.grid)
        return ImageTokens.causal(
            np.concatenate([opening, content, closing]),
            np.where(fixed, 0, weight),
            is_image.astype(bool),
            address_ahead(is_image.astype(bool), image.grid),
            (span,),
        )


def address_ahead(is_code_n: np.ndarray, grid: Grid) -> np.ndarray:
    """Return for each token the row and column, from 1, of the code that it predicts.

    The result is int16 (n, 2), 0 where the next token is not a code.
    """
    own = np.zeros((len(is_code_n), 2), np.int16)
    own[is_code_n] = grid.addresses + 1
    return np.concatenate([own[1:], np.zeros((1, 2), np.int16)])


class NextCode(ImageHead):
    """NextCode scores codes by their rows of the output table; it holds no weights of its own."""

    exports = True

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        vocabulary = architecture.vocabulary
        self.inputs = NextCodeInputs()
        self.code_of_id, self.num_ids = vocabulary.code_of_id, vocabulary.size
        self.first, self.last = vocabulary.code_slice
        self.num_targets = self.last - self.first
        # Where other ids lie between the codes, they are left out of every distribution.
        allowed = self.code_of_id[self.first : self.last] >= 0
        self.allowed = None if allowed.all() else torch.from_numpy(allowed)

    def targets(self, batch: Batch, scale: float, sliced: bool = True) -> Targets:
        """Return the batch's codes as rows of the output table; see ImageHead.targets."""
        at_M, weights_M = targets_of(batch, IMAGE)
        labels_M = batch.labels.flatten()[at_M]
        if not sliced:
            return Targets(at_M, labels_M, scale * weights_M, 0, self.num_ids)
        return Targets(
            at_M, labels_M, scale * weights_M, self.first, self.last, allowed_R=self.allowed
        )

    def log_probability(
        self, hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of codes; see ImageHead.log_probability."""
        logits_MC = self.masked(F.linear(hidden_MD, table_VD[self.first : self.last]))
        return log_probability(logits_MC, ids_M - self.first)

    def masked(self, logits_MC: Tensor) -> Tensor:
        """Return the logits of codes, -inf where other ids lie between them."""
        if self.allowed is None:
            return logits_MC
        return logits_MC.masked_fill(~self.allowed.to(logits_MC.device), -torch.inf)

    def draw(self, drawing: Drawing) -> Draw:
        """Draw code by code; see draw_in_order."""
        return draw_in_order(drawing, pick_codes, drawing.noise)


def draw_in_order(
    drawing: Drawing, look: Callable[..., list[int]], noise: Callable[[int], object]
) -> Draw:
    """Draw code by code in reading order: yield one Ask for each code and return the image.

    look: the `look` of each Ask; it is given the settings (temperature, top k, top p) and for each
    request (what `noise` returns for the code's token, guidance scale), and returns codes.
    """
    branches = (None, "text") if drawing.sampling.guided else (None,)
    layout, grid, sampling = drawing.layout, drawing.grid, drawing.sampling
    settings = sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
    row_end = layout.layout.image.row_end
    ids, codes, place = [drawing.opened], [], 0
    for number, (row, column) in enumerate(grid.addresses.tolist()):
        # Only the last of the ids predicts the next code and has its address.
        address = [(0, 0)] * (len(ids) - 1) + [(row + 1, column + 1)]
        read = Read(ids, address=address)
        arg = noise(place), sampling.guidance
        code = yield Ask(dict.fromkeys(branches, read), look, settings, arg, number)
        codes.append(code)
        ids, place = layout.vocabulary.code_to_id(np.array([code])).tolist(), place + 1
        is_last = number + 1 == grid.size
        if (
            row_end
            and column + 1 == grid.width
            and (layout.layout.image.last_row_ends or not is_last)
        ):
            ids, place = [*ids, layout.vocabulary.special(row_end.name)], place + 1
    # The last ids are read together with what follows the image.
    yield Ask(dict.fromkeys(branches, Read(ids)), done=grid.size)
    return Image(codes=np.array(codes, np.int64)[:, None], grid=grid, codec_hash=drawing.codec_hash)


def pick_codes(
    head: NextCode,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[float, float | None]],
) -> list[int]:
    """Sample the next code of each request; the `look` of an Ask.

    hidden: (R, 1, D) for each branch; with two, the second is the unconditional one. settings:
    temperature, top k, top p. args: for each request the uniform number in [0, 1) that samples,
    and the guidance scale. Raise ValueError where logits are not finite.
    """
    last_D = torch.cat([branch_R1D[:, -1] for branch_R1D in hidden])
    logits_RC = guided(F.linear(last_D, table_VD[head.first : head.last]), len(hidden), args)
    logits_RC = head.masked(logits_RC)
    uniform_R = torch.tensor([u for u, _ in args], dtype=torch.float64, device=logits_RC.device)
    picked_R = head.first + pick(logits_RC, uniform_R, *settings).cpu().numpy()
    return head.code_of_id[picked_R].tolist()


def guided(
    logits_BV: Tensor, num_branches: int, args: Sequence[tuple[object, float | None]]
) -> Tensor:
    """Return the logits to sample from, float32 (R, V), of R requests with one or two branches.

    logits_BV: those of all requests, then those of their unconditional branches if there are two.
    args: for each request (anything, guidance scale). Raise ValueError where they are not finite.
    """
    logits_BV = logits_BV.float()
    if not bool(logits_BV.isfinite().all()):
        raise ValueError("the model's logits are not finite: its weights are damaged")
    if num_branches == 1:
        return logits_BV
    scale_R1 = logits_BV.new_tensor([[guidance] for _, guidance in args])
    conditional_RV, unconditional_RV = logits_BV.chunk(2)
    return guide(conditional_RV, unconditional_RV, scale_R1)
