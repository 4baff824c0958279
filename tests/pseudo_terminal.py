"""`unimodal chat` as a person has it: in a pseudo-terminal, with keys that are typed."""

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Terminal:
    """`unimodal chat` in a pseudo-terminal."""

    def __init__(self, bundle: Path, output: Path, encoding: str = "utf-8"):
        command = [sys.executable, "-m", "unimodal", "chat", "--model", str(bundle)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": encoding,
        }
        environment.pop("NO_COLOR", None)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*command, "--output", str(output)], environment)
        self.text = ""

    def expect(self, words: str, seconds: float = 120) -> str:
        """Read until `words` come; returns what came up to their end."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{words!r} did not come; the terminal shows {self.text[-2000:]!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
        before, _, self.text = self.text.partition(words)
        return before + words

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ended(self, seconds: float = 20) -> int:
        """The exit status, once it has left."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:  # the other end is closed
                    break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def started() -> Iterator[list[Terminal]]:
    """Terminals to be ended, whatever happens."""
    terminals: list[Terminal] = []
    yield terminals
    for each in terminals:
        os.close(each.fd)
        try:
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
