"""Shards of images for `unimodal data encode`, the command, and the shards that it writes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_tokenizers import of_patches

from unimodal.command import main
from unimodal.data.formats import Sample
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.document import Document, Image, Text
from unimodal.tokenizer.autoencoder import ImageTokenizer


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


def coder(folder: Path, **section: object) -> Path:
    folder.mkdir()
    small = of_patches((4, 4), encoder_width=8, decoder_width=8, num_blocks=0, pixel_width=2)
    shape = replace(small, quantizer=replace(small.quantizer, **section))
    ImageTokenizer(shape).save(folder)
    return folder
