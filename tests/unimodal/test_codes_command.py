"""`encode` and `decode` with image tokenizers of every shape: rows, groups, scales."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from safetensors import safe_open
from tiny_runs import TINY

from unimodal.codes_file import read_codes
from unimodal.command import main
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.pixels import to_images, to_tensor
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)

FSQ = FsqConfig((4, 4, 4))
F16 = ConvolutionsConfig(16, "patch", (8, 8, 8), (1, 1, 1), (1, 1, 1), 4)
SHAPES = {
    "patches": replace(TINY, quantizer=QuantizerConfig(fsq=FSQ)),
    "f8": TokenizerConfig(convolutions=ConvolutionsConfig(8, "haar", (8, 16), (1, 1), (1, 1), 4)),
    "f16": TokenizerConfig(QuantizerConfig(lfq=LfqConfig(bits=18)), convolutions=F16),
    "queries": TokenizerConfig(QuantizerConfig(bsq=BsqConfig(bits=4)),
                               queries=QueriesConfig(12, 32, 64, 8, 32, 1, 1, 4)),
    "vq": replace(TINY, quantizer=QuantizerConfig(vq=VqConfig(num_codes=32, width=4))),
    "groups": replace(TINY, quantizer=QuantizerConfig(fsq=FSQ, groups=2, residual=2)),
    "residual": replace(TINY, quantizer=QuantizerConfig(lfq=LfqConfig(bits=4), residual=3)),
    "scales": replace(TINY, quantizer=QuantizerConfig(fsq=FSQ, scales=(1, 2, 3, 4))),
    "rows in groups": TokenizerConfig(QuantizerConfig(fsq=FSQ, groups=2),
                                      queries=QueriesConfig(12, 32, 64, 8, 32, 1, 1, 4)),
    "rows in scales": TokenizerConfig(QuantizerConfig(fsq=FSQ, scales=(1, 2, 4)),
                                      queries=QueriesConfig(12, 32, 64, 8, 32, 1, 1, 4)),
}  # fmt: skip


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    return result.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two images of 64 x 32 pixels, a text, and what only looks like an image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.PNG"):
        PILImage.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / name)
    (folder / "words.txt").write_text("no image")
    return folder


def saved(folder: Path, config: TokenizerConfig) -> ImageTokenizer:
    folder.mkdir()
    ImageTokenizer(config, seed=3).save(folder)
    return ImageTokenizer.load(folder)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_comes_back(photos: Path, tmp_path: Path, shape: str, suffix: str) -> None:
    tokenizer = saved(tmp_path / "tokenizer", SHAPES[shape])
    codes = tmp_path / f"codes{suffix}"
    result = invoke("encode", photos, "--output", codes, "--model", tmp_path / "tokenizer")
    assert result.output == f"{photos}: 1 files that are no images; left out\n{codes}\n"
    names = ("a.png", "b.PNG")
    images_BCHW = to_tensor([PILImage.open(photos / name) for name in names])
    codes_BnG, grid = tokenizer.encode(images_BCHW)
    found = read_codes(codes, tokenizer)
    for name, codes_nG in zip(names, codes_BnG, strict=True):
        assert np.array_equal(found[name].codes, codes_nG.numpy())
        assert found[name].grid == grid
    words = ("decode", codes, "--output", tmp_path / "out", "--model", tmp_path / "tokenizer")
    assert invoke(*words).exit_code == 0
    expected = to_images(tokenizer.decode(codes_BnG, grid))
    for name, image in zip(("a.png", "b.PNG.png"), expected, strict=True):
        back = np.asarray(PILImage.open(tmp_path / "out" / name)).astype(int)
        assert np.abs(back - np.asarray(image).astype(int)).max() <= 1  # alone or in a batch


def test_what_lies_in_the_file(photos: Path, tmp_path: Path) -> None:
    shapes = {}
    for shape in ("patches", "groups", "scales", "queries"):
        saved(tmp_path / shape, SHAPES[shape])
        codes = tmp_path / f"{shape}.safetensors"
        invoke("encode", photos / "a.png", "--output", codes, "--model", tmp_path / shape)
        with safe_open(codes, "numpy") as file:
            shapes[shape] = file.get_tensor("a.png").shape, file.metadata().get("grids")
    # 4 x 8 latents; sides 1, 2, 3, 4 of 4 are 1 x 2, 2 x 4, 3 x 6 and 4 x 8 of them
    assert shapes == {
        "patches": ((4, 8), None), "groups": ((4, 8, 4), None),
        "scales": ((2 + 8 + 18 + 32,), '{"a.png": [4, 8]}'), "queries": ((1, 12), None),
    }  # fmt: skip


def test_queries_take_one_size_and_images_are_brought_to_it(tmp_path: Path) -> None:
    saved(tmp_path / "tokenizer", SHAPES["queries"])
    PILImage.new("RGB", (50, 40)).save(tmp_path / "a.png")
    words = ("encode", tmp_path / "a.png", "--output", tmp_path / "a.json")
    result = invoke(*words, "--model", tmp_path / "tokenizer")
    assert "resized and cropped from 50 x 40 to 64 x 32 pixels" in result.stderr
    told = refused(*words, "--model", tmp_path / "tokenizer", "--size", 64, 64)
    assert "size 64 x 64 pixels: these queries read images of 64 x 32 alone" in told


def test_shards_are_sent_to_the_command_that_encodes_them(tmp_path: Path) -> None:
    told = refused("encode", tmp_path / "shard.tar", "--output", tmp_path / "codes.json")
    assert "images of shards are encoded by `unimodal data encode`" in told


def test_bad_images_of_a_folder_are_left_out_and_named_ones_are_not(photos, tmp_path) -> None:
    saved(tmp_path / "tokenizer", SHAPES["patches"])
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:200])
    PILImage.new("RGB", (30, 30)).save(photos / "odd.png")
    words = ("--output", tmp_path / "a.json", "--model", tmp_path / "tokenizer")
    said = invoke("encode", photos, *words).stderr.splitlines()
    assert [line for line in said if "cut.png" in line and line.endswith("left out")]
    assert [line for line in said if "odd.png: 30 x 30 pixels are no whole" in line]
    assert list(json.loads((tmp_path / "a.json").read_text())["images"]) == ["a.png", "b.PNG"]
    assert "cut.png" in refused("encode", photos / "cut.png", *words)
    for name in ("a.png", "b.PNG", "odd.png"):
        (photos / name).unlink()
    told = refused("encode", photos, *words)
    assert "no image could be encoded" in told and "cut.png" in told


def test_images_in_inner_folders_are_encoded_too(photos: Path, tmp_path: Path) -> None:
    saved(tmp_path / "tokenizer", SHAPES["patches"])
    (photos / "inner").mkdir()
    (photos / "b.PNG").rename(photos / "inner" / "a.png")
    codes, model = tmp_path / "a.json", ("--model", tmp_path / "tokenizer")
    invoke("encode", photos, "--output", codes, *model)
    told = json.loads(codes.read_text())
    assert list(told["images"]) == ["a.png", "a-2.png"]
    told["images"] = {f"{folder}/a.png": one for folder, one in told["images"].items()}
    codes.write_text(json.dumps(told))
    said = refused("decode", codes, "--output", tmp_path / "back", *model)
    assert "several images that would be called a.png" in said and not (tmp_path / "back").exists()


def test_codes_of_another_shape_are_refused(tmp_path: Path) -> None:
    groups = saved(tmp_path / "groups", SHAPES["groups"])
    scales = saved(tmp_path / "scales", SHAPES["scales"])
    rows = saved(tmp_path / "queries", SHAPES["queries"])

    def told(tokenizer: ImageTokenizer, table: object, **more: object) -> str:
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"tokenizer": tokenizer.hash, "images": {"a": table}, **more}))
        with pytest.raises(ValueError) as caught:
            read_codes(path, tokenizer)
        return str(caught.value)

    plain = np.zeros((2, 2), int).tolist()
    assert "not a table of whole numbers (rows, columns, groups)" in told(groups, plain)
    deep = np.zeros((2, 2, 3), int).tolist()
    assert "shape (2, 2, 3) does not fill Grid(height=2, width=2" in told(groups, deep)
    assert "does not fill" in told(scales, plain)
    assert "does not fill" in told(scales, [0] * 9, grids={"a": [4, 8]})
    assert "(codes of all scales)" in told(scales, plain, grids={"a": [4, 8]})
    assert "is not a codes file" in told(scales, [0] * 9, grids={"a": [4]})
    assert "is not a codes file" in told(scales, [0] * 9, grids=[1])
    assert "an image is one row of 12 codes" in told(rows, plain)


def test_codes_without_a_decoder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    ImageTokenizer(SHAPES["f8"], decodes=False).save(tmp_path / "tokenizer")
    words = ("--model", tmp_path / "tokenizer")
    assert invoke("encode", photos, "--output", tmp_path / "a.json", *words).exit_code == 0
    told = refused("decode", tmp_path / "a.json", "--output", tmp_path / "out", *words)
    assert "has codes and no decoder yet" in told and not (tmp_path / "out").exists()
    whole = ImageTokenizer(SHAPES["f8"])
    assert torch.equal(whole.encoder.out.weight, ImageTokenizer.load(
        tmp_path / "tokenizer").encoder.out.weight)  # fmt: skip
