"""Compute attention within the documents of packed rows, by the rule of `sequence.span_mask`.

Letters: B rows, T tokens, H query heads, G key-value heads, d head width, L tokens of a document, Q
queries and K keys among them, P either with padding, N tokens of all rows end to end.
"""

from collections.abc import Callable, Sequence
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
class _Part:
    """A _Part is the runs of a document that share a private number, and the runs that they see.

    So nothing is computed between pieces that are private, such as replies to one prompt.
    """

    queries: tuple[int, ...]
    """The numbers of the runs."""
    keys: tuple[int, ...]
    mask_QK: Tensor | None
    """Which query sees which key; None where the two are the same tokens, and causal."""

    def bias(self, length: int) -> Tensor:
        """Return the mask of `length` queries as bfloat16 numbers, 0 or -inf, that are added to
        scores, padded to multiples.
        """
        # Queries of padding see all keys: a softmax over none would be 0 / 0.
        if self.mask_QK is None:
            seen = torch.ones(_padded(length), _padded(length), dtype=torch.bool).tril()
        else:
            (num, seen_K), seen = self.mask_QK.shape, self.mask_QK
            seen = F.pad(seen, (0, _padded(seen_K) - seen_K))
            seen = F.pad(seen, (0, 0, 0, _padded(num) - num), value=True)
        return torch.zeros_like(seen, dtype=torch.bfloat16).masked_fill(~seen, -torch.inf)


def _padded(length: int) -> int:
    """Return the next multiple of MULTIPLE."""
    return length + -length % MULTIPLE


@dataclass(frozen=True)
class _Segment:
    """A _Segment is a run of tokens of one document, or of padding, in the flattened rows."""

    lengths: list[int]
    """Of the runs of one private number that it consists of."""
    padding: bool
    parts: list[_Part]

    def num_tokens(self, runs: Sequence[int]) -> int:
        """Return how many tokens some of the runs have."""
        return sum(self.lengths[run] for run in runs)

    @cached_property
    def biases(self) -> list[Tensor]:
        """Return the bias of each part."""
        return [part.bias(self.num_tokens(part.queries)) for part in self.parts]


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
        self.lengths = [sum(segment.lengths) for segment in self.segments]

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
    # In bfloat16 torch's fused attention on the CPU takes twice the time of plain matrix products.
    by_products = q_LHd.dtype == torch.bfloat16 and q_LHd.device.type == "cpu"
    runs = [x.split(segment.lengths) for x in (q_LHd, k_LGd, v_LGd)]
    found: dict[int, Tensor] = {}
    for number, part in enumerate(segment.parts):
        chosen = (part.queries, part.keys, part.keys)
        q_HQd, k_GKd, v_GKd = (
            _joined(of, some).transpose(0, 1) for of, some in zip(runs, chosen, strict=True)
        )
        if by_products:
            out_HQd = _by_products(q_HQd, k_GKd, v_GKd, segment.biases[number])
        else:
            out_HQd = _fused(q_HQd[None], k_GKd[None], v_GKd[None], part.mask_QK)[0]
        outs = out_HQd.transpose(0, 1).split([segment.lengths[run] for run in part.queries])
        found |= zip(part.queries, outs, strict=True)
    return _joined([found[run] for run in range(len(found))], range(len(found)))


def _joined(runs: Sequence[Tensor], some: Sequence[int]) -> Tensor:
    """Return some of the runs end to end."""
    return runs[some[0]] if len(some) == 1 else torch.cat([runs[run] for run in some])


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


def _by_products(q_HQd: Tensor, k_GKd: Tensor, v_GKd: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias) v by two matrix products, out_HQd.

    The bias has room for padding.
    """
    (H, Q, d), (G, K, _), most = q_HQd.shape, k_GKd.shape, bias.shape
    q_HPd = F.pad(q_HQd, (0, 0, 0, most[0] - Q))
    k_GPd, v_GPd = (F.pad(x, (0, 0, 0, most[1] - K)) for x in (k_GKd, v_GKd))
    # The query heads that share a key-value head, end to end, make one product (GQA).
    q_GRd = (q_HPd * d**-0.5).reshape(G, -1, d)
    scores_HPP = torch.bmm(q_GRd, k_GPd.mT).view(H, *most) + bias
    out_GRd = torch.bmm(scores_HPP.softmax(-1).view(G, -1, most[1]), v_GPd)
    return out_GRd.view(H, most[0], d)[:, :Q]


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
            if doc == PADDING or not special_BT[here].any():
                segments.append(_Segment([length], doc == PADDING, [_Part((0,), (0,), None)]))
                continue
            mask_LL = span_mask(doc_BT[here], block_BT[here], private_BT[here])[0]
            private_L = private_BT[here][0].cpu()
            runs = torch.unique_consecutive(private_L, return_counts=True)[1].tolist()
            segments.append(_Segment(runs, False, _parts(private_L, runs, mask_LL)))
    return segments


def _parts(private_L: Tensor, lengths: list[int], mask_LL: Tensor) -> list[_Part]:
    """Return the parts of a document that has runs of such lengths."""
    places = torch.arange(len(private_L)).split(lengths)
    number_of = [int(private_L[place[0]]) for place in places]
    parts = []
    for number in dict.fromkeys(number_of):
        queries = tuple(run for run, one in enumerate(number_of) if one == number)
        mask_QL = mask_LL[torch.cat([places[run] for run in queries])]
        seen_L = mask_QL.any(0).cpu()
        keys = tuple(run for run, place in enumerate(places) if seen_L[place].any())
        mask_QK = mask_QL[:, torch.cat([places[run] for run in keys])]
        causal = queries == keys and mask_QK.equal(torch.ones_like(mask_QK).tril())
        parts.append(_Part(queries, keys, None if causal else mask_QK))
    return parts


def _require_whole(docs: list[int]) -> None:
    """Raise ValueError where a document number comes twice in the runs of a row."""
    documents = [doc for doc in docs if doc != PADDING]
    scattered = sorted({doc for doc in documents if documents.count(doc) > 1})
    if scattered:
        raise ValueError(
            f"documents {scattered} lie in several pieces of one row; "
            "pack a document in one piece, or use DenseAttention(span_mask(...))"
        )
