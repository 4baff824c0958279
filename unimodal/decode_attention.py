"""Decode attention is attention of a few queries in each row of a key-value cache, on a CPU.

torch's fused attention is made for many queries: with one it takes several times as long as memory
takes to give the keys and values. Here the scores are a batched matrix product, and the outputs
sums of rows with weights, for which torch has FBGEMM's kernels under the name of bags of
embeddings.

Letters: B rows, H query heads, G key-value heads, X = B * G, T queries, R queries of a key-value
head, M = B * H * T, S slots that are looked at, C slots of a row, P = M * S, d head width. N
queries that lie side by side, some of each row, are to the sums N rows of one: M = N * H.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .products import has_fbgemm
from .varlen import Varlen

LEAST = 2**16  # numbers of keys; with fewer, or with more queries, the fused kernel is as fast
MOST_QUERIES = 4


def serves(num_queries: int, keys_BGSd: Tensor) -> bool:
    """Return whether this is the fastest way for so many queries to attend to these keys."""
    is_plain = keys_BGSd.device.type == "cpu" and keys_BGSd.dtype == torch.float32
    is_worth_it = num_queries <= MOST_QUERIES and keys_BGSd.numel() >= LEAST
    return is_plain and is_worth_it and has_fbgemm()


@dataclass(frozen=True, eq=False)
class DecodeAttention:
    """DecodeAttention says which values each query sums, the same in all layers."""

    places_P: Tensor
    """int32: the places of the slots among all slots of all rows and heads, query by query."""
    firsts_M: Tensor
    """int32: where the places of each query begin in these."""
    varlen: Varlen | None = None
    """Of queries that lie side by side; None: each row has as many."""

    @classmethod
    def at(
        cls,
        places_BHC: Tensor,
        num_slots: int,
        num_queries: int,
        varlen: Varlen | None = None,
    ) -> "DecodeAttention":
        """Return that of the first slots of some rows; places_BHC: theirs, of `slot_places`."""
        if varlen is not None:
            places_BHC = places_BHC[varlen.row_N]
        places_BH1S = places_BHC[:, :, None, :num_slots]
        places_P = places_BH1S.expand(-1, -1, num_queries, -1).reshape(-1)
        firsts_M = torch.arange(0, len(places_P), num_slots, dtype=torch.int32)
        return cls(places_P, firsts_M, varlen)

    def __call__(
        self, q_BHTd: Tensor, keys_BGSd: Tensor, values_BGCd: Tensor, mask_B1TS: Tensor | None
    ) -> Tensor:
        """Return softmax(q k' / sqrt(d) + mask) v (arXiv:1706.03762, eq. 1), out_BHTd.

        values_BGCd: of all rows and slots of the cache. mask: None is zero. With `varlen` q and
        out are of one row of N queries, and the mask is (N, 1, 1, S).
        """
        if self.varlen is None:
            return self._summed(_scores(q_BHTd, keys_BGSd), values_BGCd, mask_B1TS)
        (q_HNd,) = q_BHTd
        q_BHTd = self.varlen.padded(q_HNd.transpose(0, 1)).transpose(1, 2)
        scores_BTHS = _scores(q_BHTd, keys_BGSd).transpose(1, 2)
        scores_NH1S = self.varlen.packed(scores_BTHS)[:, :, None]
        out_NH1d = self._summed(scores_NH1S, values_BGCd, mask_B1TS)
        return out_NH1d.permute(2, 1, 0, 3)

    def _summed(self, scores_BHTS: Tensor, values_BGCd: Tensor, mask_B1TS: Tensor | None) -> Tensor:
        """Return the sums of values with the softmax of scores, which are changed, as weights."""
        B, H, T, _ = scores_BHTS.shape
        table_Xd, places_P, firsts_M = values_BGCd.flatten(0, 2), self.places_P, self.firsts_M
        if mask_B1TS is not None:
            scores_BHTS.add_(mask_B1TS)
        weights_P = scores_BHTS.softmax(-1).view(-1)
        # F.embedding_bag with the mode "sum", without its checks, which take as long as 50 keys.
        out_Md = torch.embedding_bag(table_Xd, places_P, firsts_M, False, 0, False, weights_P)[0]
        return out_Md.view(B, H, T, -1)


def _scores(q_BHTd: Tensor, keys_BGSd: Tensor) -> Tensor:
    """Return the scores q k' / sqrt(d), (B, H, T, S)."""
    B, H, T, d = q_BHTd.shape
    G, S = keys_BGSd.shape[1:3]
    q_XRd = (q_BHTd * d**-0.5).reshape(B * G, H // G * T, d)
    return torch.bmm(q_XRd, keys_BGSd.flatten(0, 1).mT).view(B, H, T, S)


def slot_places(shape: torch.Size, num_heads: int) -> Tensor:
    """Return where each slot that a query head sees lies among all of a cache of (B, G, C, d)
    numbers: int32 (B, H, C).
    """
    B, G, C, _ = shape
    places_BGC = torch.arange(B * G * C, dtype=torch.int32).view(B, G, C)
    return places_BGC.repeat_interleave(num_heads // G, dim=1)
