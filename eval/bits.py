"""How many bits a model needs for held-out text and images: per byte of text, per image code.

In: a model, documents with their images encoded. Out: a prediction for each document, and scores.

1. A document becomes the sequence that training makes of it; one that is longer than the model's
   context is cut as training cuts it. Targets are those that training learns from.
2. Bits are -log2 p of each target, given all before it: of text among all that a grammar lets stand
   there instead of a code, of codes among codes. A compressor with the model would reach them.
3. Bits of text are divided by the bytes of UTF-8 that its tokens decode to, so that models with
   other tokenizers compare. Special tokens have no bytes and are left out.
4. Codes compare only between models of one image tokenizer. A head that gives an image no
   probability (masked, flow) has no bits of images, and the recipe says so.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal.cross_entropy import Targets, linear_cross_entropy
from unimodal.data import formats
from unimodal.data.cutting import WHOLE, Cut, cut_document, piece
from unimodal.data.formats import SampleError
from unimodal.data.remote import local_shards
from unimodal.data.rows import sized
from unimodal.data.shards import Shard
from unimodal.data.sizes import ImageRule
from unimodal.document import Document, Image, Text, encoded, needs_codec
from unimodal.heads.head import targets_of
from unimodal.kernels import attention
from unimodal.model import Model
from unimodal.sequence import IGNORE, IMAGE, Batch, Row
from unimodal.sequence import Sequence as TokenSequence

from .report import progress
from .round_trip import batches
from .score import Prediction, digest
from .vqa.clusters import Addend, of_clusters

TEXTS = (".txt", ".md")
NAMES = ("text_bits", "bytes", "code_bits", "codes")
"""What is kept of each document."""


@dataclass(frozen=True, eq=False)
class Named:
    """A document, and where it is from."""

    name: str
    document: Document


def documents_of(paths: Sequence[Path], rule: ImageRule | None) -> Iterator[Named]:
    """Yield the documents of shards, folders of shards and files of plain text, images resized by
    the rule; ValueError for one that cannot be read.
    """
    for path in paths:
        if path.suffix in TEXTS:
            yield Named(path.name, Document((Text(_text(path)),)))
            continue
        for shard in map(Shard, local_shards(str(path))):
            for number in range(len(shard)):
                yield _of_shard(shard, number, rule)


def bits(model: Model, documents: Sequence[Named], batch_size: int) -> dict[str, Any]:
    """Return scores, predictions and settings; ValueError where nothing is a target."""
    measure, left_out = _Measure(model), 0
    predictions: list[Prediction] = []
    for some in progress(batches(documents, batch_size), "bits"):
        pieces: list[tuple[int, TokenSequence]] = []
        for at, one in enumerate(some):
            document = _encoded(model, one.document)
            cuts, lost = _cuts(model, document)
            left_out += lost
            pieces += [(at, model.sequencer.sequence(piece(document, cut))) for cut in cuts]
        found_NK = np.zeros((len(some), len(NAMES)))
        for part in batches(pieces, batch_size):
            np.add.at(found_NK, [at for at, _ in part], measure([one for _, one in part]))
        predictions += [
            {"name": one.name, **dict(zip(NAMES, row, strict=True))}
            for one, row in zip(some, found_NK.tolist(), strict=True)
        ]
    if not any(one["bytes"] or one["codes"] for one in predictions):
        raise ValueError(
            "nothing in these documents is learned from (all weights are 0), so there are no bits"
        )
    return {
        "scores": {"bits": _scores(predictions)},
        "predictions": predictions,
        "settings": {
            "documents": digest([[one.name, _spelled(one.document)] for one in documents]),
            "samples": len(documents), "left_out": left_out, "context": model.context,
            "bits_of_images": "measured" if measure.sees_codes else "none: the head "
            f"{model.transformer.architecture.image.head} gives images no probability",
        },
    }  # fmt: skip


def _scores(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return total bits over total bytes and codes; intervals leave out a document at a time."""
    kinds = {"per_byte": ("text_bits", "bytes"), "per_code": ("code_bits", "codes")}
    found = {}
    for name, (over, under) in kinds.items():
        addends: list[Addend] = [
            (str(at), (one[over], one[under])) for at, one in enumerate(predictions) if one[under]
        ]
        found[name] = of_clusters(addends)
    return found


class _Measure:
    """Measures sequences by a model."""

    def __init__(self, model: Model) -> None:
        self.model, self.network = model, model.transformer
        self.sees_codes = self.network.head.has_log_probability
        if self.network.placement is not None:
            raise ValueError("sequences are measured on one device: load the model to one")
        self.device = self.network.lm_head_weight.device

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[TokenSequence]) -> np.ndarray:
        """Return NAMES of each sequence, float64 (B, 4)."""
        longest, pad = max(map(len, sequences)), self.model.vocabulary.special("pad")
        rows = [Row.pack([one], longest, pad) for one in sequences]
        batch = Batch.stack(rows).to(self.device)
        attend = attention(batch.doc, batch.block, batch.private)
        hidden_ND = self.network.hidden_states(batch, batch.positions, attend).flatten(0, 1)
        table_VD = self.network.output_table()
        text, codes = (part(batch, hidden_ND, table_VD) for part in (self._text, self._codes))
        found_BK = np.stack([*text, *codes], axis=1)
        if not np.isfinite(found_BK).all():
            raise ValueError("the model's probabilities are not finite: its weights are damaged")
        return found_BK

    def _text(self, batch: Batch, hidden_ND: Tensor, table_VD: Tensor) -> list[np.ndarray]:
        """Return the bits of the text of each row, and its bytes."""
        vocabulary = self.model.vocabulary
        is_text = torch.from_numpy(vocabulary.is_text(batch.labels.cpu().numpy()))
        is_text_BT = is_text.to(self.device) & (batch.modality != IMAGE)
        (at_M,) = is_text_BT.flatten().nonzero(as_tuple=True)
        ids_M, mask = batch.labels.flatten()[at_M], vocabulary.word_mask
        allowed = None if mask is None else torch.from_numpy(mask).to(self.device)
        targets = Targets(at_M, ids_M, torch.ones_like(ids_M, dtype=torch.float32), 0,
                          vocabulary.num_words, allowed)  # fmt: skip
        _, (nats_M,) = linear_cross_entropy(hidden_ND, table_VD, [targets])
        rows = batch.labels.where(is_text_BT, IGNORE).tolist()
        num_bytes = [sum(len(self._decoded(run)) for run in _runs(row)) for row in rows]
        return [_bits_of_rows(nats_M, at_M, batch), np.array(num_bytes, np.float64)]

    def _codes(self, batch: Batch, hidden_ND: Tensor, table_VD: Tensor) -> list[np.ndarray]:
        """Return the bits of the codes of each row, and how many there are."""
        at_M, _ = targets_of(batch, IMAGE)
        if not self.sees_codes or not len(at_M):
            return [np.zeros(len(batch.ids))] * 2
        ids_M = batch.labels.flatten()[at_M]
        log_p_M, _ = self.network.head.log_probability(hidden_ND[at_M], table_VD, ids_M)
        counts = torch.bincount(at_M // batch.ids.shape[1], minlength=len(batch.ids))
        return [_bits_of_rows(-log_p_M, at_M, batch), counts.double().cpu().numpy()]

    def _decoded(self, ids: list[int]) -> bytes:
        return self.model.text_tokenizer.decode(ids).encode()


def _bits_of_rows(nats_M: Tensor, at_M: Tensor, batch: Batch) -> np.ndarray:
    """Return the sums over the targets of each row, in bits, float64 (B,)."""
    num_rows, length = batch.ids.shape
    nats_B = torch.bincount(at_M // length, nats_M.double(), minlength=num_rows)
    return nats_B.cpu().numpy() / math.log(2)


def _runs(labels: Sequence[int]) -> Iterator[list[int]]:
    """Yield neighbouring targets together: a character may take several tokens."""
    for is_target, run in groupby(labels, lambda one: one != IGNORE):
        if is_target:
            yield list(run)


def _cuts(model: Model, document: Document) -> tuple[tuple[Cut, ...], int]:
    """Return the pieces of a document that fit the context, and how many do not."""
    if (model.sequencer.measure(document)[None] or 0) <= model.context:
        return (WHOLE,), 0
    found = cut_document(document, model.sequencer, model.context)
    return found.cuts, len(found.left_out)


def _encoded(model: Model, document: Document) -> Document:
    images = [part for part in document.parts if isinstance(part, Image) and needs_codec(part)]
    return encoded(document, iter(model.codec.encode(images)))


def _of_shard(shard: Shard, number: int, rule: ImageRule | None) -> Named:
    sample = shard.sample(number)
    try:
        stored = formats.document(sample, formats.detect_format(sample))
        opened = formats.opened(stored, lambda file: sized(file, rule, (0.5, 0.5), mirror=False))
    except SampleError as error:
        raise ValueError(f"{shard.path}, key {sample.key}: {error}") from error
    return Named(f"{shard.path.name}/{sample.key}", opened)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8: {error}") from error


def _spelled(document: Document) -> list[str]:
    """Return what a document says and shows, for its hash."""
    return [
        _content(part).hex() if isinstance(part, Image)
        else part.text if part.box is None
        else f"{part.text} {astuple(part.box)}"
        for part in document.parts
    ]  # fmt: skip


def _content(image: Image) -> bytes:
    for one in (image.pixels, image.codes, image.latents):
        if one is not None:
            return one.tobytes()
    raise AssertionError("an image that was opened has content")
