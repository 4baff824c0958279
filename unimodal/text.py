"""Text <-> ids: byte-level BPE, which any UTF-8 text passes through unchanged.

The tokenizer holds no special token at all, so no spelling in a text can become one. Tokenizers of
other families have the same face (see foreign.py).
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
    """Byte-level BPE over `num_ids` ids, 0 .. num_ids - 1."""

    FILE = "text.json"  # its name in a bundle

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
        """Learn merges from texts until there are `num_ids` ids (at least the 256 bytes)."""
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
        """Which ids a text can hold, bool (num_ids,): here all of them."""
        return np.ones(self.num_ids, bool)

    @property
    def special_tokens(self) -> dict[int, str]:
        """Names of ids that no text can hold: none here."""
        return {}

    def tree(self) -> dict[str, Any]:
        """The content of a `tokenizers` JSON file that spells every text as this one does."""
        return json.loads(self._tokenizer.to_str(pretty=False))

    @classmethod
    def load(cls, path: Path, num_ids: int | None = None) -> "TextTokenizer":
        """Read what `save` wrote. num_ids: rows of the embedding, where other families' tokenizers
        know of fewer; this one always knows all.
        """
        return cls(Tokenizer.from_file(str(path)))

    def save(self, path: Path) -> None:
        """Write a `tokenizers` JSON file."""
        path.write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file that `save` writes: tells tokenizers apart."""
        return hashlib.sha256(self._tokenizer.to_str(pretty=False).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class IncrementalDecoder:
    """Ids to text as they come; an unfinished character waits for its other bytes.

    What is new is read behind what was read last: some tokenizers drop the space before a text's
    first word, and only there.
    """

    def __init__(self, text: TextTokenizer):
        self._text = text
        self._last: list[int] = []
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """The characters that this id completes."""
        self._waiting.append(token)
        text = self._read()
        if text.endswith("\ufffd"):  # unfinished, or not UTF-8 at all: what follows will tell
            return ""
        self._last, self._waiting = self._waiting, []
        return text

    def flush(self) -> str:
        """What waits at the end of a text, without an unfinished character."""
        text = self._read().rstrip("\ufffd")
        self._last, self._waiting = [], []
        return text

    def _read(self) -> str:
        """The text of the waiting ids."""
        before = self._text.decode(self._last)
        whole = self._text.decode(self._last + self._waiting)
        # Bytes that are no UTF-8 may spoil the run of bytes before them too; they stand alone then.
        fits = whole.startswith(before)
        return whole[len(before) :] if fits else self._text.decode(self._waiting)
