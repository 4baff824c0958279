"""Count the arithmetic of a step: of the tokens of documents, and of the pairs that attend.

As Chowdhery et al. do (PaLM, arXiv:2204.02311, appendix B): a multiplication and an addition are
two FLOPs, and a backward pass costs twice its forward pass, so a step takes 6 FLOPs for each weight
and token, and 12 L H Q for each query and key that it sees, be they of a noised copy or of a clean
one. Activations that are computed again are no useful work and are not counted.
"""

from collections.abc import Mapping

import torch

from unimodal.sequence import PADDING, Batch, span_mask
from unimodal.transformer import TransformerConfig

# Dense bfloat16 products a second, of the makers' data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def document_counts(batch: Batch) -> dict[str, float]:
    """Return `tokens`, those that belong to documents, and `pairs`, each a query and a key among
    them that it sees: of causal tokens half of a document's square, the diagonal included; more
    where blocks see both ways, fewer where copies are private.
    """
    marks_BT3 = torch.stack((batch.doc, batch.block, batch.private), dim=2)
    rows = _runs(marks_BT3)
    return {
        "tokens": float(sum(lengths_R.sum() for _, lengths_R in rows)),
        "pairs": sum(_pairs(runs_R3, lengths_R) for runs_R3, lengths_R in rows),
    }


def _runs(marks_BT3: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return for each row the marks of its runs, neighbours of equal `doc`, `block` and `private`,
    and their lengths; padding is left out.
    """
    # All rows at once, and not by torch.unique_consecutive, which compares slice by slice along a
    # dimension: milliseconds a row, in which a GPU has nothing to do.
    begins_BT = torch.ones(marks_BT3.shape[:2], dtype=torch.bool, device=marks_BT3.device)
    begins_BT[:, 1:] = (marks_BT3[:, 1:] != marks_BT3[:, :-1]).any(2)
    at_R = begins_BT.flatten().nonzero()[:, 0]
    lengths_R = torch.diff(at_R, append=at_R.new_tensor([begins_BT.numel()])).double()
    runs_R3 = marks_BT3.flatten(0, 1)[at_R]
    kept_R = runs_R3[:, 0] != PADDING
    row_R = at_R[kept_R] // marks_BT3.shape[1]
    counts = torch.bincount(row_R, minlength=len(marks_BT3)).tolist()
    return list(zip(runs_R3[kept_R].split(counts), lengths_R[kept_R].split(counts), strict=True))


def _pairs(runs_R3: torch.Tensor, lengths_R: torch.Tensor) -> float:
    """Return how many keys all queries of a row's runs see together.

    Runs see each other as tokens do, all of one all of another; within a run that is no block only
    the past is seen.
    """
    doc_1R, block_1R, private_1R = runs_R3.T[:, None]
    sees_RR = span_mask(doc_1R, block_1R, private_1R)[0].double()
    future_R = lengths_R * (lengths_R - 1) / 2 * (block_1R[0] == 0)
    return float(lengths_R @ sees_RR @ lengths_R - future_R.sum())


def step_flops(
    shape: TransformerConfig, counts: Mapping[str, float], head_ids: Mapping[str, int]
) -> float:
    """Return the FLOPs of forward and backward over a batch.

    `counts` has `tokens`, `pairs`, `targets_X` for each modality X, and `embedder` for an image
    embedder that multiplies (`ImageEmbedder.products`); `head_ids` has over how many ids the
    targets of a modality normalise.
    """
    weights = sum(layer_weights(shape, number) for number in range(shape.num_layers))
    head = sum(counts[f"targets_{name}"] * ids * shape.width for name, ids in head_ids.items())
    pair = 2 * shape.num_heads * shape.head_width * shape.num_layers  # products, of q k and p v
    embedder = counts.get("embedder", 0)
    return 3 * 2 * (counts["tokens"] * weights + head + counts["pairs"] * pair + embedder)


def peak_flops() -> float | None:
    """Return what this process's GPU can do in a second, in FLOPs; None for others than PEAKS."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def layer_weights(shape: TransformerConfig, number: int = 0) -> int:
    """Return how many weights of the matrices of a layer, by its number, a token meets: of experts
    those that it chooses.
    """
    heads, experts = shape.num_heads * shape.head_width, shape.experts
    projections = 2 * shape.width * (heads + shape.num_kv_heads * shape.head_width)
    if experts is None or number in experts.dense_layers:
        return projections + 3 * shape.width * shape.mlp_width
    mlps = 3 * shape.width * experts.mlp_width * experts.chosen
    return projections + mlps + shape.width * experts.number
