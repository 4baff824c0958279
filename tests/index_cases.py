"""What ranks do in tests of a shared start: find and measure shards, and count who did what."""

import hashlib
import json
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from tiny_runs import TINY

from unimodal import bundle
from unimodal.data import compressed, found, lengths
from unimodal.data.estimator import LengthEstimator
from unimodal.data.found import Place
from unimodal.data.joined import Together, joined
from unimodal.data.lengths import length_measure
from unimodal.data.peers import Peers, cache_mates
from unimodal.sequencer import Sequencer

TABLES = ("units.npy", "records.npy", "members.npy", "bad.jsonl", "notes.json")


@cache
def sequencer() -> Sequencer:
    """Return that of the model that is shipped."""
    return bundle.load().sequencer


def estimator(sequence_length: int = 256) -> LengthEstimator:
    """Return by what lengths are measured here."""
    return LengthEstimator(sequencer(), sequence_length, TINY)


def digest(folder: Path) -> str:
    """Return a hash of the tables in a folder."""
    contents = b"".join((folder / name).read_bytes() for name in TABLES)
    return hashlib.sha256(contents).hexdigest()


def measured_together(
    location: str, caches: list[str], meeting: str, ranks: Peers
) -> list[dict[str, Any]]:
    """Return for each rank, whose cache is its one of `caches`, what it did and found."""
    before = os.environ.get("UNIMODAL_CACHE")
    os.environ["UNIMODAL_CACHE"] = caches[ranks.rank]
    counts: Counter[str] = Counter()
    real_hash, real_measure = found.file_hash, lengths.measure_shard

    def counted_hash(path: Path, reread: bool = False) -> str:
        counts["hashed"] += 1
        return real_hash(path, reread)

    def counted_measure(path: Path, how: LengthEstimator) -> Any:
        counts["measured"] += 1
        return real_measure(path, how)

    found.file_hash, lengths.measure_shard = counted_hash, counted_measure
    try:
        mates = cache_mates(ranks)
        place = Place(location)
        shards = found.find({"talks": place}, ranks, mates)[place]
        measure = length_measure(estimator())
        folder = joined(shards, measure, Together(ranks, mates, Path(meeting)))
        again = joined(shards, measure, Together(ranks, mates, Path(meeting)))
        assert again == folder and compressed.cache() == Path(caches[ranks.rank])
        mine = {
            **counts, "mates": list(mates.ranks), "digest": digest(folder), "hash": shards.hash,
            "left": [str(one) for one in (*Path(meeting).rglob("*"), folder.parent.parent / "parts")
                     if one.is_file()],
        }  # fmt: skip
    finally:
        found.file_hash, lengths.measure_shard = real_hash, real_measure
        os.environ.pop("UNIMODAL_CACHE")
        if before is not None:
            os.environ["UNIMODAL_CACHE"] = before
    return [json.loads(one) for one in ranks.all_gather(json.dumps(mine))]


def find_what_fails(location: str, ranks: Any) -> list[str]:
    """Return what each rank says of shards of which one cannot be read."""
    try:
        found.find({"talks": Place(location)}, ranks)
    except ValueError as error:
        said = str(error)
    except SystemExit:
        said = "another rank failed"
    return ranks.all_gather(said)
