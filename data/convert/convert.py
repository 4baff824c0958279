"""Turn the rows of a table into samples of shards.

In: a source, which `open_table` opens as a `Table`. Out: for each row the files of a sample in one
of the stored formats of formats.py, or a `Bad` that says why it has none.

1. Only what the format reads is stored: its fields in .json, and its images, byte for byte. What
   else a row says (ids, paths, scores) is left out.
2. A key is the number of the row in 9 digits, so that a bad row shifts no other.
3. A sample is checked to be a document before it is written.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import formats
from ..fields import plain
from ..formats import Sample, SampleError
from ..image_members import elsewhere
from ..lengths import Bad
from ..placeholders import placed
from ..turns import Shown, Turn, read_turns
from .arrow import arrow_table, is_arrow
from .columns import CONVERSATIONS, Columns, detect_columns
from .files import file_table
from .folders import folder_table
from .imagefolder import imagefolder_table, is_imagefolder
from .sandbox import Sandbox
from .table import HUB, Fields, Table
from .unread import check_images_read

SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}  # of LLaVA, by role
Images = list[tuple[str, bytes]]  # extension and contents


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    position: int
    """Behind the row, of `Table.length`."""
    columns: Columns | None
    """How it was read; None: it is of no known format."""
    sample: Sample | Bad


def open_table(source: str, images: Path | None = None, format: str | None = None) -> Table:
    """Return the table of a path, or of hf:NAME[:SPLIT]; ValueError where there is none.

    `images` is the folder to which paths of images are relative; None: that of the source.
    `format`: that of all rows, where the user named it.
    """
    if source.startswith(HUB) or is_arrow(Path(source)):
        return arrow_table(source, images)
    if is_imagefolder(Path(source)):
        return imagefolder_table(source, images)
    if Path(source).is_dir():
        return folder_table(source, images, format)
    return file_table(source, images)


def converted(
    table: Table,
    asked: Mapping[str, tuple[str, ...]],
    format: str | None = None,
    captions: str = CONVERSATIONS,
) -> Iterator[Outcome]:
    """Yield what becomes of each row; `asked` and `format` as in `columns.detect_columns`.

    `captions`: whether an image and its caption become conversations, or pairs.
    """
    sandbox = Sandbox(table.images)
    for number, (position, row) in enumerate(table.rows):
        key, columns = f"{number:09d}", None
        try:
            if isinstance(row, SampleError):
                raise row
            row = plain(row)
            columns = _columns(row, table, asked, format)
            if format is None and "text" not in asked:
                check_images_read(row, columns)
            if columns.format == "caption" and captions == CONVERSATIONS:
                columns = replace(columns, format="request")
            yield Outcome(position, columns, _sample(key, row, columns, sandbox))
        except SampleError as error:
            words = str(error).encode(errors="backslashreplace").decode()  # it may quote anything
            yield Outcome(position, columns, Bad(table.source, key, error.reason, words))


def _columns(
    row: Fields, table: Table, asked: Mapping[str, tuple[str, ...]], format: str | None
) -> Columns:
    """Return the columns of a row; SampleError where it is of no known format."""
    try:
        return detect_columns(row, asked, table.typed, format)
    except ValueError as error:
        raise SampleError("unknown format", str(error)) from error


def _sample(key: str, row: Fields, columns: Columns, sandbox: Sandbox) -> Sample:
    """Return the sample of a row, checked to be a document; SampleError where it is none."""
    try:
        sample = Sample(key, MAKERS[columns.format](row, columns, sandbox))
    except SampleError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        message = f"no {columns.format}: {type(error).__name__}: {error}"
        raise SampleError("wrong fields", message) from error
    found = formats.detect_format(sample)
    assert found == columns.format, f"a sample of {columns.format} reads as {found}"
    formats.document(sample, found)
    return sample


def _document(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store parts as they are; a part's image is a path or the number of one of the row's."""
    given = _cells(row, columns)
    stored: Images = []
    parts, taken = [], set()
    for part in _value(row, columns, "parts"):
        part = {name: value for name, value in part.items() if value is not None}
        about = {name: part[name] for name in ("text", "role", "weight") if name in part}
        if "image" in part:
            about["image"] = len(stored)
            named = _numbered(part["image"], given)
            if isinstance(named, int):
                taken.add(range(len(given))[named])
            stored.append(sandbox.image(given[named] if isinstance(named, int) else named))
        parts.append(about)
    if left := len(given) - len(taken):
        raise SampleError("unplaced image", f"{left} of the row's images have no place in it")
    numbered = {f"{number}.{extension}": file for number, (extension, file) in enumerate(stored)}
    return _json({"parts": parts}) | numbered


def _interleaved(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store texts and images that stand at the same places of two lists, as OBELICS has them."""
    images = _value(row, columns, "images")
    stored = _named([sandbox.image(image) for image in images if image is not None])
    names = iter(stored)
    aligned = [None if image is None else next(names) for image in images]
    return _json({"texts": _value(row, columns, "texts"), "images": aligned}) | stored


def _llava(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store turns of words as they are, with their <image>s, and the row's images."""
    turns = read_turns(_value(row, columns, "conversations"))
    if not all(len(turn.pieces) == 1 and isinstance(turn.pieces[0], str) for turn in turns):
        return _talk("conversations", turns, _cells(row, columns), sandbox)
    told = [{"from": SPEAKERS[turn.role], "value": turn.pieces[0]} for turn in turns]
    return _json({"conversations": told}) | _named(_images(row, columns, sandbox))


def _chat(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    turns = read_turns(_value(row, columns, "messages"))
    return _talk("messages", turns, _cells(row, columns), sandbox)


def _talk(field: str, turns: list[Turn], given: list[Any], sandbox: Sandbox) -> dict[str, bytes]:
    """Store a conversation with each image in its place: one that its piece names, or numbers, or
    the next of the row's.
    """
    shown = [_numbered(p.image, given) for t in turns for p in t.pieces if isinstance(p, Shown)]
    taken = {range(len(given))[image] for image in shown if isinstance(image, int)}
    free = [image for at, image in enumerate(given) if at not in taken]
    waiting = shown.count(None)
    if waiting > len(free):
        raise SampleError("missing file", "more images have a place than the row has")
    turns = placed(turns, len(free) - waiting, may_lead=field == "conversations")
    found, nexts = [], iter(free)
    for image in (p.image for turn in turns for p in turn.pieces if isinstance(p, Shown)):
        named = _numbered(image, given)
        known = given[named] if isinstance(named, int) else named
        found.append(sandbox.image(next(nexts) if named is None else known))
    stored = _named(found)
    names = iter(stored)
    told = [{"role": turn.role, "content": _content(turn, names)} for turn in turns]
    return _json({field: told}) | stored


def _content(turn: Turn, names: Iterator[str]) -> Any:
    """Return the content of a turn, with the next of the names for each image."""
    if len(turn.pieces) == 1 and isinstance(turn.pieces[0], str):
        return turn.pieces[0]
    return [
        {"type": "image", "image": next(names)}
        if isinstance(piece, Shown)
        else {"type": "text", "text": piece}
        for piece in turn.pieces
    ]


def _edit(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store the images before and after, and the instruction between them."""
    files = _json({"instruction": _words(row, columns, "instruction")})
    for when in ("before", "after"):
        extension, content = sandbox.image(_value(row, columns, when))
        files[f"{when}.{extension}"] = content
    return files


def _question(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store a question, its answer and images; of a `sentence` formats.py asks if it is true."""
    images = _images(row, columns, sandbox)
    if not images and (number := elsewhere(row)):
        raise SampleError("no image", f"a question about the image {number}, which no column has")
    name = "sentence" if columns["question"] == ("sentence",) else "question"
    words = {
        name: _words(row, columns, "question"),
        "answer": _words(row, columns, "answer"),
    }
    return _json(words) | _named(images)


def _request(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    """Store a caption to be read as turns (see formats.py)."""
    return _caption(row, columns, sandbox, turns=True)


def _caption(row: Fields, columns: Columns, sandbox: Sandbox, **more: Any) -> dict[str, bytes]:
    """Store one image and what is said of it."""
    images = _images(row, columns, sandbox)
    if len(images) != 1:
        raise SampleError("wrong fields", f"a caption of {len(images)} images")
    return _json({"caption": _words(row, columns, "caption"), **more}) | _named(images)


def _text(row: Fields, columns: Columns, sandbox: Sandbox) -> dict[str, bytes]:
    return _json({"text": _words(row, columns, "text")})


# What makes the files of a sample, by extension, of a row of each format.
MAKERS: dict[str, Callable[[Fields, Columns, Sandbox], dict[str, bytes]]] = {
    "document": _document,
    "interleaved": _interleaved,
    "llava": _llava,
    "chat": _chat,
    "edit": _edit,
    "question": _question,
    "request": _request,
    "caption": _caption,
    "text": _text,
}


def _value(row: Fields, columns: Columns, role: str) -> Any:
    """Return what stands in the one column of a role; SampleError where it is empty."""
    if len(columns[role]) != 1:
        raise SampleError("wrong fields", f"{len(columns[role])} columns of {role}: one is read")
    (column,) = columns[role]
    if row[column] is None or row[column] == "":
        raise SampleError("empty field", f"{column} ({role}) is empty")
    return row[column]


def _words(row: Fields, columns: Columns, role: str) -> Any:
    """Return a text, number or truth, or a list of them, each of which is one way to say it.

    SampleError where one is empty or something else.
    """
    value = _value(row, columns, role)
    several = value if isinstance(value, list) else [value]
    for one in several:
        if not isinstance(one, str | int | float):
            raise SampleError("no text", f"{columns[role][0]} ({role}) holds {one!r:.80}")
        if isinstance(one, str) and not one.strip():
            raise SampleError("no text", f"{columns[role][0]} ({role}) holds a text without words")
    return value


def _images(row: Fields, columns: Columns, sandbox: Sandbox) -> Images:
    """Return all images of the row's image columns, in order."""
    return [sandbox.image(one) for one in _cells(row, columns)]


def _cells(row: Fields, columns: Columns) -> list[Any]:
    """Return what stands for images in the row's image columns; an empty cell holds none."""
    cells = [row[column] for column in columns["image"]]
    flat = [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]
    return [one for one in flat if one is not None and one != ""]


def _numbered(image: Any, given: list[Any]) -> Any:
    """Return which of the row's images a piece names, by path or file name, or else the name."""
    if not isinstance(image, str) or not image:
        return image
    paths = [f"/{one}" if isinstance(one, str) else "" for one in given]
    return next((at for at, path in enumerate(paths) if path.endswith(f"/{image}")), image)


def _named(images: Images) -> dict[str, bytes]:
    """Return images by extension, so that their order is that of their names."""
    if len(images) == 1:
        return dict(images)
    digits = len(str(len(images)))
    return {f"{n:0{digits}d}.{extension}": file for n, (extension, file) in enumerate(images)}


def _json(fields: dict[str, Any]) -> dict[str, bytes]:
    return {"json": json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()}
