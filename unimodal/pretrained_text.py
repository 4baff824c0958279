"""Use the text tokenizers of pretrained language models by the interface of `TextTokenizer`.

They have special tokens of their own (`<|im_start|>`, `</s>`), whose ids stand for no text. These
are removed from the table before any text is encoded, so a text that contains such a spelling is
encoded as ordinary text and can never become a special token. The ids of special tokens, and rows
of the embedding that the tokenizer does not know, keep their places in the embedding; no text is
encoded to them, and they are never sampled.

The library `tokenizers` reads `tokenizer.json`, sentencepiece reads `tokenizer.model`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, pre_tokenizers

from .text import TextTokenizer

BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "\u2581"  # stands for a space in the pieces of sentencepiece
# The types of a piece, and the number of the BPE algorithm, in sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2


class JsonTokenizer(TextTokenizer):
    """A JsonTokenizer is the BPE of a `tokenizer.json`, byte-level or with byte fallback."""

    FILE = "text.tokenizer.json"

    def __init__(self, source: str, num_ids: int | None = None):
        """Parse the text of the file, `source`; `num_ids` is as for `load`.

        Raise ValueError with all that makes the tokenizer unusable.
        """
        tree = parsed(source)
        own = 1 + max([*tree["model"]["vocab"].values(), *_special_tokens(tree)], default=-1)
        self._source, self.num_ids = source, own if num_ids is None else num_ids
        if problems := _json_problems(tree, self.num_ids):
            raise ValueError("; ".join(problems))
        self._special_tokens = _special_tokens(tree)
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(_without_special_tokens(tree)))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the library tokenizers does not read it: {error}") from error

    @classmethod
    def load(cls, path: Path, num_ids: int | None = None) -> "JsonTokenizer":
        """Read a `tokenizer.json`.

        num_ids: the number of rows of the embedding; None: as many as the file has ids.
        """
        return cls(path.read_text(encoding="utf-8"), num_ids)

    def save(self, path: Path) -> None:
        """Write the file with the same content that was read."""
        path.write_text(self._source, encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the number of ids and the file."""
        return hashlib.sha256(f"{self.num_ids} {self._source}".encode()).hexdigest()

    @cached_property
    def spelled(self) -> np.ndarray:
        """Return which ids the encoding of a text can hold, bool (num_ids,)."""
        spelled = np.zeros(self.num_ids, bool)
        spelled[list(self._tokenizer.get_vocab(with_added_tokens=False).values())] = True
        return spelled

    @property
    def special_tokens(self) -> dict[int, str]:
        """Return {id: spelling} of the tokenizer's own special tokens."""
        return {token: name for token, name in self._special_tokens.items() if token < self.num_ids}

    def tree(self) -> dict[str, Any]:
        """Return the content of a tokenizer.json that encodes every text as this tokenizer does.

        This holds for a text behind a special token too (see _always_prefixed).
        """
        return _always_prefixed(_without_special_tokens(parsed(self._source)))


class SentencePieceTokenizer(TextTokenizer):
    """A SentencePieceTokenizer is the sentencepiece model of a `tokenizer.model`."""

    FILE = "text.tokenizer.model"

    def __init__(self, source: bytes, num_ids: int | None = None):
        """Parse the bytes of the file, `source`; `num_ids` is as for `load`.

        Raise ValueError where the tokenizer cannot be used.
        """
        self._source = source
        try:
            self._pieces = SentencePieceProcessor(model_proto=_without_user_defined(source))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"it is no sentencepiece model: {error}") from error
        pieces, num = self._pieces, self._pieces.get_piece_size()
        self.num_ids = num if num_ids is None else num_ids
        if num > self.num_ids:
            raise ValueError(f"it has {num} pieces, the embedding {num_ids} rows")
        if sum(pieces.is_byte(token) for token in range(num)) != 256:
            raise ValueError("it was trained without byte_fallback: some texts have no ids in it")

    @classmethod
    def load(cls, path: Path, num_ids: int | None = None) -> "SentencePieceTokenizer":
        """Read a `tokenizer.model`.

        num_ids: the number of rows of the embedding; None: as many as the file has pieces.
        """
        return cls(path.read_bytes(), num_ids)

    def save(self, path: Path) -> None:
        """Write the file with the same content that was read."""
        path.write_bytes(self._source)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self._pieces.decode(list(ids))

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the number of ids and the file."""
        return hashlib.sha256(f"{self.num_ids} ".encode() + self._source).hexdigest()

    @cached_property
    def spelled(self) -> np.ndarray:
        """Return which ids the encoding of a text can hold, bool (num_ids,)."""
        spelled = np.zeros(self.num_ids, bool)
        spelled[: self._pieces.get_piece_size()] = [not self._is_special(k) for k in self._range]
        return spelled

    @property
    def special_tokens(self) -> dict[int, str]:
        """Return {id: spelling} of the tokenizer's own special tokens."""
        return {k: self._pieces.id_to_piece(k) for k in self._range if self._is_special(k)}

    @property
    def _range(self) -> range:
        return range(self._pieces.get_piece_size())

    def _is_special(self, token: int) -> bool:
        pieces = self._pieces
        return pieces.is_control(token) or pieces.is_unknown(token) or pieces.is_unused(token)

    def tree(self) -> dict[str, Any]:
        """Return the content of a tokenizer.json that encodes every text as this tokenizer does.

        Raise ValueError where `tokenizers` has no exact equivalent.
        """
        prefix = _check_copied(self._source)
        vocab = {self._pieces.id_to_piece(k): k for k in self._range if not self._is_special(k)}
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        decoders = [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *strip,
        ]
        prepend = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        empty = json.loads(Tokenizer.from_str(_EMPTY).to_str())
        model = {"vocab": vocab, "merges": self._merges(vocab)}
        return empty | {
            "normalizer": {"type": "Sequence", "normalizers": [*prepend, spaces]},
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": empty["model"] | {"byte_fallback": True, "fuse_unk": True} | model,
        }

    def _merges(self, vocab: dict[str, int]) -> list[list[str]]:
        """Return every pair of pieces that join to a third, in the order in which they are merged.

        sentencepiece merges the neighbours whose joined piece has the highest score first (Kudo and
        Richardson, arXiv:1808.06226); `tokenizers` merges by the order of this list.
        """
        found = []
        for piece, token in vocab.items():
            if self._pieces.is_byte(token):
                continue
            halves = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
            known = [pair for pair in halves if self._merges_into(pair, vocab)]
            known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
            score = self._pieces.get_score(token)
            found += [(-score, token, place, pair) for place, pair in enumerate(known)]
        return [list(pair) for *_, pair in sorted(found)]

    def _merges_into(self, pair: tuple[str, str], vocab: dict[str, int]) -> bool:
        return all(half in vocab and not self._pieces.is_byte(vocab[half]) for half in pair)


_EMPTY = '{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}'
TOKENIZER_FILES: dict[str, type[TextTokenizer]] = {
    "tokenizer.json": JsonTokenizer,
    "tokenizer.model": SentencePieceTokenizer,
}


def read_pretrained(directory: Path, num_ids: int) -> TextTokenizer:
    """Read the text tokenizer of a checkpoint whose embedding has `num_ids` rows.

    Raise ValueError where the directory holds none, or one that cannot be used.
    """
    for name, family in TOKENIZER_FILES.items():
        if (directory / name).is_file():
            try:
                return family.load(directory / name, num_ids)
            except ValueError as error:
                raise ValueError(f"{directory / name}: {error}") from error
    raise ValueError(
        f"{directory} holds neither {' nor '.join(TOKENIZER_FILES)}: its text has no ids"
    )


# --- tokenizer.json -----------------------------------------------------------------------------


def parsed(source: str) -> dict[str, Any]:
    """Parse a tokenizer.json; raise ValueError where it is not one of a BPE, or is malformed."""
    tree = json.loads(source)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise ValueError("it is no file of the library tokenizers")
    model = tree["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"its model is {model.get('type')!r}: only BPE is supported")
    if problems := list(_malformed(tree)):
        raise ValueError("; ".join(problems))
    return tree


def _malformed(tree: dict[str, Any]) -> Iterator[str]:
    """Yield where ids are no ids and merges no pairs, one sentence each."""
    added, merges = tree.get("added_tokens") or [], tree["model"].get("merges")
    if not isinstance(added, list) or not all(
        isinstance(one, dict) and isinstance(one.get("content"), str) for one in added
    ):
        yield "its added_tokens are no list of {id, content}"
        added = []
    ids = {**tree["model"]["vocab"], **{one["content"]: one.get("id") for one in added}}
    for spelling, token in ids.items():
        if not isinstance(token, int) or token < 0:
            yield f"the id of {spelling!r} is {token!r}, no whole number of at least 0"
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        yield "its model.merges are no list of pairs"


def _is_merge(one: Any) -> bool:
    halves = one.split(" ") if isinstance(one, str) else one
    return isinstance(halves, list) and [type(half) for half in halves] == [str, str]


def _json_problems(tree: dict[str, Any], num_ids: int) -> list[str]:
    """Return the reasons why this tokenizer cannot be used, one sentence each."""
    model = tree["model"]
    vocab = _without_special_tokens(tree)["model"]["vocab"]
    found = []
    if vocab and max(vocab.values()) >= num_ids:
        found.append(f"it has ids up to {max(vocab.values())}, the embedding {num_ids} rows")
    alphabet = BYTE_PIECES if model.get("byte_fallback") else pre_tokenizers.ByteLevel.alphabet()
    if missing := set(alphabet) - set(vocab):
        found.append(f"it lacks {len(missing)} of the 256 bytes: some texts have no ids in it")
    if model.get("dropout"):
        found.append(f"its dropout {model['dropout']} makes ids random: set it to null")
    return found


def _special_tokens(tree: dict[str, Any]) -> dict[int, str]:
    """Return {id: spelling} of the special tokens: all added ones and the unknown token."""
    added = {token["id"]: token["content"] for token in tree.get("added_tokens") or []}
    unknown, vocab = tree["model"].get("unk_token"), tree["model"]["vocab"]
    return added | ({vocab[unknown]: unknown} if unknown in vocab else {})


def _without_special_tokens(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the same tokenizer without special tokens: no text is encoded to one."""
    special, model = set(_special_tokens(tree).values()), tree["model"]
    # Merges must not build a special token, nor a piece such as <0x0A> that stands for a byte.
    unmade = special | set(BYTE_PIECES if model.get("byte_fallback") else ())
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    kept = [
        pair
        for pair in merges
        if "".join(pair) not in unmade and not any(half in special for half in pair)
    ]
    vocab = {piece: token for piece, token in model["vocab"].items() if piece not in special}
    bare: dict[str, Any] = {"added_tokens": []}
    bare |= dict.fromkeys(("post_processor", "truncation", "padding"))
    return tree | bare | {"model": model | {"vocab": vocab, "merges": kept, "unk_token": None}}


def _always_prefixed(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tokenizer with Metaspace's prepend_scheme 'first' changed to 'always'.

    With 'first', only a text at the very start gets a space before it. We encode each text alone,
    so each is at its start.
    """

    def changed(node: Any) -> Any:
        if isinstance(node, list):
            return [changed(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        first = node.get("type") == "Metaspace" and node.get("prepend_scheme") == "first"
        new = {"prepend_scheme": "always"} if first else {}
        return {key: changed(value) for key, value in node.items()} | new

    return tree | {"pre_tokenizer": changed(tree.get("pre_tokenizer"))}


# --- tokenizer.model ----------------------------------------------------------------------------


def _without_user_defined(source: bytes) -> bytes:
    """Return the model with its user-defined pieces turned into control pieces.

    Chat models add user-defined pieces such as <|im_start|>, and sentencepiece encodes their
    spelling in a text to their ids; it never does so for control pieces.
    """
    changed = bytearray(source)  # field 1: a piece; its field 3: the type
    for number, start, stop in _fields(source, 0, len(source)):
        if number != 1:
            continue
        for inner, at, _ in _fields(source, start, stop):
            if inner == 3 and source[at] == USER_DEFINED:
                changed[at] = CONTROL
    return bytes(changed)


def _check_copied(source: bytes) -> bool:
    """Return whether the model puts a space before a text.

    Raise ValueError where `tokenizers` cannot do exactly the same. Field numbers are those of
    sentencepiece_model.proto.
    """
    trainer = _message(source, 2)
    normalizer = _message(source, 3)
    problems = []
    if trainer.get(3, b"\x01") != bytes([BPE]):
        problems.append("its model is not BPE")
    if normalizer.get(2):
        problems.append("it rewrites characters (a charsmap)")
    if normalizer.get(4, b"\x01") != b"\x00":
        problems.append("it removes extra spaces")
    if trainer.get(24, b"\x00") != b"\x00":
        problems.append("it puts spaces behind words")
    if problems:
        raise ValueError(f"this tokenizer.model has no exact tokenizer.json: {'; '.join(problems)}")
    return normalizer.get(3, b"\x01") != b"\x00"


def _message(source: bytes, number: int) -> dict[int, bytes]:
    """Return {field number: its bytes} of the messages `number` of a model, the last value each."""
    found: dict[int, bytes] = {}
    for outer, start, stop in _fields(source, 0, len(source)):
        if outer == number:
            found |= {k: source[at:end] for k, at, end in _fields(source, start, stop)}
    return found


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) of each value in a protocol buffer message.

    Raise ValueError for a wire type that is not in use.
    """
    while at < stop:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:  # bytes of a stated length
            length, at = _varint(data, at)
        elif kind == 0:
            length = _varint(data, at)[1] - at
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        yield tag >> 3, at, at + length
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a protocol buffer varint (7 bits per byte, lowest first) and the index after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
