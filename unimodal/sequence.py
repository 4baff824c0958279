"""A Sequence holds a document's tokens, a Row packs sequences, and a Batch stacks rows.

Three integers per token decide attention (`span_mask`): the number of its document, of the
bidirectional block that it is in, and its private number. Query q sees key k when they share the
document, and k is not later than q or both are in the same block, and k is public (number 0) or has
q's private number. Pieces of an image that are noised or masked for learning are private: they see
what is public, and only they see themselves.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unimodal.tokenizer.grid import Grid

IGNORE = -100  # the label of a token that predicts nothing
PADDING = -1  # the `doc` and `source` of a token that belongs to no document
MODALITIES = ("text", "image")
TEXT, IMAGE = 1, 2  # the modality of a token's target; 0: it has none


@dataclass(frozen=True, eq=False)
class Span:
    """A Span marks the tokens start .. stop - 1, which stand for the grid of one image.

    It carries what the model needs of the image beside ids: codes of all groups, int (n, groups),
    or latents, float32 (n, d), or pixels, uint8 (H, W, 3); all None where ids suffice.

    noise: float32 (n, d), with which the latents are mixed before they enter; None: they enter as
    they are. time: from 0, where all is noise, to 1, where all is data (rectified_flow.py).
    key: the key of the counter-based generator that draws noise on this image; it is a pure
    function of (seed, epoch, row, part).
    """

    start: int
    stop: int
    grid: Grid
    codes: np.ndarray | None = None
    latents: np.ndarray | None = None
    pixels: np.ndarray | None = None
    key: tuple[int, ...] = ()
    noise: np.ndarray | None = None
    time: float = 1.0

    @property
    def has_content(self) -> bool:
        """Return whether the image is given by more than the ids of its tokens."""
        return any(one is not None for one in (self.codes, self.latents, self.pixels))

    def moved(self, by: int) -> "Span":
        """Return the span shifted by `by` tokens."""
        return replace(self, start=self.start + by, stop=self.stop + by)

    def overlaps(self, start: int, stop: int) -> bool:
        """Return whether some of the tokens start .. stop - 1 are the span's."""
        return self.start < stop and start < self.stop

    def part(self, start: int, stop: int) -> "Span":
        """Return what the span has of the tokens start .. stop - 1: where they lie, and the latents
        and the noise of each. Codes and pixels are of the whole image, and are left out.
        """
        first, last = max(start, self.start), min(stop, self.stop)
        here = slice(first - self.start, last - self.start)
        latents = None if self.latents is None else self.latents[here]
        noise = None if self.noise is None else self.noise[here]
        return replace(
            self, start=first, stop=last, codes=None, pixels=None, latents=latents, noise=noise
        )


@dataclass(frozen=True, eq=False)
class Sequence:
    """A Sequence holds one document as arrays of n tokens.

    ids, labels int64: the token's id, and the id that it has to predict or IGNORE.
    weights float32: the loss weight of the target.
    modality int8: TEXT or IMAGE, the modality of the target; 0 where nothing is predicted. Labels
        of tokens that predict an image may be IGNORE: their targets are then in the span.
    block int32: the number of the token's bidirectional block; 0 for causal tokens.
    private int32: the token's private number; 0 for public tokens.
    positions int64: RoPE positions.
    address int16 (n, 2): the row and the column, from 1, whose embeddings an image embedder may add
        to the token; next_code gives those of the code that the token predicts. 0 elsewhere.
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
        """Return a sequence of causal, public tokens; without labels, nothing is predicted."""
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

    @classmethod
    def joined(cls, pieces: Iterable["Sequence"]) -> "Sequence":
        """Return pieces, at least one, as one sequence; positions and numbers stay theirs."""
        placed = list(pieces)
        starts = np.cumsum([0, *map(len, placed)]).tolist()
        spans = [
            span.moved(start)
            for start, piece in zip(starts, placed, strict=False)
            for span in piece.spans
        ]
        arrays = {name: np.concatenate([getattr(p, name) for p in placed]) for name in cls.ARRAYS}
        return cls(**arrays, spans=tuple(spans))


@dataclass(frozen=True, eq=False)
class Row:
    """A Row is a packed sequence: several documents side by side in exactly T tokens.

    Its arrays are those of Sequence, and doc int32 and source int16: the numbers of a token's
    document and of the data source that it comes from, PADDING where a token is padding.
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
        """Pack sequences side by side and pad them to `length` tokens with the id `pad`.

        An int in place of a sequence stands for that many tokens of padding. `sources` holds the
        number of each sequence's source; None: all are of source 0. Raise ValueError where the
        sequences are longer than `length`.
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
        joined = Sequence.joined(placed)
        return cls(
            **{name: getattr(joined, name) for name in Sequence.ARRAYS},
            doc=np.repeat(np.array([*docs, PADDING], np.int32), counts),
            source=np.repeat(np.array([*origins, PADDING], np.int16), counts),
            spans=joined.spans,
        )


def _padding(length: int, pad: int) -> Sequence:
    """Return tokens of padding, which have no targets; Row.pack gives them no document."""
    return Sequence.causal(np.full(length, pad))


@dataclass(frozen=True, eq=False)
class Batch:
    """A Batch holds rows as tensors (B, T), with address (B, T, 2): the input of a training step.

    Fields are those of Row. spans: the spans of each row.
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
        """Stack rows of equal length to a batch."""
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
        """Return the batch with its tensors on a device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.tensors()}
        return replace(self, **moved)

    def split(self, rows: int) -> "list[Batch]":
        """Cut the batch into batches of `rows` rows; the last one may have fewer."""
        parts = {name: getattr(self, name).split(rows) for name in self.tensors()}
        starts = range(0, len(self.ids), rows)
        return [
            Batch(
                **{name: values[at] for name, values in parts.items()},
                spans=self.spans[start : start + rows],
            )
            for at, start in enumerate(starts)
        ]

    def part(self, start: int, stop: int) -> "Batch":
        """Return the tokens start .. stop - 1 of each row, with their parts of the spans."""
        return self._tokens(
            start,
            stop,
            [[one.part(start, stop) for one in row if one.overlaps(start, stop)]
             for row in self.spans],
        )  # fmt: skip

    def around(self, start: int, stop: int) -> "tuple[Batch, int]":
        """Return the tokens start .. stop - 1 of each row, with as many before and behind them as
        the images among them take to be whole, and how many those before are. Other images have no
        spans.
        """
        spans = [[one for one in row if one.overlaps(start, stop)] for row in self.spans]
        first = min([start, *(one.start for row in spans for one in row)])
        last = max([stop, *(one.stop for row in spans for one in row)])
        return self._tokens(first, last, spans), start - first

    def _tokens(self, start: int, stop: int, spans: Items[Items[Span]]) -> "Batch":
        """Return the tokens start .. stop - 1 of each row, and these spans, counted from there."""
        tensors = {name: getattr(self, name)[:, start:stop] for name in self.tensors()}
        moved = tuple(tuple(one.moved(-start) for one in row) for row in spans)
        return Batch(**tensors, spans=moved)


def placed_spans(spans: Items[Items[Span]]) -> Iterator[tuple[int, Span]]:
    """Return (row number, span) of every span of a batch."""
    return ((row, span) for row, mine in enumerate(spans) for span in mine)


def span_mask(doc_BT: Tensor, block_BT: Tensor, private_BT: Tensor) -> Tensor:
    """Return the attention mask: bool (B, query T, key T), True where the query sees the key.

    Query q sees key k when they share `doc`, and (k <= q, or both are in the same bidirectional
    `block`), and (k's `private` number is 0, or equals q's). Block 0 is no block: its tokens are
    causal. Every token sees itself; padding (doc == PADDING) sees nothing else, so that no row of
    the softmax is empty. Bidirectional blocks within causal text follow Transfusion
    (arXiv:2408.11039, sec. 3).

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
    """Return where a query T and a key S are in the same bidirectional block, bool (B, T, S)."""
    return (query_BT[:, :, None] == key_BS[:, None, :]) & (query_BT > 0)[:, :, None]


def may_see(query_BT: Tensor, key_BS: Tensor) -> Tensor:
    """Return where a key S is public or has the private number of query T, bool (B, T, S)."""
    key_B1S = key_BS[:, None, :]
    return (key_B1S == 0) | (key_B1S == query_BT[:, :, None])
