"""A Plan is all that the small files of a published model say of it, before a weight is read."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..hub.checkpoint import CheckpointError
from ..hub.towers import name_of
from ..sampling import Sampling
from ..tower import NETWORK
from .fits import Fit

BUFFERS = (".rotary_emb.inv_freq", ".embeddings.position_ids")


@dataclass(frozen=True, eq=False)
class Plan:
    """A Plan is what a family makes of config.json and the files beside it."""

    architecture: Architecture
    """Its head is not tied: whether it is, the stored weights say (`tied_head`)."""
    prefixes: tuple[tuple[str, str | None], ...]
    """(prefix of stored names, ours in its place) of all weights; None: of the image tokenizer."""
    sampling: Sampling
    """The authors' own settings."""
    grid: Grid
    """Of the images that it draws."""
    fit: Fit
    """What resizes the images that it is given."""

    tower: str | None = None
    """How stored names of a vision tower's network begin; None: there is none."""
    per_head: re.Pattern[str] | None = None
    """Matches our names of weights that each head has, of which fewer may be stored: one for a
    group of heads (of a shard) each, or a single one."""

    def renamed(self, stored: str) -> str | None:
        """Return our name of a stored weight; None where it is not of the transformer, or is a
        buffer of older files, which is computed and not loaded.
        """
        if stored.endswith(BUFFERS):
            return None
        if self.tower is not None and stored.startswith(self.tower):
            return NETWORK + name_of(stored.removeprefix(self.tower))
        for prefix, ours in self.prefixes:
            if stored.startswith(prefix):
                return None if ours is None else ours + stored.removeprefix(prefix)
        return stored


def section(path: Path, raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a config.json; raise CheckpointError where it is none."""
    found = raw.get(name)
    if not isinstance(found, dict):
        raise CheckpointError(path, [f"{name} is no configuration"])
    return found


def fixed(values: Any, wanted: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield which settings have another value than the only one that is supported."""
    for name, value in wanted.items():
        if (found := getattr(values, name, value)) != value:
            yield f"{where}.{name} {found!r}: only {value!r} is supported"
