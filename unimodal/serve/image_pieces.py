"""Image files in so many pieces that a small one takes minutes to open.

A progressive JPEG goes over the whole image once for each of its scans, 31 ms for 16 million pixels
here, and a scan takes 31 bytes. Chunks of a PNG, segments of a JPEG and blocks of a GIF, of which a
few bytes are enough, are read one by one. Pieces are counted here no further than to the most.
"""

import re
from collections.abc import Callable, Generator, Iterator

MOST_SCANS = 32  # cameras and programs write up to some 14
MOST_PIECES = 100_000  # of 16 million pixels a GIF has some 65,000, and a PNG 6,000
# Within the data of a scan 0xFF comes before 0, and before the numbers of restarts, alone.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
ALONE = (0x01, 0xD8, JPEG_END)  # markers of a JPEG behind which no length stands
GIF_EXTENSION, GIF_IMAGE, GIF_END = 0x21, 0x2C, b";"
PNG_END = b"IEND"


def is_sound(content: bytes, kind: str) -> bool:
    """Return whether an image file of a kind has no more pieces than an image needs."""
    if kind not in PIECES:
        return True
    num_pieces = num_scans = 0
    for piece in PIECES[kind](content):
        num_pieces += 1
        num_scans += kind == "JPEG" and piece == JPEG_SCAN
        if num_pieces > MOST_PIECES or num_scans > MOST_SCANS:
            return False
    return True


def is_whole(content: bytes, kind: str) -> bool:
    """Return whether a sound PNG or GIF goes on to its end, without which Pillow opens them."""
    if kind == "PNG":
        at = _behind(_chunks(content))
        return content[at + 4 : at + 8] == PNG_END and at + 12 <= len(content)
    return kind != "GIF" or content[_behind(_blocks(content)) :].startswith(GIF_END)


def _behind(pieces: Generator[int, None, int]) -> int:
    """Return where pieces end."""
    while True:
        try:
            next(pieces)
        except StopIteration as stop:
            return stop.value


def _segments(content: bytes) -> Iterator[int]:
    """Yield the marker of each segment of a JPEG. What lies within one, as a small picture does, or
    behind the end, as the film of a telephone does, is not looked at.
    """
    found, has_scan = MARKER.search(content), False
    # Pillow reads on behind an end that comes before the first scan.
    while found and not (has_scan and found[1][0] == JPEG_END):
        marker, at = found[1][0], found.end()
        yield marker
        has_scan = has_scan or marker == JPEG_SCAN
        length = 0 if marker in ALONE else int.from_bytes(content[at : at + 2])
        found = MARKER.search(content, at + length)


def _chunks(content: bytes) -> Generator[int, None, int]:
    """Yield where each chunk of a PNG begins, as far as there are any, and return where the last
    one does.
    """
    at = 8
    while at + 8 <= len(content) and content[at + 4 : at + 8] != PNG_END:
        yield at
        at += 12 + int.from_bytes(content[at : at + 4])
    return at


def _blocks(content: bytes) -> Generator[int, None, int]:
    """Yield where each block of a GIF begins, and those within blocks, as far as there are any, and
    return where they end.
    """
    at = 13 + _table(content, 10)
    while at + 1 < len(content) and content[at] in (GIF_EXTENSION, GIF_IMAGE):
        yield at
        is_image = content[at] == GIF_IMAGE
        at += 11 + _table(content, at + 9) if is_image else 2
        while at < len(content) and content[at]:
            yield at
            at += 1 + content[at]
        at += 1
    return at


def _table(content: bytes, at: int) -> int:
    """Return the bytes of the colours that the flags at a place of a GIF speak of."""
    flags = content[at] if at < len(content) else 0
    return 3 * 2 ** (1 + flags % 8) if flags & 0x80 else 0


PIECES: dict[str, Callable[[bytes], Iterator[int]]] = {
    "JPEG": _segments,
    "PNG": _chunks,
    "GIF": _blocks,
}
