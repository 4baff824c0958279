"""Copy a run's checkpoints to a URL, and fetch the newest where the run's folder has none.

    URL/step_00001000/{rank_..., state.json, checksums.json, run/{metrics.jsonl, ...}, files.json}
    URL/bundle/

Each has the files of a checkpoint and the small ones of the run's folder, which going on needs, and
is whole once `files.json` is there, the list of their sizes and sha256. The first rank's saving
thread sends it when the checkpoint is whole on this machine; training waits for that no sooner than
at the save that follows, or where the run goes back (spikes.py): the checkpoint is then sent again,
with the notes that say so.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unimodal.atomic import replacing, write_bytes
from unimodal.remote import Remote

from .checkpoint import DIRECTORY, found, step_of
from .ranks import Ranks
from .saver import steps_kept

LIST, NOTES = "files.json", "run"
SAVED = re.compile(r"[A-Za-z0-9_]+\.(safetensors|json)")
NOTE = re.compile(r"(?!lock_|stacks_)[A-Za-z0-9_]+\.(json|jsonl|yaml|txt)")


class Mirror:
    """The copies of a run's checkpoints at a URL."""

    def __init__(self, url: str, run: Path) -> None:
        """Say where they are, and the run's folder here."""
        self.run, self.there = run, Remote(url)

    def send_newest(self, keep: int, keep_every: int | None) -> None:
        """Send the newest checkpoint, and remove those that are not kept, or newer: a run that went
        back takes other steps there.
        """
        newest = found(self.run)[-1]
        self._send(newest)
        steps = {int(name.removeprefix("step_")) for name in self._folders()}
        now = step_of(newest)
        stay = steps_kept((step for step in steps if step <= now), keep, keep_every)
        for step in steps - stay:
            self.there.remove(f"step_{step:08d}/{LIST}")  # from now on it is not whole
            self.there.remove(f"step_{step:08d}")

    def fetch_newest(self) -> None:
        """Write the newest checkpoint that is what was sent, and the notes beside it, into the
        run's folder. Raises ValueError where there are some, and none is.
        """
        whole = self._whole()
        damaged = []
        for name in reversed(whole):
            try:
                self._fetch(name)
            except ValueError as error:
                print(f"{self.there.url}/{name} is damaged: {error}", file=sys.stderr)
                damaged.append(f"{name}: {error}")
                continue
            print(f"{self.run} has no checkpoint: {name} was fetched from {self.there.url}",
                  file=sys.stderr)  # fmt: skip
            return
        if damaged:
            raise ValueError(f"no checkpoint of {self.there.url} is whole: {'; '.join(damaged)}")

    def _send(self, directory: Path) -> None:
        name, listed = directory.name, {}
        # Sent before, where the run went back to it: not whole from here to the new list.
        self.there.remove(f"{name}/{LIST}")
        for path in sorted(directory.iterdir()):
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            listed[path.name] = {"bytes": path.stat().st_size, "sha256": sha256}
            self.there.send(path, f"{name}/{path.name}")
        for path in self._notes():
            content = path.read_bytes()  # once: the log grows meanwhile
            listed[f"{NOTES}/{path.name}"] = _described(content)
            self.there.write(f"{name}/{NOTES}/{path.name}", content)
        self.there.write(f"{name}/{LIST}", json.dumps(listed, indent=1).encode())

    def _notes(self) -> Iterator[Path]:
        there = (path for path in sorted(self.run.iterdir()) if path.is_file())
        return (path for path in there if NOTE.fullmatch(path.name))

    def _fetch(self, name: str) -> None:
        """Fetch a checkpoint: its notes first, so that a checkpoint here has what goes with it."""
        listed = _listed(self.there.read(f"{name}/{LIST}") or b"")
        notes = {}
        for file, expected in listed.items():
            if file.startswith(f"{NOTES}/"):
                notes[file] = self.there.read(f"{name}/{file}") or b""
                _compare(file, _described(notes[file]), expected)
        self.run.mkdir(parents=True, exist_ok=True)
        with replacing(self.run / name) as fresh:
            fresh.mkdir()
            for file, expected in listed.items():
                if file not in notes:
                    self.there.fetch(f"{name}/{file}", fresh / file)
                    with (fresh / file).open("rb") as stream:
                        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                    had = {"bytes": (fresh / file).stat().st_size, "sha256": sha256}
                    _compare(file, had, expected)
            for file, content in notes.items():
                write_bytes(self.run / file.removeprefix(f"{NOTES}/"), content)

    def _folders(self) -> list[str]:
        return [name for name in self.there.folders() if DIRECTORY.fullmatch(name)]

    def _whole(self) -> list[str]:
        return [name for name in self._folders() if self.there.read(f"{name}/{LIST}") is not None]


def sending(url: str | None, run: Path, keep: int, keep_every: int | None) -> Callable[[], None]:
    """Return what sends the newest checkpoint of a run to its mirror, if it has one, where the
    `keep` newest and those of multiples of `keep_every` steps stay.
    """
    if url is None:
        return lambda: None
    return partial(Mirror(url, run).send_newest, keep, keep_every)


def fetch_missing(url: str | None, run: Path, ranks: Ranks) -> None:
    """Fetch the newest checkpoint of a run from its mirror, if it has one, where its folder has
    none. All ranks call it together.
    """
    if url is not None:
        mirror = Mirror(url, run)
        ranks.together(lambda: mirror.fetch_newest() if ranks.is_first and not found(run) else None)


def send_finished(url: str | None, folder: Path, last: str) -> None:
    """Send a folder that a run ends with to its mirror, if it has one, with its file `last` at the
    end.
    """
    if url is not None:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        others = [name for name in names if name != last]
        Remote(url).send_folder(folder, others, last, folder.name)


def _described(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _compare(file: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    if found != expected:
        raise ValueError(f"{file} is not what was sent")


def _listed(content: bytes) -> dict[str, dict[str, Any]]:
    """Return the files that a list names. Raises ValueError for what is none, and for names that a
    checkpoint does not have: they become paths here.
    """
    listed = json.loads(content)
    if not isinstance(listed, dict):
        raise ValueError(f"{LIST} is no list of files")
    for file in listed:
        is_note = file.startswith(f"{NOTES}/") and NOTE.fullmatch(file.removeprefix(f"{NOTES}/"))
        if not (is_note or SAVED.fullmatch(file)):
            raise ValueError(f"{LIST} names {file!r}, which is no file of a checkpoint")
    return listed
