"""A tokenizer learns photographs: any sizes, all images of a sample, damage among them."""

import io
import json
import os
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import damaged, write_tar
from PIL import Image as PILImage
from tiny_runs import TINY, metrics
from tokenizer_runs import Files, captions, png, tiny_run
from train_files import modes

from unimodal.config import ConfigError, load
from unimodal.data.image_batches import ImageBatches
from unimodal.data.image_index import ImageMeasure, index_images
from unimodal.data.quarantine import Quarantine
from unimodal.data.sizes import ImageRule
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import checkpoint, tokenizer
from unimodal.train.checkpoint import found
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path):
    """The config of a tiny run on a tar of these samples."""

    def made(samples: dict[str, Files], num_steps: int = 3, **more) -> TokenizerRun:
        return tiny_run(tmp_path, samples, num_steps, **more)

    return made


def refused(config: TokenizerRun, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tokenizer.train(config)
    assert not metrics(config.output) and not (config.output / "tokenizer").exists()


def told(config: TokenizerRun, capsys: pytest.CaptureFixture) -> str:
    tokenizer.train(config)
    return capsys.readouterr().err


def test_unequal_sizes_make_batches_of_one_size(run, capsys) -> None:
    """Widths of 64, 72 and 80 pixels, with no setting at all."""
    lines = told(run(captions(40, (64, 64), (72, 64), (80, 64)), 6), capsys)
    assert (
        "40 samples; used: 40 images (64 x 64: 14, 72 x 64: 13, 80 x 64: 13); left out: " in lines
    )
    assert "images: read 48 of them (1.20 passes over 40); 0 of them were bad" in lines
    assert [m["images"] for m in metrics(run(captions(1, (64, 64))).output)] == [
        8,
        16,
        24,
        32,
        40,
        48,
    ]


def test_sides_of_no_whole_patches_are_refused_with_the_way_out_which_works(run, capsys) -> None:
    """60 x 62 pixels were a traceback."""
    samples = captions(40, (60, 62))
    refused(run(samples), "no images to learn from .*60 x 62 pixels are no whole .*; set `images`")
    lines = told(run(samples, images=ImageRule(target_pixels=64 * 64)), capsys)
    assert "used: 40 images (64 x 64: 40)" in lines


def test_photographs_go_to_buckets_of_equally_many_pixels(run, capsys) -> None:
    samples = captions(24, (640, 360), (256, 256), (150, 300))
    rule = ImageRule(target_pixels=32 * 32, max_aspect_ratio=2)
    lines = told(run(samples, images=rule), capsys)
    assert "(24 x 40: 8, 32 x 32: 8, 40 x 24: 8)" in lines or "40 x 24: 8" in lines
    with pytest.raises(
        ValueError, match="images.multiple 12: a multiple of the tokenizer's patch, 8"
    ):
        tokenizer.train(run(samples, images=replace(rule, multiple=12)))


def test_one_cut_image_costs_itself_alone(run, capsys) -> None:
    """It stopped the run, and again at the same step whenever it was resumed."""
    samples = captions(120, (64, 64))
    samples["k7"] = {"png": damaged(noisy()), "txt": b"cut"}
    config = run(samples, 20)
    lines = told(config, capsys)
    (entry,) = map(json.loads, (config.output / "quarantine.jsonl").read_text().splitlines())
    assert entry["key"] == "k7" and entry["reason"] == "bad image"
    last = metrics(config.output)[-1]
    assert last["images"] == 160 and last["bad_images"] in (1, 2)  # of 1.33 passes
    assert f"{last['bad_images']} of them were bad and nothing was learned of them" in lines


def noisy(shade: int = 0) -> bytes:
    rng = np.random.default_rng(shade)
    stream = io.BytesIO()
    PILImage.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_too_many_bad_images_are_refused_before_the_first_step(run) -> None:
    samples = captions(40, (64, 64))
    samples["k7"] = {"png": damaged(noisy()), "txt": b"cut"}
    refused(run(samples), "images: 1 of 40 samples cannot be used, .*1.00%")
    tokenizer.train(run(samples, bad_share=0.1))
    cut = {f"k{n}": {"png": damaged(noisy(n))} for n in range(20)}
    refused(run(cut, bad_share=1.0, output=run(cut).output / "other"), "none of the 20 images that")


def test_samples_without_images_are_left_out_and_counted(run, capsys) -> None:
    samples = captions(10, (64, 64)) | {"words": {"txt": b"words alone"}}
    lines = told(run(samples), capsys)
    assert "11 samples; used: 10 images (64 x 64: 10); left out: 1 samples without images" in lines
    refused(
        run({"words": {"txt": b"words"}}, output=run(samples).output / "b"),
        "no images to learn from .*1 samples without images",
    )


def test_images_are_told_by_their_bytes(run, capsys) -> None:
    """A JPEG of another suffix is one; an image that nobody can read is bad, and not overlooked."""
    samples = captions(10, (64, 64))
    samples["odd"] = {"jfif": png(64, 64, 99, "JPEG"), "txt": b"an image"}
    samples["list"] = {"png": png(64, 64, 98), "json": b'{"caption": "x", "image": "other.png"}'}
    assert "12 samples; used: 12 images (64 x 64: 12)" in told(run(samples), capsys)
    samples["svg"] = {"svg": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "txt": b"a drawing"}
    refused(
        run(samples, output=run(samples).output / "b"), "1 of 13 samples (?s:.*)drawing without pix"
    )


def test_all_images_of_a_sample_are_learned_and_words_are_not_needed(run, capsys) -> None:
    samples = {
        f"k{n}": {f"{at}.png": png(64, 64, 10 * n + at) for at in range(3)} for n in range(4)
    }
    samples |= {f"j{n}": {"jpg": png(64, 64, n, "JPEG"), "cls": b"3"} for n in range(4)}
    assert "8 samples; used: 16 images" in told(run(samples), capsys)


def test_a_resumed_run_is_the_same_run_bit_for_bit(run, tmp_path: Path) -> None:
    """With buckets, crops, mirrors and an image that turns out to be bad."""
    samples = captions(150, (96, 64), (64, 64), (64, 96), (64, 128))
    samples["k9"] = {"png": damaged(noisy())}
    rule = ImageRule(32 * 32, max_aspect_ratio=2, random_crop=True, flip=0.5)
    whole = run(samples, 24, images=rule)
    finished = tokenizer.train(whole)
    cut = replace(whole, output=tmp_path / "cut", schedule=ScheduleConfig(9, 1))
    tokenizer.train(cut)
    again = tokenizer.train(replace(cut, schedule=whole.schedule))
    assert ImageTokenizer.load(again).hash == ImageTokenizer.load(finished).hash
    names = ("step", "loss", "gradient_norm", "images", "bad_images")
    logged = [[[m[name] for name in names] for m in metrics(c.output)] for c in (whole, cut)]
    assert logged[0] == logged[1] and logged[0][-1][3] == 24 * 8


def test_files_are_as_readable_as_the_user_has_it(run) -> None:
    config = run(captions(16, (64, 64)), 1)
    before = os.umask(0o027)
    try:
        tokenizer.train(config)
    finally:
        os.umask(before)
    found = modes(config.output)
    assert "tokenizer/tokenizer.safetensors" in found
    assert set(found.values()) == {0o640, 0o750}


def test_a_log_that_is_gone_is_no_dead_end(run) -> None:
    config = run(captions(16, (64, 64)), 2)
    tokenizer.train(config)
    (config.output / "metrics.jsonl").unlink()
    tokenizer.train(replace(config, schedule=ScheduleConfig(4, 1)))
    assert [line["step"] for line in metrics(config.output)] == [2, 3]


def test_a_checkpoint_of_another_order_is_refused(run) -> None:
    config = run(captions(16, (64, 64)), 2)
    tokenizer.train(config)
    path = found(config.output)[-1] / "state.json"
    old = {"data": {}, "format": checkpoint.UNSUMMED}
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    (path.parent / "checksums.json").unlink()  # such a version had none
    with pytest.raises(ValueError, match="took images in another order"):
        tokenizer.train(replace(config, schedule=ScheduleConfig(4, 1)))


def test_code_usage_is_logged_and_warned_of(run, capsys) -> None:
    """Forty equal grey images use next to nothing of 64 codes."""
    grey = io.BytesIO()
    PILImage.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(grey, "PNG")
    samples = {f"k{n}": {"png": grey.getvalue(), "txt": b"grey"} for n in range(40)}
    config = run(samples, 12)
    lines = told(config, capsys)
    last = metrics(config.output)[-1]
    assert last["usage_share"] <= 16 / 64 and last["usage_perplexity"] == pytest.approx(
        2 ** last["usage_entropy_bits"]
    )
    assert lines.count("warning: code usage: 0.0") == 2 and "min_usage is 0.3" in lines
    varied = run({f"k{n}": {"png": noisy(n)} for n in range(40)}, 12, output=config.output / "b")
    lines = told(replace(varied, min_usage=0.1), capsys)
    assert "warning" not in lines and "code usage: 0." in lines
    usage = [m["usage_share"] for m in metrics(varied.output)]
    assert len(usage) == 12 and usage[-1] > 0.1


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    words = [
        f"output={tmp_path}",
        "shards=a",
        "schedule.num_steps=3",
        "bad_share=2",
        "min_usage=-1",
    ]
    words += ["images.multiple=12", "batch_images=0"]
    with pytest.raises(ConfigError) as error:
        load(TokenizerRun, None, words)
    for problem in (
        "bad_share 2.0: from 0 to 1",
        "min_usage -1.0",
        "multiple 12",
        "batch_images 0",
    ):
        assert problem in str(error.value)


def batches_of(
    tmp_path: Path, samples: dict[str, Files], batch_images: int = 4, workers: int = 0
) -> ImageBatches:
    path = write_tar(tmp_path / "b.tar", samples)
    index = index_images([path], ImageMeasure(None, TINY))
    return ImageBatches(index, None, 5, batch_images, Quarantine(None, 0.5), workers=workers)


def test_every_image_comes_equally_often_however_rare_its_size(tmp_path: Path) -> None:
    """One image has a size of its own: its batch is that image four times, and is as rare."""
    samples = captions(23, (16, 16)) | {"odd": {"png": png(24, 16)}}
    images = batches_of(tmp_path, samples)
    seen: Counter[bytes] = Counter()
    for batch, _ in islice(images.batches(0), 6 * 24):
        assert len(batch) == 4
        seen.update(one.tobytes() for one in batch)
    assert len(seen) == 24 and set(seen.values()) == {24}


def test_batches_begin_anywhere_and_passes_differ(tmp_path: Path) -> None:
    images = batches_of(tmp_path, captions(23, (16, 16), (16, 16), (24, 16)))
    whole = list(islice(images.batches(0), 30))
    assert [number for _, number in whole] == list(range(1, 31))
    for first in (1, 7, 29):
        for (batch, number), (other, same) in zip(
            whole[first:], images.batches(first), strict=False
        ):
            assert number == same and np.array_equal(batch, other)
    order = [one.tobytes() for batch, _ in whole for one in batch if batch.shape[2] == 24]
    assert order[:7] != order[7:14] and sorted(order[:7]) == sorted(order[7:14])


def test_processes_read_what_a_thread_reads(tmp_path: Path) -> None:
    samples = captions(23, (16, 16), (24, 16))
    samples["k3"] = {"png": damaged(samples["k3"]["png"]), "txt": b"cut"}
    found = []
    for workers in (0, 2):
        images = batches_of(tmp_path, samples, workers=workers)
        batches = list(islice(images.batches(0), 12))
        found.append(([(batch.tobytes(), number) for batch, number in batches], images.seen))
    assert found[0] == found[1] and found[0][1].bad.total() > 0
