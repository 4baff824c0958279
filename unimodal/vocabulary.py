"""The one table of id ranges: text, then special tokens, then image codes. No other file adds an
offset.
"""

from dataclasses import dataclass

import numpy as np

MAX_CODES_A_SIDE = 64
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
    *(f"size_{side}" for side in range(1, MAX_CODES_A_SIDE + 1)),
)


@dataclass(frozen=True)
class Vocabulary:
    """Ids 0 .. size - 1 of `num_text` text tokens, the special tokens and `num_codes` image
    codes.
    """

    num_text: int
    num_codes: int

    @property
    def first_code(self) -> int:
        """The id of image code 0."""
        return self.num_text + len(SPECIAL_TOKENS)

    @property
    def size(self) -> int:
        """The number of ids."""
        return self.first_code + self.num_codes

    def control(self, name: str) -> int:
        """The id of a special token by its name in `SPECIAL_TOKENS`."""
        return self.num_text + SPECIAL_TOKENS.index(name)

    def side(self, length: int) -> int:
        """The id of the size token for `length` rows or columns (1 .. 64)."""
        if not 1 <= length <= MAX_CODES_A_SIDE:
            raise ValueError(f"a side of {length} codes: from 1 to {MAX_CODES_A_SIDE}")
        return self.control("size_1") + length - 1

    def side_length(self, token: int) -> int:
        """Rows or columns that a size token stands for."""
        length = token - self.control("size_1") + 1
        if not 1 <= length <= MAX_CODES_A_SIDE:
            raise ValueError(f"id {token} is no size token")
        return length

    def code_to_id(self, codes: np.ndarray) -> np.ndarray:
        """Ids of image codes; a code outside the tokenizer's range is an error."""
        codes = np.asarray(codes)
        if codes.size and not (codes.min() >= 0 and codes.max() < self.num_codes):
            raise ValueError(
                f"image codes {codes.min()}..{codes.max()} outside 0..{self.num_codes - 1}"
            )
        return codes + self.first_code

    def id_to_code(self, ids: np.ndarray) -> np.ndarray:
        """Image codes of ids; an id that is no image code is an error."""
        ids = np.asarray(ids)
        if not self.is_code(ids).all():
            raise ValueError(f"ids {ids[~self.is_code(ids)][:5].tolist()} are no image codes")
        return ids - self.first_code

    def is_text(self, ids: np.ndarray | int) -> np.ndarray:
        """True where an id is a text token."""
        return (np.asarray(ids) >= 0) & (np.asarray(ids) < self.num_text)

    def is_code(self, ids: np.ndarray | int) -> np.ndarray:
        """True where an id is an image code."""
        return (np.asarray(ids) >= self.first_code) & (np.asarray(ids) < self.size)

    def name(self, token: int) -> str:
        """A special token's name."""
        if not self.num_text <= token < self.first_code:
            raise ValueError(f"id {token} is no special token")
        return SPECIAL_TOKENS[token - self.num_text]
