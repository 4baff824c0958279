"""A shard that was changed, with equal size and time, is met."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import recipe
from train_files import command

from unimodal.config import save
from unimodal.data.headers import headers_digest
from unimodal.data.identity import file_hash, shards_hash
from unimodal.data.shards import Shard
from unimodal.train import lm
from unimodal.train.schedule import ScheduleConfig


def write(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


FILES = {f"{number:03d}.txt": f"text {number:03d}".encode() * 40 for number in range(50)}
NAMES = list(FILES)


def renamed() -> dict[str, bytes]:
    return {("xyz.txt" if name == NAMES[30] else name): one for name, one in FILES.items()}


def swapped() -> dict[str, bytes]:
    order = [*NAMES[:20], NAMES[21], NAMES[20], *NAMES[22:]]
    return {name: FILES[name] for name in order}


def resized() -> dict[str, bytes]:
    """One file has a byte more and another one less, within their blocks."""
    return FILES | {NAMES[3]: FILES[NAMES[3]] + b"x", NAMES[44]: FILES[NAMES[44]][:-1]}


CHANGED: dict[str, Callable[[], dict[str, bytes]]] = {
    "renamed": renamed, "swapped": swapped, "resized": resized
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGED)
def test_headers_tell_shards_of_equal_size_and_time_apart(kind: str, tmp_path: Path):
    path = tmp_path / "shard.tar"
    write(path, FILES)
    before, status = file_hash(path), path.stat()
    write(path, CHANGED[kind]())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert headers_digest(path, path.stat()) != headers_digest(path, status)
    assert file_hash(path) != before
    write(path, FILES)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_hash(path) == before


def test_contents_alone_are_met_by_reading_all(tmp_path: Path):
    path = tmp_path / "shard.tar"
    write(path, FILES)
    before, status = shards_hash([path]), path.stat()
    write(path, FILES | {NAMES[7]: FILES[NAMES[7]].swapcase()})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert shards_hash([path]) == before
    changed = shards_hash([path], reread=True)
    assert changed != before
    assert shards_hash([path]) == changed  # it is known from now on


def test_a_packed_shard_is_told_by_its_end(tmp_path: Path):
    """gzip ends with a checksum of all that it holds; its headers cannot be followed."""
    path = tmp_path / "shard.tar.gz"
    found = set()
    for files in (FILES, swapped(), FILES | {NAMES[7]: FILES[NAMES[7]].swapcase()}):
        write(path, files, "w:gz")
        found.add(headers_digest(path, path.stat()))
    assert len(found) == 3


@pytest.mark.parametrize("content", [b"", b"x" * 700, bytes(10_240)])
def test_what_is_no_tar_has_a_digest_too(content: bytes, tmp_path: Path):
    path = tmp_path / "shard.tar"
    path.write_bytes(content)
    assert len(headers_digest(path, path.stat())) == 64


@pytest.fixture
def run(shards: Path, tokenizer: Path, tmp_path: Path):
    """A run of one step on shards of its own, to be gone on with."""
    mine = tmp_path / "mine"
    shutil.copytree(shards, mine)
    config = recipe(tmp_path / "run", mine, tokenizer, 1)
    lm.train(config)
    return replace(config, schedule=ScheduleConfig(2, 1))


def change(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file to as many others, and leave its time as it was."""
    status, content = path.stat(), path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_run_meets_a_sample_that_was_put_in_another_place(run, tmp_path: Path):
    """Two samples that follow one another, exchanged: size and time are what they were."""
    path = tmp_path / "mine" / "shard-000000.tar"
    status, content = path.stat(), path.read_bytes()
    (begin, middle), (_, end) = Shard(path).ranges_n2[3:5].tolist()
    exchanged = content[middle:end] + content[begin:middle]
    path.write_bytes(content[:begin] + exchanged + content[end:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with pytest.raises(ValueError, match="shards of scenes: not what .*run began with; put"):
        lm.train(run)


@pytest.mark.slow
def test_a_run_that_reads_all_meets_a_word(run, tmp_path: Path):
    """By `--verify`, which is of one start, and by loop.verify=all."""
    path = tmp_path / "mine" / "shard-000000.tar"
    change(path, b'"role": "user"', b'"role": "usEr"')
    save(run, tmp_path / "lm.yaml")
    for words in (["--verify"], ["loop.verify=all"]):
        done = command("train", "lm", tmp_path / "lm.yaml", *words)
        assert done.returncode == 2, done.stderr
        assert "shards of scenes: not what" in done.stderr
    change(path, b'"role": "usEr"', b'"role": "user"')
    done = command("train", "lm", tmp_path / "lm.yaml", "--verify")
    assert done.returncode == 0, done.stderr
    assert "verify: all" in (tmp_path / "run" / "config.yaml").read_text()
