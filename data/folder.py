"""Fill a folder of shards by one command: note its settings, share its shards among processes.

A stopped command goes on where it was, so what a folder's shards were made with stands in it as
JSON, and other settings are refused.
"""

import json
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from unimodal import noted
from unimodal.atomic import write_bytes

SCENES, ENCODED = "scenes.json", "encode.json"  # in a folder: what its shards were made with
T = TypeVar("T")
R = TypeVar("R")


def claim(output: Path, name: str, wanted: Mapping[str, Any]) -> None:
    """Note the settings in the folder's file `name`.

    ValueError when the folder holds shards of other settings or cannot be written.
    """
    path = output / name
    try:
        if path.exists():
            way_out = "give another folder, or remove this one and write the shards again"
            _check(output, noted.parsed(path, path.read_bytes(), way_out), wanted)
            return
        if any(output.glob("*.tar")):
            raise ValueError(
                f"{output} holds shards that are not of this command; give another folder"
            )
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    except OSError as error:
        raise ValueError(f"cannot write to {output}: {error.strerror or error}") from error


def _check(output: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError names the settings that differ; a field that the mix had not yet was off."""
    off = dict.fromkeys((name for name in wanted if name.startswith("mix.")), 0)
    before = {**off, **found}
    differ = [
        f"{name} {before.get(name)} (now {wanted.get(name)})"
        for name in {**wanted, **found}
        if before.get(name) != wanted.get(name)
    ]
    if differ:
        raise ValueError(
            f"{output} holds shards of other settings: {', '.join(differ)}; "
            "give the same settings or another folder"
        )


def data_seeds(folder: Path) -> list[int]:
    """Return the seeds of the scenes shards in a folder, encoded or not; [] for other data.

    No evaluation may use them again. ValueError when the folder's notes are damaged.
    """
    found: list[int] = []
    for name, key in ((SCENES, "seed"), (ENCODED, "data_seeds")):
        path = folder / name
        try:
            value = json.loads(path.read_text())[key] if path.exists() else []
            found += map(int, value if isinstance(value, list) else [value])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): write the shards again") from error
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; OSError names it, and an older one then stays."""
    write_bytes(path, f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode())


def shared(make: Callable[[T], R], work: Sequence[T], workers: int) -> Generator[R, None, None]:
    """Yield `make` of each item of work, in order, by `workers` processes; by this one when 1.

    When the generator is closed, items in work are finished and the rest is not begun.
    """
    if workers == 1:
        yield from map(make, work)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _leave_interrupts)
    try:
        for future in [pool.submit(make, item) for item in work]:
            yield future.result()
    finally:  # the shards in work are finished; a second Ctrl-C must not break the waiting off
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGINT, before)


def _leave_interrupts() -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal: a dead worker makes a pool hang."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
