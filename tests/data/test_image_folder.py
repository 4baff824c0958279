"""A folder of image files is a shard: every image once, named, written anew on a change."""

import tarfile
from pathlib import Path

import pytest
from tokenizer_runs import png, tiny_run

from unimodal.data.image_folder import image_shards
from unimodal.data.tar import ShardError
from unimodal.train import tokenizer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    for n, name in enumerate(("b.PNG", "a.png", "inner/c d.v2.png", ".hidden.png", ".trash/e.png")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(png(32, 32, n))
    (photos / "notes.txt").write_text("no image")
    return photos


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}


def test_every_image_is_a_sample_with_its_bytes_and_name(folder: Path):
    (shard,) = image_shards(str(folder))
    found = members(shard)
    assert list(found) == ["000000000_a.png", "000000001_b.png", "000000002_c_d_v2.png"]
    names = ("a.png", "b.PNG", "inner/c d.v2.png")
    assert list(found.values()) == [(folder / name).read_bytes() for name in names]


def test_it_is_written_once_and_anew_where_an_image_changed(folder: Path):
    (shard,) = image_shards(str(folder))
    written = shard.stat().st_mtime_ns
    assert image_shards(str(folder)) == [shard] and shard.stat().st_mtime_ns == written
    (folder / "a.png").write_bytes(png(40, 32))
    (other,) = image_shards(str(folder))
    assert other != shard and members(other)["000000000_a.png"] == png(40, 32)


def test_a_folder_of_shards_is_read_as_before(folder: Path):
    (made,) = image_shards(str(folder))
    (folder / "shard-000000.tar").write_bytes(made.read_bytes())
    assert image_shards(str(folder)) == [folder / "shard-000000.tar"]


def test_a_folder_of_neither_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ShardError, match="holds no .tar shard but 1 .txt"):
        image_shards(str(tmp_path))


def test_an_image_tokenizer_learns_from_it_and_names_what_is_bad(folder: Path, tmp_path: Path):
    for n in range(14):
        (folder / f"more_{n}.png").write_bytes(png(32, 32, n))
    whole = png(32, 32, 99)
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    run = tiny_run(tmp_path, {"k": {"png": whole}}, 3, shards=str(folder), bad_share=0.5)
    finished = tokenizer.train(run)
    assert (finished / "tokenizer.safetensors").is_file()
    assert "_cut" in (run.output / "quarantine.jsonl").read_text()
