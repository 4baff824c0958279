"""Sample formats: each turns the files of a stored sample into a Document.

In: a `Sample`, the files of a webdataset sample by extension. Out: a Document whose images are
stored files: files that nobody has opened yet, so that lengths and cuts are found without decoding
a pixel; `opened` opens them. `detect_format` tells a sample's format by its files and fields alone:

    document    .json {"parts": [{"text": ...}, {"image": 0}]}   our own, as ShardWriter writes it
    interleaved .json {"texts": [str or null], "images": [null or name]}                     OBELICS
    llava       .json {"conversations": [{"from": "human" or "gpt", "value": ...}]}, with <image>s
    chat        .json {"messages": [{"role": ..., "content": str or [parts]}]}
    edit        .json {"instruction": ...} (or "edit", "prompt"), images .before.* and .after.*
    question    .json {"question" or "sentence": ..., "answer" or "answers" or "label": ...}
    caption     an image and .txt, or .json {"caption" or "captions" or "text" or "name": ...}
    text        .txt, or .json {"text": ...}, without an image

1. Text of a file is text: no spelling in it becomes a special token (see unimodal/text.py).
2. What the user says and shows is context (weight 0), what the assistant says and draws is learned;
   parts without a role are all learned.
3. Where a format leaves a choice (the caption among several, the image before or after its words),
   each way to choose is a variant: 0 .. `variants` - 1.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from unimodal.document import Document, Image, Part, StoredFile, Text

from . import codes_member as codes
from .image_members import BY_ROLE, WORDS, image_members, in_order, listed, names_image

CAPTIONS = ("caption", "captions", "text", "name")
QUESTIONS = ("question", "sentence")
ANSWERS = ("answer", "answers", "label")
INSTRUCTIONS = ("instruction", "edit", "prompt")
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
            "system": "system"}  # fmt: skip
OF_WORDS = (*CAPTIONS, *QUESTIONS, *ANSWERS, *INSTRUCTIONS)
WITHOUT_IMAGES = ("text", "question", "llava", "chat")  # formats that can do without
OF_TEXT_FILES = ("edit", "caption", "text")  # formats that read .txt
EMPTY = "empty"  # the reason of a sample that is sound and holds nothing
PLACEHOLDER = re.compile(r"<image>\n?|\n?<image>")  # of LLaVA: where an image stands


class SampleError(ValueError):
    """A sample is no document: the message says why, `reason` says it in a few words for counts."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)  # both, or else it could not leave a process
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Choices:
    """Splits the number of a variant into the choices it stands for, asked for one by one."""

    def __init__(self, variant: int) -> None:
        self.count = 1  # how many variants there are, by the choices asked for so far
        self._left = variant

    def of(self, options: int) -> int:
        """Return which of these options (0 .. options - 1) the variant takes."""
        self.count *= options
        self._left, chosen = divmod(self._left, options)
        return chosen


@dataclass(frozen=True)
class Sample:
    """The files of one sample: contents by extension ('json', '0.png', 'before.jpg')."""

    key: str
    files: dict[str, bytes]

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Return the object in .json, {} without one; SampleError when it is no JSON object."""
        if "json" not in self.files:
            return {}
        try:
            value = json.loads(self.files["json"])
        except (ValueError, RecursionError) as error:
            raise SampleError("wrong JSON", f".json is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise SampleError("wrong JSON", f".json holds a {type(value).__name__}, not an object")
        return value

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
        """Return the value of the first of these fields that is there and not null, else None."""
        return next(
            (self.fields[name] for name in names if self.fields.get(name) is not None), None
        )

    def begins(self, stem: str) -> str:
        """Return the extension of the image `<key>.<stem>.*`, `<stem>.png` if there is none."""
        begun = (name for name in self.image_files if name.startswith(f"{stem}."))
        return next(begun, f"{stem}.png")

    def image(self, name: str, role: str | None, weight: float) -> Image:
        """Return the image in a file, named by extension or in full; SampleError without it."""
        extension = self._extension(name)
        stored = StoredFile(self.files[extension], extension)
        return Image(stored=stored, role=role, weight=weight)

    def _extension(self, name: str) -> str:
        """Return the extension of the file with this name, or of the codes that replace it."""
        short = name.removeprefix(f"{self.key.rpartition('/')[2]}.").lower()
        encoded = f"{short.rpartition('.')[0]}.{codes.EXTENSION}".removeprefix(".")
        for extension in (name, short, encoded):
            if extension in self.files:
                return extension
        there = ", ".join(sorted(self.files))
        raise SampleError("missing member", f"there is no file .{short}, only {there}")


def detect_format(sample: Sample) -> str:
    """Return the format of a sample, a key of FORMATS; SampleError when it has none of them.

    It is one too when the sample has no image and a field of .json names one: it was lost.
    """
    format = _detected(sample)
    if format in WITHOUT_IMAGES and not sample.image_files:
        for name, value in sample.fields.items():
            if name not in OF_WORDS and isinstance(value, str) and names_image(value):
                raise SampleError(
                    "missing member",
                    f".json names an image, {name} {value!r:.80}, and none is there; say "
                    f"sources.NAME.format={format} for the words alone",
                )
    return format


def _detected(sample: Sample) -> str:
    fields = sample.fields
    for name, field in (
        ("document", "parts"),
        ("interleaved", "texts"),
        ("llava", "conversations"),
        ("chat", "messages"),
    ):
        if fields.get(field) is not None:
            return name
    if any(name.startswith("before.") for name in sample.image_files):
        return "edit"
    if sample.field(*QUESTIONS) is not None:
        return "question"
    has_words = "txt" in sample.files or sample.field(*CAPTIONS) is not None
    if has_words:
        return "caption" if sample.images else "text"
    there = ", ".join(sorted([*sample.files, *fields])) or "nothing"
    formats = ", ".join(FORMATS)
    message = f"{there}: files and fields of none of {formats}{_dots(sample)}"
    raise SampleError("unknown format", message)


def document(sample: Sample, format: str, variant: int = 0) -> Document:
    """Return the Document that a sample of this format is, its images stored files.

    `variant` is 0 .. `variants` - 1. SampleError says what is wrong with the sample.
    """
    return _made(sample, format, Choices(variant))


def variants(sample: Sample, format: str) -> int:
    """Return how many Documents a sample of this format can be; SampleError as for `document`."""
    choices = Choices(0)
    _made(sample, format, choices)
    return choices.count


def _made(sample: Sample, format: str, choices: Choices) -> Document:
    try:
        parts = tuple(FORMATS[format](sample, choices))
    except SampleError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        message = f"no {format}: {type(error).__name__}: {error}"
        raise SampleError("wrong fields", message) from error
    if not parts:
        raise SampleError(EMPTY, "a document without text and images")
    _check_others(sample)
    return Document(parts)


def _check_others(sample: Sample) -> None:
    """SampleError where files of unknown kinds lie beside words without an image: its image?"""
    if sample.others and not sample.image_files:
        there, ignore = (", ".join(f"{dot}{name}" for name in sample.others) for dot in (".", ""))
        raise SampleError(
            "unknown file",
            f"{there}: beside words without an image, and no image that is known; leave it out by "
            f"sources.NAME.ignore=[{ignore}]{_dots(sample)}",
        )


def _dots(sample: Sample) -> str:
    """Say that dots before the extension are the reason, where words or fields have some."""
    dotted = [name for name in sample.files if name.rpartition(".")[2] in WORDS and "." in name]
    if not dotted:
        return ""
    return (
        f"; a key ends at the first dot, so {sample.key}.{dotted[0]} is .{dotted[0]} of "
        f"{sample.key}: write the dots before the extension as _"
    )


def unused(sample: Sample, document: Document, format: str) -> list[str]:
    """Return the extensions of the files of a sample that its document uses nothing of."""
    shown = {part.stored.name for part in document.parts if isinstance(part, Image) and part.stored}
    used = {*shown, "json"} | ({"txt"} if format in OF_TEXT_FILES else set())
    return [name for name in sample.files if name not in used]


def opened(document: Document, open_stored: Callable[[StoredFile], Image]) -> Document:
    """Return the document with each stored image opened; roles and loss weights are kept."""
    return Document(
        tuple(
            replace(open_stored(part.stored), role=part.role, weight=part.weight)
            if isinstance(part, Image) and part.stored is not None
            else part
            for part in document.parts
        )
    )


def as_it_is(stored: StoredFile) -> Image:
    """Open a stored image as its file has it, pixels or codes; SampleError when it is damaged."""
    from unimodal.tokenizer.pixels import ImageError, open_image

    try:
        if codes.is_codes(stored.name):
            return codes.from_bytes(stored.content)
        return Image(np.asarray(open_image(stored.content).image))
    except (ImageError, ValueError) as error:
        raise SampleError("bad image", f".{stored.name}: {error}") from error


def pair(before: Sample, after: Sample) -> Sample:
    """Return the edit sample that leads from one captioned image to another.

    SampleError when one of them has not exactly one image, or the second has no caption.
    """
    files = {}
    for name, sample in (("before", before), ("after", after)):
        if len(sample.images) != 1:
            raise SampleError("wrong fields", f"{sample.key}: an edit of {sample.images}")
        (extension,) = sample.images
        files[f"{name}.{extension.rpartition('.')[2]}"] = sample.files[extension]
    words = after.text() if "txt" in after.files else after.field(*CAPTIONS)
    texts = words if isinstance(words, list) else [words]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise SampleError("no text", f"{after.key}: an edit needs its caption, not {words!r:.80}")
    instructions = [f"make it: {text}" for text in texts]
    files["json"] = json.dumps({"instruction": instructions}).encode()
    return Sample(after.key, files)


def _document(sample: Sample, _: Choices) -> Iterator[Part]:
    for part in sample.fields["parts"]:
        if "picture" in part:  # as shards that were written before have it
            part = {"image": part["picture"], **part}
        if ("text" in part) == ("image" in part):
            raise ValueError(f"a part has either text or image, not {sorted(part)}")
        role, weight = part.get("role"), part.get("weight", 1.0)
        if "text" in part:
            yield Text(_string(part["text"]), role, weight)
        else:
            yield sample.image(sample.begins(str(part["image"])), role, weight)


def _interleaved(sample: Sample, _: Choices) -> Iterator[Part]:
    """Texts and images are aligned lists: at each index one of them is null."""
    texts, images = sample.fields["texts"], sample.fields["images"]
    if len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts and {len(images)} images are not aligned")
    for at, (text, image) in enumerate(zip(texts, images, strict=True)):
        if (text is None) == (image is None):
            raise ValueError(f"index {at} holds {'nothing' if text is None else 'both'}")
        if text is None:
            yield sample.image(_string(image), None, 1.0)
        elif _string(text).strip():
            yield Text(text.strip() + "\n")


def _llava(sample: Sample, _: Choices) -> Iterator[Part]:
    """<image> stands for the next image; images without a placeholder come first."""
    turns = [(SPEAKERS[t["from"]], _string(t["value"])) for t in sample.fields["conversations"]]
    places = sum(len(PLACEHOLDER.findall(text)) for _, text in turns)
    if places > len(sample.images):
        raise SampleError("missing member", f"{places} <image> and {len(sample.images)} images")
    unplaced = len(sample.images) - places
    images = iter(sample.images)
    for _place in range(unplaced):
        yield sample.image(next(images), "user", 0.0)
    for role, text in turns:
        for at, piece in enumerate(PLACEHOLDER.split(text)):
            if at:
                yield sample.image(next(images), role, _weight(role))
            if piece:
                yield Text(piece, role, _weight(role))


def _chat(sample: Sample, _: Choices) -> Iterator[Part]:
    """A content is a string or a list of {"type": "text", "text"}, {"type": "image", "image"}."""
    for message in sample.fields["messages"]:
        role = SPEAKERS[message["role"]]
        content = message["content"]
        for piece in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if piece["type"] == "text":
                yield Text(_string(piece["text"]), role, _weight(role))
            elif piece["type"] == "image":
                yield sample.image(_string(piece["image"]), role, _weight(role))
            else:
                raise ValueError(f"a piece is text or image, not {piece['type']!r}")


def _edit(sample: Sample, choices: Choices) -> Iterator[Part]:
    words = sample.field(*INSTRUCTIONS) if "txt" not in sample.files else sample.text()
    yield sample.image(sample.begins("before"), "user", 0.0)
    yield Text(_one(words, choices), "user", 0.0)
    yield sample.image(sample.begins("after"), "assistant", 1.0)


def _question(sample: Sample, choices: Choices) -> Iterator[Part]:
    """A sentence with a label becomes a question of true or false."""
    question = _one(sample.field(*QUESTIONS), choices)
    answer = _one(sample.field(*ANSWERS), choices)
    if "question" not in sample.fields:
        question = f"{question.rstrip('.')}. Is this true or false?"
    for name in sample.images:
        yield sample.image(name, "user", 0.0)
    yield Text(question, "user", 0.0)
    yield Text(answer, "assistant", 1.0)


def _caption(sample: Sample, choices: Choices) -> Iterator[Part]:
    """Two variants: the image then its words, or the words then their image."""
    words = sample.text() if "txt" in sample.files else _one(sample.field(*CAPTIONS), choices)
    if len(sample.images) != 1:
        raise ValueError(f"a caption of {len(sample.images)} images")
    image = sample.image(sample.images[0], None, 1.0)
    text = Text(_filled(words))
    yield from (image, text) if choices.of(2) else (text, image)


def _text(sample: Sample, choices: Choices) -> Iterator[Part]:
    words = sample.text() if "txt" in sample.files else _one(sample.field(*CAPTIONS), choices)
    yield Text(_filled(words))


FORMATS: dict[str, Callable[[Sample, Choices], Iterator[Part]]] = {
    "document": _document,
    "interleaved": _interleaved,
    "llava": _llava,
    "chat": _chat,
    "edit": _edit,
    "question": _question,
    "caption": _caption,
    "text": _text,
}


def _weight(role: str) -> float:
    return 1.0 if role == "assistant" else 0.0


def _one(value: Any, choices: Choices) -> str:
    """Return the text of a field: of a list the one chosen; bools and numbers as text."""
    if isinstance(value, list):
        if not value:
            raise SampleError("no text", "a list without texts")
        value = value[choices.of(len(value))]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return _filled(_string(value))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text is a string, not {value!r:.80}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SampleError("no UTF-8", f"half a surrogate pair in {value!r:.80}")
    return value


def _filled(text: str) -> str:
    if not text.strip():
        raise SampleError("no text", "a text without letters")
    return text
