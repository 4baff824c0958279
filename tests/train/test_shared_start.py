"""Ranks find, hash and measure the shards of a run together."""

from dataclasses import replace
from pathlib import Path

import pytest
from index_cases import digest, estimator, find_what_fails, measured_together
from pair import Pair
from tiny_runs import exact, recipe, write_conversations

from unimodal.command import main
from unimodal.config import save
from unimodal.data import lengths
from unimodal.data.lengths import measure
from unimodal.data.shards import find_shards
from unimodal.data.sources import SourceConfig
from unimodal.train import lm
from unimodal.train.heldout import HeldOutConfig


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conversations(tmp_path_factory.mktemp("small"), samples=7, shard_samples=1)


def test_ranks_that_share_a_cache_do_each_thing_once(
    small: Path, tmp_path: Path, pair: Pair
) -> None:
    cache, meeting = str(tmp_path / "cache"), str(tmp_path / "meeting")
    first, second = pair(measured_together, str(small), [cache, cache], meeting)
    alone = digest(measure(find_shards(small), estimator()).folder)
    assert first["digest"] == second["digest"] == alone and first["hash"] == second["hash"]
    assert first["mates"] == second["mates"] == [0, 1]
    assert (first["hashed"], second["hashed"]) == (4, 3)
    assert (first["measured"], second["measured"]) == (3, 4)
    assert first["left"] == second["left"] == []


def test_ranks_with_caches_of_their_own_exchange_what_they_found(
    small: Path, tmp_path: Path, pair: Pair
) -> None:
    """As two machines do; a remote shard comes once to each."""
    count = tmp_path / "count"
    location = f"pipe:echo fetched >> {count}; cat {small}/shard-00000{{0..6}}.tar"
    caches = [str(tmp_path / f"cache_{rank}") for rank in range(2)]
    (tmp_path / "meeting").mkdir()
    first, second = pair(measured_together, location, caches, str(tmp_path / "meeting"))
    alone = digest(measure(find_shards(small), estimator()).folder)
    assert first["digest"] == second["digest"] == alone
    assert (first["mates"], second["mates"]) == ([0], [1])
    assert len(count.read_text().split()) == 2 * 7
    assert first["measured"] + second["measured"] == first["hashed"] + second["hashed"] == 7
    assert first["left"] == second["left"] == []


def test_the_rank_that_fails_says_why(small: Path, tmp_path: Path, pair: Pair) -> None:
    damaged = [tmp_path / name for name in ("0.tar.gz", "1.tar.gz", "2.tar.gz")]
    for path in damaged[:2]:
        path.write_bytes(find_shards(small)[0].read_bytes())
    damaged[2].write_bytes(b"\x1f\x8b\x08\x00 no gzip")
    said = pair(find_what_fails, f"{tmp_path}/{{0..2}}.tar.gz")
    assert said[0].startswith(f"talks: {damaged[2]} cannot be unpacked")
    assert said[1] == "another rank failed"


def test_a_run_of_indexed_shards_learns_the_same(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is held out, and from scratch, with a text tokenizer of its own."""
    plain = recipe(tmp_path / "plain", shards, tokenizer, 2)
    held = HeldOutConfig({"rest": SourceConfig(str(shards), split=(0.5, 1))}, 1, 2)
    plain = replace(plain, held_out=held)
    save(plain, tmp_path / "lm.yaml")
    index = str(tmp_path / "index")
    words = ["data", "index", str(shards), index, "--config", str(tmp_path / "lm.yaml")]
    main([*words, "--workers", "1"], standalone_mode=False)
    lm.train(plain)
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(lengths, "measure_shard", None)
    with_index = replace(
        plain,
        output=tmp_path / "indexed",
        sources={"scenes": replace(plain.sources["scenes"], index=index)},
        held_out=replace(held, sources={"rest": replace(held.sources["rest"], index=index)}),
    )
    lm.train(with_index)
    assert exact(tmp_path / "indexed") == exact(tmp_path / "plain")
    # The plain run goes on with an index, as that is no change of what is learned.
    longer = replace(with_index, output=plain.output, schedule=replace(plain.schedule, num_steps=3))
    lm.train(longer)
    assert len(exact(tmp_path / "plain")) == 3
