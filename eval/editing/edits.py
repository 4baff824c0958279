"""What is asked of an editor: ImgEdit's and GEdit-Bench's files, read as they are published.

In: ImgEdit's JSON (`basic_edit.json`, `UGE_edit.json`; PKU-YuanGroup/ImgEdit at 547185d), or
GEdit-Bench's rows (stepfun-ai/GEdit-Bench: tables of Hugging Face with `key`, `task_type`,
`instruction`, `instruction_language` and `input_image`). Out: `Edit`s in order.

Keys, types and languages become names of files, so they are checked: letters, digits, '.', '_' and
'-', and no other. Where a benchmark's image is, is for `Pictures` to find and to refuse.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..score import digest
from ..vqa.pictures import name_of
from ..vqa.source import Row, Source, objects, read_json

LAYOUTS = ("imgedit", "gedit")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
SOURCE = "_SRCIMG"  # ends the name of GEdit's copy of the image before
LANGUAGES = ("en", "cn")


@dataclass(frozen=True, eq=False)
class Edit:
    """One image to edit, and how."""

    key: str
    instruction: str
    kind: str
    """ImgEdit's `edit_type` ('' in its UGE suite), GEdit's `task_type`."""
    image: Any
    """As the data name it: a path inside the folder of images, or contents."""
    place: str
    """Where its result lies in a folder of results, without .png."""

    @property
    def id(self) -> str:
        """Return its place, unlike any other's."""
        return self.place

    @property
    def images(self) -> tuple[Any, ...]:
        """Return the image before."""
        return (self.image,)


def read_edits(source: Source, layout: str, language: str | None = None) -> list[Edit]:
    """Return the edits of a benchmark; ValueError that names the place of what is wrong.

    language: of GEdit's instructions, 'en' or 'cn'; None: both.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}: there are {', '.join(LAYOUTS)}")
    if language is not None and layout != "gedit":
        raise ValueError(f"language {language}: ImgEdit's instructions have none")
    found = _imgedit(source) if layout == "imgedit" else _gedit(source, language)
    if not found:
        raise ValueError(f"{source.path} asks for no edits")
    twice = [place for place, count in Counter(one.place for one in found).items() if count > 1]
    if twice:
        raise ValueError(f"{source.path}: the key {twice[0]} is there twice")
    return found


def edits_hash(edits: Sequence[Edit]) -> str:
    """Return the SHA-256 of what is asked for, in order."""
    return digest([one.place, one.kind, one.instruction, name_of(one.image)] for one in edits)


def _imgedit(source: Source) -> list[Edit]:
    file = source.find("*edit*.json", "*edits*.json")
    value = read_json(file)
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise ValueError(f'{file} is no object of {{KEY: {{"id", "prompt", "edit_type"}}}}')
    found = []
    for key, fields in value.items():
        row = Row(fields, f"{file}, {key}")
        kind = _name(row, "edit_type") if "edit_type" in fields else ""
        _check_name(key, "key", row.place)
        found.append(Edit(key, row.text("prompt"), kind, row.text("id"), key))
    return found


def _gedit(source: Source, language: str | None) -> list[Edit]:
    rows = source.rows() if source.is_table else _json_rows(source)
    found = []
    for row in rows:
        spoken = row.one_of(LANGUAGES, "instruction_language")
        if language in (None, spoken):
            key, kind = _name(row, "key"), _name(row, "task_type")
            place = f"fullset/{kind}/{spoken}/{key}"
            image = row.get("input_image", "input_image_raw")
            found.append(Edit(key, row.text("instruction"), kind, image, place))
    return found


def _json_rows(source: Source) -> list[Row]:
    file = source.find("*edit*.json")
    return objects(read_json(file), str(file))


def _name(row: Row, field: str) -> str:
    value = row.text(field)
    _check_name(value, field, row.place)
    return value


def _check_name(value: str, what: str, place: str) -> None:
    """Raise ValueError for what could lead a file out of its folder, or hide another's."""
    if not NAME.fullmatch(value) or value.endswith(SOURCE):
        raise ValueError(
            f"{place}: the {what} {value!r:.80} is to be the name of a file: letters, digits, "
            "'.', '_' and '-' alone"
        )
