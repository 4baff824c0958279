"""What `unimodal data encode` refuses: settings, names and tokenizers that do not fit; samples and
shards that are bad are left out and listed.
"""

import json

import numpy as np
import pytest
from encode_cases import coder, noise, png, run, samples, write
from encode_cases import encoded as encoded
from encode_cases import shards as shards
from encode_cases import tokenizer as tokenizer
from tiny_tokenizers import of_patches

from unimodal.data import codes_member as codes
from unimodal.data.shards import ShardWriter, find_shards
from unimodal.data.tar import ShardError
from unimodal.document import Image
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.grid import Grid


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


def test_shards_of_sources_that_went_away_are_refused(tokenizer, tmp_path):
    for name in "ab":
        write(tmp_path / "in" / name, (name, {"png": png(noise(0)), "txt": b"x"}))
        (tmp_path / "in" / name / "shard-000000.tar").rename(tmp_path / "in" / f"{name}.tar")
    words = (tmp_path / "in", tmp_path / "out", "--tokenizer", tokenizer)
    assert run(*words).exit_code == 0
    (tmp_path / "in" / "b.tar").unlink()
    result = run(*words)
    assert result.exit_code != 0 and "holds more than 1 shards" in result.output


@pytest.mark.parametrize(("key", "extension"), [("a.b", "txt"), ("a", ""), ("a", "b/c")])
def test_names_that_cannot_be_read_back_are_refused(tmp_path, key, extension):
    with pytest.raises(ShardError, match="key|name"), ShardWriter(tmp_path) as writer:
        writer.write_files(key, {extension: b""})
    assert not list(tmp_path.iterdir())


def test_codes_that_shards_do_not_hold_are_refused_at_once(shards, tmp_path):
    several = coder(tmp_path / "coder", groups=2)
    result = run(shards, tmp_path / "new", "--tokenizer", several)
    assert result.exit_code == 2 and "has 2 codes at each place" in result.output, result.output
    assert not (tmp_path / "new").exists()
