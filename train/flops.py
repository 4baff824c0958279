"""Arithmetic of a step, for utilisation: attention counted per document.

A multiplication and an addition are two FLOPs. A backward pass costs twice its forward pass;
activations that are computed again are no useful work and are not counted.
"""

from collections.abc import Mapping

import torch

from unimodal.sequence import PADDING, Batch
from unimodal.transformer import TransformerConfig

# Dense bfloat16 products a second, of the makers' data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def document_counts(batch: Batch) -> dict[str, float]:
    """`positions` that belong to documents, and `pairs` of them that see each other: half of each
    document's square (the other half lies in the future).
    """
    positions = pairs = 0.0
    for doc_T in batch.doc:
        lengths = torch.unique_consecutive(doc_T[doc_T != PADDING], return_counts=True)[1].double()
        positions += float(lengths.sum())
        pairs += float((lengths * (lengths + 1)).sum()) / 2
    return {"positions": positions, "pairs": pairs}


def step_flops(
    shape: TransformerConfig, counts: Mapping[str, float], head_ids: Mapping[str, int]
) -> float:
    """FLOPs of forward and backward over a batch.

    counts: `positions`, `pairs`, and `targets_X` for each modality X; head_ids: over how many ids
    the targets of a modality normalise.
    """
    weights = shape.num_layers * layer_weights(shape)
    head = sum(counts[f"targets_{name}"] * ids * shape.width for name, ids in head_ids.items())
    pair = 2 * shape.num_heads * shape.head_width * shape.num_layers  # products, of q k and p v
    return 3 * 2 * (counts["positions"] * weights + head + counts["pairs"] * pair)


def peak_flops() -> float | None:
    """What this process's GPU can do in a second; None for others than PEAKS."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def layer_weights(shape: TransformerConfig) -> int:
    """Weights of one layer's matrices."""
    heads = shape.num_heads * shape.head_width
    projections = 2 * shape.width * (heads + shape.num_kv_heads * shape.head_width)
    return projections + 3 * shape.width * shape.mlp_width
