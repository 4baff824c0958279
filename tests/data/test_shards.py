"""Shards: what goes in comes out, plain webdataset agrees, and damage is named."""

import json
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.shards import Shard, ShardError, ShardWriter, find_shards
from unimodal.document import Document, Image, Text
from unimodal.tokenizer.grid import Grid


def image(seed, role=None, weight=1.0, height=16, width=24):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image(pixels, role=role, weight=weight)


def conversation(seed):
    return Document(
        (
            Text(f"draw number {seed}", "user", 0.0),
            image(seed, "user", 0.0),
            Text("é <image> \U0001f600", "assistant", 1.0),
            image(seed + 1000, "assistant", 0.25),
        )
    )


def same(first, second):
    if len(first.parts) != len(second.parts):
        return False
    for a, b in zip(first.parts, second.parts, strict=True):
        if type(a) is not type(b) or (a.role, a.weight) != (b.role, b.weight):
            return False
        if isinstance(a, Text) and a.text != b.text:
            return False
        if isinstance(a, Image) and not np.array_equal(a.pixels, b.pixels):
            return False
    return True


def read(shard, index):
    return shard.document(index)


def write(directory, documents, **settings):
    with ShardWriter(directory, **settings) as writer:
        for index, document in enumerate(documents):
            writer.write(f"{index:06d}", document)
    return find_shards(directory)


def test_round_trip_in_order_and_by_number(tmp_path):
    documents = [conversation(seed) for seed in range(7)]
    paths = write(tmp_path, documents, max_samples=3)
    assert [path.name for path in paths] == [f"shard-00000{k}.tar" for k in range(3)]
    shards = [Shard(path) for path in paths]
    found = [(shard.key(k), read(shard, k)) for shard in shards for k in range(len(shard))]
    assert [key for key, _ in found] == [f"{k:06d}" for k in range(7)]
    assert all(same(a, b) for (_, a), b in zip(found, documents, strict=True))
    assert (len(shards[1]), shards[1].key(2)) == (3, "000005")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_round_trips(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("text")
    document = Document(tuple(Text(text) for text in texts))
    (path,) = write(directory, [document])
    assert same(read(Shard(path), 0), document)


def test_plain_webdataset_reads_ours(tmp_path):
    documents = [conversation(seed) for seed in range(5)]
    (path,) = write(tmp_path, documents)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{k:06d}" for k in range(5)]
    for sample, document in zip(samples, documents, strict=True):
        parts = sample["json"]["parts"]
        assert [part["role"] for part in parts] == [part.role for part in document.parts]
        assert parts[0]["text"] == document.parts[0].text
        assert np.array_equal(sample[f"{parts[1]['image']}.png"], document.parts[1].pixels)
        assert np.array_equal(sample[f"{parts[3]['image']}.png"], document.parts[3].pixels)


def test_reads_what_webdataset_writes(tmp_path):
    path = tmp_path / "theirs.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for k in range(3):
            parts = [{"image": 0}, {"text": f"caption {k}"}]
            writer.write(
                {"__key__": f"folder/{k}", "json": {"parts": parts}, "0.png": image(k).pixels}
            )
    shard = Shard(path)
    expected = Document((image(2), Text("caption 2")))
    assert (len(shard), shard.key(2)) == (3, "folder/2")
    assert same(read(shard, 2), expected)


def test_the_same_documents_give_the_same_bytes(tmp_path):
    documents = [conversation(seed) for seed in range(4)]
    (first,), (second,) = write(tmp_path / "a", documents), write(tmp_path / "b", documents)
    assert first.read_bytes() == second.read_bytes()


def test_max_bytes_closes_a_shard(tmp_path):
    paths = write(tmp_path, [conversation(seed) for seed in range(6)], max_bytes=12_000)
    assert len(paths) > 1
    assert all(path.stat().st_size <= 12_000 for path in paths)
    assert sum(len(Shard(path)) for path in paths) == 6
    assert len(write(tmp_path / "tiny", [conversation(0), conversation(1)], max_bytes=1)) == 2


def test_an_error_keeps_finished_shards_only(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, max_samples=2) as writer:
        for k in range(3):
            writer.write(str(k), conversation(k))
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_a_full_disk_is_an_error_and_drops_the_shard_in_work(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path, max_samples=1)
    writer.write("0", conversation(0))
    full = open("/dev/full", "wb")  # refuses every byte, when flushed
    with pytest.raises(OSError, match="No space left"), writer:
        writer.write("1", conversation(1))
        writer._stream.close()
        writer._stream = full
        full.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


@pytest.mark.parametrize("cut", [100, 512, 700, 2048, -513, -1024])
def test_a_truncated_tar_is_an_error(tmp_path, cut):
    (path,) = write(tmp_path, [conversation(0)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ShardError, match="shard-000000.tar.*(truncated|damaged)"):
        Shard(path)


def test_what_is_no_tar_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="no .tar shard"):
        find_shards(tmp_path)
    with pytest.raises(ShardError, match="missing.tar"):
        Shard(tmp_path / "missing.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="empty.tar"):
        Shard(tmp_path / "empty.tar")
    (tmp_path / "text.tar").write_text("not a tar at all " * 100)
    with pytest.raises(ShardError, match="text.tar.*no tar"):
        Shard(tmp_path / "text.tar")


def add(tar, name, content):
    import io

    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "members, reason",
    [
        ({"k.0.png": b""}, "k: 0.png: files and fields of none of document, "),
        ({"k.json": b"{"}, "k: .json is no JSON"),
        ({"k.json": b"[]"}, "k: .json holds a list"),
        ({"k.json": b"{}"}, "k: json: files and fields of none of document, "),
        ({"k.json": b'{"parts": [{"role": "user"}]}'}, "k: no document: .*either text or image"),
        ({"k.json": b'{"parts": [{"text": 3}]}'}, "k: no document: .*string"),
        ({"k.json": b'{"parts": [{"text": "a", "role": "robot"}]}'}, "k: no document: .*robot"),
        ({"k.json": b'{"parts": [{"text": "a", "weight": NaN}]}'}, "k: no document: .*nan"),
        ({"k.json": b'{"parts": [{"image": 1}]}'}, "k: there is no file .1.png, only json"),
        ({"k.json": b'{"parts": [{"image": 0}]}', "k.0.png": b""}, "k: .*image"),
        ({"k.json": b'{"parts": [{"image": 0}]}', "k.0.png": b"\x89PNG\r\n"}, "k: .*damaged"),
    ],
)
def test_a_bad_sample_is_named_and_loses_nothing_else(tmp_path, members, reason):
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "good.json", json.dumps({"parts": [{"text": "fine"}]}).encode())
        for name, content in members.items():
            add(tar, name, content)
    shard = Shard(path)
    assert same(read(shard, 0), Document((Text("fine"),)))
    with pytest.raises(ShardError, match=f"bad.tar, key {reason}"):
        read(shard, 1)


def test_keys_and_codes_are_checked(tmp_path):
    codes = Image(codes=np.zeros((1, 1), int), grid=Grid(1, 1), codec_hash="x")
    with ShardWriter(tmp_path) as writer:
        for key in ("", "a.b", "a/b", "a" * 81):
            with pytest.raises(ShardError, match="1 to 80 characters"):
                writer.write(key, conversation(0))
        with pytest.raises(ShardError, match="without pixels"):
            writer.write("codes", Document((codes,)))
        writer.write("a", conversation(0))
        with pytest.raises(ShardError, match="twice"):
            writer.write("a", conversation(1))
    with pytest.raises(ValueError, match="max_samples 0"):
        ShardWriter(tmp_path, max_samples=0)
