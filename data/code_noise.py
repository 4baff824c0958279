"""Some of the codes of an image that is learned enter as other codes; what they predict stays.

A model that reads its own codes while it draws meets codes that it has never read in training: a
few wrong ones teach it to go on from them (noisy contexts of autoregressive image models: xAR,
arXiv:2502.20388).
"""

from dataclasses import replace

import numpy as np

from unimodal.sequence import Sequence
from unimodal.vocabulary import Vocabulary


def noised(
    sequence: Sequence, vocabulary: Vocabulary, share: float, key: tuple[int, ...]
) -> Sequence:
    """Return the sequence with this share of its learned images' codes, on average, replaced by any
    codes: a pure function of the key.
    """
    at_n = np.flatnonzero(learned_codes(sequence, vocabulary))
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    at_n = at_n[rng.random(len(at_n)) < share]
    ids = sequence.ids.copy()
    ids[at_n] = vocabulary.code_ids[rng.integers(vocabulary.num_codes, size=len(at_n))]
    return replace(sequence, ids=ids)


def learned_codes(sequence: Sequence, vocabulary: Vocabulary) -> np.ndarray:
    """Return which tokens are codes that the tokens before them have to predict, bool (n,)."""
    is_learned = np.concatenate([[False], sequence.weights[:-1] > 0])
    return is_learned & vocabulary.is_code(sequence.ids)
