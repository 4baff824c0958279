"""The text tokenizer converts text to ids and back: byte-level BPE, lossless for any UTF-8 text.

It holds no special tokens, so nothing that a text spells can become one. Tokenizers of pretrained
models have the same interface (see pretrained_text.py).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


class TextTokenizer:
    """A TextTokenizer is a byte-level BPE over the ids 0 .. num_ids - 1.

    Raises ValueError for a tokenizer with added tokens.
    """

    FILE = "text.json"  # the file's name in a bundle

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.num_ids: int = tokenizer.get_vocab_size()
        added = tokenizer.get_added_tokens_decoder()
        if added:
            spellings = ", ".join(repr(token.content) for token in added.values())
            raise ValueError(
                f"a text tokenizer must hold no added tokens, this one has {spellings}"
            )

    @classmethod
    def train(cls, texts: Iterable[str], num_ids: int) -> "TextTokenizer":
        """Learn merges from texts until there are `num_ids` ids.

        Raise ValueError where `num_ids` is below the 256 bytes.
        """
        if num_ids < 256:
            raise ValueError(f"num_ids {num_ids}: byte-level BPE needs at least 256")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=num_ids,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @property
    def spelled(self) -> np.ndarray:
        """Return which ids the encoding of a text can hold, bool (num_ids,): here all of them."""
        return np.ones(self.num_ids, bool)

    @property
    def special_tokens(self) -> dict[int, str]:
        """Return {id: spelling} of the tokenizer's own special tokens: here there are none."""
        return {}

    def tree(self) -> dict[str, Any]:
        """Return the content of a tokenizer.json that encodes every text as this tokenizer does."""
        return json.loads(self._tokenizer.to_str(pretty=False))

    @classmethod
    def load(cls, path: Path, num_ids: int | None = None) -> "TextTokenizer":
        """Read what `save` wrote.

        num_ids: the number of rows of the embedding; tokenizers of pretrained models may have
        fewer ids. It is not used here.
        """
        return cls(Tokenizer.from_file(str(path)))

    def save(self, path: Path) -> None:
        """Write a `tokenizers` JSON file."""
        path.write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the file that `save` writes: it identifies the tokenizer."""
        return hashlib.sha256(self._tokenizer.to_str(pretty=False).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class IncrementalDecoder:
    """An IncrementalDecoder converts ids to text one at a time, in whole characters.

    An id that ends inside a character waits for the ids with its other bytes. New ids are decoded
    together with the ids before them, for some tokenizers drop the space before a text's first
    word, but only there.
    """

    def __init__(self, text: TextTokenizer):
        self._text = text
        self._last: list[int] = []  # the ids of the characters returned last
        self._waiting: list[int] = []  # ids of a character that is unfinished so far

    def push(self, token: int) -> str:
        """Take an id and return the characters that it completes, which may be none."""
        self._waiting.append(token)
        text = self._decode_waiting()
        if text.endswith("\ufffd"):  # unfinished, or not UTF-8 at all: later ids decide
            return ""
        self._last, self._waiting = self._waiting, []
        return text

    def flush(self) -> str:
        """End the text: return what waits, without an unfinished character."""
        text = self._decode_waiting().rstrip("\ufffd")
        self._last, self._waiting = [], []
        return text

    def _decode_waiting(self) -> str:
        """Return the text of the waiting ids."""
        before = self._text.decode(self._last)
        whole = self._text.decode(self._last + self._waiting)
        # Bytes that are not UTF-8 may change how the bytes before them are decoded; the waiting ids
        # are then decoded alone.
        fits = whole.startswith(before)
        return whole[len(before) :] if fits else self._text.decode(self._waiting)
