"""What tests do to the files of a run: damage them, and look at them."""

import json
import stat
import subprocess
import sys
from pathlib import Path

from launching import environment


def flip(path: Path, at: int, bit: int = 6) -> None:
    """Flip one bit of the byte at a place (below 0: from the end) of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def modes(folder: Path) -> dict[str, int]:
    """The permissions of every file and folder in a folder, by path."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


def history(run: Path) -> list[tuple]:
    """(step, key, old, new) of each line of a run's history."""
    path = run / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(json.loads(line).values()) for line in lines]


def command(*words: object, **more: str) -> subprocess.CompletedProcess:
    """Run `unimodal` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "unimodal", *map(str, words)],
        env=environment(**more), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
