"""Tables that long benchmarks write after each row, and read back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unimodal.atomic import write_bytes


def write(path: Path, title: str, head: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Write a title and a table."""
    lines = [head, ["---"] * len(head), *cells]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{title}\n\n{table}\n".encode())


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, by its head; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [dict(zip(found[0], cells, strict=True)) for cells in found[2:]]


def interval(score: dict[str, Any], digits: int) -> str:
    """A score with its 95 % interval, in words."""
    if score["value"] is None:
        return "not measured"
    value = f"{score['value']:,.{digits}f}"
    if score["low"] is None:
        return value
    return f"{value} ({score['low']:,.{digits}f} to {score['high']:,.{digits}f})"
