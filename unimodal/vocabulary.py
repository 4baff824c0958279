"""The vocabulary is the one table of token ids: text tokens, special tokens and image codes.

Other files convert codes to ids and back through this table and never add an offset. A bundle
stores its own table, so a special token that is added to SPECIAL_TOKENS later does not shift the
ids of models that were trained before. Ids of special tokens and codes may lie anywhere: a
published model may have its codes below its text, or in any order.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_SIDE = 64
SPECIAL_TOKENS = (
    "pad",
    "begin",
    "end",
    "system",
    "user",
    "assistant",
    "turn_end",
    "image",
    "image_end",
    "row_end",
    "null",
    *(f"size_{side}" for side in range(1, MAX_SIDE + 1)),
)
"""The special tokens of a new vocabulary, in the order of their ids."""


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary maps special tokens (by name) and image codes to ids.

    The ids 0 .. num_text - 1 are text tokens, except for those that are special tokens or codes.
    Raises ValueError where two special tokens or codes share an id, or an id is negative.
    """

    num_text: int
    special_tokens: dict[str, int]
    code_runs: tuple[tuple[int, int], ...]
    """(first id, count) of each run of codes with consecutive ids. Codes are numbered through the
    runs in order, so code 0 has the first run's first id."""

    def __post_init__(self) -> None:
        if wrong := [count for _, count in self.code_runs if count < 1]:
            raise ValueError(f"a run of {wrong[0]} codes: at least 1")
        ids = np.concatenate([self.code_ids, np.array([*self.special_tokens.values()], np.int64)])
        if ids.size and (ids.min() < 0 or len(np.unique(ids)) < len(ids)):
            raise ValueError(
                "a vocabulary whose special tokens and codes share ids, or are below 0"
            )

    @classmethod
    def new(cls, num_text: int, num_codes: int, more: tuple[str, ...] = ()) -> "Vocabulary":
        """Make a vocabulary with text tokens first, then SPECIAL_TOKENS, then image codes.

        more: names of special tokens beside SPECIAL_TOKENS, whose ids are behind theirs.
        """
        special = {name: num_text + at for at, name in enumerate((*SPECIAL_TOKENS, *more))}
        runs = ((num_text + len(special), num_codes),) if num_codes else ()
        return cls(num_text, special, runs)

    @cached_property
    def code_ids(self) -> np.ndarray:
        """Return the id of each image code, int64 (num_codes,)."""
        runs = [np.arange(first, first + count) for first, count in self.code_runs]
        return np.concatenate([np.zeros(0, np.int64), *runs])

    @cached_property
    def code_of_id(self) -> np.ndarray:
        """Return the image code of each id, int64 (size,); -1 where the id is not a code."""
        table = np.full(self.size, -1, np.int64)
        table[self.code_ids] = np.arange(self.num_codes)
        return table

    @property
    def num_codes(self) -> int:
        """Return the number of image codes."""
        return sum(count for _, count in self.code_runs)

    @cached_property
    def size(self) -> int:
        """Return the number of ids."""
        last = [first + count for first, count in self.code_runs]
        return max([self.num_text, *(token + 1 for token in self.special_tokens.values()), *last])

    @cached_property
    def code_slice(self) -> tuple[int, int]:
        """Return (smallest id of a code, largest + 1): the slice of ids that holds all codes."""
        return int(self.code_ids.min()), int(self.code_ids.max()) + 1

    @cached_property
    def text_mask(self) -> np.ndarray:
        """Return which ids are text tokens, bool (size,)."""
        mask = np.arange(self.size) < self.num_text
        mask[self.code_ids] = False
        mask[list(self.special_tokens.values())] = False
        return mask

    @cached_property
    def num_words(self) -> int:
        """Return the largest id of a text or special token, plus 1."""
        return max(self.num_text, *(token + 1 for token in self.special_tokens.values()), 0)

    @cached_property
    def word_mask(self) -> np.ndarray | None:
        """Return which ids are text or special tokens, bool (num_words,); None where all are."""
        mask = self.code_of_id[: self.num_words] < 0
        return None if mask.all() else mask

    def special(self, name: str) -> int:
        """Return the id of a special token; raise ValueError where the vocabulary lacks it."""
        if name not in self.special_tokens:
            raise ValueError(f"this vocabulary has no special token {name!r}: grow it anew")
        return self.special_tokens[name]

    def code_to_id(self, codes: np.ndarray) -> np.ndarray:
        """Return the ids of image codes; raise ValueError for a code outside 0 .. num_codes - 1."""
        codes = np.asarray(codes)
        if codes.size and not (codes.min() >= 0 and codes.max() < self.num_codes):
            raise ValueError(
                f"image codes {codes.min()}..{codes.max()} outside 0..{self.num_codes - 1}"
            )
        return self.code_ids[codes]

    def id_to_code(self, ids: np.ndarray) -> np.ndarray:
        """Return the image codes of ids; raise ValueError for an id that is not a code."""
        ids = np.asarray(ids)
        if not self.is_code(ids).all():
            raise ValueError(f"ids {ids[~self.is_code(ids)][:5].tolist()} are no image codes")
        return self.code_of_id[ids]

    def is_text(self, ids: np.ndarray | int) -> np.ndarray:
        """Tell where ids are text tokens: bool of their shape."""
        return self._looked_up(ids, self.text_mask)

    def is_code(self, ids: np.ndarray | int) -> np.ndarray:
        """Tell where ids are image codes: bool of their shape."""
        return self._looked_up(ids, self.code_of_id >= 0)

    def _looked_up(self, ids: np.ndarray | int, mask: np.ndarray) -> np.ndarray:
        """Return what a mask says of ids; False where there is no such id."""
        ids = np.asarray(ids)
        return (ids >= 0) & (ids < self.size) & mask[np.clip(ids, 0, self.size - 1)]
