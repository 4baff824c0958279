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
from ..pretrained_text import JsonTokenizer, parsed
from ..vocabulary import Vocabulary

FILE = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Spellings:
    """Spellings hold {spelling: id} of everything in a tokenizer.json."""

    path: Path
    ids: dict[str, int]
    num_ids: int
    """How many rows the embedding has."""

    @classmethod
    def read(cls, directory: Path, num_ids: int) -> "Spellings":
        """Read the tokenizer.json of a model whose embedding has `num_ids` rows; raise
        CheckpointError where it cannot be used.
        """
        path = directory / FILE
        try:
            tree = parsed(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(path, [f"it is no tokenizer that is read: {error}"]) from error
        added = {token["content"]: token["id"] for token in tree.get("added_tokens") or []}
        return cls(path, {**tree["model"]["vocab"], **added}, num_ids)

    @property
    def num_spelled(self) -> int:
        """Return the largest id of a spelling, plus 1."""
        return 1 + max(self.ids.values(), default=-1)

    def vocabulary(
        self, layouts: tuple[Layout, ...], pad: str, code_runs: tuple[tuple[int, int], ...]
    ) -> Vocabulary:
        """Return the vocabulary with the special tokens that layouts name; see `special_tokens`.

        Raise CheckpointError where these and the codes share ids.
        """
        special = self.special_tokens(layouts, pad)
        try:
            return Vocabulary(self.num_ids, special, code_runs)
        except ValueError as error:
            raise CheckpointError(self.path, [str(error)]) from error

    def special_tokens(self, layouts: tuple[Layout, ...], pad: str) -> dict[str, int]:
        """Return {name: id} of the special tokens that layouts name, and of `pad` as "pad".

        Raise CheckpointError with all that the tokenizer lacks.
        """
        names = sorted({name for layout in layouts for name in special_names(layout)})
        wanted = {name: name for name in names} | {"pad": pad}
        if missing := [spelling for spelling in wanted.values() if spelling not in self.ids]:
            said = ", ".join(missing)
            raise CheckpointError(self.path, [f"it lacks the special tokens {said}"])
        return {name: self.id(spelling) for name, spelling in wanted.items()}

    def id(self, spelling: str) -> int:
        """Return the id of a spelling; raise CheckpointError where the embedding has no row."""
        token = self.ids[spelling]
        if token >= self.num_ids:
            problem = f"the id of {spelling} is {token}, config.json says {self.num_ids} ids"
            raise CheckpointError(self.path, [problem])
        return token

    def codes(
        self, pattern: re.Pattern[str], num_codes: int, number: Callable[[str], int] = int
    ) -> list[int]:
        """Return the id of each image code, whose spellings match `pattern` with a number in it,
        which `number` reads.

        Raise CheckpointError where these are not the numbers of `num_codes` codes, each once.
        """
        found = [
            (number(match[1]), self.id(spelling))
            for spelling in self.ids
            if (match := pattern.fullmatch(spelling))
        ]
        found.sort()
        if [code for code, _ in found] != list(range(num_codes)):
            different = len({code for code, _ in found})
            problem = f"it spells {len(found)} image codes, {different} of them different"
            problem += f"; config.json says {num_codes}"
            raise CheckpointError(self.path, [problem])
        return [token for _, token in found]


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


def read_text(directory: Path, vocabulary: Vocabulary) -> JsonTokenizer:
    """Return the text tokenizer of a published model, by which no text spells a special token or an
    image code of the vocabulary, even where the file has these among its words.

    Raise CheckpointError where it cannot be used.
    """
    path = directory / FILE
    try:
        source = path.read_text(encoding="utf-8")
        return JsonTokenizer(_with_added(source, vocabulary), vocabulary.num_text)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(path, [str(error)]) from error


def _with_added(source: str, vocabulary: Vocabulary) -> str:
    """Return the text of a tokenizer.json that lists the vocabulary's special tokens and image
    codes as added tokens: merges, or whole words (`ignore_merges`), could make others of a text.
    """
    tree = json.loads(source)
    ids = {*vocabulary.special_tokens.values(), *vocabulary.code_ids.tolist()}
    added = tree.get("added_tokens") or []
    listed = {token["content"] for token in added}
    words = tree["model"]["vocab"].items()
    more = [
        {"id": token, "content": spelling, "special": True, "single_word": False}
        | dict.fromkeys(("lstrip", "rstrip", "normalized"), False)
        for spelling, token in words
        if token in ids and spelling not in listed
    ]
    return json.dumps(tree | {"added_tokens": [*added, *more]}) if more else source
