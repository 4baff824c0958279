"""`eval tokenizer MODEL IMAGES`: scores of images of one's own, by hand and from files, folders and
shards; `encode` and `eval` take what a run of the tokenizer has written.
"""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import damaged, write_tar
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_tokenizers import of_patches

from unimodal.command import main
from unimodal.eval.reconstruction import STABLE, ssim
from unimodal.eval.tokenizer import worst
from unimodal.image_tokenizers import find_tokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer

CONFIG = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)


def png(width: int, height: int, shade: int = 0) -> bytes:
    rng = np.random.default_rng([width, height, shade])
    stream = io.BytesIO()
    array = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    PILImage.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run of the tokenizer leaves: its folder, and `tokenizer` in it."""
    folder = tmp_path / "run" / "tokenizer"
    folder.mkdir(parents=True)
    ImageTokenizer(CONFIG).save(folder)
    return tmp_path / "run"


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def report(*words: object) -> dict:
    path = Path(str(words[0])).parent / "report.json"
    result = command("eval", "tokenizer", *words, "--json", path)
    assert result.exit_code == 0, result.output
    return json.loads(path.read_text())


def test_ssim_by_its_definition() -> None:
    """Of one window: the formula with Gaussian weights, written out over its pixels."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (2, 11, 11, 1), dtype=np.uint8)
    first, second = np.repeat(grey, 3, axis=3)
    weight = {
        (row, column): math.exp(-((row - 5) ** 2 + (column - 5) ** 2) / (2 * 1.5**2))
        for row in range(11)
        for column in range(11)
    }
    total = sum(weight.values())

    def mean(values) -> float:
        return sum(w * float(values[at]) for at, w in weight.items()) / total

    x, y = (image[:, :, 0].astype(float) for image in (first, second))
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = STABLE
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(first, second) == pytest.approx(expected, abs=1e-9)
    assert ssim(first, first) == pytest.approx(1) and ssim(first[:10], second[:10]) is None
    large = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    nearly = np.clip(large.astype(int) + rng.integers(-9, 10, large.shape), 0, 255)
    assert 0.9 < ssim(large, nearly.astype(np.uint8)) < 1
    assert abs(ssim(large, large[::-1])) < 0.1


def test_a_folder_of_files_of_any_sizes(run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for at, size in enumerate([(64, 64), (64, 40), (24, 64)]):
        (photos / "more" / f"{at}.png").write_bytes(png(*size, at))
    (photos / "a.txt").write_text("words")
    found = report(run, photos)
    assert [p["name"] for p in found["predictions"]] == [f"more/{n}.png" for n in range(3)]
    assert [(p["width"], p["height"]) for p in found["predictions"]] == [
        (64, 64),
        (64, 40),
        (24, 64),
    ]
    scores, recipe = found["scores"], found["recipe"]
    for name in ("psnr_db", "ssim"):
        values = [p[name] for p in found["predictions"]]
        assert scores[name]["value"] == pytest.approx(np.mean(values)) and scores[name]["n"] == 3
    assert scores["usage"]["share"]["value"] == found["usage"]["share"]
    assert scores["usage"]["share"]["low"] < scores["usage"]["share"]["high"]
    assert found["usage"]["drawn"] == 64 + 40 + 24
    assert recipe["samples"] == 3 and len(recipe["images"]) == 64
    assert recipe["tokenizer"] == ImageTokenizer(CONFIG).hash


def test_shards_files_and_sizes(run: Path, tmp_path: Path) -> None:
    samples = {f"k{n}": {"0.png": png(60, 62, n), "1.png": png(90, 45, n)} for n in range(5)}
    tar = write_tar(tmp_path / "a.tar", samples)
    alone = tmp_path / "b.png"
    alone.write_bytes(png(70, 70))
    words = (run, tar, alone)
    result = command("eval", "tokenizer", *words)
    assert result.exit_code == 2 and "no whole 8-pixel patches" in result.output
    assert "give --target-pixels" in result.output
    found = report(*words, "--target-pixels", 1024, "--max-aspect-ratio", 2)
    sizes = [(p["width"], p["height"]) for p in found["predictions"]]
    assert sizes == [(32, 32), (40, 24)] * 5 + [(32, 32)]
    first = report(run, tar, "--target-pixels", 1024, "--samples", 3)
    assert [p["name"] for p in first["predictions"]] == ["k0.0.png", "k0.1.png", "k1.0.png"]


def greys(folder: Path) -> Path:
    """A shard of greys, whose shade nothing but `kind` in .json tells in words."""
    samples = {}
    for number in range(40):
        stream = io.BytesIO()
        PILImage.new("RGB", (16, 16), (40 + 160 * (number % 2),) * 3).save(stream, "PNG")
        told = {"kind": ["dark", "light"][number % 2], "number": number}
        samples[f"k{number:02d}"] = {"png": stream.getvalue(), "json": json.dumps(told).encode()}
    samples["k50"] = {"png": png(16, 16)}
    return write_tar(folder / "a.tar", samples)


def test_labels_of_samples_are_probed_and_the_worst_images_shown(run: Path, tmp_path: Path) -> None:
    tar, sheet = greys(tmp_path), tmp_path / "sheet.png"
    found = report(run, tar, "--probe", "kind", "--contact-sheet", sheet)
    probe = found["scores"]["probe"]["kind"]
    assert (probe["value"], probe["n"]) == (1, 40) and 0.9 < probe["low"] < 1
    assert found["scores"]["probe_constant"]["kind"]["value"] == 0.5
    assert found["speed"]["encode_images_per_s"]["value"] > 0
    assert found["scores"]["bits_per_pixel"]["fixed"]["value"] == 6 / 64
    assert sheet.read_bytes().startswith(b"\x89PNG")
    together = report(run, tar, "--probe", "kind", "--probe-apart", "kind")
    assert together["scores"]["probe"]["kind"]["value"] < 0.5
    none = command("eval", "tokenizer", run, tar, "--probe", "name")
    assert none.exit_code == 2 and "--probe name: none of the 41 images has" in none.output


def test_codes_that_nothing_decodes_are_measured_alone(tmp_path: Path) -> None:
    """As those that are learned from features, before a decoder is trained on them."""
    folder = tmp_path / "run" / "tokenizer"
    folder.mkdir(parents=True)
    whole = ImageTokenizer(CONFIG)
    ImageTokenizer(CONFIG, decodes=False).save(folder)
    tar = greys(tmp_path)
    found = report(tmp_path / "run", tar, "--probe", "kind")
    scores = found["scores"]
    assert scores["probe"]["kind"]["value"] == 1 and found["predictions"] == []
    assert "psnr_db" not in scores and list(found["speed"]) == ["encode_images_per_s"]
    whole.save(folder)
    decoding = report(tmp_path / "run", tar, "--probe", "kind")
    assert {name: decoding["scores"][name] for name in scores} == scores
    ImageTokenizer(CONFIG, decodes=False).save(folder)
    scenes = report(tmp_path / "run", "--samples", 20)
    assert "right" not in scenes["scores"] and scenes["scores"]["probe"]["count"]["n"] == 20
    refused = command("eval", "tokenizer", folder, tar, "--contact-sheet", tmp_path / "a.png")
    assert (
        refused.exit_code == 2 and "--contact-sheet: this image tokenizer has no" in refused.output
    )


def test_the_worst_come_first() -> None:
    predictions = [{"psnr_db": value} for value in (30.0, 12.5, 20.0)]
    assert worst(predictions, 2) == [1, 2]


def test_images_are_told_by_their_bytes_and_stand_in_natural_order(
    run: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("2.png", "10.jfif", "1.PNG"):
        (photos / name).write_bytes(png(16, 16, int(name.split(".")[0])))
    (photos / "text.csv").write_text("a,b")
    (photos / "a.codes").write_bytes(b"codes")
    found = report(run, photos)
    assert [p["name"] for p in found["predictions"]] == ["1.PNG", "2.png", "10.jfif"]
    (photos / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    result = command("eval", "tokenizer", run, photos, "--bad-share", 0.5)
    assert "used: 3 images; left out: codes 1, .csv 1; bad: 1" in result.output


def test_bad_images_are_counted_and_too_many_are_an_error(run: Path, tmp_path: Path) -> None:
    samples = {f"k{n}": {"png": png(16, 16, n)} for n in range(20)}
    samples["k3"] = {"png": damaged(png(16, 16))}
    tar = write_tar(tmp_path / "a.tar", samples)
    words = ("eval", "tokenizer", run, tar)
    result = command(*words)
    assert result.exit_code == 2 and "1 of 20 samples cannot be used" in result.output
    assert "raise --bad-share" in result.output and "key k3.png" in result.output
    result = command(*words, "--bad-share", 0.1)
    assert result.exit_code == 0 and "used: 19 images; left out: none; bad: 1" in result.output


def test_a_bound_of_usage(run: Path, tmp_path: Path) -> None:
    """Forty equal grey images use a code or two, and until now nothing said that it is too few."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for at in range(40):
        PILImage.new("RGB", (64, 64), (128, 128, 128)).save(photos / f"{at}.png")
    words = ("eval", "tokenizer", run, photos)
    sheet = tmp_path / "sheet.png"
    result = command(*words, "--min-usage", 0.5, "--contact-sheet", sheet)
    assert result.exit_code == 2 and sheet.read_bytes().startswith(b"\x89PNG")
    assert "is below --min-usage 0.5: of 64 codes" in result.output and "psnr" in result.output
    assert command(*words, "--min-usage", 0.0).exit_code == 0
    scenes = command("eval", "tokenizer", run, "--samples", 3, "--min-usage", 1)
    assert scenes.exit_code == 2 and "is below --min-usage 1" in scenes.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--canvas", 64], "--canvas is of scenes, not of IMAGES"),
        (["x", "--seed", 3], "--seed is of scenes"),
        (["--target-pixels", 64], "--target-pixels is of IMAGES, which are not given"),
        (["--bad-share", 0.1], "--bad-share is of IMAGES"),
        (["--probe", "kind"], "--probe is of IMAGES"),
        (["x", "--probe-apart", "kind"], "--probe-apart is of --probe"),
        (["x", "--max-aspect-ratio", 2], "add --target-pixels"),
        (["nowhere"], "nowhere holds no .tar shard"),
        (["--min-usage", 2], "--min-usage"),
    ],
)
def test_options_that_would_say_nothing_are_refused(run: Path, words: list, message: str) -> None:
    result = command("eval", "tokenizer", run, *words)
    assert result.exit_code == 2 and message in result.output


def test_encode_and_decode_take_a_runs_tokenizer(run: Path, tmp_path: Path) -> None:
    image, codes = tmp_path / "a.png", tmp_path / "codes.json"
    image.write_bytes(png(40, 24))
    for model in (run, run / "tokenizer"):
        result = command("encode", image, "--model", model, "--output", codes)
        assert result.exit_code == 0 and "resized" not in result.output, result.output
        table = np.array(json.loads(codes.read_text())["images"]["a.png"])
        assert table.shape == (3, 5)
        out = tmp_path / "out"
        assert command("decode", codes, "--model", model, "--output", out).exit_code == 0
        with PILImage.open(out / "a.png") as decoded:
            assert decoded.size == (40, 24)
    image.write_bytes(png(41, 24))
    result = command("encode", image, "--model", run, "--output", codes)
    assert result.exit_code == 2 and "41 x 24 pixels are no whole" in result.output
    assert "give --size WIDTH HEIGHT" in result.output
    sized = command("encode", image, "--model", run, "--output", codes, "--size", 16, 16)
    assert sized.exit_code == 0 and "from 41 x 24 to 16 x 16" in sized.output


def test_where_a_tokenizer_is_found(run: Path, tmp_path: Path) -> None:
    expected = ImageTokenizer(CONFIG).hash
    for place in (run, run / "tokenizer"):
        found = find_tokenizer(place)
        assert (found.codec.hash, found.canvas, found.card) == (expected, None, {})
    (run / "tokenizer" / "card.json").write_text('{"data_seeds": [7]}')
    assert find_tokenizer(run).card == {"data_seeds": [7]}
    shipped = find_tokenizer(None)
    assert shipped.canvas == (64, 64) and shipped.tokenizer.num_codes == 4375
    with pytest.raises(ValueError, match="nowhere"):
        find_tokenizer(tmp_path / "nowhere")
