"""Let one process at a time go on with a run, by a lock in its folder.

    lock_00000001.json  {"host", "process", "place", "began", "since", "beat"}

1. The lock of the highest number counts. Who wants the run makes the file of the next number, which
   of several only one can (O_EXCL), and removes the lower ones.
2. Its process counts a beat up in the file every BEAT_S seconds.
3. A lock is dead where its process has ended, if that was on this machine, or else where it has not
   beaten for SILENT_S. A dead one is taken over.
4. Who finds a lock above its own has lost the run and stops: it was taken for dead.

No two clocks are compared, and nothing is asked of a network's file system but O_EXCL.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread

from .ranks import Ranks

BEAT_S, SILENT_S, POLL_S = 5.0, 60.0, 0.5
RECORD_BYTES = 1024  # of the file, always: it is written over in place


class Locked(ValueError):
    """Say that another process has the run."""


@dataclass(frozen=True)
class Holder:
    """Say who holds a lock."""

    host: str
    process: int
    place: str
    """The machine and its table of processes: equal where a process can be looked up; or empty."""
    began: str
    """When the process began: its number alone may be another's by now."""
    since: str
    beat: int = 0

    @classmethod
    def me(cls) -> "Holder":
        """Return this process."""
        process = os.getpid()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), process, _place(), _began(process), since)

    @property
    def is_here(self) -> bool:
        """Return whether its process would be found on this machine."""
        return self.place != "" and self.place == _place()

    @property
    def has_ended(self) -> bool:
        """Return whether its process, which would be found here, is gone."""
        return _began(self.process) != self.began

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


class Lock:
    """A lock that this process holds."""

    def __init__(self, path: Path) -> None:
        """Take the file at `path`, which this process has just made."""
        self.path, self.is_lost = path, False
        self._holder = Holder.me()
        self._write()
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="lock", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, run: Path) -> "Lock":
        """Take the lock of a run's folder. Raises Locked where another process has it."""
        run.mkdir(parents=True, exist_ok=True)
        while True:
            there = _locks(run)
            dead = _dead(there[-1]) if there else None
            path = run / f"lock_{_number(there[-1]) + 1 if there else 1:08d}.json"
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                continue  # another process was faster
            if _locks(run)[-1] != path:
                path.unlink()
                continue
            for old in there:
                old.unlink(missing_ok=True)
            if dead is not None:
                print(f"{run}: taken over from {dead}, which has ended", file=sys.stderr)
            return cls(path)

    def check(self) -> None:
        """Raise Locked where another process has taken the run over."""
        above = [path for path in _locks(self.path.parent) if path > self.path]
        if above:
            self.is_lost = True
            raise Locked(
                f"{self.path.parent} was taken over by {_holder(above[-1]) or 'another process'}, "
                "which found no sign of life of this one: it goes on there"
            )

    def release(self) -> None:
        """Give the run back."""
        self._ended.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError, Locked):  # the next beat may be written again; `is_lost` tells
                self.check()
                self._holder = replace(self._holder, beat=self._holder.beat + 1)
                self._write()

    def _write(self) -> None:
        record = json.dumps(asdict(self._holder)).encode().ljust(RECORD_BYTES)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, record, 0)
        finally:
            os.close(descriptor)  # on a network's file system others see it from now on


@contextmanager
def held(run: Path, ranks: Ranks) -> Iterator[Lock | None]:
    """Hold the lock of a run's folder, for all of its ranks by the first one.

    Raises Locked where another process has it.
    """
    lock = ranks.together(lambda: Lock.take(run) if ranks.is_first else None)
    try:
        yield lock
    finally:
        if lock is not None:
            lock.release()


def _dead(path: Path) -> Holder | None:
    """Return who held a dead lock, None where it was given back meanwhile. Raises Locked for one
    that is alive.
    """
    holder = _holder(path)
    if holder is not None and holder.is_here:
        alive = not holder.has_ended
    else:
        alive = _beats(path, holder)
    if alive:
        raise Locked(
            f"{path.parent} is in use: {_holder(path) or holder} goes on with it; stop that first, "
            "or give another output"
        )
    return holder


def _beats(path: Path, before: Holder | None) -> bool:
    """Tell, within SILENT_S, whether the holder of a lock gives a sign of life."""
    print(
        f"{path.parent} is locked by {before or 'a process without a name'}: waiting up to "
        f"{SILENT_S:.0f} s for its sign of life",
        file=sys.stderr,
    )
    until = time.monotonic() + SILENT_S
    while time.monotonic() < until and path.exists():
        time.sleep(POLL_S)
        if (now := _holder(path)) is not None and now != before:
            return True
    return False


def _holder(path: Path) -> Holder | None:
    """Return who holds a lock; None where that is not written yet, or the lock was given back."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _locks(run: Path) -> list[Path]:
    return sorted(run.glob("lock_*.json"))


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("lock_"))


def _place() -> str:
    """Return what names this machine since it was started, and its table of processes; nothing
    where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(process: int) -> str:
    """Return when a process began, in ticks of the system; nothing where it has ended."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
