"""What a PNG file of a drawing says of where it comes from: model, words, seed.

No time is in it: the same request gives the same bytes.
"""

import hashlib

from .boxes import spelled
from .document import Document, Text


def provenance(model_hash: str, words: str, seed: int) -> dict[str, str]:
    """Return the texts that a PNG carries, by their keywords; of the words the SHA-256 alone."""
    return {
        "Software": "unimodal",
        "unimodal:model": model_hash,
        "unimodal:prompt-sha256": hashlib.sha256(words.encode()).hexdigest(),
        "unimodal:seed": str(seed),
    }


def words_of(asked: Document, size: tuple[int, int]) -> str:
    """Return the user's latest words, joined by spaces; boxes as they are written for a drawing of
    (width, height) pixels.
    """
    for role, parts in reversed(asked.turns()):
        if role == "user":
            texts = [part for part in parts if isinstance(part, Text)]
            return " ".join(one.text if one.box is None else spelled(one, size) for one in texts)
    return ""
