"""What a run is given and what it has read, in counts and in lines for people.

In: the streams of a loader, and rows as they come. Out: lines for the start of a run (what of each
source is used, left out and bad) and for its end (what was read, and what of it was bad).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .lengths import LONG, Bad
from .measured import LEARNS_NOTHING, WITH_IMAGES, WITH_TEXT
from .streams import Stream

FORMAT, CUT = "format ", "cut"  # how notes of the index begin, and one of them
PLANNED = (
    WITH_TEXT,
    WITH_IMAGES,
    LEARNS_NOTHING,
    LONG,
    "samples",
    "bad",
)  # told otherwise, or to nobody


@dataclass
class Seen:
    """What a loader has read so far."""

    read: Counter[str] = field(default_factory=Counter)
    """Documents, by source."""
    lost: Counter[str] = field(default_factory=Counter)
    """Those of them that became masked padding, by source."""
    bad: Counter[str] = field(default_factory=Counter)
    """The same, by reason."""

    @property
    def documents(self) -> int:
        """Count the documents of all sources."""
        return self.read.total()

    def add(self, sources: Iterable[str], bad: Sequence[tuple[str, Bad]]) -> None:
        """Count a row: the source of each document, and those that are bad."""
        self.read.update(sources)
        self.lost.update(source for source, _ in bad)
        self.bad.update(one.reason for _, one in bad)

    def lines(self, sizes: Mapping[str, int], what: str = "documents") -> list[str]:
        """Return a line for each source, of so many documents, on what was read of it."""
        found = [
            f"{name}: read {self.read[name]:,} {what} ({self.read[name] / size:.2f} passes over "
            f"{size:,}); {self.lost[name]:,} of them were bad and nothing was learned of them"
            for name, size in sizes.items()
        ]
        return found + ([f"bad: {_listed(self.bad)}; see quarantine.jsonl"] if self.bad else [])

    def plain(self) -> dict[str, dict[str, int]]:
        """Return the counts as JSON has them."""
        return {name: dict(counts) for name, counts in vars(self).items()}

    @classmethod
    def of(cls, parts: Iterable[dict[str, dict[str, int]]]) -> "Seen":
        """Return the sum of what several loaders have read."""
        found = cls()
        for part in parts:
            for name, counts in part.items():
                getattr(found, name).update(counts)
        return found


def given_line(stream: Stream) -> str:
    """Return in one line what of a stream is used, left out and bad."""
    notes, units = stream.lengths.notes, len(stream.lengths)
    formats = {k.removeprefix(FORMAT): n for k, n in notes.items() if k.startswith(FORMAT)}
    left_out = {
        name.removeprefix("left out: "): count
        for name, count in notes.items()
        if not name.startswith(FORMAT) and name not in (*PLANNED, CUT)
    }
    cut = f", {notes[CUT]:,} of them cut into pieces" if notes.get(CUT) else ""
    samples = sum(formats.values())
    idle = units - stream.num_learned
    return (
        f"{stream.title}: {notes['samples']:,} samples; "
        f"used: {samples:,} ({_listed(formats)}{cut}), {units:,} documents"
        + (f", of {idle:,} of which nothing is learned" if idle else "")
        + f"; left out: {_listed(left_out) or 'none'}"
        + f"; bad: {_listed(Counter(bad.reason for bad in stream.lengths.bad())) or 'none'}"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
