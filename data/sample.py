"""A stored sample: its files, the fields of its .json, and its images.

In: the files of one key of a shard, by extension. Out: a `Sample`, of which formats.py makes a
Document. Nothing is opened but .json and .txt, and these when they are asked for.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from unimodal.document import Image, StoredFile

from . import codes_member as codes
from .data_url import URL, embedded
from .fields import NAMES, plain
from .image_members import BY_ROLE, WORDS, image_members, in_order, listed
from .sample_error import SampleError
from .turns import string

EMBEDDED = "json"  # names an image that stands in .json as a data: URL


@dataclass(frozen=True)
class Sample:
    """The files of one sample: contents by extension ('json', '0.png', 'before.jpg')."""

    key: str
    files: dict[str, bytes]
    names: Mapping[str, str] = field(default_factory=dict)
    """The fields of .json that fill roles, by role, where they have unusual names."""

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Return the object in .json in our shapes (see fields.py), {} without one.

        SampleError when it is no JSON object, or lacks a field that `names` says.
        """
        return plain(self._named(self._stored))

    @cached_property
    def _stored(self) -> dict[str, Any]:
        """Return the object in .json as it is, {} without one."""
        if "json" not in self.files:
            return {}
        try:
            value = json.loads(self.files["json"])
        except (ValueError, RecursionError) as error:
            raise SampleError("wrong JSON", f".json is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise SampleError("wrong JSON", f".json holds a {type(value).__name__}, not an object")
        return value

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields with those of `names` under the names of their roles."""
        for role, name in self.names.items():
            if fields.get(name) is None:
                raise SampleError("missing field", f".json has no {name!r}, the {role} of `fields`")
        return {**fields, **{role: fields[name] for role, name in self.names.items()}}

    @cached_property
    def image_files(self) -> list[str]:
        """Return the extensions of the image files, in natural order."""
        return image_members(self.files)

    @cached_property
    def images(self) -> list[str]:
        """Return the extensions of the image files in the order of .json's own list, if it has one.

        SampleError where the list and the files disagree. The images of an edit are in no list.
        """
        names = listed(self.fields)
        if not names or any(name.startswith(BY_ROLE) for name in self.image_files):
            return self.image_files
        try:
            return in_order(self.image_files, names, self.key)
        except ValueError as error:
            raise SampleError("other images", str(error)) from error

    @property
    def others(self) -> list[str]:
        """Return the extensions of the files that are no images, words or fields."""
        return [name for name in self.files if name not in {*self.image_files, *WORDS}]

    def without(self, ignored: Collection[str]) -> "Sample":
        """Return the sample without the files of these extensions, whole or the last of several."""
        left = {
            name: content
            for name, content in self.files.items()
            if name not in ignored and name.rpartition(".")[2] not in ignored
        }
        return self if len(left) == len(self.files) else replace(self, files=left)

    def text(self) -> str:
        """Return the contents of .txt, stripped; SampleError when they are not UTF-8."""
        try:
            return self.files["txt"].decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise SampleError("no UTF-8", f".txt is no UTF-8: {error}") from error

    def field(self, *names: str) -> Any:
        """Return the value of the first of these fields that is there and not null, else None.

        A name that is not there may stand in another case.
        """
        fields, lower = self.fields, self._lower
        for name in names:
            if (value := fields.get(name)) is not None or (value := lower.get(name)) is not None:
                return value
        return None

    @cached_property
    def _lower(self) -> dict[str, Any]:
        """Return the fields that are not null by their names in lower case."""
        names = reversed(self.fields)
        return {name.lower(): self.fields[name] for name in names if self.fields[name] is not None}

    def has_words(self, role: str) -> bool:
        """Return whether .txt or a field of a role is there."""
        return "txt" in self.files or self.field(*NAMES[role]) is not None

    def words(self, role: str) -> Any:
        """Return what .txt holds, or else the field of a role; one that is named comes first."""
        if "txt" in self.files and role not in self.names:
            return self.text()
        return self.field(*NAMES[role])

    def begins(self, stem: str) -> str:
        """Return the extension of the image `<key>.<stem>.*`, `<stem>.png` if there is none."""
        begun = (name for name in self.image_files if name.startswith(f"{stem}."))
        return next(begun, f"{stem}.png")

    def image(self, name: str, role: str | None, weight: float) -> Image:
        """Return the image in a file, named by extension or in full, or in a `data:` URL.

        SampleError where there is none.
        """
        if (content := embedded(name)) is not None:
            return Image(stored=StoredFile(content, EMBEDDED), role=role, weight=weight)
        extension = self._extension(name)
        stored = StoredFile(self.files[extension], extension)
        return Image(stored=stored, role=role, weight=weight)

    def shown(self, image: Any) -> str:
        """Return the name of an image that a piece of a conversation names or numbers."""
        if isinstance(image, int):
            return self.images[range(len(self.images))[image]]
        is_embedded = embedded(string(image)) is not None
        return image if is_embedded else self._extension(image)

    def fetched(self, names: list[str]) -> list[str]:
        """Return the names of a page's images; of URLs, those of the files that they became.

        These are numbered or a single one, and as many as the URLs.
        """
        stems = [image.rpartition(".")[0] for image in self.image_files]
        are_numbered = all(map(str.isdecimal, stems)) or stems == [""]
        are_urls = len(names) == len(stems) and all(map(URL.match, names))
        return self.image_files if are_numbered and are_urls else names

    def _extension(self, name: str) -> str:
        """Return the extension of the file with this name, or of the codes that replace it."""
        short = name.removeprefix(f"{self.key.rpartition('/')[2]}.").lower()
        encoded = f"{short.rpartition('.')[0]}.{codes.EXTENSION}".removeprefix(".")
        for extension in (name, short, encoded):
            if extension in self.files:
                return extension
        there = ", ".join(sorted(self.files))
        raise SampleError("missing member", f"there is no file .{short}, only {there}")
