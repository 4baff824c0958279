"""An index that was made beforehand: what is known of some shards, in a folder to be shared.

In: a folder that `unimodal data index` wrote. Out: for each shard its size, time of change, headers
and SHA-256, by which it is told from a changed one; and tables of what was measured (tables.py),
which are mapped where they lie.

    shards.jsonl            a line for each shard, in order
    lengths/KEY/, images/KEY/
                            tables of these shards, and in settings.json how they were measured
    parts/                  what jobs have found that share the work, until it is joined
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .identity import State, combined, digest
from .tables import Measure
from .tar import ShardError

SHARDS, SETTINGS = "shards.jsonl", "settings.json"
AGAIN = "write it again by `unimodal data index`, or leave `index` out"


@dataclass(frozen=True)
class IndexedShard:
    """A shard as the index met it."""

    name: str
    hash: str
    state: State
    folder: str
    """Of the index."""

    @property
    def stale(self) -> str:
        """Say what to do where the shard has changed."""
        return f"{self.folder} has {self.name} with {self.hash[:12]}; {AGAIN}"

    def line(self) -> str:
        """Return it as the index has it."""
        return json.dumps({"name": self.name, "sha256": self.hash, **asdict(self.state)})


@dataclass(frozen=True)
class Index:
    """What a folder knows of shards."""

    folder: Path

    @cached_property
    def shards(self) -> list[IndexedShard]:
        """Return its shards in order; ShardError where it is none."""
        try:
            lines = (self.folder / SHARDS).read_text(encoding="utf-8").splitlines()
            found = [json.loads(line) for line in lines]
            return [
                IndexedShard(one.pop("name"), one.pop("sha256"), State(**one), str(self.folder))
                for one in found
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{self.folder} holds no index of shards ({error}): {AGAIN}"
            raise ShardError(problem) from error

    def check_count(self, location: str, count: int) -> None:
        """ShardError unless it is of so many shards."""
        if len(self.shards) != count:
            raise ShardError(
                f"{location} has {count:,} shards, its index {self.folder} is of "
                f"{len(self.shards):,}: {AGAIN}"
            )

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of the contents of its shards, in order."""
        return combined(one.hash for one in self.shards)

    def place(self, measure: Measure) -> Path:
        """Return the folder of the tables of a measure, whether it is there or not."""
        return self.place_of(measure, self.hash)

    def place_of(self, measure: Measure, shards_hash: str) -> Path:
        """Return the folder of the tables of a measure of shards with this hash."""
        return self.folder / measure.kind / digest(measure.key, shards_hash)[:16]

    def tables(self, measure: Measure) -> Path:
        """Return the folder of the tables of a measure; ShardError where it has none like it."""
        folder = self.place(measure)
        if folder.exists():
            return folder
        raise ShardError(
            f"{self.folder} has no {measure.kind} as this run measures them"
            f"{self._difference(measure)}: give `unimodal data index` this run's recipe, or leave "
            "`index` out"
        )

    def _difference(self, measure: Measure) -> str:
        """Say what is otherwise in the tables that are most like those of a measure."""
        there = (self.folder / measure.kind).glob(f"*/{SETTINGS}")
        found = [json.loads(one.read_text())["measured"] for one in there]
        differences = [_differences(one, measure.settings) for one in found]
        nearest = min(differences, key=len, default=[])
        return f"; nearest to it {', '.join(nearest)}" if nearest else ""


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    plain = json.loads(json.dumps(here))  # as it was written there
    names = [name for name in {**there, **plain} if there.get(name) != plain.get(name)]
    return [
        f"{name} is {_shown(there.get(name))} there and {_shown(plain.get(name))} here"
        for name in names
    ]


def _shown(value: Any) -> str:
    """Return a setting in words; of a hash its begin."""
    return value[:12] if isinstance(value, str) else json.dumps(value)
