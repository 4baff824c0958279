"""Find the samples of a tar: neighbouring members that share a key, as webdataset has it.

In: the bytes of a tar. Out: byte ranges of samples, and what was left out.

1. A key is all before the first dot of a file's name. The same key again, later in the tar, is no
   second half: what a stream of samples would cut in two is refused whole, both halves.
2. The same name twice says that two samples share a key: both are refused, and told apart by where
   they begin.
3. Hidden files, which macOS adds to tars (`._0001.png`), are left out and counted.
4. Damage costs the samples that it touches and nothing else: the walk goes on at the next sound
   header. Where a header is unreadable, its neighbours are kept if they have the files that most
   samples have.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .tar import (
    BLOCK,
    Bytes,
    Damaged,
    Fault,
    Member,
    ShardError,
    check_end,
    is_hidden,
    key_and_extension,
    members,
    next_header,
)

SORT = "write the tar in the order of names (tar --sort=name)"


@dataclass(frozen=True)
class Found:
    """The samples of a tar."""

    ranges_n2: np.ndarray
    """The first byte of each and the byte behind it, int64."""
    num_hidden: int
    """Files whose names begin with a dot; they are in no sample."""


def find_samples(source: Bytes, path: Path, faults: list[Fault] | None = None) -> Found:
    """Return the samples of a tar.

    Without `faults` anything wrong is a ShardError; with it, what is lost is appended to the list.
    """
    walk = _Walk()
    at: int | None = 0
    while at is not None:
        try:
            for member in members(source, at, len(source)):
                walk.add(member)
                at = member.after
            check_end(source, at or 0)
            break
        except Damaged as damage:
            if faults is None:
                where = damage.name or f"byte {damage.offset}"
                raise ShardError(f"{path}, {where}: {damage}") from damage
            walk.damage(damage)
            at = next_header(source, damage.offset + BLOCK)
    lost = list(walk.faults())
    if faults is None and lost:
        raise ShardError(f"{path}, {lost[0].key}: {lost[0].message}")
    if faults is not None:
        faults += lost
    whole = [[piece.begin, piece.end] for piece in walk.pieces if not piece.is_lost]
    return Found(np.array(whole, dtype=np.int64).reshape(-1, 2), walk.num_hidden)


@dataclass(slots=True)
class _Piece:
    """Neighbouring members of one key, no two of one name."""

    key: str
    begin: int
    end: int
    extensions: tuple[str, ...] = ()
    problem: str = ""
    """What is wrong with one of its members."""
    is_beside_damage: bool = False
    """Whether it may lack a file."""
    is_lost: bool = False
    name: str = ""
    """What it is called in faults: its key, and where other pieces share that its place too."""

    def __post_init__(self) -> None:
        self.name = self.name or self.key


class _Walk:
    """What a walk over the members has found so far."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.num_hidden = 0
        self._extensions: dict[str, None] = {}  # of the last piece, in order
        self._is_after_damage = False
        self._nameless: list[Fault] = []

    def add(self, member: Member) -> None:
        """Note one more member, of the last piece or of a new one."""
        key, extension = key_and_extension(member.name)
        if is_hidden(key):
            self.num_hidden += bool(member.name)  # a folder has none
            return
        piece = self._piece(key, extension, member.header)
        piece.end = member.after
        if member.problem:
            piece.problem = f"{member.name} {member.problem}"

    def damage(self, damage: Damaged) -> None:
        """Note a member that cannot be read.

        One without a name may have been of either neighbour: both are looked at again.
        """
        message = f"byte {damage.offset}: {damage}"
        if damage.name is not None:
            key, extension = key_and_extension(damage.name)
            self._piece(key, extension, damage.offset).problem = message
            return
        if self.pieces:
            self.pieces[-1].is_beside_damage = True
        self._is_after_damage = True
        self._nameless.append(Fault(None, message))

    def _piece(self, key: str, extension: str, begin: int) -> _Piece:
        """Return the piece that a member belongs to."""
        if not self.pieces or self.pieces[-1].key != key or extension in self._extensions:
            self._close()
            self.pieces.append(_Piece(key, begin, begin))
        elif self._is_after_damage:
            self.pieces[-1].problem = "damage in the tar lies between its files"
        self._extensions[extension] = None
        piece = self.pieces[-1]
        piece.is_beside_damage |= self._is_after_damage
        self._is_after_damage = False
        return piece

    def _close(self) -> None:
        """Note the names of the last piece: no more will come."""
        if self.pieces:
            self.pieces[-1].extensions = _shared(tuple(self._extensions))
        self._extensions = {}

    def faults(self) -> Iterator[Fault]:
        """Mark the pieces that are lost, and yield why; to be asked once, at the end."""
        self._close()
        yield from self._nameless
        counts = Counter(piece.key for piece in self.pieces)
        again: dict[str, list[_Piece]] = {key: [] for key, count in counts.items() if count > 1}
        for piece in self.pieces if again else ():
            if piece.key in again:
                piece.name = f"{piece.key} (byte {piece.begin})"
                again[piece.key].append(piece)
        yield from self._damaged()
        for pieces in again.values():
            yield from _repeated(pieces)

    def _damaged(self) -> Iterator[Fault]:
        """Yield the pieces with a problem, and those beside damage that lack a file."""
        usual = Counter(piece.extensions for piece in self.pieces).most_common(1)
        for piece in self.pieces:
            if piece.is_beside_damage and not piece.problem and piece.extensions != usual[0][0]:
                there = ", ".join(piece.extensions)
                piece.problem = f"only {there} beside damage in the tar"
            if piece.problem:
                piece.is_lost = True
                yield Fault(piece.name, piece.problem)


def _repeated(pieces: list[_Piece]) -> Iterator[Fault]:
    """Mark pieces of one key as lost, and yield why: one sample in parts, or several samples."""
    names = [extension for piece in pieces for extension in piece.extensions]
    untold = [piece for piece in pieces if not piece.is_lost]
    key = pieces[0].key
    for piece in pieces:
        piece.is_lost = True
    if len(set(names)) == len(names):
        if len(untold) == len(pieces):
            files = ", ".join(f".{name}" for name in names)
            message = f"the files of {key} ({files:.200}) are not next to each other: {SORT}"
            yield Fault(key, message, "scattered files")
        return
    twice = next(name for name, count in Counter(names).items() if count > 1)
    message = f"{key}.{twice} stands in the tar twice: keys tell samples apart, so rename them"
    for piece in untold:
        yield Fault(piece.name, message, "the same name twice")


@lru_cache
def _shared(extensions: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal tuples, for most samples have the same."""
    return extensions
