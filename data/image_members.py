"""Tell which files of a sample are its images, and in which order they stand.

In: the files of a sample by extension, and the list that its .json may have of them. Out: the
extensions of its images.

1. An image is told by its name or, whatever its name, by its first bytes. `.txt` and `.json` are
   words and fields, whatever they begin with.
2. Numbers in names count as numbers: `2.png` stands before `10.png`.
3. A list in .json (`image`, `images`) says the order, and must name the images that are there: by
   their names, or, of numbered images and of a single one, by the names that they had before.
4. Names of fields are the same in upper and lower case.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unimodal.tokenizer.signatures import SUFFIXES, image_kind

from . import codes_member as codes

WORDS = ("txt", "json")
LISTS = ("image", "images")  # fields of .json that name images
BY_ROLE = ("before.", "after.")  # images of edits, which no list orders
INSIDE = re.compile(r"\s*data:", re.IGNORECASE)  # begins an image that stands in .json itself
MAX_NAME = 2048  # characters of a path or URL
MAX_ITEMS = 8  # of a list that are looked at
NAMED = re.compile(
    rf"\s*(?:data:image/.*|[^\n]+\.(?:{'|'.join(sorted(SUFFIXES))})(?:[?#]\S*)?\s*)", re.IGNORECASE
)
# Fields that number an image of another file, in lower case and without underscores.
IDS = ("imageid", "imageids", "imgid", "imageindex", "pictureid", "photoid", "cocoid")
NUMBERS = re.compile(r"(\d+)")


def is_image(name: str, content: bytes) -> bool:
    """Tell whether a file with this name or extension is an image or stands for one."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in WORDS:
        return False
    return suffix in SUFFIXES or suffix == codes.EXTENSION or image_kind(content) is not None


def names_image(text: str) -> bool:
    """Tell whether a text is a path or URL that ends as those of images do, or a `data:` URL."""
    return bool(NAMED.fullmatch(text[:MAX_NAME]))


def holds_image(value: Any) -> bool:
    """Tell whether the value of a field is an image, names one, or is a list with one."""
    if isinstance(value, bytes):
        return image_kind(value) is not None
    if isinstance(value, str):
        return names_image(value)
    if isinstance(value, dict):
        return any(holds_image(value.get(name)) for name in ("bytes", "path", "url", "file_name"))
    return isinstance(value, list) and any(map(holds_image, value[:MAX_ITEMS]))


def elsewhere(fields: Mapping[str, Any]) -> str | None:
    """Return in words the field that numbers an image, which then lies elsewhere; None without."""
    for name, value in fields.items():
        if name.lower().replace("_", "") in IDS and value not in (None, "", []):
            return f"{name} {value!r:.40}"
    return None


def natural(name: str) -> tuple:
    """Return what sorts names as people do: by words, and by numbers as numbers."""
    pieces = NUMBERS.split(name.lower())
    return tuple(int(piece) if at % 2 else piece for at, piece in enumerate(pieces)), name


def image_members(files: Mapping[str, bytes]) -> list[str]:
    """Return the extensions of the images among these files, in natural order."""
    return sorted((name for name, content in files.items() if is_image(name, content)), key=natural)


def listed(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of images that .json lists, none where it has no such list."""
    lower = {name.lower(): value for name, value in fields.items()}
    for field in LISTS:
        value = lower.get(field)
        names = [_name(one) for one in (value if isinstance(value, list) else [value])]
        found = [name for name in names if name]
        if found and not any(map(INSIDE.match, found)):
            return found
    return []


def _name(value: Any) -> str:
    """Return the name of an image as a list has it; empty where it names none."""
    if isinstance(value, dict):
        value = value.get("path") or value.get("file_name") or value.get("image")
    return value.strip() if isinstance(value, str) else ""


def in_order(images: Sequence[str], names: Sequence[str], key: str) -> list[str]:
    """Return the extensions of the images of sample `key` in the order of a list of names.

    ValueError where the list is not one of these images.
    """
    by_name = {image.lower(): image for image in images}
    by_stem = {_stem(image): image for image in images}
    found = []
    for name in names:
        short = name.rpartition("/")[2].removeprefix(f"{key.rpartition('/')[2]}.").lower()
        image = by_name.get(short) or by_stem.get(_stem(short))
        if image is not None:
            found.append(image)
    if len(found) == len(names) and set(found) == set(images):
        return found
    if not found and len(names) == len(images) and _are_numbered(images):
        return list(images)  # by other names: the files that they were made of
    there = ", ".join(f".{image}" for image in images)
    there = there or "none: store them beside it, or leave the list out where words alone are meant"
    raise ValueError(f".json lists the images {', '.join(names):.200}, the sample has {there}")


def _stem(image: str) -> str:
    """Return an extension without that of the format: of `0.png` it is 0, of `png` nothing."""
    return image.rpartition(".")[0].lower()


def _are_numbered(images: Sequence[str]) -> bool:
    """Tell whether the images are a single one, or counted through from 0 or 1 on."""
    numbers = [int(stem) for stem in map(_stem, images) if stem.isdecimal()]
    one = len(images) == 1 and not _stem(images[0])
    return one or numbers in (list(range(len(images))), list(range(1, len(images) + 1)))
