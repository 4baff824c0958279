"""Read the JSON that a run has noted in its folder; what is damaged is named, with the way out."""

import json
from pathlib import Path
from typing import Any


def parsed(path: Path, content: bytes, way_out: str, line: int | None = None) -> Any:
    """Return the value of JSON text that was read from `path`: a file, or one line of it, from 1.

    Raise ValueError with `way_out` where it is damaged.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        where = path if line is None else f"{path}: line {line}"
        raise ValueError(f"{where} is damaged ({error}): {way_out}") from error


def lines(path: Path, way_out: str) -> list[Any]:
    """Return the values of a file of JSON lines, the first one first; of one that is gone none.

    A last line without an end was cut by a kill or a full disk, and is left out. Raise ValueError
    with `way_out` where another is damaged.
    """
    numbered = enumerate(whole_lines(path), start=1)
    return [parsed(path, line, way_out, number) for number, line in numbered]


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that end, with their ends; of a file that is gone none."""
    content = path.read_bytes() if path.exists() else b""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
