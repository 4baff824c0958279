"""Spellings are the ids of special tokens and image codes by how a tokenizer.json spells them.

An id is never assumed: a published model's marks and codes are looked up, and all that are missing
are named.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..hub.checkpoint import CheckpointError
from ..layout import Layout, SoftLayout, Special
from ..pretrained_text import JsonTokenizer

FILE = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Spellings:
    """Spellings hold {spelling: id} of everything in a tokenizer.json."""

    path: Path
    ids: dict[str, int]

    @classmethod
    def read(cls, directory: Path) -> "Spellings":
        """Read a directory's tokenizer.json; raise CheckpointError where it cannot be used."""
        path = directory / FILE
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            added = {token["content"]: token["id"] for token in tree.get("added_tokens") or []}
            return cls(path, {**tree["model"]["vocab"], **added})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(path, [f"it is no tokenizer that is read ({error!r})"]) from error

    def special_tokens(self, layouts: tuple[Layout, ...], pad: str) -> dict[str, int]:
        """Return {name: id} of the special tokens that layouts name, and of `pad` as "pad".

        Raise CheckpointError with all that the tokenizer lacks.
        """
        names = sorted({name for layout in layouts for name in special_names(layout)})
        wanted = {name: name for name in names} | {"pad": pad}
        if missing := [spelling for spelling in wanted.values() if spelling not in self.ids]:
            said = ", ".join(missing)
            raise CheckpointError(self.path, [f"it lacks the special tokens {said}"])
        return {name: self.ids[spelling] for name, spelling in wanted.items()}

    def codes(
        self, pattern: re.Pattern[str], num_codes: int, number: Callable[[str], int] = int
    ) -> list[int]:
        """Return the id of each image code, whose spellings match `pattern` with a number in it,
        which `number` reads.

        Raise CheckpointError where these are not the numbers of `num_codes` codes.
        """
        found = {
            number(match[1]): token
            for spelling, token in self.ids.items()
            if (match := pattern.fullmatch(spelling))
        }
        if sorted(found) != list(range(num_codes)):
            problem = f"it spells {len(found)} image codes, config.json says {num_codes}"
            raise CheckpointError(self.path, [problem])
        return [found[code] for code in range(num_codes)]


def special_names(layout: Layout) -> set[str]:
    """Return the names of the special tokens that a layout uses, "pad" left out."""
    image = layout.image
    pieces = [*layout.begin, *layout.end, *layout.reply, *layout.stops]
    pieces += [piece for turn in layout.turns.values() for piece in (*turn.before, *turn.after)]
    pieces += [*image.opening, *image.closing, *([image.row_end] if image.row_end else [])]
    pieces += layout.unconditional.pieces
    if layout.soft != SoftLayout():  # the default is that of our own models
        pieces += [*layout.soft.opening, layout.soft.place, *layout.soft.closing]
    return {piece.name for piece in pieces if isinstance(piece, Special)} - {"pad"}


def code_runs(ids: list[int]) -> tuple[tuple[int, int], ...]:
    """Return (first id, count) of each run of codes with consecutive ids, in the codes' order."""
    starts = [0, *(np.flatnonzero(np.diff(ids) != 1) + 1).tolist(), len(ids)]
    return tuple(
        (ids[start], stop - start) for start, stop in zip(starts, starts[1:], strict=False)
    )


def read_text(directory: Path, num_ids: int) -> JsonTokenizer:
    """Return the text tokenizer of a published model whose embedding has so many rows.

    Raise CheckpointError where it cannot be used.
    """
    path = directory / FILE
    try:
        return JsonTokenizer.load(path, num_ids)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(path, [str(error)]) from error
