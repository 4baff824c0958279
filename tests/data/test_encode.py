"""`unimodal data encode`: codes in the place of images, all else as it was, however it is run."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import weakref
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_tokenizers import of_patches

from unimodal.codec import ImageCodec
from unimodal.command import main
from unimodal.data import codes_member as codes
from unimodal.data.encode import _Work, codes_name
from unimodal.data.folder import data_seeds
from unimodal.data.formats import Sample
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.rows import sized
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.data.sizes import fitted
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.document import Document, Image, Text
from unimodal.sequence import Batch
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.grid import Grid


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "encode", *map(str, arguments)])


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def noise(seed: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def tokenizer(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_model.image_tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Three shards of documents of none to two images, of two sizes."""
    folder = tmp_path_factory.mktemp("images")
    with ShardWriter(folder, max_samples=30) as writer:
        for index in range(75):
            size = (8, 8) if index % 3 else (16, 24)
            images = [Image(noise(9 * index + k, *size)) for k in range(index % 4 % 3)]
            writer.write(f"{index:04d}", Document((Text(f"number {index}"), *images)))
    return folder


@pytest.fixture(scope="module")
def encoded(shards, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    result = run(shards, folder, "--tokenizer", tokenizer)
    assert result.exit_code == 0, result.output
    return folder


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in find_shards(folder)}


def samples(folder: Path) -> list[Sample]:
    opened = map(Shard, find_shards(folder))
    return [shard.sample(number) for shard in opened for number in range(len(shard))]


def write(folder: Path, *made: tuple[str, dict[str, bytes]]) -> Path:
    with ShardWriter(folder) as writer:
        for key, files in made:
            writer.write_files(key, files)
    return folder


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


def test_other_settings_and_sources_are_refused(shards, encoded, tokenizer, tmp_path):
    other = tmp_path / "tokenizer"
    other.mkdir()
    shape = of_patches(levels=(3, 3), encoder_width=8, decoder_width=8, num_blocks=0)
    ImageTokenizer(shape).save(other)
    before = {path: path.stat().st_mtime_ns for path in encoded.iterdir()}
    first, *_, last = find_shards(shards)
    for words, message in [
        ((shards, encoded, "--tokenizer", other), "shards of other settings: tokenizer "),
        (
            (shards, encoded, "--tokenizer", tokenizer, "--target-pixels=64"),
            "target_pixels None (now 64)",
        ),
        ((last, encoded, "--tokenizer", tokenizer), "made of another shard than"),
        ((shards, shards, "--tokenizer", tokenizer), "not of this command"),
    ]:
        result = run(*words)
        assert result.exit_code == 2 and message in result.output, result.output
    assert {path: path.stat().st_mtime_ns for path in encoded.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--max-aspect-ratio=2"],
            "--max-aspect-ratio 2 shapes images of a given size: add --target-pixels",
        ),
        (["--target-pixels=63"], "--target-pixels 63: at least one square of 8 a side"),
        (["--workers=0"], "workers"),
        (["--bad-share=2"], "bad-share"),
        (["--tokenizer=/nowhere"], "/nowhere holds no image tokenizer"),
    ],
)
def test_bad_arguments_write_nothing(shards, tokenizer, tmp_path, words, message):
    if not words[0].startswith("--tokenizer"):
        words = ["--tokenizer", tokenizer, *words]
    result = run(shards, tmp_path / "new", *words)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "new").exists()


def test_sizes_that_the_tokenizer_does_not_read_are_refused_at_once(shards, tmp_path):
    (tmp_path / "row").mkdir()
    queries = QueriesConfig(8, 16, 16, 8, 32, 1, 1, 4)
    ImageTokenizer(TokenizerConfig(queries=queries)).save(tmp_path / "row")
    words = tmp_path / "new", "--tokenizer", tmp_path / "row", "--target-pixels"
    result = run(shards, *words, 1024)
    assert result.exit_code == 2 and not (tmp_path / "new").exists()
    said = "--target-pixels 1024: 32 x 32 pixels: these queries read images of 16 x 16 alone"
    assert said in result.output
    assert run(shards, *words, 256).exit_code == 0


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


def test_bad_samples_are_left_out_and_listed(tokenizer, tmp_path):
    good = png(noise(0))
    foreign = codes.to_bytes(Image(codes=np.array([[1]]), grid=Grid(1, 1), codec_hash="ab" * 32), 9)
    bad = {
        "cut": ({"png": good[:200]}, "bad image"),
        "text": ({"png": b"no image"}, "bad image"),
        "part": ({"png": png(noise(0, 12, 16))}, "bad image"),
        "twice": ({"jpg": good, "png": good}, "ambiguous names"),
        "order": ({"d.png": good, "jpg": good}, "ambiguous names"),
        "codes": ({"codes": foreign}, "foreign codes"),
    }
    made = [(key, files) for key, (files, _) in bad.items()]
    images = write(tmp_path / "in", ("a", {"png": good}), *made, ("z", {"txt": b"no image"}))
    out = tmp_path / "out"
    result = run(images, out, "--tokenizer", tokenizer)
    assert result.exit_code == 2 and "6 of 8 samples cannot be used" in result.output
    assert "raise --bad-share" in result.output and "12" in result.output
    shard = (out / "shard-000000.tar").read_bytes()
    for _ in range(2):
        result = run(images, out, "--tokenizer", tokenizer, "--bad-share=0.8")
        assert result.exit_code == 0 and "6 left out: see quarantine.jsonl" in result.output
        lines = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
        found = {(line["key"], line["reason"], line["shard"]) for line in lines}
        path = str(images / "shard-000000.tar")
        assert found == {(key, reason, path) for key, (_, reason) in bad.items()}
    assert [sample.key for sample in samples(out)] == ["a", "z"]
    assert (out / "shard-000000.tar").read_bytes() == shard


def test_a_share_of_bad_ones_is_not_let_pass_the_second_time(tokenizer, tmp_path):
    images = write(tmp_path / "in", ("a", {"png": b""}), ("b", {"txt": b"words"}))
    for _ in range(2):
        result = run(images, tmp_path / "out", "--tokenizer", tokenizer)
        assert result.exit_code == 2 and "1 of 2 samples" in result.output


def test_a_damaged_tar_and_a_shard_of_nothing_good(tokenizer, tmp_path):
    images = write(tmp_path / "in", ("a", {"txt": b"a" * 600}), ("b", {"png": png(noise(0))}))
    path = images / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:2200])
    write(tmp_path / "more", ("c", {"png": b""}))
    (tmp_path / "more" / "shard-000000.tar").rename(images / "shard-000001.tar")
    words = (images, tmp_path / "out", "--tokenizer", tokenizer, "--bad-share=1")
    for _ in range(2):
        result = run(*words)
        assert result.exit_code == 0 and "3 samples, 2 left out" in result.output
        lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
        reasons = [json.loads(line)["reason"] for line in lines]
        assert reasons == ["damaged tar", "bad image"]
    assert [sample.key for sample in samples(tmp_path / "out")] == ["a"]


def test_halves_of_a_sample_do_not_become_one(tokenizer, tmp_path):
    """Two halves of one key with a bad one between them, and a sound sample."""
    made = [("a", {"txt": b"1"}), ("b", {"png": b""}), ("a", {"json": b"{}"}), ("c", {"txt": b"2"})]
    words = (write(tmp_path / "in", *made), tmp_path / "out", "--tokenizer", tokenizer)
    assert run(*words, "--bad-share=1").exit_code == 0
    assert [sample.key for sample in samples(tmp_path / "out")] == ["c"]
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    reasons = {bad["key"]: bad["reason"] for bad in map(json.loads, lines)}
    assert reasons == {"a": "scattered files", "b": "bad image"}


def test_encoding_codes_again_changes_nothing(encoded, tokenizer, tmp_path):
    assert run(encoded, tmp_path, "--tokenizer", tokenizer).exit_code == 0
    assert tars(tmp_path) == tars(encoded)


def test_shards_of_sources_that_went_away_are_refused(tokenizer, tmp_path):
    for name in "ab":
        write(tmp_path / "in" / name, (name, {"png": png(noise(0)), "txt": b"x"}))
        (tmp_path / "in" / name / "shard-000000.tar").rename(tmp_path / "in" / f"{name}.tar")
    words = (tmp_path / "in", tmp_path / "out", "--tokenizer", tokenizer)
    assert run(*words).exit_code == 0
    (tmp_path / "in" / "b.tar").unlink()
    result = run(*words)
    assert result.exit_code != 0 and "holds more than 1 shards" in result.output


def test_folders_in_keys_are_kept(tokenizer, tmp_path):
    made = ("some/folder/x", {"json": b'{"a": 1}', "png": png(noise(0)), "cls": b"\xff\0"})
    assert (
        run(write(tmp_path / "in", made), tmp_path / "out", "--tokenizer", tokenizer).exit_code == 0
    )
    (sample,) = samples(tmp_path / "out")
    assert sample.key == "some/folder/x" and [*sample.files] == ["json", "codes", "cls"]


@pytest.mark.parametrize(("key", "extension"), [("a.b", "txt"), ("a", ""), ("a", "b/c")])
def test_names_that_cannot_be_read_back_are_refused(tmp_path, key, extension):
    with pytest.raises(ShardError, match="key|name"), ShardWriter(tmp_path) as writer:
        writer.write_files(key, {extension: b""})
    assert not list(tmp_path.iterdir())


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


def coder(folder: Path, **section: object) -> Path:
    folder.mkdir()
    small = of_patches((4, 4), encoder_width=8, decoder_width=8, num_blocks=0, pixel_width=2)
    shape = replace(small, quantizer=replace(small.quantizer, **section))
    ImageTokenizer(shape).save(folder)
    return folder


def test_codes_that_shards_do_not_hold_are_refused_at_once(shards, tmp_path):
    several = coder(tmp_path / "coder", groups=2)
    result = run(shards, tmp_path / "new", "--tokenizer", several)
    assert result.exit_code == 2 and "has 2 codes at each place" in result.output, result.output
    assert not (tmp_path / "new").exists()


def test_codes_of_scales_keep_their_grids(shards, tmp_path):
    folder = coder(tmp_path / "coder", scales=(1, 2, 4))
    result = run(shards, tmp_path / "new", "--tokenizer", folder)
    assert result.exit_code == 0, result.output
    assert_encoded(shards, tmp_path / "new", ImageTokenizer.load(folder))
    made = [s.files[n] for s in samples(tmp_path / "new") for n in s.files if "codes" in n]
    grids = {codes.from_bytes(content).grid for content in made}
    assert grids == {Grid(1, 1, ((1, 1),) * 3), Grid(2, 3, ((1, 1), (1, 2), (2, 3)))}
