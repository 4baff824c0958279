"""Find the image that a row has and nobody would read: captions are no plain texts without it.

In: a row, and the columns of it that are read. Out: an error where a column that nobody reads holds
an image: its bytes, or a path or URL that ends like one.
"""

from typing import Any

from unimodal.tokenizer.signatures import image_kind

from ..formats import SampleError
from ..image_members import names_image
from .columns import Columns
from .table import Fields

MAX_ITEMS = 8  # of a list that are looked at


def check_images_read(row: Fields, columns: Columns) -> None:
    """Raise SampleError where a row of which no image is read has one."""
    if columns["image"] or columns["before"] or columns["images"]:
        return
    read = {name for _, names in columns.roles for name in names}
    for name in row:
        if name not in read and _is_image(row[name]):
            raise SampleError(
                "unread image",
                f"{name} has an image, {_said(row[name])}, which is not read: name the column by "
                f"--image {name}, or give --format {columns.format} for the words alone",
            )


def _is_image(value: Any) -> bool:
    """Tell whether a cell is an image, names one, or is a list with one."""
    if isinstance(value, bytes):
        return image_kind(value) is not None
    if isinstance(value, str):
        return names_image(value)
    if isinstance(value, dict):
        return any(_is_image(value.get(name)) for name in ("bytes", "path", "url"))
    return isinstance(value, list) and any(map(_is_image, value[:MAX_ITEMS]))


def _said(value: Any) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else f"{value!r:.80}"
