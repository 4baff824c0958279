"""Files of image codes: a member of a code shard stands where the image stood in its source.

    bytes 0 to 15    "unimodal codes 1", or 2 where there are several scales
    bytes 16 to 47   SHA-256 of the image tokenizer that made them
    bytes 48 to 55   rows, columns (uint32, little-endian)
    of scales        how many, then rows, columns of each (uint32), from coarse to fine
    then             rows * columns codes in reading order, scale by scale, uint16 or uint32
                     (little-endian): the smaller that holds every code of the tokenizer

A file of another length or with another beginning is refused: nothing is guessed.
"""

import struct

import numpy as np

from unimodal.document import Image
from unimodal.tokenizer.grid import Grid

EXTENSION = "codes"
MAGIC, MAGIC_OF_SCALES = b"unimodal codes 1", b"unimodal codes 2"
HEAD = struct.Struct("<16s32sII")
UINT32 = np.dtype("<u4")
MAX_CODES = 2**28  # in one image: a damaged head must not ask for all memory
MAX_SCALES = 2**10


def is_codes(name: str) -> bool:
    """Tell by its name whether a file of a sample holds codes and no image."""
    return name.lower().endswith(EXTENSION)


def to_bytes(image: Image, num_codes: int) -> bytes:
    """Return the bytes of a codes file for an encoded image.

    `num_codes` is the size of its tokenizer's codebook. ValueError for an image without codes, with
    a code outside 0 .. num_codes - 1, or with more than one code at a place.
    """
    if image.codes is None or image.grid is None or image.codec_hash is None:
        raise ValueError("an image must be encoded before its codes can be written")
    grid = image.grid
    if image.codes.shape != (grid.size, 1):
        raise ValueError("a codes file holds one code for each place")
    largest = int(image.codes.max(initial=0))
    if image.codes.min(initial=0) < 0 or largest >= num_codes:
        raise ValueError(f"code {largest} of a tokenizer of {num_codes}")
    digest = bytes.fromhex(image.codec_hash)
    dtype = np.dtype("<u2" if num_codes <= 2**16 else "<u4")
    head = HEAD.pack(MAGIC_OF_SCALES if grid.scales else MAGIC, digest, grid.height, grid.width)
    if grid.scales:
        head += np.array([len(grid.scales), *np.ravel(grid.scales)], UINT32).tobytes()
    return head + image.codes.astype(dtype).tobytes()


def from_bytes(content: bytes, role: str | None = None, weight: float = 1.0) -> Image:
    """Return the image of a codes file: codes int64 (n, 1); ValueError for any other content."""
    if len(content) < HEAD.size:
        raise ValueError(f"{len(content)} bytes: a codes file has at least {HEAD.size}")
    magic, digest, rows, columns = HEAD.unpack_from(content)
    if magic not in (MAGIC, MAGIC_OF_SCALES):
        raise ValueError(f"it begins with {magic!r}, not {MAGIC!r}: no codes file of this version")
    body = content[HEAD.size :]
    scales, body = _scales(body) if magic == MAGIC_OF_SCALES else ((), body)
    grid = Grid(rows, columns, scales)
    count = grid.size
    if not 0 < count <= MAX_CODES or len(body) not in (2 * count, 4 * count):
        raise ValueError(f"{len(body)} bytes of codes for {rows} x {columns}: damaged")
    dtype = "<u2" if len(body) == 2 * count else "<u4"
    codes = np.frombuffer(body, dtype=dtype).astype(np.int64)
    return Image(codes=codes[:, None], grid=grid, codec_hash=digest.hex(), role=role, weight=weight)


def _scales(body: bytes) -> tuple[tuple[tuple[int, int], ...], bytes]:
    """Return the (rows, columns) of the scales that stand before the codes, and what follows."""
    size = UINT32.itemsize
    num = int(np.frombuffer(body[:size], UINT32)[0]) if len(body) >= size else 0
    stop = size * (1 + 2 * num)
    if not 0 < num <= MAX_SCALES or len(body) < stop:
        raise ValueError(f"{num} scales in {len(body)} bytes: damaged")
    sides = np.frombuffer(body[size:stop], UINT32).reshape(num, 2).tolist()
    return tuple((rows, columns) for rows, columns in sides), body[stop:]
