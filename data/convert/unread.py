"""Find the image that a row has and nobody would read: captions are no plain texts without it.

In: a row, and the columns of it that are read. Out: an error where a column that nobody reads holds
an image: its bytes, or a path or URL that ends like one.
"""

from typing import Any

from ..formats import SampleError
from ..image_members import elsewhere, holds_image
from .columns import Columns
from .table import Fields


def check_images_read(row: Fields, columns: Columns) -> None:
    """Raise SampleError where a row of which no image is read has one."""
    if columns["image"] or columns["before"] or columns["images"]:
        return
    if number := elsewhere(row):
        raise SampleError(
            "no image",
            f"words about the image {number}, which no column has: add a column of its path",
        )
    read = {name for _, names in columns.roles for name in names}
    for name in row:
        if name not in read and holds_image(row[name]):
            raise SampleError(
                "unread image",
                f"{name} has an image, {_said(row[name])}, which is not read: name the column by "
                f"--image {name}, or give --format {columns.format} for the words alone",
            )


def _said(value: Any) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else f"{value!r:.80}"
