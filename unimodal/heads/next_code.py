"""The `next_code` head predicts each code of an image from the codes before it, in reading order.

Letters: R requests, t tokens of an image, P parts of a code, D width, V rows of the output table, C
those of codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..document import Image
from ..layout import OWN_LAYOUT, BoundLayout, Layout
from ..sampling import Scale, log_probability, pick
from ..sequence import Span
from .branching import Branching
from .code_rows import CodeRowsHead
from .head import Ask, Draw, Drawing, ImageTokens, Read
from .jacobi import draw_by_drafts


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


class NextCode(CodeRowsHead):
    """NextCode predicts a code from those before it."""

    in_order = exports = True
    follows = (*CodeRowsHead.follows, "image_drafts")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs()

    def log_probability(
        self, hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of codes; see ImageHead.log_probability."""
        logits_MC = self.codes_alone(F.linear(hidden_MD, table_VD[self.first : self.last]))
        return log_probability(logits_MC, ids_M - self.first)

    def draw(self, drawing: Drawing) -> Draw:
        """Draw code by code (see draw_in_order), or several in a pass where there are drafts."""
        sampling = drawing.sampling
        if sampling.image_drafts is not None and sampling.guidance_interval is None:
            return draw_by_drafts(self, drawing, CodeTokens(drawing), sampling.image_drafts)
        return draw_in_order(drawing, pick_codes, 1)

    def code_of_rows(self, rows_n: np.ndarray) -> list[int]:
        """Return the codes of rows of the slice of the output table."""
        return self.code_of_id[self.first + rows_n].tolist()

    def rows_before(self, drawing: Drawing) -> np.ndarray | None:
        """Return the codes of the image before a drawing, if there is one, as rows of the slice,
        int64 (N,).
        """
        if drawing.before is None:
            return None
        assert drawing.before.codes is not None, "it has codes"
        return drawing.layout.vocabulary.code_to_id(drawing.before.codes[:, 0]) - self.first


@dataclass(frozen=True, eq=False)
class CodeTokens:
    """CodeTokens say how the codes of a drawing are read, in reading order."""

    drawing: Drawing

    def of(self, number: int, code: int) -> list[int]:
        """Return the ids of a code: its own, and what ends its row."""
        layout, grid = self.drawing.layout, self.drawing.grid
        ids, image = [int(layout.vocabulary.code_ids[code])], layout.layout.image
        is_last = number + 1 == grid.size
        if (
            image.row_end is None
            or (number + 1) % grid.width
            or (is_last and not image.last_row_ends)
        ):
            return ids
        return [*ids, layout.vocabulary.special(image.row_end.name)]

    def uniform(self, part: int = 0) -> np.ndarray:
        """Return the number in [0, 1) that samples each code, or a part of it, float64 (N,)."""
        grid = self.drawing.grid
        lengths = [len(self.of(number, 0)) for number in range(grid.size)]
        return self.drawing.noises(sum(lengths), part)[np.cumsum(lengths) - lengths]

    def address(self, number: int, ids: list[int]) -> list[tuple[int, int]]:
        """Return the address of each of the ids before a code: the last one has that of the code,
        which it predicts.
        """
        row, column = divmod(number, self.drawing.grid.width)
        return [(0, 0)] * (len(ids) - 1) + [(row + 1, column + 1)]

    def image(self, codes_n: np.ndarray) -> Image:
        """Return an image of these codes, which may change later."""
        codes_n1, drawing = codes_n[:, None].copy(), self.drawing
        return Image(codes=codes_n1, grid=drawing.grid, codec_hash=drawing.codec_hash)


def draw_in_order(drawing: Drawing, look: Callable[..., list[int]], num_parts: int) -> Draw:
    """Draw code by code in reading order: yield one Ask for each code and return the image.

    look: the `look` of each Ask; it is given the settings (temperature, top k, top p) and for each
    request (the uniform numbers in [0, 1) that sample the `num_parts` parts of the code, guidance
    scale), and returns codes.
    """
    tokens, size, sampling = CodeTokens(drawing), drawing.grid.size, drawing.sampling
    branches = Branching(sampling)
    settings = sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
    noise_NP = np.stack([tokens.uniform(part) for part in range(num_parts)], 1).tolist()
    ids, codes_n = [drawing.opened], np.zeros(size, np.int64)
    for number in range(size):
        read = Read(ids, address=tokens.address(number, ids))
        arg, reads = (noise_NP[number], sampling.scale), branches.reads(read, number / size)
        branches.has_read(read)
        partial, known = tokens.image(codes_n) if number else None, np.arange(size) < number
        code = yield Ask(reads, look, settings, arg, number, partial=partial, known=known)
        codes_n[number:] = code  # a picture of what is drawn so far has something in each place
        ids = tokens.of(number, code)
    # The last ids are read together with what follows the image.
    yield Ask(branches.last(Read(ids)), done=size)
    return tokens.image(codes_n)


def pick_codes(
    head: NextCode,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[list[float], Scale]],
) -> list[int]:
    """Sample the next code of each request; the `look` of an Ask.

    hidden: (R, 1, D) for each branch, in the order of `branches_of`. settings: temperature, top k,
    top p. args: for each request the uniform number in [0, 1) that samples, in
    a list, and the guidance scale. Raise ValueError where logits are not finite.
    """
    last_D = torch.cat([branch_R1D[:, -1] for branch_R1D in hidden])
    logits_RC = head.logits(last_D, table_VD, len(hidden), args)
    uniform_R = torch.tensor([u for (u,), _ in args], dtype=torch.float64, device=logits_RC.device)
    picked_R = head.first + pick(logits_RC, uniform_R, *settings).cpu().numpy()
    return head.code_of_id[picked_R].tolist()
