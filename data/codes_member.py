"""Files of image codes: a member of a code shard stands where the image stood in its source.

    bytes 0 to 15    "unimodal codes 1"
    bytes 16 to 47   SHA-256 of the image tokenizer that made them
    bytes 48 to 55   rows, columns (uint32, little-endian)
    then             rows * columns codes in reading order, uint16 or uint32 (little-endian): the
                     smaller that holds every code of the tokenizer

A file of another length or with another beginning is refused: nothing is guessed.
"""

import struct

import numpy as np

from unimodal.document import Image
from unimodal.tokenizer.grid import Grid

EXTENSION = "codes"
MAGIC = b"unimodal codes 1"
HEAD = struct.Struct("<16s32sII")
MAX_CODES = 2**28  # in one image: a damaged head must not ask for all memory


def is_codes(name: str) -> bool:
    """Tell by its name whether a file of a sample holds codes and no image."""
    return name.lower().endswith(EXTENSION)


def to_bytes(image: Image, num_codes: int) -> bytes:
    """Return the bytes of a codes file for an encoded image.

    `num_codes` is the size of its tokenizer's codebook. ValueError for an image without codes, with
    a code outside 0 .. num_codes - 1, or with more than one code at a place or one scale.
    """
    if image.codes is None or image.grid is None or image.codec_hash is None:
        raise ValueError("an image must be encoded before its codes can be written")
    if image.codes.shape[1] != 1 or image.grid.scales:
        raise ValueError("a codes file holds one code for each place of one scale")
    largest = int(image.codes.max(initial=0))
    if image.codes.min(initial=0) < 0 or largest >= num_codes:
        raise ValueError(f"code {largest} of a tokenizer of {num_codes}")
    digest = bytes.fromhex(image.codec_hash)
    dtype = np.dtype("<u2" if num_codes <= 2**16 else "<u4")
    head = HEAD.pack(MAGIC, digest, image.grid.height, image.grid.width)
    return head + image.codes.astype(dtype).tobytes()


def from_bytes(content: bytes, role: str | None = None, weight: float = 1.0) -> Image:
    """Return the image of a codes file: codes int64 (n, 1); ValueError for any other content."""
    if len(content) < HEAD.size:
        raise ValueError(f"{len(content)} bytes: a codes file has at least {HEAD.size}")
    magic, digest, rows, columns = HEAD.unpack_from(content)
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, not {MAGIC!r}: no codes file of this version")
    count, body = rows * columns, content[HEAD.size :]
    if not 0 < count <= MAX_CODES or len(body) not in (2 * count, 4 * count):
        raise ValueError(f"{len(body)} bytes of codes for {rows} x {columns}: damaged")
    dtype = "<u2" if len(body) == 2 * count else "<u4"
    codes = np.frombuffer(body, dtype=dtype).astype(np.int64)
    return Image(
        codes=codes[:, None], grid=Grid(rows, columns), codec_hash=digest.hex(), role=role,
        weight=weight,
    )  # fmt: skip
