"""End a process that hangs, with the stacks of its threads in a file.

A C thread looks at the clock, so a process that waits for another rank is caught too.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class Watch:
    """Once entered and told `alive`, wants to hear that again every `hang_s` seconds (None: never),
    or the process ends.
    """

    def __init__(self, hang_s: int | None, path: Path) -> None:
        """Say where the stacks are written."""
        self.hang_s, self.path = hang_s, path
        self._file: TextIO | None = None

    def __enter__(self) -> "Watch":
        if self.hang_s is not None:
            self._file = self.path.open("w")
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._file = None
            self.path.unlink()

    def alive(self) -> None:
        """Begin to count anew."""
        if self._file is not None and self.hang_s is not None:
            faulthandler.dump_traceback_later(self.hang_s, exit=True, file=self._file)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Count nothing meanwhile: for waits that have limits of their own."""
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            self.alive()
