"""How long the documents of a shard are, without making one sequence or decoding one pixel.

In: a shard and a Ruler: all that lengths depend on. Out: `Measured`: units, records and notes.

- A unit is what is shuffled and packed: a sample, or a piece of one that is longer than a row. It
  knows the bytes of its shard, so that it is read without the shard's headers.
- A record is one Document that a unit can be: a variant (which caption, which order), its cut, and
  its positions whole and with each guidance dropout.

Costs 0.2 to 0.5 ms a sample and core, most of it for tokenizing text.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.document import Document, Part, Picture, Text
from unimodal.sequence import DROPS, LAYOUT, Sequencer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import PictureError, picture_size

from . import codes_member as codes
from . import formats as forms
from . import order
from .formats import Sample, SampleError, Stored
from .shards import Shard
from .sizes import PictureRule, bucket
from .splitting import WHOLE, Cut, piece, split
from .tar import Fault

MOST_VARIANTS = 64  # of one sample; of more, these are used
MOST_PARTNERS = 32  # of one sample, for edits
Opener = Callable[[Stored], Picture]
VERSION = 3  # of what is written below
UNIT = np.dtype(
    [("shard", "<u4"), ("sample", "<u4"), ("start", "<u8"), ("stop", "<u8"), ("record", "<u8")]
)
"""`record`: its first one; the next unit's is behind its last. One more unit closes the list."""
RECORD = np.dtype(
    [
        ("variant", "<u4"),
        ("drops", "u1"),  # which of DROPS[1:] may be dropped, as bits
        ("cut", "<u4", 4),
        ("lengths", "<u4", 4),  # positions, for each of DROPS
        ("pictures", "<u4"),  # positions of pictures among them
        ("other", "<u8", 2),  # bytes of the sample after this one, for an edit made of a pair
    ]
)


@dataclass(frozen=True)
class Ruler:
    """What lengths depend on."""

    sequencer: Sequencer
    row_length: int
    patch: int
    """Pixels a code stands for, along each side."""
    pictures: PictureRule | None = None
    """None: pictures as they are, of whole patches."""
    form: str | None = None
    """None: what each sample shows."""
    pairs: str | None = None
    """A field of .json: samples that share its value are pairs for edits."""
    part: tuple[float, float] = (0.0, 1.0)
    """Only samples whose hash, as a number in [0, 1), lies from the first to before the second."""
    part_by: str | None = None
    """A field of .json whose value is hashed for that; None: the key."""

    @property
    def key(self) -> str:
        """SHA-256 of everything here and of how it is applied."""
        content = {
            "version": VERSION,
            "layout": LAYOUT,
            "text": self.sequencer.text.hash,
            "image": self.sequencer.tokenizer_hash,
            "row_length": self.row_length,
            "patch": self.patch,
            "pictures": asdict(self.pictures) if self.pictures else None,
            "form": self.form,
            "pairs": self.pairs,
            "part": [*self.part, self.part_by],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def sized(self, stored: Stored) -> Picture:
        """A stand-in with the grid that the picture will have, read from its header."""
        try:
            grid = self._grid(stored)
            for side in (grid.height, grid.width):
                self.sequencer.vocabulary.side(side)
        except SampleError:
            raise
        except (PictureError, ValueError) as error:
            raise SampleError("bad picture", f".{stored.name}: {error}") from error
        nothing = np.zeros(grid.size, np.int64)
        return Picture(None, nothing, grid, self.sequencer.tokenizer_hash)

    def _grid(self, stored: Stored) -> Grid:
        if stored.is_codes:
            return self._grid_of_codes(stored)
        width, height = picture_size(stored.content)
        if self.pictures is not None:
            width, height = bucket((width, height), self.pictures)
        elif width % self.patch or height % self.patch:
            raise ValueError(
                f"{width} x {height} pixels are no whole {self.patch}-pixel patches; set `pictures`"
            )
        return Grid(height // self.patch, width // self.patch)

    def _grid_of_codes(self, stored: Stored) -> Grid:
        picture, mine = codes.from_bytes(stored.content), self.sequencer.tokenizer_hash
        if picture.tokenizer_hash != mine:
            other = f".{stored.name}: codes of tokenizer {str(picture.tokenizer_hash)[:12]}"
            message = f"{other}, but the model reads {mine[:12]}: encode the pictures again"
            raise SampleError("foreign codes", message)
        assert picture.grid is not None and picture.codes is not None, "codes come with a grid"
        self.sequencer.vocabulary.code_to_id(picture.codes)  # a code that is none is an error
        return picture.grid


@dataclass
class Measured:
    """The units and records of a shard, and what became of its samples."""

    units: np.ndarray
    records: np.ndarray
    bad: list[dict[str, str]]
    """Of each sample that is no document: key, reason and message."""
    notes: dict[str, int]
    """Counts: samples, each form, split, left out for each reason."""


@dataclass
class _Lists:
    """What is found of a shard, sample by sample."""

    units: list[tuple] = field(default_factory=list)
    records: list[tuple] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)


def in_part(sample: Sample, part: tuple[float, float], part_by: str | None) -> bool:
    """Whether a sample's number in [0, 1), the hash of its key or of its field `part_by`, lies in
    the part; SampleError when it lacks the field.
    """
    if part == (0.0, 1.0):
        return True
    value: Any = sample.key
    if part_by is not None and (value := sample.field(part_by)) is None:
        raise SampleError("missing field", f".json has no {part_by!r} to divide by")
    words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return part[0] <= float(order.uniform(order.word(words))[0]) < part[1]


def measure_shard(path: Path, ruler: Ruler) -> Measured:
    """Measure every sample; ShardError when the shard cannot be read at all."""
    faults: list[Fault] = []
    shard = Shard(path, faults)
    bad = [
        {"key": fault.key or "", "reason": "damaged tar", "message": fault.message}
        for fault in faults
    ]
    lists = _Lists()
    lists.notes["samples"] = len(shard) + len(faults)
    partners, sized = _partners(shard, ruler), _once(ruler.sized)
    for number in range(len(shard)):
        sample = shard.sample(number)
        try:
            if not in_part(sample, ruler.part, ruler.part_by):
                lists.notes["in another part"] += 1
                continue
            if ruler.pairs is None:
                documents = list(_documents(sample, ruler, ruler.sized))
            else:
                documents = list(_edits(shard, sample, partners[number], ruler, sized))
            _add(lists, ruler, number, shard.ranges_n2[number].tolist(), documents)
        except SampleError as error:
            if error.reason == forms.EMPTY:
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
    """A Document that a sample can be; its pictures have grids and no codes yet."""

    variant: int
    document: Document
    form: str
    other: tuple[int, int] = (0, 0)


def _documents(
    sample: Sample, ruler: Ruler, sized: Opener, form: str | None = None
) -> Iterator[_Choice]:
    form = form or ruler.form or forms.recognised(sample)
    for variant in range(min(forms.variants(sample, form), MOST_VARIANTS)):
        stored = forms.document(sample, form, variant)
        yield _Choice(variant, forms.opened(stored, sized), form)


def _once(sized: Opener) -> Opener:
    """Measures each picture once, and not once for each partner."""
    seen: dict[int, Picture] = {}

    def seen_before(stored: Stored) -> Picture:
        known = hash(stored.content)
        if known not in seen:
            seen[known] = sized(stored)
        return seen[known]

    return seen_before


def _partners(shard: Shard, ruler: Ruler) -> list[list[int]]:
    """For each sample the others of the part that have the same value in the field `pairs`."""
    if ruler.pairs is None:
        return []
    values: list[str | None] = []
    for number in range(len(shard)):
        sample = shard.sample(number)
        try:
            value = (
                sample.field(ruler.pairs) if in_part(sample, ruler.part, ruler.part_by) else None
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
    """At most MOST_PARTNERS of them, chosen by a hash that differs between samples."""
    if len(others) <= MOST_PARTNERS:
        return others
    chance = order.hashed(number, np.array(others))
    return [others[at] for at in sorted(np.argsort(chance)[:MOST_PARTNERS].tolist())]


def _edits(
    shard: Shard, sample: Sample, others: list[int], ruler: Ruler, sized: Opener
) -> Iterator[_Choice]:
    """The edits from a sample to each of its partners."""
    if sample.field(ruler.pairs or "") is None:
        raise SampleError("missing field", f".json has no {ruler.pairs!r} to pair it by")
    list(_documents(forms.pair(sample, sample), ruler, sized, "edit"))  # bad in itself: found here
    for other in others:
        begin, end = shard.ranges_n2[other].tolist()
        with contextlib.suppress(SampleError):  # bad is the other one, counted when its turn comes
            for choice in _documents(forms.pair(sample, shard.sample(other)), ruler, sized, "edit"):
                yield replace(choice, other=(begin, end))


def _add(
    lists: _Lists, ruler: Ruler, number: int, place: list[int], choices: list[_Choice]
) -> None:
    """Add a sample's units and records; one that can be too long for a row is split as it first
    of all is.
    """
    notes = lists.notes
    if not choices:
        notes["without a partner"] += 1
        return
    notes[f"form {choices[0].form}"] += 1
    rows = [_record(choice, WHOLE, ruler) for choice in choices]
    if all(row[3][0] <= ruler.row_length for row in rows):
        _unit(lists, number, place, rows)
        return
    parts = split(choices[0].document, ruler.sequencer.part_length, ruler.row_length)
    notes["split"] += len(parts.cuts) > 1
    for what in parts.left_out:
        notes[f"left out: {what.partition(' of ')[0]} longer than a row"] += 1
    for cut in parts.cuts:
        _unit(lists, number, place, [_record(choices[0], cut, ruler)])


def _unit(lists: _Lists, number: int, place: list[int], rows: list[tuple]) -> None:
    lists.units.append((0, number, *place, len(lists.records)))
    lists.records += rows


def _record(choice: _Choice, cut: Cut, ruler: Ruler) -> tuple:
    document = piece(choice.document, cut)
    lengths = ruler.sequencer.measure(document)
    pictures = sum(
        ruler.sequencer.part_length(part) for part in document.parts if isinstance(part, Picture)
    )
    bounds = (cut.begin_part, cut.begin_char, cut.end_part, cut.end_char)
    drops = sum(1 << bit for bit, drop in enumerate(DROPS[1:]) if drop in droppable(document))
    by_drop = tuple(lengths[drop] for drop in DROPS)
    return (choice.variant, drops, bounds, by_drop, pictures, choice.other)


def droppable(document: Document) -> tuple[str, ...]:
    """What guidance dropout may take from a document: what the user wrote, showed, or both.

    Only documents with a learned picture of the assistant are touched, as guidance serves nothing
    else; each drop must change the document.
    """
    if not any(_is_drawn(part) for part in document.parts):
        return ()
    user = [part for part in document.parts if part.role == "user"]
    has_text = any(isinstance(part, Text) for part in user)
    has_pictures = any(isinstance(part, Picture) for part in user)
    if has_text and has_pictures:
        return ("text", "pictures", "both")
    return ("text",) if has_text else ("pictures",) if has_pictures else ()


def _is_drawn(part: Part) -> bool:
    return isinstance(part, Picture) and part.role == "assistant" and part.weight > 0
