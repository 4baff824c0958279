"""The codes that an edit changes count more than those that it copies.

Most codes of an edited image are those of the image before: copying them is learned first, and the
mean loss tells little of the rest (UniWorld-V1, arXiv:2506.03147, weighs edited regions more).
"""

from dataclasses import replace

import numpy as np

from unimodal.sequence import Sequence, Span
from unimodal.vocabulary import Vocabulary

from .code_noise import learned_codes


def weighed(sequence: Sequence, vocabulary: Vocabulary, by: float) -> Sequence:
    """Return the sequence with the weight of each code multiplied by `by` that is learned and is
    another one than that in its place of the latest image of the same grid before it. Images
    without one before them stay as they are.
    """
    weights, is_learned_n = sequence.weights.copy(), learned_codes(sequence, vocabulary)
    latest: dict[object, np.ndarray] = {}
    for span in sequence.spans:
        at_n = _code_places(span, sequence.ids, vocabulary)
        if not len(at_n):  # an image that a vision tower alone sees has no codes
            continue
        before_n = latest.get(span.grid)
        if before_n is not None:
            is_changed_n = sequence.ids[at_n] != before_n
            weights[at_n[is_changed_n & is_learned_n[at_n]] - 1] *= by
        latest[span.grid] = sequence.ids[at_n]
    return replace(sequence, weights=weights)


def _code_places(span: Span, ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return which tokens of a span are codes, without the ends of rows between them."""
    return span.start + np.flatnonzero(vocabulary.is_code(ids[span.start : span.stop]))
