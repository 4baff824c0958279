"""Initialise the embedding rows of ids that are added to a trained vocabulary.

`gaussian` draws rows from the normal distribution of the old rows, shrunk towards their mean.
`codes` gives similar rows to codes with similar vectors, with the old rows' mean and standard
deviation in every channel. Both place new rows around the mean of the old ones, so that their
logits are of ordinary size. Rows of a new model's codes are those of `code_rows`, or, where codes
are added up, of `linear_code_rows`.

Letters: V ids, D width, d numbers of a code's vector.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from unimodal.tokenizer.codec import Codec
from unimodal.tokenizer.initial import generator

# J. Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021), samples
# N(mean, 1e-5 * covariance) in its code: near the mean, a new id takes no more probability than an
# average one, and no two rows are equal.
SHRINK = 1e-5
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics hold the mean (D,) and the covariance (D, D) of rows, float64."""

    mean_D: Tensor
    covariance_DD: Tensor

    @classmethod
    def of(cls, blocks: Iterable[Tensor]) -> "Statistics":
        """Return the statistics of blocks of rows (n, D), in one pass.

        Sums are taken about the first block's mean, so that rows far from zero lose no digits.
        Raise ValueError where there is no row, or numbers are not finite.
        """
        full = (block_nD.double() for block_nD in blocks if len(block_nD))
        first_nD = next(full, None)
        if first_nD is None:
            raise ValueError("an embedding without a row has no mean")
        num, width, origin_D = 0, first_nD.shape[1], first_nD.mean(0)
        sum_D = torch.zeros(width, dtype=torch.float64)
        square_DD = torch.zeros(width, width, dtype=torch.float64)
        for block_nD in chain([first_nD], full):
            if not bool(block_nD.isfinite().all()):
                raise ValueError("the embedding holds numbers that are not finite: it is damaged")
            moved_nD = block_nD - origin_D
            num += len(moved_nD)
            sum_D += moved_nD.sum(0)
            square_DD.addmm_(moved_nD.T, moved_nD)
        shift_D = sum_D / num
        return cls(origin_D + shift_D, square_DD / num - torch.outer(shift_D, shift_D))

    @property
    def std_D(self) -> Tensor:
        """Return the standard deviation of each channel (D,)."""
        # Rounding may leave the variance of a constant channel just below 0.
        return self.covariance_DD.diagonal().clamp(min=0).sqrt()


def gaussian_rows(statistics: Statistics, num: int, seed: int, name: str) -> Iterator[Tensor]:
    """Yield `num` rows of N(mean, SHRINK * covariance), as float64 blocks (n, D).

    They are a pure function of (statistics, seed, name); a row does not depend on `num`.
    """
    values_D, vectors_DD = torch.linalg.eigh(SHRINK * statistics.covariance_DD)
    # A factor F with F F' = covariance turns standard normal numbers into rows. Rounding leaves
    # eigenvalues just below zero where rows do not span all channels.
    factor_DD = vectors_DD * values_D.clamp(min=0).sqrt()
    drawn = generator(seed, name)
    for first in range(0, num, BLOCK_ROWS):
        shape = (min(BLOCK_ROWS, num - first), len(values_D))
        yield statistics.mean_D + torch.from_numpy(drawn.standard_normal(shape)) @ factor_DD.T


def matched_code_rows(statistics: Statistics, image: Codec, seed: int) -> Iterator[Tensor]:
    """Yield rows of all image codes, as float64 blocks (n, D).

    They are those of `code_rows`, moved and scaled to the mean and standard deviation of the old
    rows in each channel.
    """
    width = len(statistics.mean_D)

    def plain() -> Iterator[Tensor]:
        for first in range(0, image.num_codes, BLOCK_ROWS):
            codes = range(first, min(first + BLOCK_ROWS, image.num_codes))
            yield code_rows(image, width, seed, 1.0, codes).double()

    mean_D = sum((block_nD.sum(0) for block_nD in plain()), torch.zeros(width)) / image.num_codes
    squares = ((block_nD - mean_D).square().sum(0) for block_nD in plain())
    variance_D = sum(squares, torch.zeros(width)) / image.num_codes
    scale_D = statistics.std_D / variance_D.sqrt()
    for block_nD in plain():
        yield statistics.mean_D + (block_nD - mean_D) * scale_D


def code_rows(
    image: Codec, width: int, seed: int, std: float, codes: range | None = None
) -> Tensor:
    """Return initial embedding rows (V, width) of image codes, float32.

    Codes with similar vectors get similar rows. std: the standard deviation of the rows' numbers.
    codes: which codes; None: all. ValueError for a tokenizer that has several codes at a place.
    """
    codes = range(image.num_codes) if codes is None else codes
    vectors_Vd = _vectors(image, codes)
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    w_dD = torch.from_numpy(rng.standard_normal((vectors_Vd.shape[1], width))).float()
    b_D = torch.from_numpy(rng.uniform(0, 2 * np.pi, width)).float()
    # Random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007, alg. 1):
    # sqrt(2) cos(w v + b), with w ~ N(0, I) and b uniform in [0, 2 pi).
    return std * 2**0.5 * torch.cos(2 * vectors_Vd @ w_dD + b_D)


def linear_code_rows(image: Codec, width: int, seed: int, std: float) -> Tensor:
    """Return initial embedding rows (V, width) that are a random linear map of codes' vectors.

    So a weighted sum of rows is the row of the sum of the vectors, as residual codes are added up.
    std: the root mean square of the rows' numbers.
    """
    vectors_Vd = _vectors(image, range(image.num_codes))
    w_dD = np.random.Generator(np.random.Philox(key=[seed, 0])).standard_normal(
        (vectors_Vd.shape[1], width)
    )
    rows_VD = vectors_Vd @ torch.from_numpy(w_dD).float()
    return rows_VD * (std / rows_VD.square().mean().sqrt())


def _vectors(image: Codec, codes: range) -> Tensor:
    """Return the vectors of codes on the CPU, also of a tokenizer that encodes on a GPU."""
    weights = image.parameters() if isinstance(image, nn.Module) else ()
    device = next((one.device for one in weights), torch.device("cpu"))
    codes_n1 = torch.arange(codes.start, codes.stop, device=device)[:, None]
    return image.code_vectors(codes_n1).cpu()
