"""Tokens as a transformer takes them: one document's, packed rows, batches, and who sees whom.

Three integers of each token say all about attention (`span_mask`): its document, the bidirectional
block that it is in, and its private number. Query q sees key k when they share `doc`, and k comes
no later or both are in the same block, and k is public or has q's own private number.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unimodal.tokenizer.grid import Grid

IGNORE = -100  # the label of a token with nothing to predict
PADDING = -1  # the `doc` and `source` of a token that belongs to no document
MODALITIES = ("text", "image")
TEXT, IMAGE = 1, 2  # what a token has to predict; 0: nothing


@dataclass(frozen=True, eq=False)
class Span:
    """Tokens start .. stop - 1 that stand for an image's grid, with what is needed of the image
    beside their ids: codes of all groups, int (n, groups), or latents, float32 (n, d), or pixels,
    uint8 (H, W, 3).

    key: what noise on this image is drawn with, a pure function of (seed, epoch, row, part).
    """

    start: int
    stop: int
    grid: Grid
    codes: np.ndarray | None = None
    latents: np.ndarray | None = None
    pixels: np.ndarray | None = None
    key: tuple[int, ...] = ()

    @property
    def has_content(self) -> bool:
        """Whether ids alone do not say what the image is."""
        return any(one is not None for one in (self.codes, self.latents, self.pixels))

    def moved(self, by: int) -> "Span":
        """Return the same span `by` tokens further on."""
        return replace(self, start=self.start + by, stop=self.stop + by)


@dataclass(frozen=True, eq=False)
class Sequence:
    """One document as arrays of n tokens.

    ids, labels int64: what a token is, and the id that it has to predict. weights float32: the loss
    weight of that. modality int8: 0 where nothing is predicted, else TEXT or IMAGE (labels of an
    image's tokens may be IGNORE: their targets are then in their span). block int32: 0 for causal
    tokens, else the number of a bidirectional block. private int32: 0 for tokens that all may see,
    else a number. positions int64: for RoPE. address int16 (n, 2): row and column of an image's
    code, from 1; 0 elsewhere.
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    modality: np.ndarray
    block: np.ndarray
    private: np.ndarray
    positions: np.ndarray
    address: np.ndarray
    spans: tuple[Span, ...] = ()

    ARRAYS: ClassVar[tuple[str, ...]] = (
        "ids", "labels", "weights", "modality", "block", "private", "positions", "address"
    )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def causal(
        cls,
        ids: np.ndarray,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        modality: np.ndarray | None = None,
    ) -> "Sequence":
        """Return tokens that each see all before them; without labels nothing is predicted."""
        n = len(ids)
        return cls(
            ids=np.asarray(ids, np.int64),
            labels=np.full(n, IGNORE, np.int64) if labels is None else labels,
            weights=np.zeros(n, np.float32) if weights is None else weights,
            modality=np.zeros(n, np.int8) if modality is None else modality,
            block=np.zeros(n, np.int32),
            private=np.zeros(n, np.int32),
            positions=np.arange(n, dtype=np.int64),
            address=np.zeros((n, 2), np.int16),
        )


@dataclass(frozen=True, eq=False)
class Row:
    """A packed sequence: documents side by side in exactly T tokens.

    Arrays are those of Sequence, and: doc int32, the number of a token's document, PADDING where
    there is none; source int16, the number of the source that it comes from, PADDING likewise.
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    modality: np.ndarray
    block: np.ndarray
    private: np.ndarray
    positions: np.ndarray
    address: np.ndarray
    doc: np.ndarray
    source: np.ndarray
    spans: tuple[Span, ...] = ()

    @classmethod
    def pack(
        cls,
        sequences: Items[Sequence | int],
        length: int,
        pad: int,
        sources: Items[int] | None = None,
    ) -> "Row":
        """Put sequences side by side and pad to `length`; ValueError where they are longer.

        A number in a sequence's place is that many tokens of padding. `sources` has the number of
        each sequence's source; None: all are of source 0.
        """
        placed = [_padding(one, pad) if isinstance(one, int) else one for one in sequences]
        counts = [len(sequence) for sequence in placed]
        used = sum(counts)
        if used > length:
            raise ValueError(f"{used} tokens do not fit a row of {length}")
        docs = [PADDING if isinstance(one, int) else at for at, one in enumerate(sequences)]
        of = [0] * len(docs) if sources is None else sources
        origins = [PADDING if doc == PADDING else one for doc, one in zip(docs, of, strict=True)]
        placed.append(_padding(length - used, pad))
        counts.append(length - used)
        starts = np.cumsum([0, *counts]).tolist()
        arrays = {
            name: np.concatenate([getattr(sequence, name) for sequence in placed])
            for name in Sequence.ARRAYS
        }
        return cls(
            **arrays,
            doc=np.repeat(np.array([*docs, PADDING], np.int32), counts),
            source=np.repeat(np.array([*origins, PADDING], np.int16), counts),
            spans=tuple(
                span.moved(start)
                for start, sequence in zip(starts, placed, strict=False)
                for span in sequence.spans
            ),
        )


def _padding(length: int, pad: int) -> Sequence:
    """Return tokens that nobody sees or learns."""
    return Sequence.causal(np.full(length, pad))


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors (B, T), address (B, T, 2): what a training step takes.

    spans: for each row those of its images whose codes, latents or pixels are needed.
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    modality: Tensor
    block: Tensor
    private: Tensor
    positions: Tensor
    address: Tensor
    doc: Tensor
    source: Tensor
    spans: tuple[tuple[Span, ...], ...] = ()

    @classmethod
    def stack(cls, rows: Items[Row]) -> "Batch":
        """Stack rows of equal length."""
        stacked = {
            name: torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
            for name in cls.tensors()
        }
        return cls(**stacked, spans=tuple(row.spans for row in rows))

    @classmethod
    def tensors(cls) -> list[str]:
        """Return the names of the fields that are tensors."""
        return [field.name for field in fields(cls) if field.name != "spans"]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on a device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.tensors()}
        return replace(self, **moved)

    def split(self, rows: int) -> "list[Batch]":
        """Cut the batch into batches of so many rows."""
        parts = {name: getattr(self, name).split(rows) for name in self.tensors()}
        starts = range(0, len(self.ids), rows)
        return [
            Batch(
                **{name: values[at] for name, values in parts.items()},
                spans=self.spans[start : start + rows],
            )
            for at, start in enumerate(starts)
        ]


def placed_spans(spans: Items[Items[Span]]) -> Iterator[tuple[int, Span]]:
    """Return each span of a batch with the number of its row."""
    return ((row, span) for row, mine in enumerate(spans) for span in mine)


def span_mask(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> Tensor:
    """Return who sees whom: bool (B, query T, key T), True where the query sees the key.

    Query q sees key k when they share `doc`, and (k <= q, or both are in the same bidirectional
    `block`), and (k's `private` number is 0, or q's too). Block 0 is no block: its tokens are
    causal. Every token sees itself, and padding (doc == PADDING) nothing else.

    doc_BT: int, equal within a document, PADDING where there is none. block_BT: int, 0 for causal
    tokens, else the number of a bidirectional block. private_BT: int, 0 for public tokens.
    """
    T = doc_BT.shape[-1]
    itself_TT = torch.eye(T, dtype=torch.bool, device=doc_BT.device)
    past_TT = torch.ones_like(itself_TT).tril()
    same_doc_BTT = (doc_BT[:, :, None] == doc_BT[:, None, :]) & (doc_BT != PADDING)[:, :, None]
    reached_BTT = past_TT | same_block(block_BT, block_BT)
    return itself_TT | same_doc_BTT & reached_BTT & may_see(private_BT, private_BT)


def same_block(query_BT: Tensor, key_BS: Tensor) -> Tensor:
    """Return where a query and a key are in the same bidirectional block, bool (B, T, S)."""
    return (query_BT[:, :, None] == key_BS[:, None, :]) & (query_BT > 0)[:, :, None]


def may_see(query_BT: Tensor, key_BS: Tensor) -> Tensor:
    """Return where a key is public or has the query's private number, bool (B, T, S)."""
    key_B1S = key_BS[:, None, :]
    return (key_B1S == 0) | (key_B1S == query_BT[:, :, None])
