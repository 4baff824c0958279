"""Sequences and batches of ids that stand for no document, for tests and benchmarks of what reads
them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal.sequence import IGNORE, IMAGE, TEXT, Batch, Sequence
from unimodal.vocabulary import Vocabulary


def modality_of(vocabulary: Vocabulary, labels: np.ndarray) -> np.ndarray:
    """Return what each label is, int8: IMAGE for a code, TEXT for another id, 0 for IGNORE."""
    return np.where(labels == IGNORE, 0, np.where(vocabulary.is_code(labels), IMAGE, TEXT)).astype(
        np.int8
    )


def learned(vocabulary: Vocabulary, ids: np.ndarray) -> Sequence:
    """Return causal tokens of which each predicts the next one, with weight 1."""
    weights = np.append(np.ones(len(ids) - 1, np.float32), np.float32(0))
    labels = np.append(ids[1:], IGNORE)
    return Sequence.causal(ids, labels, weights, modality_of(vocabulary, labels))


def batch_of(vocabulary: Vocabulary, ids: Tensor, labels: Tensor, **more: Tensor) -> Batch:
    """Return a batch of rows that are one causal document each, (B, T).

    Labels weigh 1, all positions ascend from 0, and all is of source 0, unless `more` names another
    tensor of the batch.
    """
    zeros = torch.zeros(ids.shape, dtype=torch.int32)
    arrays = {
        "weights": (labels != IGNORE).float(),
        "modality": torch.from_numpy(modality_of(vocabulary, labels.numpy())),
        "block": zeros,
        "private": zeros,
        "positions": torch.arange(ids.shape[1]).expand(ids.shape).contiguous(),
        "address": torch.zeros((*ids.shape, 2), dtype=torch.int16),
        "doc": zeros,
        "source": zeros.to(torch.int16),
    }
    values: dict[str, Any] = {**arrays, **more}
    return Batch(ids, labels, **values, spans=((),) * len(ids))
