"""The `masked` head predicts masked codes of an image from the others, all at once.

MaskGIT (arXiv:2202.04200) beside text, as in Show-o (arXiv:2408.12528). An image that is learned
stands twice in its sequence: first a private copy with some codes replaced by the special token
`mask`, whose tokens see each other both ways and predict the code in their own place; then its
codes, a bidirectional block for what comes after, at the same positions. An image that is only
given stands once, as its codes.

An image is drawn in a few passes. Each reads what is known of it, the rest masked, samples a code
for every masked place, keeps those that it is most confident of, and forgets the reading; the last
one's codes are then read to stay.

Letters: R requests, B branches of requests, n codes of an image, M masked places of all requests, m
of one, D width, V rows of the output table, C those of codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..document import Image
from ..layout import OWN_LAYOUT, BoundLayout, Layout
from ..sampling import pick
from ..sequence import IGNORE, Span
from .code_rows import CodeRowsHead
from .head import UNCONDITIONAL, Ask, Draw, Drawing, ImageTokens, Read
from .mask_schedule import MaskSchedule

MASK = "mask"
# Rows need no ends: an image is read as a whole, at positions that its sizes explain.
MASKED_LAYOUT = replace(OWN_LAYOUT, image=replace(OWN_LAYOUT.image, row_end=None))


@dataclass(frozen=True)
class MaskedInputs:
    """MaskedInputs lay an image out as its codes, behind a masked copy where it is learned."""

    schedule: MaskSchedule
    layout: Layout = MASKED_LAYOUT
    key: str = "masked"

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens the masked copy takes."""
        return grid.size if learned else 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the image's opening, its masked copy if it is learned, its codes and its closing.

        Raise ValueError for an image without codes, or with several codes in one place.
        """
        clean = self._clean(layout, image, image.weight if learned else 0.0)
        if not learned:
            return clean
        (span,) = clean.spans
        copy, n = slice(span.start, span.stop), span.stop - span.start
        is_masked_n = self.masked(n, key)
        # The copy has the positions and addresses of the codes behind it.
        order = np.r_[: span.stop, span.start : len(clean.ids)]
        block, private = 2 * clean.block[order], np.zeros(len(order), np.int32)
        block[copy], private[copy] = 1, 1
        ids, own_labels = clean.ids[order], np.full(len(order), IGNORE, np.int64)
        own_labels[copy] = np.where(is_masked_n, ids[copy], IGNORE)
        ids[copy] = np.where(is_masked_n, layout.vocabulary.special(MASK), ids[copy])
        own_weights = np.zeros(len(order), np.float32)
        own_weights[copy] = image.weight * is_masked_n
        return ImageTokens(
            ids=ids,
            weights=clean.weights[order],
            is_image=clean.is_image[order],
            own_labels=own_labels,
            own_weights=own_weights,
            block=block,
            private=private,
            positions=clean.positions[order],
            address=clean.address[order],
            num_positions=clean.num_positions,
            spans=(span.moved(n),),
        )

    def _clean(self, layout: BoundLayout, image: Image, weight: float) -> ImageTokens:
        """Return the image as its codes, a bidirectional block; `weight` is that of its opening."""
        grid = image.grid
        assert grid is not None, "an encoded image has a grid"
        if image.codes is None or image.codes.shape[1] != 1:
            raise ValueError("the head masked reads one code for each place of an image")
        opening, closing = layout.opening(grid), layout.closing
        content, _ = layout.content(image.codes[:, 0], grid)
        start, stop = len(opening), len(opening) + len(content)
        ids = np.concatenate([opening, content, closing])
        is_code = np.zeros(len(ids), bool)
        is_code[start:stop] = True
        address = np.zeros((len(ids), 2), np.int16)
        address[start:stop] = grid.addresses + 1
        # The codes are never predicted from their left; only that an image begins, and its size.
        weights = np.where(np.arange(len(ids)) < start, weight, 0)
        tokens = ImageTokens.causal(ids, weights, address=address, spans=(Span(start, stop, grid),))
        return replace(tokens, block=is_code.astype(np.int32))

    def masked(self, num_codes: int, key: tuple[int, ...]) -> np.ndarray:
        """Return which codes of an image are masked, bool (n,): a pure function of the key."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        # arXiv:2202.04200, sec. 3.1: r ~ U[0, 1), and ceil(gamma(r) N) places are masked, each
        # choice of so many as likely as any other.
        count = self.schedule.count(rng.random(), num_codes)
        is_masked = np.zeros(num_codes, bool)
        is_masked[rng.permutation(num_codes)[:count]] = True
        return is_masked


class Masked(CodeRowsHead):
    """Masked minimises the cross entropy of masked codes, -sum_{i masked} log p(code_i | others).

    That is arXiv:2202.04200, eq. 1; arXiv:2408.12528, eq. 3, adds it to the loss of text.
    """

    section = "masked"
    special_tokens = (MASK,)
    follows = (*CodeRowsHead.follows, "image_steps")

    def __init__(self, architecture: Architecture) -> None:
        """Raise ValueError where the vocabulary has no mask."""
        super().__init__(architecture)
        self.schedule = architecture.image.masked or MaskSchedule()
        self.inputs = MaskedInputs(self.schedule)
        architecture.vocabulary.special(MASK)

    def draw(self, drawing: Drawing) -> Draw:
        """Draw in passes over the whole image: yield one Ask for each and return the image."""
        sampling, grid, vocabulary = drawing.sampling, drawing.grid, drawing.layout.vocabulary
        settings = (
            sampling.image_temperature,
            sampling.image_top_k,
            sampling.image_top_p,
            self.schedule.choice_temperature is not None,
        )
        address = [(row + 1, column + 1) for row, column in grid.addresses.tolist()]
        ids_n = np.full(grid.size, vocabulary.special(MASK))
        masked_m = np.arange(grid.size)
        opening, was_guided = Read([drawing.opened]), False
        yield Ask({None: opening})
        partial: Image | None = None
        counts = self.schedule.left(grid.size, sampling.image_steps or self.schedule.steps)
        for step, left in enumerate(counts):
            read = Read(ids_n.tolist(), address=address, bidirectional=True, keep=False)
            part = Pass(
                masked_m,
                len(masked_m) - left,
                drawing.noises(grid.size, 2 * step)[masked_m],
                self._chance(step, len(counts), drawing.noises(grid.size, 2 * step + 1)[masked_m]),
                sampling.guidance,
            )
            done = grid.size - len(masked_m)
            guided = sampling.guides(done / grid.size)
            if guided and not was_guided:
                yield Ask({UNCONDITIONAL: opening}, done=done, partial=partial)
            was_guided = guided
            reads = dict.fromkeys((None, UNCONDITIONAL) if guided else (None,), read)
            kept_m, codes_m = yield Ask(reads, keep_codes, settings, part, done, grid.size, partial)
            expected_n = ids_n.copy()
            expected_n[masked_m] = vocabulary.code_to_id(codes_m)
            partial = Image(
                codes=vocabulary.id_to_code(expected_n)[:, None], grid=grid,
                codec_hash=drawing.codec_hash,
            )  # fmt: skip
            ids_n[masked_m[kept_m]] = expected_n[masked_m[kept_m]]
            masked_m = masked_m[~kept_m]
        read = Read(ids_n.tolist(), address=address, bidirectional=True)
        yield Ask({None: read}, done=grid.size, partial=partial)
        assert partial is not None, "there is a pass at least"
        return partial

    def _chance(self, step: int, num_steps: int, uniform_m: np.ndarray) -> np.ndarray:
        """Return what is added to the confidence of each masked place, float64 (m,)."""
        with np.errstate(divide="ignore"):  # a uniform number of 0 gives -inf, the last to be kept
            gumbel_m = -np.log(-np.log(uniform_m))
        temperature = self.schedule.choice_temperature
        if temperature is None:
            return gumbel_m
        # MaskGIT's code and Show-o's: Gumbel noise whose temperature falls linearly to 0.
        return temperature * (1 - (step + 1) / num_steps) * gumbel_m


@dataclass(frozen=True, eq=False)
class Pass:
    """A Pass says what one request wants of one pass over its image.

    masked: the masked places, int64 (m,), of which `num_kept` get a code. uniform: the numbers in
    [0, 1) that sample their codes, float64 (m,). chance: what is added to the confidence of each,
    float64 (m,). guidance: its scale.
    """

    masked: np.ndarray
    num_kept: int
    uniform: np.ndarray
    chance: np.ndarray
    guidance: float | None


def keep_codes(
    head: Masked,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None, bool],
    args: Sequence[Pass],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sample all masked codes of each request and keep some of them; the `look` of an Ask.

    hidden: (R, n, D) for each branch; with two, the second is the unconditional one. settings:
    temperature, top k, top p, and whether the confidence has a say in what is kept. Return for each
    request which of the masked places keep their code, bool (m,), and the codes of all of them,
    int64 (m,). Raise ValueError where logits are not finite.
    """
    places = [one.masked for one in args]
    logits_MC = head.logits_at(hidden, table_VD, places, [one.guidance for one in args])
    uniform_M = torch.from_numpy(np.concatenate([one.uniform for one in args]))
    temperature, top_k, top_p, is_confident = settings
    picked_M = pick(logits_MC, uniform_M.to(logits_MC.device), temperature, top_k, top_p)
    # arXiv:2202.04200, sec. 3.2, step 2: the confidence is the probability of the sampled code.
    log_p_M = logits_MC.double().log_softmax(-1).gather(-1, picked_M[:, None])[:, 0]
    score_M = np.concatenate([one.chance for one in args])
    if is_confident:
        score_M = score_M + log_p_M.cpu().numpy()
    codes_M = head.code_of_id[head.first + picked_M.cpu().numpy()]
    found, start = [], 0
    for one in args:
        count = len(one.masked)
        here = slice(start, start + count)
        # Step 4: those of the highest scores are kept, the others stay masked.
        kept_m = np.zeros(count, bool)
        kept_m[np.argsort(-score_M[here], kind="stable")[: one.num_kept]] = True
        found.append((kept_m, codes_M[here]))
        start += count
    return found
