"""What `unimodal train teach` is told, and the note of it in the folder that it fills.

The folder is a run of `train lm` with a few things beside it: `images/` and `replay/`, the shards
that it learns from; `exams/`, every answer of before and after; `lesson.json`, the note; and at the
end `before_after.png` and `report.md`. The same command goes on where it was stopped, so the note
also keeps what was measured once: the number of steps.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unimodal import noted
from unimodal.bundle import check_output
from unimodal.data.folder import write_json

NOTE = "lesson.json"
STEPS = "num_steps"


@dataclass(frozen=True)
class Lesson:
    """Configure a lesson."""

    source: Path
    """A folder of images with their captions, or a table of them."""
    output: Path
    bundle: Path
    """The directory of the bundle that learns."""
    steps: int | None = None
    """Optimizer steps; None: as many as `minutes` allow, or as the images need."""
    minutes: float | None = None
    """Of training, on this machine; None: see `steps`."""
    replay: float | None = None
    """The share of tokens, from 0 to below 1, that are conversations of the bundle's own world;
    None: half where the bundle has learned scenes, else none."""
    mix: tuple[str, ...] = ()
    """The mix of these conversations, as `data scenes --mix` has it."""
    things: Path | None = None
    """The folder of icons that these conversations are about too; None: they are of scenes."""
    all_weights: bool | None = None
    """Train all weights, or adapters beside them; None: adapters where the bundle is large."""
    seed: int = 0
    hold_out: int = 0
    """Images that are not taught, but examined."""
    exam: int | None = None
    """Samples of each kind in the exam of scenes; None: 10 where the bundle has learned scenes,
    else no exam."""
    skip_bad: bool = False
    """Go on without the images that cannot be used."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.steps is not None and self.minutes is not None:
            found.append(f"--steps {self.steps} and --minutes {self.minutes:g}: give one of them")
        found += [
            f"--{name} {value}: no number of any size"
            for name, value in (("minutes", self.minutes), ("replay", self.replay))
            if value is not None and not math.isfinite(value)
        ]
        if self.replay == 0 and (self.mix or self.things):
            given = f"--mix {self.mix[0]}" if self.mix else f"--things {self.things}"
            found.append(f"{given}: says what is replayed, and --replay 0 replays nothing")
        inside = self.source.is_dir() and self.output.resolve().is_relative_to(
            self.source.resolve()
        )
        if inside:
            found.append(
                f"--output {self.output} lies in {self.source}, whose images are taught: give a "
                "folder outside of it"
            )
        return found

    @property
    def exams(self) -> Path:
        """Return the folder of the answers of all exams."""
        return self.output / "exams"

    def asked(self, images: str, bundle: str) -> dict[str, Any]:
        """Return what decides the lesson: settings, and the hashes of images and bundle."""
        places = ("source", "output", "bundle", "things", "skip_bad")
        settings = {k: v for k, v in asdict(self).items() if k not in places}
        settings |= {"mix": list(self.mix), "things": str(self.things) if self.things else None}
        return settings | {"images": images, "bundle": bundle}

    def begun(self, asked: dict[str, Any]) -> int | None:
        """Return the number of steps of the lesson that the folder was begun with; None: it is new.

        ValueError where the folder holds another lesson, or something else.
        """
        path = self.output / NOTE
        if not path.exists():
            check_output(self.output)
            return None
        way_out = "give another --output, or remove the folder and begin anew"
        there = noted.parsed(path, path.read_bytes(), way_out)
        differ = [
            f"{name} {_told(there.get(name))} (now {_told(value)})"
            for name, value in asked.items()
            if there.get(name) != value
        ]
        if differ:
            raise ValueError(f"{self.output} was begun with {', '.join(differ)}: {way_out}")
        return int(there[STEPS])

    def note(self, asked: dict[str, Any], num_steps: int) -> None:
        """Write the note."""
        self.output.mkdir(parents=True, exist_ok=True)
        write_json(self.output / NOTE, asked | {STEPS: num_steps})


def _told(value: Any) -> str:
    """Return a value as a message shows it, of a hash its beginning."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
