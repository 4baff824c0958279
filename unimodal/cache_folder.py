"""Say where everything is kept that can be made, or fetched, again."""

import os
from pathlib import Path


def cache() -> Path:
    """Return the folder of everything that can be made again: $UNIMODAL_CACHE, or
    ~/.cache/unimodal.
    """
    return Path(os.environ.get("UNIMODAL_CACHE") or Path.home() / ".cache" / "unimodal")
