"""Choose the kernels that compute attention in packed rows, by the rule of `sequence.span_mask`.

In: the document, block and private number of each token of a batch. Out: an `Attend` for all
layers, whose bounds or masks are made once.

    flash   flash-attn's variable-length kernels: causal rows on a GPU, in half precision
    flex    torch's FlexAttention: any rows on a GPU
    sdpa    torch's scaled_dot_product_attention, documents of like lengths together: any rows

Letters: B rows, T tokens, H query heads, G key-value heads, d head width, N tokens of all rows end
to end; I tiles of TILE queries or keys in a row.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .attention import Attend, PackedAttention
from .sequence import PADDING

Kernel = Literal["auto", "flash", "flex", "sdpa"]
TILE = 128  # FlexAttention's default block size
HALF = (torch.float16, torch.bfloat16)


def attention(
    doc_BT: Tensor,
    block_BT: Tensor,
    private_BT: Tensor,
    kind: Kernel = "auto",
    dtype: torch.dtype = torch.float32,
) -> Attend:
    """Return the attention function of these rows, on their device.

    The first arguments are those of `span_mask`; dtype is that of queries and keys. "auto" takes
    the first kind in the list above that can be used on a GPU, and sdpa elsewhere; raise ValueError
    where another kind cannot be used.
    """
    causal = not bool(((block_BT > 0) | (private_BT > 0)).any())
    if kind == "auto":
        # Without a GPU flex would serve passes without gradients alone, and those only where a C++
        # compiler is installed, which compiles it for seconds.
        kinds: tuple[Kernel, ...] = ("flash", "flex", "sdpa")
        kind = next(one for one in (kinds if doc_BT.is_cuda else ("sdpa",))
                    if why_unavailable(one, doc_BT.device, dtype, causal) is None)  # fmt: skip
    if problem := why_unavailable(kind, doc_BT.device, dtype, causal):
        raise ValueError(f"attention {kind}: {problem}")
    if kind == "flash":
        return FlashAttention(doc_BT)
    if kind == "flex":
        return FlexAttention(doc_BT, block_BT, private_BT)
    return UncompiledAttention(doc_BT, block_BT, private_BT)


def why_unavailable(
    kind: Kernel, device: torch.device, dtype: torch.dtype, causal: bool = True
) -> str | None:
    """Return why a kind cannot be used, and the way out; None where it can be used."""
    if kind == "flash":
        if find_spec("flash_attn") is None:
            return "flash-attn is not installed; pip install flash-attn, or take auto"
        if device.type != "cuda":
            return f"needs a GPU, and the rows lie on {device}; take auto"
        if dtype not in HALF:
            return f"has no {dtype}; train in bf16, or take auto"
        if not causal:
            return "causal rows only, and these have bidirectional or private spans; take auto"
    if kind == "flex" and device.type != "cuda" and torch.is_grad_enabled():
        return f"has no backward pass without a GPU, and the rows lie on {device}; take auto"
    return None


class UncompiledAttention(PackedAttention):
    """UncompiledAttention is PackedAttention outside compiled graphs.

    The lengths of documents change with every batch, and each would be compiled anew.
    """

    @torch.compiler.disable
    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return attention within each document, out_BHTd."""
        return super().__call__(layer, q_BHTd, k_BGTd, v_BGTd)


class FlashAttention:
    """FlashAttention calls flash-attn (arXiv:2307.08691) on all rows, cut into documents."""

    def __init__(self, doc_BT: Tensor) -> None:
        """Find where documents begin; all tokens are taken to be causal.

        Raise ValueError where a document lies in several pieces of a row.
        """
        begins_N = _begins(doc_BT).flatten()
        ends = torch.tensor([begins_N.numel()], device=doc_BT.device)
        self.bounds = torch.cat([begins_N.nonzero()[:, 0], ends]).to(torch.int32)
        self.longest = int(self.bounds.diff().max())

    @torch.compiler.disable
    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return attention within each document, out_BHTd."""
        from flash_attn import flash_attn_varlen_func

        B, _, T, _ = q_BHTd.shape
        q_NHd, k_NGd, v_NGd = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTd, k_BGTd, v_BGTd))
        bounds, longest = self.bounds, self.longest
        out_NHd = flash_attn_varlen_func(
            q_NHd, k_NGd, v_NGd, bounds, bounds, longest, longest, causal=True
        )
        return out_NHd.unflatten(0, (B, T)).transpose(1, 2)


class FlexAttention:
    """FlexAttention calls torch's FlexAttention (arXiv:2412.05496) and skips tiles nobody sees."""

    def __init__(self, doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> None:
        """Make the mask; arguments are those of `span_mask`.

        Raise ValueError where a document lies in several pieces of a row.
        """
        self.mask = block_mask(doc_BT, block_BT, private_BT)
        self._attend = _compiled()  # here, for a compiled layer cannot look into a cache

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Return attention under the mask, out_BHTd."""
        gqa = q_BHTd.shape[1] != k_BGTd.shape[1]
        return self._attend(q_BHTd, k_BGTd, v_BGTd, block_mask=self.mask, enable_gqa=gqa)


@cache
def _compiled() -> Callable[..., Tensor]:
    """Return FlexAttention compiled; without compilation it materialises all T x T scores.

    It is compiled at its first use, for importing the compiler takes seconds.
    """
    return torch.compile(flex_attention, dynamic=False)


def block_mask(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> BlockMask:
    """Return the rule of `span_mask` as a BlockMask of tiles, without looking at T x T pairs.

    Each pair of a query tile and a key tile is skipped, partial (the rule is applied to each pair
    of tokens) or full (no rule is applied). The kinds follow from bounds of each tile:

    - A query tile sees keys from the start of its first document to its last query, or to the end
      of a bidirectional block of its queries, if that is later. Other key tiles are skipped.
    - A pair is full where both tiles lie in one document, the keys come before the queries or both
      lie in one block, and the keys are all public or all of the queries' private number.

    Raise ValueError where a document lies in several pieces of a row.
    """
    begins_BT = _begins(doc_BT)
    run_BT = begins_BT.cumsum(-1)  # numbers documents in order; each token of padding has its own
    block_BT, private_BT = block_BT.long(), private_BT.long()

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        # span_mask for one pair of tokens.
        shared = (block_BT[b, q] == block_BT[b, k]) & (block_BT[b, q] > 0)
        may = (private_BT[b, k] == 0) | (private_BT[b, k] == private_BT[b, q])
        rule = ((k <= q) | shared) & may
        return (run_BT[b, q] == run_BT[b, k]) & (rule | (q == k))

    T = doc_BT.shape[1]
    at_T = torch.arange(T, device=doc_BT.device)
    start_BT = torch.where(begins_BT, at_T, 0).cummax(-1).values
    # Each query tile sees the key tiles from lowest to highest; the others are skipped.
    lowest_BI = -_largest(-start_BT) // TILE
    highest_BI = _largest(_reach(run_BT, block_BT)) // TILE
    number_I = torch.arange(lowest_BI.shape[1], device=doc_BT.device)
    seen_BII = (number_I >= lowest_BI[..., None]) & (number_I <= highest_BI[..., None])
    one_run_BI, run_BI = _constant(run_BT)
    one_block_BI, block_BI = _constant(block_BT)
    one_private_BI, private_BI = _constant(private_BT)
    public_BI = private_BI == 0  # private_BI is the largest number in the tile
    same_run_BII = _equal(one_run_BI, run_BI)
    past_BII = number_I < number_I[:, None]  # on the diagonal, some keys come after a query
    shared_BII = _equal(one_block_BI & (block_BI > 0), block_BI)
    may_BII = public_BI[:, None, :] | _equal(one_private_BI, private_BI)
    full_BII = same_run_BII & (past_BII | shared_BII) & may_BII
    return BlockMask.from_kv_blocks(
        *_listed(seen_BII & ~full_BII), *_listed(full_BII), TILE, sees, (T, T)
    )


def _begins(doc_BT: Tensor) -> Tensor:
    """Return where a document begins or a token is padding, bool; a row's first token is one.

    Raise ValueError where a document lies in several pieces of a row.
    """
    changes_BT = F.pad(doc_BT[:, 1:] != doc_BT[:, :-1], (1, 0), value=True)
    sorted_BT = doc_BT.sort(-1).values
    distinct_B = (sorted_BT[:, 1:] != sorted_BT[:, :-1]).sum(-1) + 1
    pieces_B = (changes_BT & (doc_BT != PADDING)).sum(-1)
    if bool((pieces_B > distinct_B - (doc_BT == PADDING).any(-1).long()).any()):
        raise ValueError("a document lies in several pieces of one row; pack it in one piece")
    return changes_BT | (doc_BT == PADDING)


def _reach(run_BT: Tensor, block_BT: Tensor) -> Tensor:
    """Return the index of the last token that each token may see, int64 (B, T).

    It is the token itself, or the last one of its bidirectional block.
    """
    B, T = run_BT.shape
    at_BT = torch.arange(T, device=run_BT.device).expand(B, T)
    most = int(block_BT.max()) + 1 if block_BT.numel() else 1
    if most == 1:
        return at_BT
    # One number for each (row, document, block), then the largest index with that number.
    span_BT = run_BT * most + block_BT
    _, name_BT = torch.unique(
        span_BT + torch.arange(B, device=run_BT.device)[:, None] * (T + 1) * most,
        return_inverse=True,
    )
    last = at_BT.new_zeros(int(name_BT.max()) + 1)
    last.scatter_reduce_(0, name_BT.flatten(), at_BT.flatten(), "amax")
    return torch.where(block_BT > 0, last[name_BT], at_BT)


def _tiled(x_BT: Tensor) -> Tensor:
    """Return x cut into tiles, (B, I, TILE), the last one padded with the smallest number."""
    low = torch.iinfo(x_BT.dtype).min
    return F.pad(x_BT, (0, -x_BT.shape[1] % TILE), value=low).unflatten(-1, (-1, TILE))


def _largest(x_BT: Tensor) -> Tensor:
    """Return the largest number in each tile, (B, I)."""
    return _tiled(x_BT).amax(-1)


def _constant(x_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether each tile holds a single value, and its largest value, (B, I) each.

    A tile with padding holds several values, and is never full.
    """
    largest_BI = _largest(x_BT)
    return _tiled(x_BT).amin(-1) == largest_BI, largest_BI


def _equal(one_BI: Tensor, value_BI: Tensor) -> Tensor:
    """Return where both tiles hold a single value, and the same one: bool (B, query I, key I)."""
    both_BII = one_BI[:, :, None] & one_BI[:, None, :]
    return both_BII & (value_BI[:, :, None] == value_BI[:, None, :])


def _listed(chosen_BII: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many key tiles each query tile has, and the tiles' numbers, these first.

    Both have the form that BlockMask.from_kv_blocks takes: int32 (B, 1, I) and (B, 1, I, I).
    """
    numbers_BII = chosen_BII.to(torch.int8).argsort(stable=True, descending=True)
    return chosen_BII.sum(-1)[:, None].int(), numbers_BII[:, None].int()
