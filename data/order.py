"""Order and chance without memory: pure functions of a few whole numbers.

1. `hashed` mixes any number of words into 64 bits, for whole arrays at once; `uniform` turns them
   into a number.
2. `permuted` is a random order of 0 .. size - 1 that is never written down: its element at any
   index is computed from the index alone. So an order of any length costs no memory, and any place
   in it is reached at once.

Costs 0.1 us an element and core, in arrays of thousands.
"""

import hashlib

import numpy as np

Words = int | np.ndarray
ROUNDS = 6  # of the Feistel network; four make it pseudorandom (Luby and Rackoff, 1988)


def hashed(*words: Words) -> np.ndarray:
    """Hash words into uint64 of their common shape (words below 2^64; arrays or numbers).

    Each word is added to the state, which is then mixed by the finalizer of SplitMix64 (Steele, Lea
    and Flood, 2014, with the constants of Stafford's variant 13).
    """
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = state + np.uint64(0x9E3779B97F4A7C15) + np.asarray(word).astype(np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*words: Words) -> np.ndarray:
    """Return float64 in [0, 1) of the words' common shape: the upper 53 bits of their hash."""
    return (hashed(*words) >> np.uint64(11)) * 2.0**-53


def word(name: str) -> int:
    """Return a name as a word: the first 8 bytes of its SHA-256."""
    return int.from_bytes(
        hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "little"
    )


def permuted(indices_n: np.ndarray, size: int, *key: Words) -> np.ndarray:
    """Return the elements at these indices of the random order of `key`, int64 (n,).

    The order is a permutation of 0 .. size - 1; ValueError for an index outside. A balanced Feistel
    network permutes 0 .. 4^b - 1, the smallest such range that holds `size`; a value outside is
    permuted again until it falls inside (cycle walking: Black and Rogaway, 2002). The words of
    `key` are numbers, or arrays (n,): an order for each index.
    """
    indices_n = np.asarray(indices_n)
    if indices_n.size and not 0 <= indices_n.min() <= indices_n.max() < size:
        raise ValueError(
            f"indices {indices_n.min()} to {indices_n.max()} of an order of {size}: give 0 to "
            f"{size - 1}"
        )
    keys_n = np.broadcast_to(hashed(*key), indices_n.shape)
    half_bits = np.uint64(max(1, -(-int(size - 1).bit_length() // 2)))
    values_n = _feistel(indices_n.astype(np.uint64), keys_n, half_bits)
    outside = np.flatnonzero(values_n >= size)
    while outside.size:
        values_n[outside] = _feistel(values_n[outside], keys_n[outside], half_bits)
        outside = outside[values_n[outside] >= size]
    return values_n.astype(np.int64)


def _feistel(values_n: np.ndarray, keys_n: np.ndarray, half_bits: np.uint64) -> np.ndarray:
    """Permute values of 2 * half_bits bits: (l, r) -> (r, l xor F(r)), ROUNDS times.

    The round function F is the hash of (key, number of the round, r) (Luby and Rackoff, 1988).
    """
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values_n >> half_bits, values_n & mask
    for number in range(ROUNDS):
        left, right = right, left ^ (hashed(keys_n, number, right) & mask)
    return left << half_bits | right


def generator(*key: int) -> np.random.Generator:
    """Return the counter-based generator of a key: up to four non-negative integers."""
    words = [*key, 0, 0, 0, 0][:4]
    return np.random.Generator(
        np.random.Philox(key=np.array(words[:2], np.uint64), counter=[0, 0, *words[2:]])
    )
