"""Count the arithmetic of a step, for utilisation; attention is counted per document.

As Chowdhery et al. do (PaLM, arXiv:2204.02311, appendix B): a multiplication and an addition are
two FLOPs, and a backward pass costs twice its forward pass, so a step takes 6 FLOPs for each weight
and token, and 12 L H Q for each pair of tokens that see each other. Activations that are
computed again are no useful work and are not counted.
"""

from collections.abc import Mapping

import torch

from unimodal.sequence import PADDING, Batch
from unimodal.transformer import TransformerConfig

# Dense bfloat16 products a second, of the makers' data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def document_counts(batch: Batch) -> dict[str, float]:
    """Return `tokens`, those that belong to documents, and `pairs` of them that see each other:
    half of each document's square, its diagonal included, for the other half lies in the future.
    """
    tokens = pairs = 0.0
    for doc_T in batch.doc:
        lengths = torch.unique_consecutive(doc_T[doc_T != PADDING], return_counts=True)[1].double()
        tokens += float(lengths.sum())
        pairs += float((lengths * (lengths + 1)).sum()) / 2
    return {"tokens": tokens, "pairs": pairs}


def step_flops(
    shape: TransformerConfig, counts: Mapping[str, float], head_ids: Mapping[str, int]
) -> float:
    """Return the FLOPs of forward and backward over a batch.

    `counts` has `tokens`, `pairs`, and `targets_X` for each modality X; `head_ids` has over how
    many ids the targets of a modality normalise.
    """
    weights = shape.num_layers * layer_weights(shape)
    head = sum(counts[f"targets_{name}"] * ids * shape.width for name, ids in head_ids.items())
    pair = 2 * shape.num_heads * shape.head_width * shape.num_layers  # products, of q k and p v
    return 3 * 2 * (counts["tokens"] * weights + head + counts["pairs"] * pair)


def peak_flops() -> float | None:
    """Return what this process's GPU can do in a second, in FLOPs; None for others than PEAKS."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def layer_weights(shape: TransformerConfig) -> int:
    """Return how many weights the matrices of one layer have."""
    heads = shape.num_heads * shape.head_width
    projections = 2 * shape.width * (heads + shape.num_kv_heads * shape.head_width)
    return projections + 3 * shape.width * shape.mlp_width
