"""`unimodal data encode`: codes in the place of images, all else as it was, however it is run."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import weakref
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from click.testing import CliRunner
from encode_cases import coder, noise, png, run, samples, tars, write
from encode_cases import encoded as encoded
from encode_cases import shards as shards
from encode_cases import tokenizer as tokenizer
from PIL import Image as PILImage

from unimodal.codec import ImageCodec
from unimodal.command import main
from unimodal.data import codes_member as codes
from unimodal.data.encode import _Work, codes_name
from unimodal.data.folder import data_seeds
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.rows import sized
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.data.sizes import fitted
from unimodal.data.sources import SourceConfig
from unimodal.document import Image
from unimodal.sequence import Batch
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid


def test_codes_are_the_encoders_and_all_else_is_copied(shards, encoded, tiny_model):
    assert_encoded(shards, encoded, tiny_model.image_tokenizer)


def assert_encoded(shards: Path, encoded: Path, image_tokenizer: ImageTokenizer) -> None:
    codec = ImageCodec(image_tokenizer)
    for before, after in zip(samples(shards), samples(encoded), strict=True):
        assert before.key == after.key
        assert [codes_name(n) if n.endswith("png") else n for n in before.files] == [*after.files]
        assert before.files["json"] == after.files["json"]
        for name in before.images:
            pixels = np.asarray(PILImage.open(io.BytesIO(before.files[name])))
            (wanted,) = codec.encode([Image(pixels)])
            found = codes.from_bytes(after.files[codes_name(name)])
            assert np.array_equal(found.codes, wanted.codes)
            assert (found.grid, found.codec_hash) == (wanted.grid, wanted.codec_hash)


def test_the_summary_counts(shards, encoded, tokenizer):
    files = [(s.files[name], name) for s in samples(shards) for name in s.images]
    before = sum(len(content) for content, _ in files)
    after = sum(len(s.files[name]) for s in samples(encoded) for name in s.images)
    result = run(shards, encoded, "--tokenizer", tokenizer)
    words = f"{len(files)} images in 3 shards, {before:,} bytes before and {after:,} after"
    assert words in result.stdout and "75 samples\n" in result.stdout


def test_rows_of_code_shards_are_those_of_image_shards(shards, encoded, tiny_model):
    settings = LoaderConfig(sequence_length=128, batch_rows=4, window_rows=8, seed=3)
    loaders = [
        Loader({"one": SourceConfig(str(folder))}, tiny_model.sequencer, codec, settings)
        for folder in (shards, encoded)
        for codec in [ImageCodec(tiny_model.image_tokenizer)]
    ]
    for (first, state), (second, other) in islice(zip(*loaders, strict=True), 10):
        assert state == other
        for name in Batch.tensors():
            assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert repr(first.spans) == repr(second.spans)


def test_webdataset_reads_them(encoded):
    paths = [str(path) for path in find_shards(encoded)]
    dataset = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
    read = {sample["__key__"]: sample for sample in dataset}
    for sample in samples(encoded):
        found = {name: value for name, value in read[sample.key].items() if name[0] != "_"}
        assert found == {name.lower(): content for name, content in sample.files.items()}


def test_members_are_without_time_and_owner(encoded):
    for path in find_shards(encoded):
        with tarfile.open(path) as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


def test_a_stopped_run_goes_on(shards, encoded, tokenizer, tmp_path):
    config_words = ("--tokenizer", tokenizer)
    assert run(find_shards(shards)[0], tmp_path, *config_words).exit_code == 0
    kept = (tmp_path / "shard-000000.tar").stat()
    (tmp_path / "shard-000001.tar.part").write_bytes(b"left over")
    assert run(shards, tmp_path, *config_words).exit_code == 0
    assert tars(tmp_path) == tars(encoded) and not list(tmp_path.glob("*.part"))
    assert (tmp_path / "shard-000000.tar").stat().st_mtime_ns == kept.st_mtime_ns
    (tmp_path / "shard-000001.tar").unlink()
    (tmp_path / "shard-000002.json").write_text("cut")
    assert run(shards, tmp_path, *config_words).exit_code == 0
    assert tars(tmp_path) == tars(encoded)


def test_a_shard_is_the_same_alone(shards, encoded, tokenizer, tmp_path):
    last = find_shards(shards)[-1]
    assert run(last, tmp_path, "--tokenizer", tokenizer).exit_code == 0
    (found,) = tars(tmp_path).values()
    assert found == tars(encoded)[last.name]


@pytest.mark.slow
def test_workers_change_nothing(shards, encoded, tokenizer, tmp_path):
    assert run(shards, tmp_path, "--tokenizer", tokenizer, "--workers=2").exit_code == 0
    for path in sorted(encoded.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_ctrl_c_keeps_finished_shards(tmp_path):
    images = tmp_path / "images"
    words = [sys.executable, "-m", "unimodal", "data"]
    scenes = ["scenes", str(images), "--kind=images", "--samples=4000", "--shard-samples=50"]
    subprocess.run([*words, *scenes], check=True, stdout=subprocess.DEVNULL)
    command = [*words, "encode", str(images), str(tmp_path / "codes"), "--workers=2"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        for _ in range(1200):
            if list((tmp_path / "codes").glob("*.tar")):
                break
            time.sleep(0.1)
        for _ in range(3):  # an impatient person
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(60) == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    stopped = tars(tmp_path / "codes")
    assert 0 < len(stopped) < 80 and not list((tmp_path / "codes").glob("*.part"))
    subprocess.run(command, check=True)
    whole = tars(tmp_path / "codes")
    assert len(whole) == 80 and whole | stopped == whole


def test_an_area_gives_buckets(tokenizer, tiny_model, tmp_path):
    wide = noise(1, 40, 100)
    write(tmp_path / "in", ("a", {"jpg": png(wide), "txt": b"words"}))
    words = ("--tokenizer", tokenizer, "--target-pixels=512", "--max-aspect-ratio=2")
    assert run(tmp_path / "in", tmp_path / "out", *words).exit_code == 0
    (sample,) = samples(tmp_path / "out")
    pixels = fitted(PILImage.fromarray(wide), (32, 16))
    (wanted,) = ImageCodec(tiny_model.image_tokenizer).encode([Image(pixels)])
    found = codes.from_bytes(sample.files["codes"])
    assert found.grid == wanted.grid == Grid(2, 4)
    assert np.array_equal(found.codes, wanted.codes)


def test_encoding_codes_again_changes_nothing(encoded, tokenizer, tmp_path):
    assert run(encoded, tmp_path, "--tokenizer", tokenizer).exit_code == 0
    assert tars(tmp_path) == tars(encoded)


def test_folders_in_keys_are_kept(tokenizer, tmp_path):
    made = ("some/folder/x", {"json": b'{"a": 1}', "png": png(noise(0)), "cls": b"\xff\0"})
    assert (
        run(write(tmp_path / "in", made), tmp_path / "out", "--tokenizer", tokenizer).exit_code == 0
    )
    (sample,) = samples(tmp_path / "out")
    assert sample.key == "some/folder/x" and [*sample.files] == ["json", "codes", "cls"]


def test_long_names_are_kept(tokenizer, tmp_path):
    images = write(tmp_path / "in", ("a" * 120, {"png": png(noise(0)), "txt": b"x"}))
    assert run(images, tmp_path / "out", "--tokenizer", tokenizer).exit_code == 0
    assert [sample.key for sample in samples(tmp_path / "out")] == ["a" * 120]


@pytest.mark.parametrize(("num_codes", "width"), [(2**16, 2), (2**16 + 1, 4)])
def test_the_smaller_integers_that_hold_every_code(tmp_path, num_codes, width):
    images = write(tmp_path / "in", ("a", {"png": png(noise(0))}))

    class Fake:
        hash, geometry = "ab" * 32, TokenizerConfig()

        def encode(self, images):
            last = np.full((6, 1), num_codes - 1)
            return [Image(codes=last, grid=Grid(2, 3), codec_hash=self.hash) for _ in images]

    Fake.num_codes = num_codes
    with ShardWriter(tmp_path) as writer:
        work = _Work(Fake(), None, writer)
        for group in work.groups(Shard(find_shards(images)[0])):
            work.write(group)
    (sample,) = samples(tmp_path)
    content = sample.files["codes"]
    assert len(content) == codes.HEAD.size + 6 * width
    assert set(codes.from_bytes(content).codes[:, 0].tolist()) == {num_codes - 1}


def test_few_samples_are_in_work_at_once(tmp_path, tiny_model, monkeypatch):
    made = [(f"{k:03d}", {"png": png(noise(k, 8, 8))}) for k in range(150)]
    large = ("large", {"png": png(noise(0, 64, 64))})
    images = write(tmp_path / "in", *made[:100], large, *made[100:])
    monkeypatch.setattr("unimodal.data.encode.MAX_PIXELS", 50 * 64)
    work = _Work(ImageCodec(tiny_model.image_tokenizer), None, ShardWriter(tmp_path))
    groups = list(work.groups(Shard(find_shards(images)[0])))
    assert [len(group) for group in groups] == [50, 50, 1, 50]
    monkeypatch.setattr("unimodal.data.encode.MAX_PIXELS", 2**22)
    groups = list(work.groups(Shard(find_shards(images)[0])))
    assert [len(group) for group in groups] == [64, 64, 23]


def test_one_batch_of_pixels_is_held_at_a_time(tokenizer, tmp_path, monkeypatch):
    """And the image that no longer fits into it, which is the next one's first."""
    made = [(f"{k:03d}", {"png": png(noise(k, 16, 16))}) for k in range(40)]
    images, alive, most = write(tmp_path / "in", *made), set(), []

    def watched(*words, **more):
        image = sized(*words, **more)
        alive.add(number := len(most))
        weakref.finalize(image.pixels, alive.discard, number)
        most.append(len(alive))
        return image

    monkeypatch.setattr("unimodal.data.encode.sized", watched)
    monkeypatch.setattr("unimodal.data.encode.MAX_PIXELS", 8 * 16 * 16)
    result = run(images, tmp_path / "out", "--tokenizer", tokenizer)
    assert result.exit_code == 0 and len(most) == 40, result.output
    assert max(most) == 9 and not alive


def test_the_threads_of_the_caller_come_back(shards, tokenizer, tmp_path):
    before = torch.get_num_threads()
    assert run(find_shards(shards)[0], tmp_path, "--tokenizer", tokenizer).exit_code == 0
    assert torch.get_num_threads() == before


def test_code_shards_remember_the_seeds_of_their_scenes(tokenizer, tmp_path):
    made = ["data", "scenes", str(tmp_path / "in"), "--samples", "3", "--seed", "41"]
    assert CliRunner().invoke(main, made).exit_code == 0
    result = run(tmp_path / "in", tmp_path / "out", "--tokenizer", tokenizer)
    assert result.exit_code == 0, result.output
    assert data_seeds(tmp_path / "in") == data_seeds(tmp_path / "out") == [41]
    assert data_seeds(tmp_path) == []
    (tmp_path / "in" / "scenes.json").write_text("{")
    with pytest.raises(ValueError, match="scenes.json is damaged"):
        data_seeds(tmp_path / "in")


def test_codes_of_scales_keep_their_grids(shards, tmp_path):
    folder = coder(tmp_path / "coder", scales=(1, 2, 4))
    result = run(shards, tmp_path / "new", "--tokenizer", folder)
    assert result.exit_code == 0, result.output
    assert_encoded(shards, tmp_path / "new", ImageTokenizer.load(folder))
    made = [s.files[n] for s in samples(tmp_path / "new") for n in s.files if "codes" in n]
    grids = {codes.from_bytes(content).grid for content in made}
    assert grids == {Grid(1, 1, ((1, 1),) * 3), Grid(2, 3, ((1, 1), (1, 2), (2, 3)))}
