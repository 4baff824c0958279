"""Compute attention within the documents of packed rows, by the rule of `sequence.span_mask`.

Letters: B rows, T tokens, H query heads, G key-value heads, d head width, L tokens of a document, Q
queries and K keys among them, P and R with padding, n parts of a stack, N tokens of all rows end to
end.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .gather import Gather
from .sequence import PADDING, span_mask

MULTIPLE = 32
"""Parts of documents are padded to multiples of this, so that many have one size."""

PAIRS = 2**20
"""Of a query and a key: as many at most are computed together, which caches hold."""

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
    """A _Part is the tokens of a document that share a private number, and the tokens they see.

    So nothing is computed between pieces that are private, such as replies to one prompt.
    """

    queries_Q: Tensor
    """Their places in the flattened rows."""
    keys_K: Tensor
    mask_QK: Tensor | None
    """Which query sees which key; None where the two are the same tokens, and causal."""

    @property
    def size(self) -> tuple[int, int, bool]:
        """Return what the parts of a stack have in common."""
        return _padded(len(self.queries_Q)), _padded(len(self.keys_K)), self.mask_QK is None


def _padded(length: int) -> int:
    """Return the next multiple of MULTIPLE."""
    return length + -length % MULTIPLE


class _Stack:
    """A _Stack is n parts of one size, whose attention is one product, filled up with padding.

    Padding repeats tokens of the same part: as keys they are seen by no query that counts, and what
    they find as queries is left out. Causal parts need no mask for that, since padding is last.
    """

    def __init__(self, parts: list[_Part], device: torch.device) -> None:
        """Take parts of one size; the mask is put on the device."""
        P, R, causal = parts[0].size
        self.queries_nP = torch.stack([_filled(part.queries_Q, P) for part in parts])
        self.keys_nR = torch.stack([_filled(part.keys_K, R) for part in parts])
        # Which of them are no padding.
        self.is_query_nP = _begun([len(part.queries_Q) for part in parts], P)
        self.is_key_nR = _begun([len(part.keys_K) for part in parts], R)
        self.mask_n1PR: Tensor | None = None
        if not causal:
            # Queries of padding see all keys: a softmax over none would be 0 / 0.
            mask_nPR = torch.ones(len(parts), P, R, dtype=torch.bool, device=device)
            for mask_PR, part in zip(mask_nPR, parts, strict=True):
                assert part.mask_QK is not None
                num, seen = part.mask_QK.shape
                mask_PR[:num] = F.pad(part.mask_QK, (0, R - seen))
            self.mask_n1PR = mask_nPR[:, None]
        self._device = device

    @cached_property
    def bias(self) -> Tensor:
        """Return the mask as bfloat16 numbers, 0 or -inf, that are added to scores: (n or 1, 1, P,
        R)."""
        if (seen := self.mask_n1PR) is None:
            P, R = self.queries_nP.shape[1], self.keys_nR.shape[1]
            seen = torch.ones(1, 1, P, R, dtype=torch.bool, device=self._device).tril()
        return torch.zeros_like(seen, dtype=torch.bfloat16).masked_fill(~seen, -torch.inf)

    def __call__(self, q_Md: Tensor, k_Kd: Tensor, v_Kd: Tensor) -> Tensor:
        """Return the attention of the queries, out_Md; M is n H P, K is n G R."""
        (n, P), R, d = self.queries_nP.shape, self.keys_nR.shape[1], q_Md.shape[-1]
        q_nHPd = q_Md.view(n, -1, P, d)
        k_nGRd, v_nGRd = k_Kd.view(n, -1, R, d), v_Kd.view(n, -1, R, d)
        # In bfloat16 torch's fused attention on the CPU takes twice the time of plain products.
        if q_Md.dtype == torch.bfloat16 and q_Md.device.type == "cpu":
            out_nHPd = _by_products(q_nHPd, k_nGRd, v_nGRd, self.bias)
        else:
            out_nHPd = _fused(q_nHPd, k_nGRd, v_nGRd, self.mask_n1PR)
        return out_nHPd.reshape(-1, d)


def _filled(places: Tensor, length: int) -> Tensor:
    """Return the places, and the first of them again and again up to a length."""
    return torch.cat((places, places[:1].expand(length - len(places))))


def _begun(lengths: list[int], length: int) -> Tensor:
    """Return which numbers below `length` are below those given, bool (n, length)."""
    return torch.arange(length) < torch.tensor(lengths)[:, None]


class PackedAttention:
    """PackedAttention computes attention in packed rows, within documents alone.

    Documents of about one length are computed together. Which, and their masks, are found once for
    a batch, on the CPU, and used by all layers.
    """

    def __init__(self, doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> None:
        """Find the documents; arguments are those of `span_mask`.

        Raise ValueError where a document lies in several pieces of a row.
        """
        self._device, self._shape = doc_BT.device, doc_BT.shape
        stacks = _alike(_parts(doc_BT.cpu(), block_BT.cpu(), private_BT.cpu()))
        self.stacks = [_Stack(parts, self._device) for parts in stacks]
        self._alone_M = (doc_BT.cpu() == PADDING).flatten().nonzero()[:, 0]
        self._gathers: dict[tuple[str, int, bool], Gather] = {}

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return attention within each document, out_BHTd."""
        B, H, T, d = q_BHTd.shape
        G = k_BGTd.shape[1]
        if not self.stacks:
            # A rank whose rows are all padding needs gradients too, of zero: the other ranks wait
            # for them in the reduction.
            return _alone(v_BGTd, H) + (q_BHTd[:0].sum() + k_BGTd[:0].sum())
        q_Md, k_Kd, v_Kd = (
            self._taken(kind, x) for kind, x in (("q", q_BHTd), ("k", k_BGTd), ("v", v_BGTd))
        )
        num_q = [stack.queries_nP.numel() * H for stack in self.stacks]
        num_k = [stack.keys_nR.numel() * G for stack in self.stacks]
        num_alone = len(self._alone_M)
        # Values have a tail beside those of the stacks: of tokens that see only themselves.
        pieces = q_Md.split(num_q), k_Kd.split(num_k), v_Kd.split([*num_k, num_alone * G])
        outs = [stack(*some) for stack, *some in zip(self.stacks, *pieces, strict=False)]
        if num_alone:
            outs.append(_alone(pieces[2][-1].view(num_alone, G, d), H).flatten(0, 1))
        out_Ld = self._gather("out", H, False)(torch.cat(outs))
        return out_Ld.view(B, T, H, d).transpose(1, 2)

    def _taken(self, kind: str, x_BHTd: Tensor) -> Tensor:
        """Return the vectors of all stacks, head by head, as they lie in memory."""
        heads_first = x_BHTd.is_contiguous()
        x = x_BHTd if heads_first else x_BHTd.transpose(1, 2)
        return self._gather(kind, x_BHTd.shape[1], heads_first)(x.reshape(-1, x.shape[-1]))

    def _gather(self, kind: str, num_heads: int, heads_first: bool) -> Gather:
        key = kind, num_heads, heads_first
        if key not in self._gathers:
            self._gathers[key] = self._found(*key).to(self._device)
        return self._gathers[key]

    def _found(self, kind: str, num_heads: int, heads_first: bool) -> Gather:
        """Return the gather of queries, keys or values, or of what is found for the queries."""
        is_key = kind in ("k", "v")
        tokens = [stack.keys_nR if is_key else stack.queries_nP for stack in self.stacks]
        counts = [stack.is_key_nR if is_key else stack.is_query_nP for stack in self.stacks]
        if kind in ("v", "out"):
            tokens.append(self._alone_M[:, None])
            counts.append(torch.ones_like(tokens[-1], dtype=torch.bool))
        B, T = self._shape
        heads = torch.arange(num_heads)[:, None]
        places_M = torch.cat([_places(one, heads, T, heads_first) for one in tokens])
        counts_M = torch.cat([one[:, None].expand(-1, num_heads, -1).flatten() for one in counts])
        found = Gather.of(places_M, counts_M, B * T * num_heads)
        return found.reversed() if kind == "out" else found


def _alone(v_XGX: Tensor, num_heads: int) -> Tensor:
    """Return the attention of tokens that see only themselves: the softmax over one key is 1."""
    return v_XGX.repeat_interleave(num_heads // v_XGX.shape[1], dim=1)


def _places(tokens_nP: Tensor, heads_H1: Tensor, T: int, heads_first: bool) -> Tensor:
    """Return where the heads' vectors of tokens lie among all of B rows, int64 (n H P,)."""
    tokens_n1P, num = tokens_nP[:, None], len(heads_H1)
    if heads_first:
        places_nHP = (tokens_n1P // T * num + heads_H1) * T + tokens_n1P % T
    else:
        places_nHP = tokens_n1P * num + heads_H1
    return places_nHP.flatten()


def _alike(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Yield the parts of each size, as many at a time as have PAIRS scores."""
    by_size: dict[tuple[int, int, bool], list[_Part]] = {}
    for part in parts:
        by_size.setdefault(part.size, []).append(part)
    for (P, R, _), some in sorted(by_size.items(), key=itemgetter(0)):
        most = max(1, PAIRS // (P * R))
        yield from (some[start : start + most] for start in range(0, len(some), most))


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


def _by_products(q_nHPd: Tensor, k_nGRd: Tensor, v_nGRd: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias) v by two matrix products, out_nHPd."""
    (n, H, P, d), (_, G, R, _) = q_nHPd.shape, k_nGRd.shape
    # The query heads that share a key-value head, end to end, make one product (GQA).
    q_NQd = (q_nHPd * d**-0.5).view(n * G, -1, d)
    # Under autocast keys or values may be of another dtype than queries.
    k_NRd, v_NRd = (x.to(q_NQd.dtype).view(n * G, R, d) for x in (k_nGRd, v_nGRd))
    out_NQd: Tensor = _Products.apply(q_NQd, k_NRd, v_NRd, bias, (n, H, P, R))
    return out_NQd.view(n, H, P, d)


class _Products(torch.autograd.Function):
    """softmax(q k' + bias) v with nothing kept but the softmax, and no sum that is copied."""

    @staticmethod
    def forward(context, q_NQd, k_NRd, v_NRd, bias, shape):  # noqa: ANN001, ANN205
        scores_NQR = torch.bmm(q_NQd, k_NRd.mT)
        scores_NQR.view(shape).add_(bias)
        p_NQR = scores_NQR.softmax(-1)
        context.save_for_backward(q_NQd, k_NRd, v_NRd, p_NQR)
        return torch.bmm(p_NQR, v_NRd)

    @staticmethod
    @once_differentiable
    def backward(context, grad_NQd: Tensor):  # noqa: ANN001, ANN205
        q_NQd, k_NRd, v_NRd, p_NQR = context.saved_tensors
        d_p_NQR = torch.bmm(grad_NQd, v_NRd.mT)
        d_scores_NQR = torch._softmax_backward_data(d_p_NQR, p_NQR, -1, p_NQR.dtype)
        return (
            torch.bmm(d_scores_NQR, k_NRd),
            torch.bmm(d_scores_NQR.mT, q_NQd),
            torch.bmm(p_NQR.mT, grad_NQd),
            None,
            None,
        )


def _parts(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> Iterator[_Part]:
    """Yield the parts of all documents; the rows lie end to end."""
    special_BT = (block_BT > 0) | (private_BT > 0)
    for row, docs_T in enumerate(doc_BT):
        values, lengths = (x.tolist() for x in torch.unique_consecutive(docs_T, return_counts=True))
        _require_whole(values)
        stop = 0
        for doc, length in zip(values, lengths, strict=True):
            start, stop = stop, stop + length
            here = (slice(row, row + 1), slice(start, stop))
            places_L = torch.arange(start, stop) + row * len(docs_T)
            if doc == PADDING:
                continue
            if special_BT[here].any():
                mask_LL = span_mask(doc_BT[here], block_BT[here], private_BT[here])[0]
                yield from _pieces(places_L, private_BT[here][0], mask_LL)
            else:
                yield _Part(places_L, places_L, None)


def _pieces(places_L: Tensor, private_L: Tensor, mask_LL: Tensor) -> Iterator[_Part]:
    """Yield the parts of a document that has blocks or private tokens."""
    for number in torch.unique(private_L):
        mine_L = private_L == number
        mask_QL = mask_LL[mine_L]
        seen_L = mask_QL.any(0)
        mask_QK = mask_QL[:, seen_L]
        causal = mine_L.equal(seen_L) and mask_QK.equal(torch.ones_like(mask_QK).tril())
        yield _Part(places_L[mine_L], places_L[seen_L], None if causal else mask_QK)


def _require_whole(docs: list[int]) -> None:
    """Raise ValueError where a document number comes twice in the runs of a row."""
    documents = [doc for doc in docs if doc != PADDING]
    scattered = sorted({doc for doc in documents if documents.count(doc) > 1})
    if scattered:
        raise ValueError(
            f"documents {scattered} lie in several pieces of one row; "
            "pack a document in one piece, or use DenseAttention(span_mask(...))"
        )
