"""Arithmetic of a step, for utilisation and for comparing rows: attention counted per document."""

from unimodal.transformer import TransformerConfig


def pair_cost(shape: TransformerConfig) -> float:
    """FLOPs of a pair of positions of one document over those of a position.

    A position costs 2 FLOPs a weight of the layers and the head. A pair costs 4 FLOPs a channel of
    every head and layer (its score, and its part of the sum) and half of the pairs are in the past.
    """
    heads = shape.num_heads * shape.head_width
    projections = 2 * shape.width * (heads + shape.num_kv_heads * shape.head_width)
    layer = projections + 3 * shape.width * shape.mlp_width
    weights = shape.num_layers * layer + shape.width * shape.num_ids
    return 2 * heads * shape.num_layers / (2 * weights)
