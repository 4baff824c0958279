"""`unimodal data index`: what a run asks of shards at its start, found out beforehand."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from index_cases import digest, estimator
from tiny_runs import TINY, write_conversations

from unimodal.command import main
from unimodal.data import image_index, lengths
from unimodal.data.found import Finder, FoundShards, Place, find, found_at
from unimodal.data.image_index import ImageMeasure, images_of, index_images
from unimodal.data.index import Work, write_index, write_share
from unimodal.data.joined import Together
from unimodal.data.lengths import length_measure, lengths_of, measure
from unimodal.data.shards import find_shards
from unimodal.data.tar import ShardError

SHARDS = 5


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "cache"))
    return write_conversations(tmp_path / "shards", samples=10, shard_samples=2)


def work(shards: Path, sequence_length: int = 256) -> Work:
    return Work(str(shards), [length_measure(estimator(sequence_length))], Finder())


def indexed(shards: Path, index: Path) -> FoundShards:
    return found_at(Place(str(shards), str(index)))


def forbid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing be measured or hashed, and nothing be known from before."""
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "empty"))

    def never(*_: object) -> None:
        raise AssertionError("it is known")

    monkeypatch.setattr(lengths, "measure_shard", never)
    monkeypatch.setattr(image_index, "_rows", never)
    monkeypatch.setattr("unimodal.data.identity._contents_hash", never)


def test_what_is_indexed_is_not_measured(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = measure(find_shards(shards), estimator())
    write_index(tmp_path / "index", work(shards))
    forbid(monkeypatch, tmp_path)
    found = lengths_of(indexed(shards, tmp_path / "index"), estimator(), Together())
    assert found.folder.is_relative_to(tmp_path / "index")
    assert digest(found.folder) == digest(plain.folder) and len(found) >= 10
    assert found.locate(9) == plain.locate(9) and list(found.bad()) == list(plain.bad())


def test_parts_of_several_jobs_are_the_same_index(shards: Path, tmp_path: Path) -> None:
    whole = write_index(tmp_path / "whole", work(shards))
    for number in (1, 0):  # in any order
        write_share(tmp_path / "parts", work(shards), number, 3)
    joined = write_index(tmp_path / "parts", work(shards))  # which measures the third
    one = length_measure(estimator())
    assert digest(joined.tables(one)) == digest(whole.tables(one))
    assert [s.line() for s in joined.shards] == [s.line() for s in whole.shards]
    assert sorted(os.listdir(tmp_path / "parts")) == ["lengths", "shards.jsonl"]
    assert len(whole.shards) == SHARDS


def test_a_part_of_shards_that_changed_is_refused(shards: Path, tmp_path: Path) -> None:
    write_share(tmp_path / "index", work(shards), 0, 2)
    first = find_shards(shards)[0]
    first.write_bytes(first.read_bytes() + bytes(1024))
    with pytest.raises(ShardError, match=f"is of {first} as it was: .*write this part again"):
        write_index(tmp_path / "index", work(shards))
    write_share(tmp_path / "index", work(shards), 0, 2)
    write_share(tmp_path / "index", work(shards), 0, 3)
    with pytest.raises(ValueError, match="has parts of 2 and of 3"):
        write_index(tmp_path / "index", work(shards))
    with pytest.raises(ValueError, match="has 5 shards for 9 parts"):
        write_share(tmp_path / "index", work(shards), 0, 9)


def test_a_stale_index_is_refused_and_written_again(shards: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    write_index(index, work(shards))
    first, *others = find_shards(shards)
    content = first.read_bytes()
    os.utime(first, ns=(1, 1))  # another time alone: its contents are read, and are what they were
    assert indexed(shards, index).hashes == find({"a": Place(str(shards))})[
        Place(str(shards))
    ].hashes  # fmt: skip
    first.write_bytes(content + bytes(512))
    with pytest.raises(ShardError, match=f"{first} is not what its index was made of.*data index"):
        indexed(shards, index)
    write_index(index, work(shards))
    assert len(indexed(shards, index).hashes) == SHARDS
    assert len(list((index / "lengths").iterdir())) == 1, "tables of shards as they were are gone"
    others[-1].unlink()
    with pytest.raises(ShardError, match="has 4 shards, its index .* is of 5"):
        indexed(shards, index)


def test_an_index_of_other_settings_says_which(shards: Path, tmp_path: Path) -> None:
    write_index(tmp_path / "index", work(shards, 128))
    found = indexed(shards, tmp_path / "index")
    with pytest.raises(ShardError, match="sequence_length is 128 there and 256 here: .*recipe"):
        lengths_of(found, estimator(256), Together())
    write_index(tmp_path / "index", work(shards, 256))  # beside the other
    assert len(lengths_of(found, estimator(128), Together())) > 0
    assert len(lengths_of(found, estimator(256), Together())) > 0
    with pytest.raises(ShardError, match="holds no index of shards"):
        indexed(shards, tmp_path / "nothing")


def test_images_are_indexed_too(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = index_images(find_shards(shards), ImageMeasure(None, TINY))
    write_index(tmp_path / "index", Work(str(shards), [ImageMeasure(None, TINY).measure], Finder()))
    forbid(monkeypatch, tmp_path)
    found = images_of(indexed(shards, tmp_path / "index"), ImageMeasure(None, TINY), Together())
    assert (found.images == plain.images).all() and found.notes == plain.notes
    assert found.shards == plain.shards and len(found.images) > 5


def test_the_command(shards: Path, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(main, ["data", "index", *map(str, words)])
        return done.output + done.stderr

    output = tmp_path / "index"
    assert "1_of_2: 2 shards" in run(shards, output, "--part", "1/2", "--workers", 1)
    assert f"{output}: 5 shards" in run(shards, output, "--workers", 1)
    assert (output / "lengths").is_dir()
    assert "--part 3/2: K/N" in run(shards, output, "--part", "3/2")
    recipe = tmp_path / "lm.yaml"
    recipe.write_text("sources: {talks: {shards: elsewhere}}\nweights: default\n")
    assert "the recipe reads elsewhere" in run(shards, output, "--config", recipe)
    recipe.write_text("shards: elsewhere\n")
    assert "the recipe reads elsewhere" in run(shards, output, "--config", recipe)
    recipe.write_text("sources: {t: {shards: x}}\nmodel: {head: masked}\n")
    assert "model.head" in run(shards, output, "--config", recipe)
