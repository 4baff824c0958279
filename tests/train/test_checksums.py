"""One flipped bit of a file is met, wherever it is, by whoever reads its block."""

import io
import random
from pathlib import Path
from zlib import crc32

import pytest
from train_files import flip

from unimodal.train.checksums import BLOCK_BYTES, Checksums, Damaged, Summing, Verified

SIZE = 2 * BLOCK_BYTES + 12_345


@pytest.fixture
def content() -> bytes:
    return random.Random(0).randbytes(SIZE)


def summed(content: bytes, sizes: list[int]) -> Checksums:
    """What is summed of a content that is written in pieces of these sizes, over and over."""
    stream, at, number = Summing(io.BytesIO()), 0, 0
    while at < len(content):
        size = sizes[number % len(sizes)]
        assert stream.write(content[at : at + size]) == len(content[at : at + size])
        at, number = at + size, number + 1
    return stream.checksums


def test_the_sums_are_those_of_the_blocks_however_it_was_written(content: bytes):
    blocks = [content[at : at + BLOCK_BYTES] for at in range(0, SIZE, BLOCK_BYTES)]
    expected = Checksums(SIZE, tuple(map(crc32, blocks)))
    for sizes in ([SIZE], [1000], [BLOCK_BYTES], [3, BLOCK_BYTES - 1, 8], [5 * BLOCK_BYTES]):
        assert summed(content, sizes) == expected
    assert summed(content[:BLOCK_BYTES], [7]).crc32 == expected.crc32[:1]
    assert summed(b"", [1]) == Checksums(0, ())
    assert Checksums.of(expected.as_json()) == expected


@pytest.mark.parametrize("noted", [{}, {"bytes": 5, "crc32": []}, {"bytes": 5, "crc32": None}, []])
def test_sums_that_are_none(noted):
    with pytest.raises(ValueError, match="its checksums are"):
        Checksums.of(noted)


def test_any_range_is_read_and_any_flipped_bit_is_met(content: bytes, tmp_path: Path):
    path, sums = tmp_path / "file", summed(content, [4096])
    chance = random.Random(1)
    path.write_bytes(content)
    for _ in range(50):
        start, stop = sorted(chance.randrange(SIZE + 1) for _ in range(2))
        assert Verified(path, sums).read(start, stop) == content[start:stop]
    Verified(path, sums).verify()
    for _ in range(50):
        at = chance.randrange(SIZE)
        path.write_bytes(content)
        flip(path, at, chance.randrange(8))
        with pytest.raises(Damaged, match="file is not what was saved"):
            Verified(path, sums).read(at, at + 1)
        with pytest.raises(Damaged, match=f"from byte {at // BLOCK_BYTES * BLOCK_BYTES:,} to"):
            Verified(path, sums).verify()
        other = (at // BLOCK_BYTES + 1) % 3 * BLOCK_BYTES
        assert Verified(path, sums).read(other, other + 9) == content[other : other + 9]
        Verified(path, None).verify()  # of a version that kept no checksums


def test_another_length_and_a_file_that_is_not_there(content: bytes, tmp_path: Path):
    path, sums = tmp_path / "file", summed(content, [4096])
    path.write_bytes(content[:-1])
    with pytest.raises(Damaged, match=f"file has {SIZE - 1:,} bytes instead of {SIZE:,}"):
        Verified(path, sums)
    path.write_bytes(content)
    opened = Verified(path, sums)
    path.write_bytes(content[:BLOCK_BYTES])  # cut while it is being read
    with pytest.raises(Damaged, match=f"file ends at byte {BLOCK_BYTES:,}"):
        opened.verify()
    with pytest.raises(FileNotFoundError):
        Verified(tmp_path / "none", sums)
