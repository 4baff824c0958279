"""Prompt lookup guesses the words of a reply: they go on as they did where they stood before.

A plan repeats the request, a change repeats the plan, an answer repeats the question. So what
follows the latest ids somewhere before is a draft of what follows them now (Saxena, "Prompt lookup
decoding", 2023, https://github.com/apoorvumang/prompt-lookup-decoding). It is read behind them in
one pass and checked by sampling, so that it changes how soon words come and not which.

The more ids agree, the more are guessed (as suffix decoding does, Oliaro et al.,
arXiv:2411.04975): a wrong guess is read for nothing.

Letters: N ids of a conversation, K places where the last of them stands before, m drafts.
"""

import numpy as np

LONGEST = 8
"""How many of the latest ids are compared at most."""
DRAFTS_AN_ID = 2
"""How many ids are guessed for each that agrees."""


def continuation(ids_N: np.ndarray) -> np.ndarray:
    """Return drafts of the ids that follow ids_N (int (N,)): int (m,), none where the last of them
    is new; of the places that agree the longest, what follows the latest.
    """
    places_K = np.flatnonzero(ids_N[:-1] == ids_N[-1])
    if not len(places_K):
        return ids_N[:0]
    agrees_K, length_K = np.ones(len(places_K), bool), np.ones(len(places_K), int)
    for back in range(1, min(LONGEST, len(ids_N))):
        before_K = places_K - back
        agrees_K &= (before_K >= 0) & (ids_N[before_K] == ids_N[-1 - back])
        length_K += agrees_K
    best = len(length_K) - 1 - int(length_K[::-1].argmax())
    start = places_K[best] + 1
    return ids_N[start : start + DRAFTS_AN_ID * length_K[best]]
