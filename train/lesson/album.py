"""The user's images and captions, read and checked before anything is taught.

In: a folder, or a table, as `unimodal data convert` reads them; and the model that is to learn
them. Out: an `Album`: the images that can be used, as the model will see them, and of the others
the reasons.

1. A folder may have a .txt or .json beside each image, a metadata.csv or metadata.jsonl, or a
   captions.csv, captions.tsv or captions.jsonl.
2. An image is resized and cropped to the model's canvas, as chat does it, and goes once through the
   image tokenizer: what that cannot show, no training can.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from unimodal.codec import fitted
from unimodal.data import asking, order
from unimodal.data.convert.convert import Outcome, converted, open_table
from unimodal.data.convert.table import Table
from unimodal.data.fields import IMAGE_FILES
from unimodal.data.lengths import Bad
from unimodal.data.sample import Sample
from unimodal.document import Document, Text
from unimodal.eval.captioned import Captioned
from unimodal.eval.round_trip import round_trip
from unimodal.model import Model
from unimodal.room import refusal
from unimodal.tokenizer.pixels import ImageError, open_image

TABLES = ("captions.csv", "captions.tsv", "captions.jsonl")
WANTED = (
    "give a folder of images, each with its caption in a .txt or .json of the same name, or all in "
    "one captions.csv (docs/teaching.md)"
)
SHOWN = 256  # pixels: the longer side of an original that is kept for the sheet
POOR_DB = 20.0  # PSNR below which an image is hardly what it was
FEW = 5  # images, below which a warning is due
NAMED = 8  # files that a warning names
LONGEST = max((*asking.SHORT, *asking.LONG), key=len)


@dataclass(frozen=True)
class Album:
    """Captioned images, and what of their source is none."""

    images: tuple[Captioned, ...]
    bad: tuple[str, ...]
    """Why an image cannot be used, beginning with its name."""
    notes: tuple[str, ...]
    """What was done to images, or left out."""

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all captions and pixels, in order."""
        found = hashlib.sha256()
        for one in self.images:
            found.update(json.dumps([one.name, one.captions]).encode())
            found.update(one.pixels.tobytes())
        return found.hexdigest()

    @property
    def taught(self) -> tuple[Captioned, ...]:
        """Return the images that are not held out."""
        return tuple(one for one in self.images if not one.is_held_out)

    def held_out(self, count: int, seed: int) -> "Album":
        """Return the album with so many images held out by chance; ValueError where none is left
        to be taught.
        """
        if count >= len(self.images):
            raise ValueError(
                f"--hold-out {count} of {len(self.images)} images leaves none to be taught"
            )
        chosen = order.permuted(np.arange(count), len(self.images), seed, order.word("held out"))
        images = [
            replace(one, is_held_out=number in chosen) for number, one in enumerate(self.images)
        ]
        return replace(self, images=tuple(images))

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know before time is spent."""
        if len(self.taught) < FEW:
            yield (
                f"{len(self.taught)} image{'s are' if len(self.taught) > 1 else ' is'} few: it will"
                " learn them by heart and little beyond; twenty teach more"
            )
        poor = sorted((one for one in self.images if one.psnr_db < POOR_DB), key=_psnr)
        if poor:
            named = ", ".join(f"{one.name} {one.psnr_db:.1f}" for one in poor[:NAMED])
            more = f" and {len(poor) - NAMED} more" if len(poor) > NAMED else ""
            yield (
                f"the bundle's image tokenizer cannot show {len(poor)} of {len(self.images)} "
                f"images (PSNR below {POOR_DB:g} dB): {named}{more}. Drawings will be no better "
                "than what stands beside the originals in before_after.png; only a bundle with "
                "another image tokenizer draws them better (docs/tokenizers.md)"
            )


def read_album(source: Path, model: Model, length: int) -> Album:
    """Return the album of a source; ValueError where it has no image that can be used.

    `length`: the most tokens of a document.
    """
    table = _table(source)
    originals: list[_Read] = []
    bad: list[str] = []
    notes: Counter[str] = Counter()
    named: set[str] = set()
    for outcome, name in _outcomes(table):
        named.add(name)
        read = _read(outcome, name, model, length)
        if isinstance(read, str):
            bad.append(read)
            continue
        originals.append(read)
        notes.update(read.notes)
    bad += [f"{name}: {source.name} has no caption of it" for name in _lone(table, named)]
    if not originals:
        why = "\n  ".join(bad[:NAMED]) if bad else table.note or "it is empty"
        raise ValueError(f"{source} has no image with a caption:\n  {why}")
    seen = round_trip(model.image_tokenizer, [one.pixels for one in originals]).images
    images = [
        Captioned(one.name, one.captions, one.original, one.pixels, shown)
        for one, shown in zip(originals, seen, strict=True)
    ]
    done = [f"{count} of {len(images)} images: {note}" for note, count in notes.items()]
    return Album(tuple(images), tuple(bad), tuple([*done, *([table.note] if table.note else [])]))


@dataclass(frozen=True, eq=False)
class _Read:
    name: str
    captions: tuple[str, ...]
    original: np.ndarray
    pixels: np.ndarray
    notes: tuple[str, ...]


def _table(source: Path) -> Table:
    """Return the table of a source, of a folder that of its captions; ValueError where there is
    none, or where a folder has two.
    """
    if not source.exists():
        raise ValueError(f"there is no {source}: {WANTED}")
    if source.is_file() and source.suffix.lower() in IMAGE_FILES:
        raise ValueError(f"{source} is one image: {WANTED}")
    if source.is_dir() and not any(source.iterdir()):
        raise ValueError(f"{source} is empty: {WANTED}")
    tables = [source / name for name in TABLES if source.is_dir() and (source / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{' and '.join(map(str, tables))}: which one has the captions?")
    return open_table(str(tables[0] if tables else source))


def _outcomes(table: Table) -> Iterator[tuple[Outcome, str]]:
    """Yield what becomes of each row, and the name of its image."""
    last: list[Any] = []

    def rows() -> Iterator[Any]:
        for position, row in table.rows:
            last[:] = [row]
            yield position, row

    for number, outcome in enumerate(converted(replace(table, rows=rows()), {}), 1):
        yield outcome, _name(last[0], outcome, f"row {number}")


def _name(row: Any, outcome: Outcome, otherwise: str) -> str:
    """Return what a row calls its image."""
    columns = outcome.columns["image"] if outcome.columns is not None else ()
    for value in (row[column] for column in columns if isinstance(row, dict) and column in row):
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first and len(first) < 1000:
            return first
    return otherwise


def _read(outcome: Outcome, name: str, model: Model, length: int) -> "_Read | str":
    """Return the image of a row, or why it cannot be used."""
    sample = outcome.sample
    if isinstance(sample, Bad):
        return sample.message if name in sample.message else f"{name}: {sample.message}"
    assert outcome.columns is not None, "a sample was read from columns"
    if outcome.columns.format != "request":
        return (
            f"{name}: no caption of an image but data of the format {outcome.columns.format}, which"
            " `unimodal data convert` and `unimodal train lm` are for"
        )
    captions = _captions(sample)
    if not _fits(captions, model, length):
        return f"{name}: its caption and an image take more than {length:,} tokens: shorten it"
    (file,) = (sample.files[one] for one in sample.image_files)
    try:
        original = open_image(file).image
    except ImageError as error:  # the reader decoded it at an eighth of its size
        return f"{name}: {error}"
    pixels, notes = fitted(file, model.canvas)
    original.thumbnail((SHOWN, SHOWN), PILImage.Resampling.BICUBIC)
    return _Read(name, captions, np.asarray(original), pixels, tuple(notes))


def _captions(sample: Sample) -> tuple[str, ...]:
    found = sample.words("caption")
    return tuple(str(one) for one in (found if isinstance(found, list) else [found]))


def _fits(captions: Sequence[str], model: Model, length: int) -> bool:
    """Tell whether a request of any caption leaves room for its image."""
    room = model.sequencer.layout.length(model.grid) + model.sequencer.ends_length
    asked = (Document((Text(LONGEST.replace("{}", one), role="user"),)) for one in captions)
    return all(refusal(model.sequencer, one, length, room) is None for one in asked)


def _lone(table: Table, named: set[str]) -> list[str]:
    """Return the images of a folder that its table of captions does not name."""
    if Path(table.source).name not in TABLES:
        return []
    files = (file for file in table.images.rglob("*") if file.suffix.lower() in IMAGE_FILES)
    paths = (file.relative_to(table.images).as_posix() for file in files)
    return sorted(path for path in paths if path not in named)


def _psnr(one: Captioned) -> float:
    return one.psnr_db
