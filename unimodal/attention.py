"""Compute attention within the documents of packed rows, by the rule of `sequence.span_mask`.

Letters: B rows, T tokens, H query heads, G key-value heads, d head width, L tokens of a document, P
the same with padding, N tokens of all rows end to end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .sequence import PADDING, span_mask

MULTIPLE = 64
"""Documents are padded to multiples of this where products are compiled for each shape."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""An attention function: (layer, q_BHTd, k_BGTd, v_BGTd) -> out_BHTd. Queries and keys are rotated
already (RoPE), and G divides H."""


class DenseAttention:
    """DenseAttention computes attention under any mask, at a cost of T x T: the tests' oracle."""

    def __init__(self, mask_BTT: Tensor) -> None:
        """Take the mask: bool (B, query T, key T); every query must see at least one key."""
        self.mask_B1TT = mask_BTT[:, None]

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return softmax attention under the mask, out_BHTd."""
        return _fused(q_BHTd, k_BGTd, v_BGTd, self.mask_B1TT)


@dataclass(frozen=True)
class _Segment:
    """A _Segment is a run of tokens of one document, or of padding, in the flattened rows."""

    length: int
    padding: bool
    mask_LL: Tensor | None
    """The mask within the document; None where it is the causal one."""

    @cached_property
    def bias_PP(self) -> Tensor:
        """Return the mask as bfloat16 numbers, 0 or -inf, that are added to scores."""
        # Queries of padding see all keys: a softmax over none would be 0 / 0.
        pad = -self.length % MULTIPLE
        if self.mask_LL is None:
            seen_PP = torch.ones(self.length + pad, self.length + pad, dtype=torch.bool).tril()
        else:
            seen_PP = F.pad(F.pad(self.mask_LL, (0, pad)), (0, 0, 0, pad), value=True)
        return torch.zeros_like(seen_PP, dtype=torch.bfloat16).masked_fill(~seen_PP, -torch.inf)


class PackedAttention:
    """PackedAttention computes attention in packed rows, one document at a time.

    So no work is done between documents. Bounds and masks are found once for a batch, on the CPU,
    and used by all layers.
    """

    def __init__(self, doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> None:
        """Find the documents; arguments are those of `span_mask`.

        Raise ValueError where a document lies in several pieces of a row.
        """
        self.segments = _segments(doc_BT, block_BT, private_BT)
        self.lengths = [segment.length for segment in self.segments]

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return attention within each document, out_BHTd."""
        B, H, T, d = q_BHTd.shape
        # One split (and its one concatenation in the backward pass) instead of many slices,
        # whose gradients would each fill a whole batch with zeros.
        qkv = (self._split(x) for x in (q_BHTd, k_BGTd, v_BGTd))
        pieces = zip(self.segments, *qkv, strict=True)
        out_NHd = torch.cat([_within(segment, q, k, v) for segment, q, k, v in pieces])
        if all(segment.padding for segment in self.segments):
            # A rank whose rows are all padding needs gradients too, of zero: the other ranks wait
            # for them in the reduction.
            out_NHd = out_NHd + (q_BHTd[:0].sum() + k_BGTd[:0].sum())
        return out_NHd.view(B, T, H, d).transpose(1, 2)

    def _split(self, x_BHTd: Tensor) -> tuple[Tensor, ...]:
        """Return the rows end to end, cut into segments of (L, H, d)."""
        return x_BHTd.transpose(1, 2).flatten(0, 1).split(self.lengths)


def _within(segment: _Segment, q_LHd: Tensor, k_LGd: Tensor, v_LGd: Tensor) -> Tensor:
    """Return the attention within one segment, out_LHd."""
    if segment.padding:  # each token sees only itself, and the softmax over one key is 1
        return v_LGd.repeat_interleave(q_LHd.shape[1] // v_LGd.shape[1], dim=1)
    q_HLd, k_GLd, v_GLd = (x_LHd.transpose(0, 1) for x_LHd in (q_LHd, k_LGd, v_LGd))
    # In bfloat16 torch's fused attention on the CPU takes twice the time of plain matrix products.
    if q_HLd.dtype == torch.bfloat16 and q_HLd.device.type == "cpu":
        return _by_products(q_HLd, k_GLd, v_GLd, segment.bias_PP).transpose(0, 1)
    out_1HLd = _fused(q_HLd[None], k_GLd[None], v_GLd[None], segment.mask_LL)
    return out_1HLd[0].transpose(0, 1)


def _fused(q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v (arXiv:1706.03762, eq. 1) by torch's kernels.

    The mask is causal where `mask` is None.
    """
    return F.scaled_dot_product_attention(
        q_BHTd,
        k_BGTd,
        v_BGTd,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q_BHTd.shape[1] != k_BGTd.shape[1],
    )


def _by_products(q_HLd: Tensor, k_GLd: Tensor, v_GLd: Tensor, bias_PP: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias) v by two matrix products, out_HLd."""
    (H, L, d), G, P = q_HLd.shape, len(k_GLd), len(bias_PP)
    q_HPd, k_GPd, v_GPd = (F.pad(x, (0, 0, 0, P - L)) for x in (q_HLd, k_GLd, v_GLd))
    # The query heads that share a key-value head, end to end, make one product (GQA).
    q_GRd = (q_HPd * d**-0.5).reshape(G, -1, d)
    scores_HPP = torch.bmm(q_GRd, k_GPd.mT).view(H, P, P) + bias_PP
    out_GRd = torch.bmm(scores_HPP.softmax(-1).view(G, -1, P), v_GPd)
    return out_GRd.view(H, P, d)[:, :L]


def _segments(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> list[_Segment]:
    """Return the segments of the rows end to end; masks are on the device of doc_BT."""
    special_BT = ((block_BT > 0) | (private_BT > 0)).cpu()
    segments = []
    for row, docs_T in enumerate(doc_BT.cpu()):
        values, lengths = (x.tolist() for x in torch.unique_consecutive(docs_T, return_counts=True))
        _require_whole(values)
        stop = 0
        for doc, length in zip(values, lengths, strict=True):
            start, stop = stop, stop + length
            here = (slice(row, row + 1), slice(start, stop))
            mask_LL = None
            if doc != PADDING and special_BT[here].any():
                mask_LL = span_mask(doc_BT[here], block_BT[here], private_BT[here])[0]
            segments.append(_Segment(length, doc == PADDING, mask_LL))
    return segments


def _require_whole(docs: list[int]) -> None:
    """Raise ValueError where a document number comes twice in the runs of a row."""
    documents = [doc for doc in docs if doc != PADDING]
    scattered = sorted({doc for doc in documents if documents.count(doc) > 1})
    if scattered:
        raise ValueError(
            f"documents {scattered} lie in several pieces of one row; "
            "pack a document in one piece, or use DenseAttention(span_mask(...))"
        )
