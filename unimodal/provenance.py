"""What a PNG file of a drawing says of where it comes from: model, words, seed.

No time is in it: the same request gives the same bytes.
"""

import hashlib


def provenance(model_hash: str, words: str, seed: int) -> dict[str, str]:
    """Return the texts that a PNG carries, by their keywords; of the words the SHA-256 alone."""
    return {
        "Software": "unimodal",
        "unimodal:model": model_hash,
        "unimodal:prompt-sha256": hashlib.sha256(words.encode()).hexdigest(),
        "unimodal:seed": str(seed),
    }
