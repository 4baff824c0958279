"""API keys: who may use a server, and under which name a client is known in it.

Keys come from a file, one a line (# begins a comment), or from the environment, by commas.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "UNIMODAL_API_KEYS"
MIN_LENGTH = 16  # characters; shorter keys can be guessed


class Keys:
    """Keys are told from others in a time that does not depend on what is given."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take keys; raise ValueError for one that is short, given twice or not plain ASCII."""
        given = list(keys)
        for number, key in enumerate(given, start=1):
            if len(key) < MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(
                    f"API key {number} has {len(key)} characters: a key has at least {MIN_LENGTH}"
                    " ASCII letters, digits and signs, such as `openssl rand -hex 16` makes"
                )
        if len(set(given)) < len(given):
            raise ValueError("an API key is given twice: each client has its own")
        self._digests = [_digest(key) for key in given]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client(self, key: str) -> str | None:
        """Return the name of the client with a key, which does not tell the key; None: it is none
        of these.
        """
        found, digest = None, _digest(key)
        for number, known in enumerate(self._digests, start=1):
            if hmac.compare_digest(digest, known):
                found = f"key {number}"
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(file: Path | None) -> Keys:
    """Return the keys of a file and of the environment; raise ValueError where a file has none."""
    found = [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    if file is not None:
        lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines()]
        of_file = [line for line in lines if line]
        if not of_file:
            raise ValueError(f"{file} holds no API key: write one a line")
        found += of_file
    return Keys(found)
