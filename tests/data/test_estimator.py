"""Measured lengths are those of the sequences that are made, for every way to make them."""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import HASH, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from unimodal.atomic import PREFIX
from unimodal.data import codes_member as codes
from unimodal.data import formats as formats
from unimodal.data import lengths, tables
from unimodal.data.estimator import LengthEstimator
from unimodal.data.identity import shards_hash
from unimodal.data.lengths import measure
from unimodal.data.measured import RECORD, droppable, measure_shard
from unimodal.data.sizes import ImageRule
from unimodal.data.tar import ShardError
from unimodal.document import Document, Image, Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequencer import DROPS, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import image_size, open_image
from unimodal.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["draw which colour is it"], 280)
SEQUENCER = Sequencer(Vocabulary.new(TEXT.num_ids, 256), TEXT, HASH, NextCodeInputs())
PATCHES = TokenizerConfig()


def png(width: int, height: int, shade: int = 0, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (width, height), (shade, 0, 0)).save(stream, kind)
    return stream.getvalue()


def image_of_codes(codec_hash: str) -> Image:
    return Image(codes=np.arange(6)[:, None], grid=Grid(2, 3), codec_hash=codec_hash)


def fields(**values: object) -> bytes:
    return json.dumps(values).encode()


PARTS = st.lists(
    st.tuples(
        st.sampled_from([None, "system", "user", "assistant"]),
        st.text(max_size=6) | st.tuples(st.integers(1, 4), st.integers(1, 4)),
        st.sampled_from([0.0, 1.0, 0.5]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PARTS)
def test_measured_lengths_are_those_of_sequences(parts: list) -> None:
    made = []
    for role, what, weight in parts:
        if isinstance(what, str):
            made.append(Text(what, role, weight))
            continue
        grid = Grid(*what)
        codes_n1 = np.zeros((grid.size, 1), int)
        made.append(Image(codes=codes_n1, grid=grid, codec_hash=HASH, role=role, weight=weight))
    document = Document(tuple(made))
    lengths_by_drop = SEQUENCER.measure(document)
    assert lengths_by_drop == {d: len(SEQUENCER.sequence(document, d)) for d in DROPS}
    for drop in droppable(document):
        assert SEQUENCER.sequence(document, drop).ids.tolist() != SEQUENCER.sequence(
            document
        ).ids.tolist() or any(part == Text("", "user", part.weight) for part in document.parts)


def test_a_shard_of_every_kind(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        {
            "caption": {"png": png(32, 16), "json": fields(captions=["a", "bb"])},
            "codes": {"codes": codes.to_bytes(image_of_codes(HASH), 256), "txt": b"c"},
            "edit": {
                "before.png": png(16, 16),
                "after.png": png(16, 16),
                "json": fields(edit="redder"),
            },
            "long": {"txt": b"word " * 100},
            "bad": {"png": b"no image", "txt": b"c"},
            "odd": {"png": png(30, 16), "txt": b"c"},
            "nothing": {"json": fields(texts=[], images=[])},
        },
    )
    found = measure_shard(path, LengthEstimator(SEQUENCER, 40, PATCHES))
    assert {bad["key"]: bad["reason"] for bad in found.bad} == {
        "bad": "bad image",
        "odd": "bad image",
    }
    assert "no whole 8-pixel patches" in found.bad[1]["message"]
    assert found.notes["samples"] == 7 and found.notes["empty"] == 1 and found.notes["cut"] == 1
    assert found.notes["format caption"] == 2 and found.notes["format edit"] == 1
    samples = found.units["sample"][:-1].tolist()
    assert samples[:3] == [0, 1, 2] and set(samples[3:]) == {3} and len(samples) > 5
    caption = found.records[: found.units["record"][1]]
    assert caption["variant"].tolist() == [0, 1, 2, 3]  # two captions, before and after
    plain = 2 + 4 + 2 * 5  # begin, end, image
    assert caption["lengths"][:, 0].tolist() == [plain + 1, plain + 2, plain + 1, plain + 2]
    edit = found.records[found.units["record"][2]]
    assert edit["drops"] == 0b111 and len(set(edit["lengths"].tolist())) == 4
    assert (found.records["lengths"][:, 0] <= 40).all()


def test_a_rule_decides_the_size(tmp_path: Path) -> None:
    sizes = {"wide": (64, 20), "high": (10, 40), "small": (9, 8), "square": (100, 90)}
    path = write_tar(
        tmp_path / "a.tar",
        {key: {"png": png(*size), "txt": b"c"} for key, size in sizes.items()},
    )
    rule = ImageRule(target_pixels=32 * 32, multiple=8, max_aspect_ratio=4, min_side=10)
    found = measure_shard(path, LengthEstimator(SEQUENCER, 200, PATCHES, rule))
    assert [(bad["key"], bad["reason"]) for bad in found.bad] == [("small", "bad image")]
    image = found.records["images"][::2].tolist()
    assert image == [4 + 2 * 9, 4 + 8 * 3, 4 + 4 * 5]  # 2 x 8, 8 x 2 and 4 x 4 codes


def test_a_turned_image_is_measured_upright(tmp_path: Path) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        stream = io.BytesIO()
        PILImage.new("RGB", (32, 16)).save(stream, kind, exif=exif)
        assert image_size(stream.getvalue()) == (16, 32)
        assert open_image(stream.getvalue()).image.size == (16, 32)


def test_pairs_are_edits_between_samples_that_share_a_field(tmp_path: Path) -> None:
    def emoji(name: str, base: str, shade: int) -> dict[str, bytes]:
        return {"png": png(16, 16, shade), "json": fields(name=name, base=base)}

    path = write_tar(
        tmp_path / "a.tar",
        {
            "x0": emoji("thumb", "x", 1),
            "x1": emoji("thumb: dark", "x", 2),
            "y": emoji("cat", "y", 3),
            "x2": emoji("thumb: light", "x", 4),
            "none": {"png": png(16, 16), "json": fields(name="none")},
            "bad": {"png": b"", "json": fields(name="bad", base="x")},
        },
    )
    found = measure_shard(path, LengthEstimator(SEQUENCER, 100, PATCHES, pairs="base"))
    assert found.units["sample"][:-1].tolist() == [0, 1, 3]
    assert found.notes["without a partner"] == 1
    assert {bad["key"]: bad["reason"] for bad in found.bad} == {
        "none": "missing field",
        "bad": "bad image",
    }
    begins = found.units["record"].tolist()
    assert begins == [0, 2, 4, 6]
    partners = {tuple(other) for other in found.records["other"].tolist()}
    places = found.units[["start", "stop"]][:-1]
    assert partners == {tuple(map(int, place)) for place in places.tolist()}


def test_codes_of_another_tokenizer_are_never_used(tmp_path: Path) -> None:
    foreign = codes.to_bytes(image_of_codes("cd" * 32), 256)
    path = write_tar(tmp_path / "a.tar", {"k": {"codes": foreign, "txt": b"c"}})
    estimator = LengthEstimator(SEQUENCER, 40, PATCHES)
    assert [bad["reason"] for bad in measure_shard(path, estimator).bad] == ["foreign codes"]
    words = "no samples to learn from .*key k: .codes: codes of tokenizer cdcd.*model reads abab"
    with pytest.raises(ShardError, match=words):
        measure([path], estimator)


# --- the cache ----------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "cache"))
    return [
        write_tar(
            tmp_path / f"{name}.tar", {f"{name}{k}": {"txt": b"a" * (k + 1)} for k in range(n)}
        )
        for name, n in (("a", 3), ("b", 5))
    ]


def test_tables_are_those_of_the_shards_in_order(shards: list[Path]) -> None:
    index = measure(shards, LengthEstimator(SEQUENCER, 40, PATCHES))
    assert len(index) == 8 and index.notes["samples"] == 8
    assert index.units["shard"][:-1].tolist() == [0] * 3 + [1] * 5
    assert index.units["record"].tolist() == list(range(9))
    assert index.records.dtype == RECORD
    assert index.records["lengths"][:, 0].tolist() == [3, 4, 5, 3, 4, 5, 6, 7]
    for unit, shard in zip(index.units[:-1], [0] * 3 + [1] * 5, strict=True):
        assert bytes(index.shards[shard]).decode() == str(shards[shard])
        content = shards[shard].read_bytes()[unit["start"] : unit["stop"]]
        assert content[:1].decode() in "ab"


def test_a_shard_is_measured_once(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    real = lengths.measure_shard
    monkeypatch.setattr(
        lengths,
        "measure_shard",
        lambda path, estimator: measured.append(path.name) or real(path, estimator),
    )
    estimator = LengthEstimator(SEQUENCER, 40, PATCHES)
    first = measure(shards[:1], estimator)
    both = measure(shards, estimator)
    assert measured == ["a.tar", "b.tar"] and first.folder.name != both.folder.name
    assert measure(shards, estimator).folder.name == both.folder.name and len(measured) == 2
    measure(shards, LengthEstimator(SEQUENCER, 41, PATCHES))
    assert len(measured) == 4
    content = shards[0].read_bytes()
    shards[0].write_bytes(content.replace(b"aaa", b"aba"))  # the same size
    changed = measure(shards, estimator)
    assert measured[4:] == ["a.tar"] and changed.folder.name != both.folder.name
    shards[0].write_bytes(content)
    assert measure(shards, estimator).folder.name == both.folder.name and len(measured) == 5


def test_processes_measure_the_same(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "SMALL_BYTES", 0)
    alone = measure(shards, LengthEstimator(SEQUENCER, 40, PATCHES))
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "other"))
    together = measure(shards, LengthEstimator(SEQUENCER, 40, PATCHES), workers=2)
    assert alone.folder != together.folder and alone.folder.name == together.folder.name
    for name in ("units.npy", "records.npy", "members.npy", "bad.jsonl", "notes.json"):
        assert (alone.folder / name).read_bytes() == (together.folder / name).read_bytes()


def test_nothing_half_written_is_left(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "write", lambda *_: (_ for _ in ()).throw(OSError(5, "disk")))
    with pytest.raises(OSError, match="disk"):
        measure(shards, LengthEstimator(SEQUENCER, 40, PATCHES))
    monkeypatch.undo()
    left = [path.name for path in lengths.cache().rglob("*") if path.name.startswith(PREFIX)]
    assert left == []


def test_what_cannot_be_measured(shards: list[Path], tmp_path: Path) -> None:
    estimator = LengthEstimator(SEQUENCER, 40, PATCHES)
    with pytest.raises(ShardError, match="missing.tar cannot be read: No such file"):
        measure([tmp_path / "missing.tar"], estimator)
    with pytest.raises(ShardError, match="no shards were given"):
        measure([], estimator)
    bad = write_tar(tmp_path / "bad.tar", {"k": {"json": b"{"}})
    with pytest.raises(ShardError, match="no samples to learn from .*key k: .json is no JSON"):
        measure([bad], estimator)
    assert shards_hash(shards) != shards_hash(shards[::-1])


def test_choices_without_end_are_limited(tmp_path: Path) -> None:
    many = fields(question=["?"] * 300, answers=["a"] * 300)
    path = write_tar(tmp_path / "a.tar", {"k": {"png": png(16, 16), "json": many}})
    assert len(measure_shard(path, LengthEstimator(SEQUENCER, 40, PATCHES)).records) == 64
    same = {f"k{n}": {"png": png(16, 16, n), "json": fields(name="x", base=1)} for n in range(50)}
    found = measure_shard(
        write_tar(tmp_path / "b.tar", same), LengthEstimator(SEQUENCER, 60, PATCHES, pairs="base")
    )
    assert len(found.records) == 50 * 32 and len({str(r) for r in found.records["other"]}) == 50


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    samples = {f"k{n:04}": {"txt": b"words"} for n in range(3000)}
    path = write_tar(tmp_path / "a.tar", samples)
    for size in ("100k", "400k"):
        disk = tmp_path / size
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]).returncode:
            pytest.skip("this machine lets nobody mount a tmpfs")
        try:
            monkeypatch.setenv("UNIMODAL_CACHE", str(disk))
            with pytest.raises(ShardError, match=f"cache {disk} cannot be written: .*free some"):
                measure([path], LengthEstimator(SEQUENCER, 40, PATCHES))
        finally:
            subprocess.run(["umount", disk])


def test_an_image_and_its_caption_are_never_parted(tmp_path: Path) -> None:
    own = {"parts": [{"text": "a cat"}, {"image": 0}]}
    long = fields(captions=["a cat", "a cat " * 20])
    path = write_tar(
        tmp_path / "a.tar",
        {
            "large": {"png": png(80, 80), "txt": b"a cat"},
            "own": {"0.png": png(80, 80), "json": fields(**own)},
            "asked": {"png": png(80, 80), "json": fields(caption="a cat", turns=True)},
            "long": {"png": png(16, 16), "txt": b"a cat " * 20},
            "either": {"png": png(16, 16), "json": long},
            "fits": {"png": png(16, 16), "txt": b"a cat"},
            "page": {"png": png(80, 80), "json": fields(texts=["hi", None], images=[None, "png"])},
        },
    )
    found = measure_shard(path, LengthEstimator(SEQUENCER, 64, PATCHES))
    assert not found.bad and found.notes["left out: a caption and its image longer than a row"] == 4
    assert found.notes["left out: an image longer than a row"] == 1
    assert found.units["sample"][:-1].tolist() == [4, 5, 6]
    assert found.records["variant"].tolist() == [0, 2, 0, 1, 0]  # the short one of two captions


def test_what_follows_images_that_fit_no_row_is_left_out(tmp_path: Path) -> None:
    def talk(words: str) -> bytes:
        said = [words, "the first", "and now?", "the second"]
        speakers = ("human", "gpt") * 2
        turns = [{"from": who, "value": it} for who, it in zip(speakers, said, strict=True)]
        return fields(conversations=turns)

    six = {f"{n}.png": png(24, 24) for n in range(6)}
    path = write_tar(
        tmp_path / "a.tar",
        {
            "six": {**six, "json": talk("<image>" * 6 + "which is red?")},
            "one": {"png": png(24, 24), "json": talk("<image>which is red?" + "?" * 60)},
        },
    )
    found = measure_shard(path, LengthEstimator(SEQUENCER, 64, PATCHES))
    assert found.notes["left out: an exchange longer than a row"] == 2
    assert found.notes["left out: an exchange longer than a row with the images before it"] == 1
    assert found.units["sample"][:-1].tolist() == [1]
    assert found.records["images"].tolist() == [4 + 3 * 4], "the piece has the image"


def test_a_form_may_be_forced(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"k": {"txt": b"a cat", "json": fields(question="?")}})
    found = measure_shard(path, LengthEstimator(SEQUENCER, 40, PATCHES, format="text"))
    assert found.notes["format text"] == 1
    assert (
        measure_shard(path, LengthEstimator(SEQUENCER, 40, PATCHES)).bad[0]["reason"]
        == "wrong fields"
    )
    assert formats.FORMATS.keys() >= {"text"}
