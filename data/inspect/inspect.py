"""Look into shards, to be done before anything is trained on them.

In: shards and a LengthEstimator. Out: an `Inspection`; `summary` puts all of it into one JSON
object.

1. The index of lengths (lengths.py) says what became of each sample and how many tokens it takes.
   It is the one that training reads, so what is measured here is not measured again there.
2. One pass over the samples adds what the index does not know: the sizes of images, from their
   headers, and the characters and special tokens of texts. No pixel is decoded, no text tokenized.

A document is what takes a place in a packed sequence: a sample, or a piece of one that is longer
than a sequence. Where a sample can be read in several ways (captions), the first one counts.
Whatever is wrong with a shard is no error here: it is what this is to show. Costs 0.2 ms a sample
and core, beside the index.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from unimodal.document import Document, Text
from unimodal.sequencer import Sequencer
from unimodal.tokenizer.pixels import ImageError, image_size

from .. import codes_member as codes
from .. import formats, order
from ..cutting import Cut, piece
from ..estimator import LengthEstimator
from ..formats import Sample
from ..lengths import Bad, Lengths, measure
from ..measured import RECORD, UNUSED, measure_shard
from ..packing import pack
from ..shards import Shard

EXAMPLES = 3  # bad samples of each reason that are named
MAX_SIZES = 50  # of images that are listed; the others are counted
WINDOW_ROWS = 1024  # about as many are packed together, as in training
UNUSABLE = "unusable shard"  # the reason of a shard that gives no samples at all
LEFT_OUT = "left out: "  # how notes of the index begin that tell what fits no sequence


@dataclass(frozen=True)
class Held:
    """What the index knows of the documents of a shard, in order."""

    samples_n: np.ndarray
    """The number of each one's sample, uint32 (n,)."""
    records_n: np.ndarray
    """The first record of each, RECORD (n,)."""


@dataclass
class Inspection:
    """What was found in shards; `summary` puts it into JSON."""

    paths: Sequence[Path]
    estimator: LengthEstimator
    held: list[Held] = field(default_factory=list)
    """What the index knows of each shard, in order."""
    notes: Counter[str] = field(default_factory=Counter)
    """Counts of what became of the samples (see Measured)."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Bad samples by reason."""
    bad_shards: Counter[str] = field(default_factory=Counter)
    """Bad samples by shard."""
    examples: dict[str, list[Bad]] = field(default_factory=dict)
    """The first bad samples of each reason."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Images by (width, height), those of bad samples too."""
    codes: int = 0
    """Images that are codes."""
    unreadable: int = 0
    """Images whose header gives no size that can be used."""
    characters: list[int] = field(default_factory=list)
    """The characters in the texts of each document."""
    special: list[int] = field(default_factory=list)
    """The tokens of each document that belong neither to a text nor to an image."""

    @property
    def tokens_n(self) -> np.ndarray:
        """Return the tokens of each document, int64 (n,)."""
        return self._records()["lengths"][:, 0].astype(np.int64)

    @property
    def images_n(self) -> np.ndarray:
        """Return the tokens of images in each document, int64 (n,)."""
        return self._records()["images"].astype(np.int64)

    @property
    def text_n(self) -> np.ndarray:
        """Return the text tokens of each document, int64 (n,)."""
        return self.tokens_n - self.images_n - np.array(self.special, np.int64)

    def _records(self) -> np.ndarray:
        return np.concatenate([np.empty(0, RECORD), *(held.records_n for held in self.held)])

    def note_bad(self, found: Iterable[Bad]) -> None:
        """Count these bad samples, and keep the first of each reason."""
        for bad in found:
            self.reasons[bad.reason] += 1
            self.bad_shards[bad.shard] += 1
            examples = self.examples.setdefault(bad.reason, [])
            if len(examples) < EXAMPLES:
                examples.append(bad)


def inspect(paths: Sequence[Path], estimator: LengthEstimator) -> Inspection:
    """Look at every sample of these shards, with a progress bar on standard error.

    Raises nothing for what is wrong with a shard: it is in the Inspection.
    """
    found = Inspection(paths, estimator)
    try:
        lengths = measure(paths, estimator, os.cpu_count() or 1)
    except Exception:  # one shard is enough to break it: each is measured alone, and told of
        for path in _progress(paths, "measuring shards"):
            _take_alone(found, path)
    else:
        _take(found, lengths)
    for path, held in zip(_progress(paths, "reading samples"), found.held, strict=True):
        _read(found, path, held)
    return found


def _progress(paths: Sequence[Path], words: str) -> Iterator[Path]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(paths, description=words)


def _take(found: Inspection, lengths: Lengths) -> None:
    """Add what the index of all shards knows."""
    units = lengths.units[:-1]
    bounds = np.searchsorted(units["shard"], np.arange(len(found.paths) + 1))
    for begin, end in zip(bounds, bounds[1:], strict=False):
        here = units[begin:end]
        found.held.append(Held(here["sample"], lengths.records[here["record"]]))
    found.notes.update(lengths.notes)
    found.note_bad(lengths.bad())


def _take_alone(found: Inspection, path: Path) -> None:
    """Add what can be measured of one shard; of one that breaks it, why."""
    try:
        measured = measure_shard(path, found.estimator)
    except Exception as error:  # nothing is hidden: it becomes a line of the report
        message = (
            str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        )
        found.held.append(Held(np.empty(0, np.uint32), np.empty(0, RECORD)))
        found.note_bad([Bad(str(path.absolute()), "", UNUSABLE, message)])
        return
    units = measured.units[:-1]
    found.held.append(Held(units["sample"], measured.records[units["record"]]))
    found.notes.update(measured.notes)
    found.note_bad(Bad(str(path.absolute()), **entry) for entry in measured.bad)


def _read(found: Inspection, path: Path, held: Held) -> None:
    """Add what the samples of a shard tell beside the index."""
    try:
        shard = Shard(path, [])
    except ValueError:  # noted as unusable
        return
    at = 0
    for number in range(len(shard)):
        sample = shard.sample(number, found.estimator.fields).without(found.estimator.ignore)
        _count_images(found, sample)
        begin = at
        while at < len(held.samples_n) and held.samples_n[at] == number:
            at += 1
        if at > begin:
            _count_texts(found, sample, held.records_n[begin:at]["cut"].tolist())


def _count_images(found: Inspection, sample: Sample) -> None:
    """Count the images of a sample by what they are, and by size."""
    for name in sample.image_files:
        if name.endswith(codes.EXTENSION):
            found.codes += 1
            continue
        try:
            found.sizes[image_size(sample.files[name])] += 1
        except ImageError:
            found.unreadable += 1


def _count_texts(found: Inspection, sample: Sample, cuts: list[list[int]]) -> None:
    """Count characters and special tokens of the documents that these cuts make of a sample."""
    document = formats.document(sample, found.estimator.format or formats.detect_format(sample))
    for cut in cuts:
        part = piece(document, Cut(*cut))
        found.characters.append(sum(len(p.text) for p in part.parts if isinstance(p, Text)))
        found.special.append(special_tokens(part, found.estimator.sequencer))


def special_tokens(document: Document, sequencer: Sequencer) -> int:
    """Count the tokens of a document that belong neither to a text nor to an image."""
    turns = sum(sequencer.turn_length(role) for role, _ in document.turns())
    return sequencer.ends_length + turns


def summary(found: Inspection) -> dict[str, Any]:
    """Return all of it as JSON has it; None for a statistic of nothing."""
    tokens_n, text_n = found.tokens_n, found.text_n
    has_text_n = text_n > 0
    characters_n = np.array(found.characters, np.int64)
    return {
        "settings": _settings(found.estimator),
        "shards": len(found.paths),
        "bytes": sum(path.stat().st_size for path in found.paths if path.exists()),
        "samples": found.notes["samples"],
        "documents": len(tokens_n),
        "formats": _named(found.notes, "format "),
        "empty": found.notes["empty"],
        "cut": found.notes["cut"],
        "left_out": _named(found.notes, LEFT_OUT),
        "unused_files": _named(found.notes, UNUSED),
        "bad": {
            reason: {"count": count, "first": [asdict(bad) for bad in found.examples[reason]]}
            for reason, count in found.reasons.most_common()
        },
        "images": _images(found),
        "text": {
            "documents": int(has_text_n.sum()),
            "characters": _spread(characters_n[has_text_n]),
            "tokens": _spread(text_n[has_text_n]),
        },
        "tokens": _tokens(found),
        "positions": _spread(tokens_n),
        "rows": _rows(tokens_n, found.estimator.sequence_length),
    }


def _settings(estimator: LengthEstimator) -> dict[str, Any]:
    """Return what the numbers depend on beside the shards."""
    return {
        "sequence_length": estimator.sequence_length,
        "target_pixels": estimator.images.target_pixels if estimator.images else None,
        "max_aspect_ratio": estimator.images.max_aspect_ratio if estimator.images else None,
        "text_tokenizer": estimator.sequencer.text_tokenizer.hash,
        "image_tokenizer": estimator.sequencer.codec_hash,
    }


def _named(notes: Counter[str], prefix: str) -> dict[str, int]:
    """Return the notes that begin with `prefix`, without it, the most frequent first."""
    return {
        name.removeprefix(prefix): count
        for name, count in notes.most_common()
        if name.startswith(prefix)
    }


def _images(found: Inspection) -> dict[str, Any]:
    """Return how many images there are of what kind and size."""
    sizes = sorted(found.sizes.items(), key=lambda item: (-item[1], item[0]))
    counts_n = np.array([count for _, count in sizes], np.int64)
    sides_n2 = np.array([size for size, _ in sizes], np.int64).reshape(-1, 2)
    width_n, height_n = (np.repeat(sides_n2[:, side], counts_n) for side in (0, 1))
    return {
        "count": found.sizes.total() + found.codes + found.unreadable,
        "codes": found.codes,
        "unreadable": found.unreadable,
        "different_sizes": len(sizes),
        "sizes": [[width, height, count] for (width, height), count in sizes[:MAX_SIZES]],
        "width": _spread(width_n),
        "height": _spread(height_n),
        "pixels": _spread(width_n * height_n),
    }


def _spread(values_n: np.ndarray) -> dict[str, float] | None:
    """Return least, mean, median, 95th percentile and most; None for no values."""
    if not len(values_n):
        return None
    return {
        "min": int(values_n.min()),
        "mean": float(values_n.mean()),
        "median": float(np.median(values_n)),
        "p95": float(np.percentile(values_n, 95)),
        "max": int(values_n.max()),
    }


def _tokens(found: Inspection) -> dict[str, Any]:
    """Return the tokens of each modality, and their shares."""
    counts = {
        "text": int(found.text_n.sum()),
        "images": int(found.images_n.sum()),
        "special": sum(found.special),
    }
    total = sum(counts.values())
    shares = {name: count / total if total else 0.0 for name, count in counts.items()}
    return {**counts, "total": total, "shares": shares}


def _rows(tokens_n: np.ndarray, sequence_length: int) -> dict[str, Any] | None:
    """Return how full sequences are that hold each document once; None for no documents.

    They are packed, or padded to the longest one.
    """
    if not len(tokens_n):
        return None
    windows = _windows(tokens_n, sequence_length)
    count = sum(len(pack(window, sequence_length)) for window in windows)
    packed = float(tokens_n.sum() / (count * sequence_length))
    padded = float(tokens_n.mean() / tokens_n.max())
    return {
        "length": sequence_length,
        "packed": count,
        "packed_fill": packed,
        "padded_fill": padded,
        "packed_over_padded": packed / padded,
    }


def _windows(tokens_n: np.ndarray, sequence_length: int) -> list[np.ndarray]:
    """Shuffle the documents, and cut them into windows that fill about WINDOW_ROWS rows each."""
    size = len(tokens_n)
    shuffled_n = tokens_n[order.permuted(np.arange(size), size, 0)]
    starts_n = (shuffled_n.cumsum() - shuffled_n) // (WINDOW_ROWS * sequence_length)
    return np.split(shuffled_n, np.flatnonzero(np.diff(starts_n)) + 1)
