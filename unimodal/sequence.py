"""Document <-> token ids: the only file that knows the token layout.

    document   begin turn* end
    turn       role part* turn_end        (parts without a role stand bare)
    text       its byte-level BPE ids
    image    image size_h size_w (w codes, row_end) * h image_end

The label of position t is the id at t + 1, weighted by the part it belongs to. Markers that a
sampler's grammar forces (roles, row_end, image_end) are never learned; turn_end is, with the weight
of its turn's last part.

Guidance dropout replaces each of the user's texts, images or both by one null token, in training
and in the unconditional branch of a drawing alike. Text answers of a document with dropped parts
are not learned: without its question an answer is noise.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, fields, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from unimodal.tokenizer.grid import Grid

from .document import Document, Image, Part, Text
from .grammar import image_length
from .text import TextTokenizer
from .vocabulary import Vocabulary

IGNORE = -100  # the label of a position with nothing to predict
PADDING = -1  # the `doc` and `source` of a position that belongs to no document
LAYOUT = 1  # of ids, as described above; lengths that were measured of another one are void
DROPS = (None, "text", "images", "both")


@dataclass(frozen=True)
class Span:
    """A image's codes: positions start .. stop - 1 hold its grid with a row_end after each
    row.
    """

    start: int
    stop: int
    grid: Grid


@dataclass(frozen=True, eq=False)
class Sequence:
    """One document as arrays of n positions.

    ids, labels int64; weights float32; block int32 (0: causal, else the bidirectional block's
    number); private bool (seen only from inside its block).
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    block: np.ndarray
    private: np.ndarray
    images: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Row:
    """Sequences side by side in exactly T positions, each array (T,); `doc` is -1 on padding.

    source int16: the number of the source that a position comes from, -1 on padding.
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    doc: np.ndarray
    block: np.ndarray
    private: np.ndarray
    positions: np.ndarray
    source: np.ndarray

    @classmethod
    def pack(
        cls,
        sequences: Items[Sequence | int],
        length: int,
        pad: int,
        sources: Items[int] | None = None,
    ) -> "Row":
        """Put sequences side by side and pad to `length`; too many positions are a ValueError.

        A number in a sequence's place is that many positions of padding. `sources` has the number
        of each sequence's source; None: all are of source 0.
        """
        placed = [_blank(one, pad) if isinstance(one, int) else one for one in sequences]
        counts = [len(sequence) for sequence in placed]
        used = sum(counts)
        if used > length:
            raise ValueError(f"{used} positions do not fit a row of {length}")
        docs = [PADDING if isinstance(one, int) else at for at, one in enumerate(sequences)]
        of = [0] * len(docs) if sources is None else sources
        origins = [PADDING if doc == PADDING else one for doc, one in zip(docs, of, strict=True)]
        gap = _blank(length - used, pad)

        def join(name: str) -> np.ndarray:
            return np.concatenate([getattr(sequence, name) for sequence in [*placed, gap]])

        return cls(
            ids=join("ids"),
            labels=join("labels"),
            weights=join("weights"),
            doc=np.repeat(np.array([*docs, PADDING], np.int32), [*counts, len(gap)]),
            block=join("block"),
            private=join("private"),
            positions=np.concatenate([np.arange(n, dtype=np.int64) for n in [*counts, len(gap)]]),
            source=np.repeat(np.array([*origins, PADDING], np.int16), [*counts, len(gap)]),
        )


def _blank(length: int, pad: int) -> Sequence:
    """Positions that nobody sees or learns."""
    zeros = np.zeros(length, np.int32)
    ids, labels = (np.full(length, value, np.int64) for value in (pad, IGNORE))
    return Sequence(ids, labels, zeros.astype(np.float32), zeros, zeros.astype(bool), ())


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors (B, T): what a training step takes."""

    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    doc: torch.Tensor
    block: torch.Tensor
    private: torch.Tensor
    positions: torch.Tensor
    source: torch.Tensor

    @classmethod
    def stack(cls, rows: Items[Row]) -> "Batch":
        """Stack rows of equal length."""
        names = [field.name for field in fields(cls)]
        return cls(
            *(torch.from_numpy(np.stack([getattr(row, name) for row in rows])) for name in names)
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return Batch(
            **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        )


def span_mask(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> Tensor:
    """Who sees whom: bool (B, query T, key T), True where the query sees the key.

    Query q sees key k when they share `doc`, and (k <= q, or both are in the same bidirectional
    `block`), and (k is not `private`, or they share the block). Block 0 is no block: its positions
    are causal. Every position sees itself, and a padding position (doc == PADDING) nothing else.

    doc_BT: int, equal within a document, PADDING where there is none. block_BT: int, 0 for causal
    positions, else the number of a bidirectional block. private_BT: bool (or 0/1).
    """
    T = doc_BT.shape[-1]
    itself_TT = torch.eye(T, dtype=torch.bool, device=doc_BT.device)
    past_TT = torch.ones_like(itself_TT).tril()
    same_doc_BTT = (doc_BT[:, :, None] == doc_BT[:, None, :]) & (doc_BT != PADDING)[:, :, None]
    same_block_BTT = (block_BT[:, :, None] == block_BT[:, None, :]) & (block_BT > 0)[:, :, None]
    public_BTT = ~private_BT.bool()[:, None, :]
    return itself_TT | same_doc_BTT & (past_TT | same_block_BTT) & (public_BTT | same_block_BTT)


class Sequencer:
    """Turns documents into sequences and back, for training, evaluation and chat alike."""

    def __init__(self, vocabulary: Vocabulary, text: TextTokenizer, tokenizer_hash: str):
        if text.num_ids != vocabulary.num_text:
            raise ValueError(
                f"{text.num_ids} text ids, but the vocabulary holds {vocabulary.num_text}"
            )
        self.vocabulary, self.text, self.tokenizer_hash = vocabulary, text, tokenizer_hash

    def sequence(self, document: Document, drop: str | None = None) -> Sequence:
        """The whole document, with the user's `drop` (text, images or both) replaced by null
        tokens.
        """
        return self._assemble(document, drop, closed=True)

    def prompt(self, document: Document, drop: str | None = None) -> Sequence:
        """The document so far, ending with the assistant's marker: what a reply is sampled
        after.
        """
        return self._assemble(document, drop, closed=False)

    def measure(self, document: Document) -> dict[str | None, int]:
        """Positions of `sequence(document, drop)` for each of DROPS, without making one.

        Images need their grid alone.
        """
        sizes = [self.part_length(part) for part in document.parts]
        turns = sum(1 for role, _ in groupby(part.role for part in document.parts) if role)
        return {
            drop: 2 + 2 * turns + sum(
                1 if _is_dropped(part, drop) else size
                for part, size in zip(document.parts, sizes, strict=True)
            )
            for drop in DROPS
        }  # fmt: skip

    def part_length(self, part: Part) -> int:
        """The positions of a part that is not dropped."""
        if isinstance(part, Text):
            return len(self.text.encode(part.text))
        if part.grid is None:
            raise ValueError("a image without a grid has no length")
        return image_length(part.grid)

    def _assemble(self, document: Document, drop: str | None, closed: bool) -> Sequence:
        if drop not in DROPS:
            raise ValueError(f"drop {drop!r}: one of {DROPS}")
        control, layout = self.vocabulary.control, _Layout()
        layout.add([control("begin")], 0)
        for role, parts in document.turns():
            if role is not None:
                layout.add([control(role)], 0)
            for part in parts:
                self._add_part(layout, part, drop)
            if role is not None:
                layout.add([control("turn_end")], _weight(parts[-1], drop))
        last = document.parts[-1] if document.parts else None
        if closed:
            layout.add(
                [control("end")], last.weight if last is not None and last.role is None else 0
            )
        else:
            layout.add([control("assistant")], 0)
        return layout.sequence()

    def _add_part(self, layout: "_Layout", part: Part, drop: str | None) -> None:
        if _is_dropped(part, drop):
            layout.add([self.vocabulary.control("null")], 0)
        elif isinstance(part, Text):
            layout.add(self.text.encode(part.text), _weight(part, drop))
        else:
            self._add_image(layout, part)

    def _add_image(self, layout: "_Layout", image: Image) -> None:
        if image.codes is None or image.grid is None:
            raise ValueError("a image must be encoded before it can enter a sequence")
        if image.tokenizer_hash != self.tokenizer_hash:
            raise ValueError(
                f"codes of tokenizer {image.tokenizer_hash}, but the model reads "
                f"{self.tokenizer_hash}: encode the image again"
            )
        grid, weight, vocabulary = image.grid, image.weight, self.vocabulary
        layout.add([vocabulary.control("image")], weight)
        layout.add([vocabulary.side(grid.height), vocabulary.side(grid.width)], weight)
        start = len(layout.ids)
        for row in vocabulary.code_to_id(image.codes).reshape(grid.height, grid.width).tolist():
            layout.add(row, weight)
            layout.add([vocabulary.control("row_end")], 0)
        layout.images.append(Span(start, len(layout.ids), grid))
        layout.add([vocabulary.control("image_end")], 0)

    def parts(self, ids: Items[int], role: str | None) -> list[Part]:
        """The texts and images that ids between two markers spell; a broken layout is a
        ValueError.
        """
        ids = list(ids)
        parts: list[Part] = []
        text: list[int] = []
        at = 0
        while at < len(ids):
            if self.vocabulary.is_text(ids[at]):
                text.append(ids[at])
                at += 1
                continue
            self._flush(parts, text, role)
            image, at = self._read_image(ids, at, role)
            parts.append(image)
        self._flush(parts, text, role)
        return parts

    def _flush(self, parts: list[Part], text: list[int], role: str | None) -> None:
        if text:
            parts.append(Text(self.text.decode(text), role=role))
            text.clear()

    def _read_image(self, ids: list[int], at: int, role: str | None) -> tuple[Image, int]:
        vocabulary = self.vocabulary
        if ids[at] != vocabulary.control("image") or at + 2 >= len(ids):
            raise ValueError(f"id {ids[at]} at {at} begins neither a text nor a image")
        grid = Grid(vocabulary.side_length(ids[at + 1]), vocabulary.side_length(ids[at + 2]))
        start, stop = at + 3, at + 3 + grid.height * (grid.width + 1)
        if stop >= len(ids) or ids[stop] != vocabulary.control("image_end"):
            raise ValueError(f"the image at {at} does not end after {grid.size} codes")
        rows = np.array(ids[start:stop]).reshape(grid.height, grid.width + 1)
        if (rows[:, -1] != vocabulary.control("row_end")).any():
            raise ValueError(f"the image at {at} lacks a row's end")
        codes = vocabulary.id_to_code(rows[:, :-1].reshape(-1))
        image = Image(codes=codes, grid=grid, tokenizer_hash=self.tokenizer_hash, role=role)
        return image, stop + 1

    def document(self, ids: Items[int]) -> Document:
        """The document that a whole sequence of ids spells (weights are not kept: all 1)."""
        control = self.vocabulary.control
        ids = list(ids)
        if len(ids) < 2 or ids[0] != control("begin") or ids[-1] != control("end"):
            raise ValueError("a sequence begins with `begin` and ends with `end`")
        roles = {control(role): role for role in ("system", "user", "assistant")}
        parts: list[Part] = []
        at, stop = 1, len(ids) - 1
        while at < stop:
            role = roles.get(ids[at])
            end = next(
                (
                    k
                    for k in range(at, stop)
                    if (ids[k] == control("turn_end") if role else ids[k] in roles)
                ),
                stop,
            )
            if role is not None and end == stop:
                raise ValueError(f"the {role} turn at {at} has no end")
            parts += self.parts(ids[at + 1 : end] if role else ids[at:end], role)
            at = end + 1 if role else end
        return Document(tuple(parts))


class _Layout:
    """Ids in the making, each with the weight with which it is learned."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.images: list[Span] = []

    def add(self, ids: Items[int], weight: float) -> None:
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))

    def sequence(self) -> Sequence:
        ids = np.array(self.ids, dtype=np.int64)
        weights = np.array([*self.weights[1:], 0], dtype=np.float32)
        labels = np.where(weights > 0, np.append(ids[1:], IGNORE), IGNORE)
        zeros = np.zeros(len(ids), dtype=np.int32)
        return Sequence(ids, labels, weights, zeros, zeros.astype(bool), tuple(self.images))


def _is_dropped(part: Part, drop: str | None) -> bool:
    kind = "text" if isinstance(part, Text) else "images"
    return part.role == "user" and drop in (kind, "both")


def _weight(part: Part, drop: str | None) -> float:
    """What a part's targets weigh when `drop` is dropped."""
    return 0.0 if drop is not None and isinstance(part, Text) else part.weight


def encoded(document: Document, images: Iterator[Image]) -> Document:
    """The document with each image that has no codes replaced by the next of `images`, its role
    and weight kept.
    """
    parts = [
        replace(next(images), role=part.role, weight=part.weight)
        if isinstance(part, Image) and part.codes is None
        else part
        for part in document.parts
    ]
    return Document(tuple(parts))
