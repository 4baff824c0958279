"""Read the headers of a tar file: which member lies where, whoever wrote it.

In: the bytes of a tar, mapped or read. Out: its members, with their whole names: of ustar, of pax
(Python's default), of GNU tar (long names, sizes in base 256) and of tars from before POSIX. What
is no plain file (a link, a sparse file) is a member with a `problem`; a header that cannot be
followed raises `Damaged`. Which members are a sample: samples.py. Costs 10 us a file and core.

A header is a block of 512 bytes (POSIX.1-2017, pax, "ustar Interchange Format"): name at 0, size in
octal at 124, checksum at 148, type at 156, magic at 257, name prefix at 345.
"""

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

BLOCK = 512  # bytes of a header, and what contents are padded to
END = bytes(2 * BLOCK)  # two empty headers close a tar
PLAIN = b"0\0" + b"7"  # type flags of a plain file: new, old, contiguous
FOLDER, LABEL = ord("5"), ord("V")  # no files; a label is of GNU tar's
HARD_LINK, SYMBOLIC_LINK, SPARSE = b"12S"
WITHOUT_CONTENTS = b"123456"  # whatever their headers have as a size
PAX, PAX_FOR_ALL = b"xg"  # records about the member that follows, or all
LONG_NAME, LONG_LINK = b"LK"  # of GNU tar: the name of the member that follows, of its target
EXTENDED = b"xgLK"  # headers about others
PREFIX = slice(345, 500)  # what stands before the name; a zero at 262 says that this kind has it
NUL = b"\0"
ADLER = 65_521  # the modulus of Adler-32
MAGIC, MAGIC_AT, CHECKSUM = b"ustar", 257, slice(148, 156)
COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip

Bytes = bytes | mmap.mmap


class ShardError(ValueError):
    """A shard cannot be read or written: the message names the shard, the key and why."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a tar, and the sample that it costs."""

    key: str | None
    """None: not even a name can be read."""
    message: str
    reason: str = "damaged tar"


class Member(NamedTuple):
    """One member of a tar: the bytes of its first header, its contents and the next header."""

    name: str
    header: int
    start: int
    stop: int
    after: int
    problem: str = ""
    """Why its contents cannot be had; empty: it is a plain file."""


class Damaged(ValueError):
    """A header cannot be followed."""

    def __init__(self, offset: int, name: str | None, message: str):
        super().__init__(message)
        self.offset, self.name = offset, name


def padded(size: int) -> int:
    """Return the bytes that contents of this size take in a tar: whole blocks."""
    return -(-size // BLOCK) * BLOCK


def key_and_extension(name: str) -> tuple[str, str]:
    """Cut a member's name at the first dot of its file name, as webdataset does.

    The extension is returned in lower case.
    """
    dot = name.find(".", name.rfind("/") + 1)
    return (name[:dot], name[dot + 1 :].lower()) if dot >= 0 else (name, "")


def is_hidden(key: str) -> bool:
    """Tell by its key whether a file's name begins with a dot, as what macOS adds: `._0001.png`."""
    return not key or key.endswith("/")


def compression(head: bytes) -> str | None:
    """Return how a file that begins like this is compressed; None: it is not."""
    return next((name for mark, name in COMPRESSED.items() if head.startswith(mark)), None)


def members(source: Bytes, offset: int, end: int) -> Iterator[Member]:
    """Yield the members whose headers lie from byte `offset` to `end`, checked to be whole.

    Folders and labels have an empty name.
    """
    most, begin = len(source), offset
    name: str | None = None  # of the member that follows, and its size, where records say so
    size: int | None = None
    problem = ""
    while offset < end:
        head = source[offset : offset + BLOCK]
        if not head.strip(b"\0"):
            return
        kind, start, own = _checked(head, offset), offset + BLOCK, _name(head)
        stop = start + (_size_bytes(head, offset) if size is None else size)
        if kind in WITHOUT_CONTENTS:
            stop = start
        after = start + padded(stop - start)
        if after > most:
            known = name or (None if kind in EXTENDED else own)
            raise Damaged(offset, known, "the tar is truncated; write or copy it again")
        offset = after
        if kind == PAX:
            records = _records(source[start:stop], begin)
            name, size, problem = _told(records, name, begin)
            continue
        if kind == LONG_NAME:
            name = _decoded(source[start:stop])
            continue
        if kind in (PAX_FOR_ALL, LONG_LINK):
            continue
        full = name or own
        is_file = kind not in (FOLDER, LABEL) and not full.endswith("/")
        why_not = (problem or _problem(kind, head)) if is_file else ""
        yield Member(full if is_file else "", begin, start, stop, after, why_not)
        begin, name, size, problem = offset, None, None, ""


def sample_files(source: Bytes, offset: int, end: int) -> tuple[str, dict[str, bytes]]:
    """Return key and files, by extension, of a sample in a range that samples.py has found.

    Five times as fast as `members` where headers are plain, for nothing is checked.
    """
    key, files, begin = "", {}, offset
    while offset < end:
        start = offset + BLOCK
        if source[offset + 156] not in PLAIN or source[offset + 124] > 127:
            return _any_files(source, begin, end)
        size = _octal(source[offset + 124 : offset + 136])
        if source[offset + 345]:  # a prefix, or something else in other kinds of tar
            name = _name(source[offset:start])
        else:
            name = _decoded(source[offset : offset + 100])
        found, extension = key_and_extension(name)
        if not is_hidden(found):
            key = found
            files[extension] = source[start : start + size]
        offset = start + -(-size // BLOCK) * BLOCK
    return key, files


def _any_files(source: Bytes, offset: int, end: int) -> tuple[str, dict[str, bytes]]:
    """Return what `sample_files` does, of headers of any kind."""
    key, files = "", {}
    for member in members(source, offset, end):
        found, extension = key_and_extension(member.name)
        if not is_hidden(found):
            key = found
            files[extension] = source[member.start : member.stop]
    return key, files


def check_end(source: Bytes, end: int) -> None:
    """Raise `Damaged` unless the tar ends at byte `end` as a whole one does."""
    if source[end : end + BLOCK] != bytes(BLOCK):
        raise Damaged(end, None, "the tar is truncated here; write or copy it again")
    if next_header(source, end + BLOCK) is not None:
        raise Damaged(end, None, "zeros where a header should be: a hole in the file")


def next_header(source: Bytes, offset: int) -> int | None:
    """Return where the next sound header begins; what only looks like one lacks its checksum.

    It is looked for by the magic, which tars from before POSIX lack: what stands behind damage in
    these is lost.
    """
    at = source.find(MAGIC, offset)
    while at >= 0:
        begin = at - MAGIC_AT
        if begin >= offset and begin % BLOCK == 0 and is_header(source[begin : begin + BLOCK]):
            return begin
        at = source.find(MAGIC, at + 1)
    return None


def _checked(head: bytes, offset: int) -> int:
    """Return the type of a header; `Damaged` where it is none or its checksum is wrong."""
    if is_header(head):
        return head[156]
    if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC:
        raise Damaged(offset, None, "the header's checksum is wrong")
    if how := compression(head):
        raise Damaged(offset, None, f"no tar but compressed ({how}): unpack it first")
    raise Damaged(offset, None, "no tar header here; the file is damaged or no tar")


def is_header(head: bytes) -> bool:
    """Tell whether a block is a header: its checksum is the sum of its bytes, its own being spaces.

    zlib sums bytes faster than Python: the low half of Adler-32 is that sum and one, modulo 65,521
    (RFC 1950, sec. 9). Some old programs took bytes above 127 for negative.
    """
    own = head[CHECKSUM]
    digits = own.strip(b" \0")
    if len(head) < BLOCK or not digits or digits.strip(b"01234567"):
        return False
    total = int(digits, 8) - len(own) * ord(" ") + sum(own)
    if zlib.adler32(head) & 0xFFFF == (total + 1) % ADLER:
        return True
    return total == sum(head) - 256 * sum(byte > 127 for byte in head)


def _octal(field: bytes) -> int:
    return int(field.partition(NUL)[0].strip() or b"0", 8)


def _size_bytes(head: bytes, offset: int) -> int:
    """Return the size in a header: octal, or base 256 where the first bit is set (GNU, star)."""
    field = head[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    try:
        size = _octal(field)
    except ValueError as error:
        raise Damaged(offset, _name(head), "the header's size is no number") from error
    if size < 0:
        raise Damaged(offset, _name(head), f"the header's size is {size}")
    return size


def _name(head: bytes) -> str:
    name = _decoded(head[:100])
    if head[345] == 0 or head[262] != 0:  # no prefix, or none in this kind of tar
        return name
    return f"{_decoded(head[PREFIX])}/{name}"


def _decoded(field: bytes) -> str:
    """Return a name, up to its first zero; bytes that are no UTF-8 as `\\xfc`, each differently."""
    return field.partition(NUL)[0].decode(errors="backslashreplace")


def _records(content: bytes, offset: int) -> dict[bytes, bytes]:
    """Return the records of a pax header by name: each is its length, a space, name=value, LF."""
    found, at = {}, 0
    while at < len(content) and content[at]:
        digits = content[at : content.find(b" ", at)]
        length = int(digits) if digits.isdigit() else 0
        name, equals, value = content[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if not equals or content[at + length - 1 : at + length] != b"\n":
            raise Damaged(offset, None, "a pax header is damaged")
        found[name] = value
        at += length
    return found


def _told(
    records: dict[bytes, bytes], name: str | None, offset: int
) -> tuple[str | None, int | None, str]:
    """Return the name, size and problem of the member that follows, as far as records say them."""
    told = records.get(b"GNU.sparse.name", records.get(b"path"))
    size = records.get(b"size")
    if size is not None and not size.isdigit():
        raise Damaged(offset, name, "a pax header is damaged")
    is_sparse = any(record.startswith(b"GNU.sparse") for record in records)
    problem = _problem(SPARSE, b"") if is_sparse else ""
    return (
        name if told is None else _decoded(told),
        None if size is None else int(size),
        problem,
    )


def _problem(kind: int, head: bytes) -> str:
    """Say why a member of this type has no contents that can be read; empty for plain files."""
    if kind in PLAIN:
        return ""
    if kind == SPARSE:
        return "is a sparse file: write the tar without --sparse"
    if kind in (HARD_LINK, SYMBOLIC_LINK):
        target = _decoded(head[157:257])
        return f"is a link to {target}: write the tar with --dereference --hard-dereference"
    return f"is no plain file (tar type {chr(kind)!r})"
