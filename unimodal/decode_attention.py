"""Decode attention is attention of a few queries in each row of a key-value cache, on a CPU.

torch's fused attention is made for many queries: with one it takes several times as long as memory
takes to give the keys and values. Here the scores are a batched matrix product, and the outputs
sums of rows with weights, for which torch has FBGEMM's kernels under the name of bags of
embeddings.

Letters: B rows, H query heads, G key-value heads, X = B * G, T queries, R queries of a key-value
head, M = B * H * T, S slots that are looked at, C slots of a row, N = M * S, d head width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .products import has_fbgemm

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

    places_N: Tensor
    """int32: the places of the slots among all slots of all rows and heads, query by query."""
    firsts_M: Tensor
    """int32: where the places of each query begin in these."""

    @classmethod
    def at(cls, places_BHC: Tensor, num_slots: int, num_queries: int) -> "DecodeAttention":
        """Return that of the first slots of some rows; places_BHC: theirs, of `slot_places`."""
        places_BH1S = places_BHC[:, :, None, :num_slots]
        places_N = places_BH1S.expand(-1, -1, num_queries, -1).reshape(-1)
        firsts_M = torch.arange(0, len(places_N), num_slots, dtype=torch.int32)
        return cls(places_N, firsts_M)

    def __call__(
        self, q_BHTd: Tensor, keys_BGSd: Tensor, values_BGCd: Tensor, mask_B1TS: Tensor | None
    ) -> Tensor:
        """Return softmax(q k' / sqrt(d) + mask) v (arXiv:1706.03762, eq. 1), out_BHTd.

        values_BGCd: of all rows and slots of the cache. mask: None is zero.
        """
        B, H, T, d = q_BHTd.shape
        G, S = keys_BGSd.shape[1:3]
        q_XRd = (q_BHTd * d**-0.5).reshape(B * G, H // G * T, d)
        scores_BHTS = torch.bmm(q_XRd, keys_BGSd.flatten(0, 1).mT).view(B, H, T, S)
        if mask_B1TS is not None:
            scores_BHTS.add_(mask_B1TS)
        weights_N = scores_BHTS.softmax(-1).view(-1)
        # F.embedding_bag with the mode "sum", without its checks, which take as long as 50 keys.
        table_Xd, places_N, firsts_M = values_BGCd.view(-1, d), self.places_N, self.firsts_M
        out_Md = torch.embedding_bag(table_Xd, places_N, firsts_M, False, 0, False, weights_N)[0]
        return out_Md.view(B, H, T, d)


def slot_places(shape: torch.Size, num_heads: int) -> Tensor:
    """Return where each slot that a query head sees lies among all of a cache of (B, G, C, d)
    numbers: int32 (B, H, C).
    """
    B, G, C, _ = shape
    places_BGC = torch.arange(B * G * C, dtype=torch.int32).view(B, G, C)
    return places_BGC.repeat_interleave(num_heads // G, dim=1)
