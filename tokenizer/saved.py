"""Image tokenizers on disk: tokenizer.json says of which kind one is, tokenizer.safetensors holds
its weights.
"""

import json
from pathlib import Path
from typing import Any

from .autoencoder import CONFIG, WEIGHTS, ImageTokenizer
from .movq import Movq
from .published import KIND, PublishedTokenizer
from .vqgan import Vqgan

SavedTokenizer = ImageTokenizer | PublishedTokenizer
KINDS: dict[str, type[PublishedTokenizer]] = {one.kind: one for one in (Vqgan, Movq)}


def load_tokenizer(directory: Path) -> SavedTokenizer:
    """Read the image tokenizer that was saved in a directory; ValueError names the file at fault.

    Without a kind it is one of our own.
    """
    kind, fields = read_kind(directory)
    if kind is None:
        return ImageTokenizer.load(directory)
    if not (directory / WEIGHTS).is_file():
        raise ValueError(f"{directory} holds no image tokenizer: there is no {WEIGHTS}")
    return kind.load(directory, fields)


def read_kind(directory: Path) -> tuple[type[PublishedTokenizer] | None, dict[str, Any]]:
    """Return the class of a published tokenizer, None for one of our own, and what tokenizer.json
    says; ValueError where it names another kind.
    """
    try:
        fields = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # which ImageTokenizer.load says in its own words
        return None, {}
    if not isinstance(fields, dict) or KIND not in fields:
        return None, {}
    if fields[KIND] not in KINDS:
        raise ValueError(
            f"{directory / CONFIG}: kind {fields[KIND]!r} is none of {', '.join(KINDS)}: update "
            "unimodal"
        )
    return KINDS[fields[KIND]], fields
