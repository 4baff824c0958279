"""Read a folder as a table: images with their words beside them, or texts.

In: a folder. Out: a `Table`. Files of one stem are a row: an image and its words, caption.txt or
fields.json. `a.before.png`, `a.after.png` and `a.txt` are an edit; `a.0.png`, `a.1.png` and
`a.json` several images. A folder without images: each .txt and .md is a text.

1. An image is told by its suffix or, whatever that is, by its first bytes. Upper and lower case are
   the same in every suffix.
2. Words beside a file of an unknown kind, and without an image, are a bad row: it may be their
   image.
3. Files that nobody uses are counted by suffix, and named.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from unimodal.tokenizer.signatures import SUFFIXES, image_kind

from ..formats import SampleError
from ..image_members import in_order, listed, natural
from .files import json_object
from .sandbox import Sandbox
from .table import KINDS, Fields, Table, numbered

CAPTION, FIELDS, MARKDOWN = ".txt", ".json", ".md"
TEXTS = (CAPTION, MARKDOWN)
ROLE = re.compile(r"\.(before|after|\d+)$")  # behind the stem of one of several images


@dataclass
class _Group:
    """The files of one stem, by what they are."""

    stem: str
    images: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """.txt and .json."""
    markdown: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def ending(self, suffix: str) -> str | None:
        """Return the words that end so, None without any; SampleError where there are two."""
        found = [file for file in self.words if _suffix(file) == suffix]
        if len(found) > 1:
            raise SampleError("two files", f"{' and '.join(found)}: which one has the words?")
        return found[0] if found else None


def folder_table(source: str, images: Path | None, format: str | None) -> Table:
    """Return the table of a folder; ValueError where it holds no images and no texts.

    `images` is the folder of the rows' images; None: `source`. With `format` text, texts are read
    whatever lies beside them.
    """
    path = Path(source)
    sandbox, files = Sandbox(path), sorted(_files(path))
    shown = [file for file in files if not PurePosixPath(file).name.startswith(".")]
    groups = _groups(shown, sandbox)
    has_images = any(group.images for group in groups)
    if has_images:
        rows, length, left = _of_images(groups, sandbox)
    else:
        rows, length, left = _of_texts(groups, sandbox, format == "text")
    if not length:
        there = f"no images and no texts ({', '.join(TEXTS)}) but {by_suffix(shown)}"
        found = f"{source} {f'holds {there}' if shown else 'is empty'}"
        raise ValueError(f"{found}: give {KINDS}")
    return Table(
        source, numbered(rows), length, None, images or path,
        note=_note(left, has_images, len(files) - len(shown)),
    )  # fmt: skip


Rows = tuple[Iterator[Fields | SampleError], int, list[str]]
"""Rows, how many there are, and the files that they do not use."""


def _of_images(groups: list[_Group], sandbox: Sandbox) -> Rows:
    used = [group for group in groups if group.images or (group.words and group.others)]
    left = [file for group in groups for file in group.markdown]
    left += [file for group in groups if group.images or not group.words for file in group.others]
    left += [
        file for group in groups if not group.images and not group.others for file in group.words
    ]
    return (_pair(group, sandbox) for group in used), len(used), left


def _of_texts(groups: list[_Group], sandbox: Sandbox, alone: bool) -> Rows:
    """`alone`: whatever lies beside a text is left out."""
    texts, left = [], []
    for group in groups:
        mine = sorted(file for file in (*group.words, *group.markdown) if _suffix(file) in TEXTS)
        beside = [file for file in group.words if _suffix(file) == FIELDS] + group.others
        left += beside if alone or not mine else []
        texts += [(file, [] if alone else beside) for file in mine]
    return (_text(file, beside, sandbox) for file, beside in texts), len(texts), left


def _note(left: list[str], has_images: bool, num_hidden: int) -> str:
    """Say what of a folder is no row."""
    words = [file for file in left if has_images and _suffix(file) in (CAPTION, FIELDS)]
    others = by_suffix(set(left) - set(words))
    found = [f"{len(words):,} files of text without an image are left out"] if words else []
    found += [f"unused files: {others}"] if others else []
    found += [f"{num_hidden:,} hidden files are left out"] if num_hidden else []
    return "; ".join(found)


def by_suffix(files: Iterable[str]) -> str:
    """Count files by suffix, in words."""
    counts = Counter(_suffix(file) or "without a suffix" for file in files)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}" for suffix, count in by_count)


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of files inside a folder, but for hidden folders and links to folders."""
    for home, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(home).relative_to(folder)
        yield from ((below / name).as_posix() for name in files)


def _groups(files: list[str], sandbox: Sandbox) -> list[_Group]:
    """Return the files by stem: that of an image is its own where words have it too, else without
    `.before`, `.after` or `.0`.
    """
    groups: dict[str, _Group] = {}
    of_words = {_stem(file) for file in files if _suffix(file) in (CAPTION, FIELDS)}
    for file in files:
        suffix, stem = _suffix(file), _stem(file)
        if suffix not in (FIELDS, *TEXTS) and stem not in of_words:
            stem = ROLE.sub("", stem)
        group = groups.setdefault(stem, _Group(stem))
        if suffix in (CAPTION, FIELDS):
            group.words.append(file)
        elif suffix == MARKDOWN:
            group.markdown.append(file)
        elif suffix.removeprefix(".") in SUFFIXES or image_kind(sandbox.head(file)) is not None:
            group.images.append(file)
        else:
            group.others.append(file)
    return list(groups.values())


def _stem(file: str) -> str:
    return file[: len(file) - len(_suffix(file))]


def _pair(group: _Group, sandbox: Sandbox) -> Fields | SampleError:
    """Return the row of images with their words: the fields of .json, and .txt as the caption."""
    try:
        about, caption = group.ending(FIELDS), group.ending(CAPTION)
        if not group.images:
            raise _unknown(group.words[0], group.others)
        if about is None and caption is None:
            raise SampleError("no words", f"{group.images[0]}: {_no_words(group)}")
        fields = {} if about is None else json_object(sandbox.read(about))
        if isinstance(fields, SampleError):
            return fields
        by_role = {_stem(image).removeprefix(f"{group.stem}."): image for image in group.images}
        is_edit = {"before", "after"} <= set(by_role)
        if caption is not None:
            words = sandbox.text(caption).strip()
            fields = {**fields, "instruction" if is_edit else "caption": words}
        if is_edit:
            return {**fields, "before": by_role["before"], "after": by_role["after"]}
        return {**fields, "image": _ordered(group, fields)}
    except SampleError as error:
        return error


def _no_words(group: _Group) -> str:
    """Say that an image has no words, and what lies beside it instead."""
    beside = ", ".join(group.markdown + group.others)
    more = f", but {beside}: only {CAPTION} and {FIELDS} are read" if beside else ""
    return f"no {group.stem}.txt or .json lies beside it{more}"


def _ordered(group: _Group, fields: Fields) -> list[str]:
    """Return the images of a row: in the order of the list in .json, if any, else in that of names.

    SampleError where the list is another one than that of the files.
    """
    by_name = {image.removeprefix(f"{group.stem}."): image for image in group.images}
    images, names = sorted(by_name, key=natural), listed(fields)
    try:
        order = in_order(images, names, group.stem) if names else images
    except ValueError as error:
        raise SampleError("other images", f"{group.words[0]}: {error}") from error
    return [by_name[name] for name in order]


def _text(file: str, beside: list[str], sandbox: Sandbox) -> Fields | SampleError:
    try:
        if beside:
            raise _unknown(file, beside)
        return {"text": sandbox.text(file)}
    except SampleError as error:
        return error


def _unknown(words: str, beside: list[str]) -> SampleError:
    """Return the error of words that may belong to a file that nobody can read."""
    return SampleError(
        "unknown file",
        f"{words}: {', '.join(beside)} beside it, which is no image that is known; take it away, "
        "or give --format text for the words alone",
    )
