"""Text tokenizers that other models bring along, with the face of `TextTokenizer`.

They know marks (`<|im_start|>`, `</s>`): ids that stand for no text. A mark is taken out of the
table before any text is read, so that its spelling in a text is spelled like any other text, and
whatever a text holds, it becomes none. Ids of marks and rows of the embedding that the tokenizer
does not know stay what they are; they are neither read from a text nor sampled.

`tokenizer.json` is read by the library tokenizers, `tokenizer.model` by sentencepiece.
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
SPACE = "\u2581"  # stands for a space in pieces
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces
BPE = 2  # sentencepiece's number for it


class JsonTokenizer(TextTokenizer):
    """A byte-level or byte-fallback BPE of a `tokenizer.json` over `num_ids` ids."""

    FILE = "text.tokenizer.json"

    def __init__(self, source: str, num_ids: int | None = None):
        """source: the file's text. ValueError names everything that cannot be used."""
        tree = _parsed(source)
        own = 1 + max([*tree["model"]["vocab"].values(), *_special_tokens(tree)], default=-1)
        self._source, self.num_ids = source, own if num_ids is None else num_ids
        if problems := _json_problems(tree, self.num_ids):
            raise ValueError("; ".join(problems))
        self._special_tokens = _special_tokens(tree)
        self._tokenizer = Tokenizer.from_str(json.dumps(_without_special_tokens(tree)))

    @classmethod
    def load(cls, path: Path, num_ids: int | None = None) -> "JsonTokenizer":
        """Read a `tokenizer.json`."""
        return cls(path.read_text(encoding="utf-8"), num_ids)

    def save(self, path: Path) -> None:
        """Write the file as it was."""
        path.write_text(self._source, encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file and the number of ids."""
        return hashlib.sha256(f"{self.num_ids} {self._source}".encode()).hexdigest()

    @cached_property
    def spelled(self) -> np.ndarray:
        """Which ids a text can hold, bool (num_ids,)."""
        spelled = np.zeros(self.num_ids, bool)
        spelled[list(self._tokenizer.get_vocab(with_added_tokens=False).values())] = True
        return spelled

    @property
    def special_tokens(self) -> dict[int, str]:
        """Names of ids that no text can hold, as far as the tokenizer has some."""
        return {token: name for token, name in self._special_tokens.items() if token < self.num_ids}

    def tree(self) -> dict[str, Any]:
        """The content of a `tokenizers` JSON file that spells every text as this one does, also
        one that follows a mark.
        """
        return _always_prefixed(_without_special_tokens(_parsed(self._source)))


class SentencePieceTokenizer(TextTokenizer):
    """A sentencepiece model over `num_ids` ids."""

    FILE = "text.tokenizer.model"

    def __init__(self, source: bytes, num_ids: int | None = None):
        """source: the file's bytes. ValueError names everything that cannot be used."""
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
        """Read a `tokenizer.model`."""
        return cls(path.read_bytes(), num_ids)

    def save(self, path: Path) -> None:
        """Write the file as it was."""
        path.write_bytes(self._source)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._pieces.decode(list(ids))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file and the number of ids."""
        return hashlib.sha256(f"{self.num_ids} ".encode() + self._source).hexdigest()

    @cached_property
    def spelled(self) -> np.ndarray:
        """Which ids a text can hold, bool (num_ids,)."""
        spelled = np.zeros(self.num_ids, bool)
        spelled[: self._pieces.get_piece_size()] = [not self._is_special(k) for k in self._range]
        return spelled

    @property
    def special_tokens(self) -> dict[int, str]:
        """Names of ids that no text can hold, as far as the tokenizer has some."""
        return {k: self._pieces.id_to_piece(k) for k in self._range if self._is_special(k)}

    @property
    def _range(self) -> range:
        return range(self._pieces.get_piece_size())

    def _is_special(self, token: int) -> bool:
        pieces = self._pieces
        return pieces.is_control(token) or pieces.is_unknown(token) or pieces.is_unused(token)

    def tree(self) -> dict[str, Any]:
        """The content of a `tokenizers` JSON file that spells every text as this one does.

        ValueError for a kind of model that `tokenizers` cannot copy exactly.
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
        """Every way to put a piece together of two others, the likeliest piece first."""
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
    """The text tokenizer of a checkpoint whose embedding has `num_ids` rows."""
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


def _parsed(source: str) -> dict[str, Any]:
    tree = json.loads(source)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise ValueError("it is no file of the library tokenizers")
    model = tree["model"]
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"its model is {model.get('type')!r}: only BPE is supported")
    return tree


def _json_problems(tree: dict[str, Any], num_ids: int) -> list[str]:
    """Why this tokenizer cannot be used, one sentence each."""
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
    """{id: spelling} of added tokens and of the token for what is unknown."""
    marks = {token["id"]: token["content"] for token in tree.get("added_tokens") or []}
    unknown, vocab = tree["model"].get("unk_token"), tree["model"]["vocab"]
    return marks | ({vocab[unknown]: unknown} if unknown in vocab else {})


def _without_special_tokens(tree: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without marks: nothing in it spells one."""
    marks, model = set(_special_tokens(tree).values()), tree["model"]
    # Nor does a text spell a piece that stands for a byte.
    unmade = marks | set(BYTE_PIECES if model.get("byte_fallback") else ())
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    kept = [
        pair
        for pair in merges
        if "".join(pair) not in unmade and not any(half in marks for half in pair)
    ]
    vocab = {piece: token for piece, token in model["vocab"].items() if piece not in marks}
    bare: dict[str, Any] = {
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    return tree | bare | {"model": model | {"vocab": vocab, "merges": kept, "unk_token": None}}


def _always_prefixed(tree: dict[str, Any]) -> dict[str, Any]:
    """Metaspace's 'first' puts a space before the first text alone, while we spell each alone."""

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
    """The model with user-defined pieces made control pieces: a text spells the former.

    They are what chat models add: <|im_start|> and its like.
    """
    changed = bytearray(source)
    for number, start, stop in _fields(source, 0, len(source)):
        if number != 1:
            continue
        for inner, at, _ in _fields(source, start, stop):
            if inner == 3 and source[at] == USER_DEFINED:
                changed[at] = CONTROL
    return bytes(changed)


def _check_copied(source: bytes) -> bool:
    """Whether it puts a space before a text; ValueError for what `tokenizers` cannot copy."""
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
    """{field: its bytes} of the last message `number` of a model."""
    found: dict[int, bytes] = {}
    for outer, start, stop in _fields(source, 0, len(source)):
        if outer == number:
            found |= {k: source[at:end] for k, at, end in _fields(source, start, stop)}
    return found


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each field of a protocol buffer message: where its value lies."""
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
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
