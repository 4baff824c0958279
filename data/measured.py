"""Measure how long the documents of a shard are, without building a sequence or decoding a pixel.

In: a shard and a LengthEstimator, which holds all that lengths depend on. Out: `Measured`: units,
records and notes.

- A unit is what is shuffled and packed: a sample, or a piece of one that is longer than a packed
  sequence. It knows its bytes in the shard, so that it is read without the shard's headers.
- A record is one Document that a unit can be: a variant (which caption, which order), its cut, and
  its tokens whole, with each guidance dropout, and those at its end that nothing has to read.

Costs 0.2 to 0.5 ms a sample and core, most of it for tokenizing text.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.document import Document, Image, Part, StoredFile, Text
from unimodal.sequencer import DROPS

from . import formats, order
from .cutting import WHOLE, Cut, cut_document, piece
from .estimator import LengthEstimator, Opener
from .formats import Sample, SampleError
from .shards import Shard
from .tar import Fault
from .unread import unread_length

MAX_VARIANTS = 64  # of one sample; of more, these are used
MAX_PARTNERS = 32  # of one sample, for edits
PAIRS = ("caption", "request")  # formats whose images and words mean nothing apart
WITH_TEXT, WITH_IMAGES = "with text to learn", "with images to learn"  # notes of units
LEARNS_NOTHING = "without anything to learn"  # likewise
TEXT, IMAGES = 1, 2  # bits of what is learned of a Document, before the weights of its source
UNUSED = "unused: "  # how notes begin that count files which nobody used, by extension
IGNORED = "ignored: "  # how notes begin that count samples with files that are left unread
UNIT = np.dtype(
    [("shard", "<u4"), ("sample", "<u4"), ("start", "<u8"), ("stop", "<u8"), ("record", "<u8")]
)
"""`record` is the unit's first one; its last stands before the next unit's first. One more unit
closes the list."""

RECORD = np.dtype(
    [
        ("variant", "<u4"),
        ("drops", "u1"),  # which of DROPS[1:] may be dropped, as bits
        ("cut", "<u4", 4),
        ("lengths", "<u4", 4),  # tokens, for each of DROPS
        ("images", "<u4"),  # tokens of images among them
        ("unread", "<u4"),  # tokens at its end that only what follows would read
        (
            "other",
            "<u8",
            2,
        ),  # bytes in the shard of the sample that an edit made of a pair leads to
        ("learns", "u1"),  # TEXT and IMAGES
    ]
)


@dataclass
class Measured:
    """The units and records of a shard, and what happened to its samples."""

    units: np.ndarray
    records: np.ndarray
    bad: list[dict[str, str]]
    """Key, reason and message of each sample that is no document."""
    notes: dict[str, int]
    """Counts of samples: all, of each format, of another split, cut, left out for each reason."""


@dataclass
class _Lists:
    """What has been found of a shard so far, sample by sample."""

    units: list[tuple] = field(default_factory=list)
    records: list[tuple] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)


def in_split(sample: Sample, split: tuple[float, float], split_by: str | None) -> bool:
    """Return whether a sample's hash, as a number in [0, 1), lies in the split.

    Its key is hashed, or the value of its field `split_by`; SampleError when it lacks the field.
    """
    if split == (0.0, 1.0):
        return True
    value: Any = sample.key
    if split_by is not None and (value := sample.field(split_by)) is None:
        raise SampleError("missing field", f".json has no {split_by!r} to divide by")
    words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return split[0] <= float(order.uniform(order.word(words))[0]) < split[1]


def measure_shard(path: Path, estimator: LengthEstimator) -> Measured:
    """Measure every sample of a shard; ShardError when the shard cannot be read at all."""
    faults: list[Fault] = []
    shard = Shard(path, faults)
    bad = [
        {"key": fault.key or "", "reason": fault.reason, "message": fault.message}
        for fault in faults
    ]
    lists = _Lists()
    lists.notes["samples"] = len(shard) + len(faults)
    if shard.num_hidden:
        lists.notes[f"{UNUSED}hidden"] = shard.num_hidden
    partners, sized = _partners(shard, estimator), _once(estimator.sized)
    for number in range(len(shard)):
        whole = shard.sample(number, estimator.fields)
        sample = whole.without(estimator.ignore)
        lists.notes.update(
            f"{IGNORED}.{name}" for name in estimator.ignore if whole.without([name]) is not whole
        )
        try:
            if not in_split(sample, estimator.split, estimator.split_by):
                lists.notes["in another split"] += 1
                continue
            if estimator.pairs is None:
                documents = list(_documents(sample, estimator, estimator.sized))
                lists.notes.update(_unused(sample, documents[0]))
            else:
                documents = list(_edits(shard, sample, partners[number], estimator, sized))
            _add(lists, estimator, number, shard.ranges_n2[number].tolist(), documents)
        except SampleError as error:
            if error.reason == formats.EMPTY:
                lists.notes["empty"] += 1
                continue
            bad.append({"key": sample.key, "reason": error.reason, "message": str(error)})
    return Measured(
        np.array([*lists.units, (0, 0, 0, 0, len(lists.records))], dtype=UNIT),
        np.array(lists.records, dtype=RECORD),
        bad,
        dict(lists.notes),
    )


@dataclass(frozen=True)
class _Choice:
    """A Document that a sample can be; its images are stand-ins that only have grids."""

    variant: int
    document: Document
    format: str
    other: tuple[int, int] = (0, 0)


def _documents(
    sample: Sample, estimator: LengthEstimator, sized: Opener, format: str | None = None
) -> Iterator[_Choice]:
    format = format or estimator.format or formats.detect_format(sample)
    for variant in range(min(formats.variants(sample, format), MAX_VARIANTS)):
        stored = formats.document(sample, format, variant)
        yield _Choice(variant, formats.opened(stored, sized), format)


def _unused(sample: Sample, first: _Choice) -> Iterator[str]:
    """Yield a note for each file that nobody used, by its extension without numbers."""
    for name in formats.unused(sample, first.document, first.format):
        words = [word for word in name.split(".") if not word.isdecimal()]
        yield f"{UNUSED}.{'.'.join(words) or name}"


def _once(sized: Opener) -> Opener:
    """Return an opener that measures each image once, and not once for each partner."""
    seen: dict[int, Image] = {}

    def seen_before(stored: StoredFile) -> Image:
        known = hash(stored.content)
        if known not in seen:
            seen[known] = sized(stored)
        return seen[known]

    return seen_before


def _partners(shard: Shard, estimator: LengthEstimator) -> list[list[int]]:
    """Return for each sample the others of the split with the same value in the field `pairs`."""
    if estimator.pairs is None:
        return []
    values: list[str | None] = []
    for number in range(len(shard)):
        sample = shard.sample(number, estimator.fields).without(estimator.ignore)
        try:
            value = (
                sample.field(estimator.pairs)
                if in_split(sample, estimator.split, estimator.split_by)
                else None
            )
        except SampleError:  # counted when its turn comes
            value = None
        values.append(None if value is None else json.dumps(value, sort_keys=True))
    groups: dict[str, list[int]] = {}
    for number, value in enumerate(values):
        if value is not None:
            groups.setdefault(value, []).append(number)
    return [
        _some([other for other in groups[value] if other != number], number) if value else []
        for number, value in enumerate(values)
    ]


def _some(others: list[int], number: int) -> list[int]:
    """Choose at most MAX_PARTNERS of them by a hash that differs between samples."""
    if len(others) <= MAX_PARTNERS:
        return others
    chance = order.hashed(number, np.array(others))
    return [others[at] for at in sorted(np.argsort(chance)[:MAX_PARTNERS].tolist())]


def _edits(
    shard: Shard, sample: Sample, others: list[int], estimator: LengthEstimator, sized: Opener
) -> Iterator[_Choice]:
    """Yield the edits from a sample to each of its partners."""
    if sample.field(estimator.pairs or "") is None:
        raise SampleError("missing field", f".json has no {estimator.pairs!r} to pair it by")
    list(
        _documents(formats.pair(sample, sample), estimator, sized, "edit")
    )  # bad in itself: found here
    for other in others:
        begin, end = shard.ranges_n2[other].tolist()
        with contextlib.suppress(SampleError):  # bad is the other one, counted when its turn comes
            for choice in _documents(
                formats.pair(
                    sample, shard.sample(other, estimator.fields).without(estimator.ignore)
                ),
                estimator,
                sized,
                "edit",
            ):
                yield replace(choice, other=(begin, end))


def _add(
    lists: _Lists, estimator: LengthEstimator, number: int, place: list[int], choices: list[_Choice]
) -> None:
    """Add a sample's units and records.

    A sample of which any Document exceeds the sequence length is cut, as its first variant; an
    image and its caption are never parted, so of a caption the Documents that fit are taken.
    """
    notes = lists.notes
    if not choices:
        notes["without a partner"] += 1
        return
    notes[f"format {choices[0].format}"] += 1
    rows = [_record(choice, WHOLE, estimator) for choice in choices]
    fitting = [row for row in rows if row[3][0] <= estimator.sequence_length]
    is_pair = _is_pair(choices[0])
    if is_pair and not fitting:
        notes["left out: a caption and its image longer than a row"] += 1
        return
    if is_pair or len(fitting) == len(rows):
        _unit(lists, number, place, fitting)
        return
    document = estimator.learned(choices[0].document)
    parts = cut_document(document, estimator.sequencer, estimator.sequence_length)
    notes["cut"] += len(parts.cuts) > 1
    for why in parts.left_out:
        notes[f"left out: {why}"] += 1
    for cut in parts.cuts:
        _unit(lists, number, place, [_record(choices[0], cut, estimator)])


def _is_pair(choice: _Choice) -> bool:
    """Tell whether a document is an image and its words, which mean nothing without each other."""
    parts = choice.document.parts
    is_own = choice.format == "document" and all(part.role is None for part in parts)
    kinds = {type(part) for part in parts}
    return choice.format in PAIRS or (is_own and len(parts) == 2 and kinds == {Text, Image})


def _unit(lists: _Lists, number: int, place: list[int], rows: list[tuple]) -> None:
    lists.units.append((0, number, *place, len(lists.records)))
    lists.records += rows
    learns = [row[-1] for row in rows]
    lists.notes[WITH_TEXT] += any(bits & TEXT for bits in learns)
    lists.notes[WITH_IMAGES] += any(bits & IMAGES for bits in learns)
    lists.notes[LEARNS_NOTHING] += not any(learns)


def _record(choice: _Choice, cut: Cut, estimator: LengthEstimator) -> tuple:
    document = estimator.seen(piece(choice.document, cut))
    learned = estimator.learned(document)
    sequencer = estimator.sequencer.of(learned)
    lengths = sequencer.measure(learned)
    images = sum(sequencer.part_length(part) for part in learned.parts if isinstance(part, Image))
    bounds = (cut.begin_part, cut.begin_char, cut.end_part, cut.end_char)
    drops = sum(1 << bit for bit, drop in enumerate(DROPS[1:]) if drop in droppable(document))
    by_drop = tuple(lengths[drop] for drop in DROPS)
    unread = unread_length(estimator.sequencer, learned)
    return choice.variant, drops, bounds, by_drop, images, unread, choice.other, _learns(document)


def _learns(document: Document) -> int:
    """Return as bits whether text and images of a document have a loss weight."""
    kinds = {isinstance(part, Image) for part in document.parts if part.weight > 0}
    return TEXT * (False in kinds) | IMAGES * (True in kinds)


def droppable(document: Document) -> tuple[str, ...]:
    """Return what guidance dropout may take from a document: the user's text, images, or both.

    Only documents with a learned image of the assistant are touched, as guidance serves nothing
    else; each drop must change the document.
    """
    if not any(_is_drawn(part) for part in document.parts):
        return ()
    user = [part for part in document.parts if part.role == "user"]
    has_text = any(isinstance(part, Text) for part in user)
    has_images = any(isinstance(part, Image) for part in user)
    if has_text and has_images:
        return ("text", "images", "both")
    return ("text",) if has_text else ("images",) if has_images else ()


def _is_drawn(part: Part) -> bool:
    return isinstance(part, Image) and part.role == "assistant" and part.weight > 0
