"""Sample formats: each turns the files of a stored sample into a Document.

In: a `Sample`, the files of a webdataset sample by extension. Out: a Document whose images are
stored files: files that nobody has opened yet, so that lengths and cuts are found without decoding
a pixel; `opened` opens them. `detect_format` tells a sample's format by its files and fields alone:

    document    .json {"parts": [{"text": ...}, {"image": 0}]}   our own, as ShardWriter writes it
    interleaved .json {"texts": [str or null], "images": [null or name]}                     OBELICS
    llava       .json {"conversations": [{"from": "human" or "gpt", "value": ...}]}, with <image>s
    chat        .json {"messages": [{"role": ..., "content": str or [pieces]}]}
    edit        .json {"instruction": ...}, images .before.* and .after.*
    question    .json {"question" or "sentence": ..., "answer" or "answers" or "label": ...}
    request     .json {"caption": ..., "turns": true} and an image: asked for, or asked about
    caption     an image and .txt, or .json {"caption": ...}
    text        .txt, or .json {"text": ...}, without an image

Fields go by many names, and other data sets store other shapes: fields.py knows them, turns.py the
turns of conversations, placeholders.py what <image> stands for. docs/formats.md has examples.

1. Text of a file is text: no spelling in it becomes a special token (see unimodal/text.py).
2. What the user says and shows is context (weight 0), what the assistant says and draws is learned;
   parts without a role are all learned.
3. Where a format leaves a choice (the caption among several, the image before or after its words),
   each way to choose is a variant: 0 .. `variants` - 1.
4. Every image of a sample has a place in its document, or the sample is bad.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from unimodal.document import Box, Document, Image, Part, StoredFile, Text

from . import asking
from . import codes_member as codes
from .fields import NAMES, OF_IMAGES
from .image_members import WORDS, elsewhere, holds_image
from .placeholders import check_no_images
from .sample import Sample as Sample
from .sample_error import SampleError as SampleError
from .talk import talk, told
from .turns import Turn, read_turns, string

WITHOUT_IMAGES = ("text", "question", "llava", "chat")  # formats that can do without
OF_TEXT_FILES = ("edit", "request", "caption", "text")  # formats that read .txt
CAPTIONS, TEXTS, QUESTIONS = NAMES["caption"], NAMES["text"], NAMES["question"]
ANSWERS, INSTRUCTIONS = NAMES["answer"], NAMES["instruction"]
# Fields that may speak of files, or whose pieces talk.py looks at.
OF_WORDS = (
    *CAPTIONS, *TEXTS, *QUESTIONS, *ANSWERS, *INSTRUCTIONS, "choices", "options", "history",
    *NAMES["conversations"], *NAMES["messages"],
)  # fmt: skip
# Fields of an image whatever their values look like: `path` and `file` may be those of a page.
SURELY_IMAGES = tuple(
    name for name in NAMES["image"] if re.search("image|img|picture|photo", name) is not None
)
# The roles that a format's fields fill; those of `Sample.names` decide what a sample can be.
ROLES = {
    "document": ("parts",),
    "interleaved": ("texts", "images"),
    "llava": ("conversations",),
    "chat": ("messages",),
    "edit": ("instruction",),
    "question": ("question", "answer"),
    "request": ("caption",),
    "caption": ("caption",),
    "text": ("text",),
}
EMPTY = "empty"  # the reason of a sample that is sound and holds nothing


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


def detect_format(sample: Sample) -> str:
    """Return the format of a sample, a key of FORMATS; SampleError when it has none of them.

    It is one too when the sample has no image and a field of .json names one: it was lost.
    """
    format = _detected(sample)
    if format in WITHOUT_IMAGES and not sample.images:
        if number := elsewhere(sample.fields):
            raise SampleError("no image", f"words about the image {number}, which is not there")
        for name, value in sample.fields.items():
            if _is_of_image(name.lower(), value):
                raise SampleError(
                    "missing member",
                    f".json names an image, {name} {value!r:.80}, and none is there; say "
                    f"sources.NAME.format={format} for the words alone",
                )
    return format


def _is_of_image(name: str, value: Any) -> bool:
    """Tell whether a field, by its name in lower case, has an image or says where one is."""
    if name in SURELY_IMAGES:
        several = value if isinstance(value, list) else [value]
        return any(isinstance(one, str | dict) and len(one) > 0 for one in several)
    return name not in OF_WORDS and holds_image(value)


def _detected(sample: Sample) -> str:
    for format in FORMATS:
        if set(sample.names) <= set(ROLES[format]) and _is_of(sample, format):
            return format
    if not sample.images and (called := [n for n in OF_IMAGES if sample.field(n) is not None]):
        raise SampleError("no image", f"{called[0]}, and no image that it is the caption of")
    there = ", ".join(sorted([*sample.files, *sample.fields])) or "nothing"
    named = "; sources.NAME.fields names fields that are called otherwise" if sample.fields else ""
    message = f"{there}: files and fields of none of {', '.join(FORMATS)}{named}{_dots(sample)}"
    raise SampleError("unknown format", message)


def _is_of(sample: Sample, format: str) -> bool:
    """Return whether a sample has what makes its format; the first one of FORMATS counts."""
    has = sample.field
    match format:
        case "document" | "interleaved" | "llava" | "chat":
            return has(*NAMES[ROLES[format][0]]) is not None
        case "edit":
            return any(name.startswith("before.") for name in sample.images)
        case "question":
            return has("question", "sentence") is not None or (
                has(*QUESTIONS) is not None and has(*ANSWERS) is not None
            )
        case "request" | "caption":
            is_marked = format == "caption" or sample.fields.get("turns") is True
            return bool(sample.images) and is_marked and sample.has_words("caption")
    is_caption = not sample.names and has(*OF_IMAGES) is not None
    return not sample.images and not is_caption and sample.has_words("text")


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
    if format != "text":
        _check_all_placed(sample, parts)
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


def _check_all_placed(sample: Sample, parts: Iterable[Part]) -> None:
    """SampleError where the document lacks an image of the sample."""
    used = {part.stored.name for part in parts if isinstance(part, Image) and part.stored}
    if left := [name for name in sample.image_files if name not in used]:
        raise SampleError("unplaced image", f".{left[0]} has no place among the words")


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
    words = after.words("caption")
    texts = words if isinstance(words, list) else [words]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise SampleError("no text", f"{after.key}: an edit needs its caption, not {words!r:.80}")
    instructions = [f"make it: {text}" for text in texts]
    files["json"] = json.dumps({"instruction": instructions}).encode()
    return Sample(after.key, files)


def _document(sample: Sample, _: Choices) -> Iterator[Part]:
    for part in sample.field("parts"):
        if "picture" in part:  # as shards that were written before have it
            part = {"image": part["picture"], **part}
        part = {name: value for name, value in part.items() if value is not None}
        if ("text" in part) == ("image" in part):
            raise ValueError(f"a part has either text or image, not {sorted(part)}")
        role, weight = part.get("role"), part.get("weight", 1.0)
        if "text" in part:
            box = Box(*part["box"]) if "box" in part else None
            yield Text(string(part["text"]), role, weight, box)
        else:
            yield sample.image(sample.begins(str(part["image"])), role, weight)


def _interleaved(sample: Sample, _: Choices) -> Iterator[Part]:
    """Texts and images are aligned lists: at each index one of them is null."""
    texts, images = sample.field("texts"), sample.field("images")
    if len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts and {len(images)} images are not aligned")
    names = iter(sample.fetched([string(image) for image in images if image is not None]))
    for at, (text, image) in enumerate(zip(texts, images, strict=True)):
        if (text is None) == (image is None):
            raise ValueError(f"index {at} holds {'nothing' if text is None else 'both'}")
        if text is None:
            yield sample.image(next(names), None, 1.0)
        elif string(text).strip():
            yield Text(text.strip() + "\n")


def _llava(sample: Sample, _: Choices) -> Iterator[Part]:
    """<image> stands for the next image; without any, all images come first."""
    yield from talk(sample, read_turns(sample.field(*NAMES["conversations"])), may_lead=True)


def _chat(sample: Sample, _: Choices) -> Iterator[Part]:
    """In contents of strings <image> stands for the next image; else pieces place them."""
    yield from talk(sample, read_turns(sample.field(*NAMES["messages"])), may_lead=False)


def _edit(sample: Sample, choices: Choices) -> Iterator[Part]:
    words = _one(sample.words("instruction"), choices)
    yield from told(sample, [Turn("user", (words,))], [sample.begins("before")])
    yield sample.image(sample.begins("after"), "assistant", 1.0)


def _question(sample: Sample, choices: Choices) -> Iterator[Part]:
    """A sentence with a label becomes a question of true or false."""
    question = _one(sample.field(*QUESTIONS), choices)
    answer = _one(sample.field(*ANSWERS), choices)
    if sample.field("sentence") is not None and sample.field("question") is None:
        question = f"{question.rstrip('.')}. Is this true or false?"
    turns = [Turn("user", (question,)), Turn("assistant", (answer,))]
    yield from told(sample, turns, sample.images)


def _request(sample: Sample, choices: Choices) -> Iterator[Part]:
    """The user asks for the image, in several phrasings, or shows it and asks what it shows."""
    caption = check_no_images(_filled(_one(sample.words("caption"), choices)))
    image = _only_image(sample)
    key = f"{sample.key}\n{caption}"
    if choices.of(2) != asking.draws_first(key):
        request = asking.requests(caption, key)[choices.of(asking.PHRASINGS)]
        yield Text(request, "user", 0.0)
        yield sample.image(image, "assistant", 1.0)
    else:
        yield sample.image(image, "user", 0.0)
        yield Text(asking.questions(key)[choices.of(asking.PHRASINGS)], "user", 0.0)
        yield Text(caption, "assistant", 1.0)


def _caption(sample: Sample, choices: Choices) -> Iterator[Part]:
    """Two variants: the image then its words, or the words then their image."""
    text = Text(check_no_images(_filled(_one(sample.words("caption"), choices))))
    image = sample.image(_only_image(sample), None, 1.0)
    yield from (image, text) if choices.of(2) else (text, image)


def _only_image(sample: Sample) -> str:
    if len(sample.images) != 1:
        there = ", ".join(f".{name}" for name in sample.images) or "none"
        raise SampleError(
            "wrong fields",
            f"a caption is of one image, not of {there}; leave others out by "
            f"sources.NAME.ignore{_dots(sample)}",
        )
    return sample.images[0]


def _text(sample: Sample, choices: Choices) -> Iterator[Part]:
    words = sample.words("text")
    yield Text(_filled(_one(sample.words("caption") if words is None else words, choices)))


FORMATS: dict[str, Callable[[Sample, Choices], Iterator[Part]]] = {
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
    return _filled(string(value))


def _filled(text: str) -> str:
    if not text.strip():
        raise SampleError("no text", "a text without letters")
    return text
