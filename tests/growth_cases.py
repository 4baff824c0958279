"""How tests grow small checkpoints, by which image tokenizer, and the tensors that come of it."""

from pathlib import Path

import checkpoints
import pytest
import torch
from safetensors.torch import load_file

from unimodal.hub.grow import Growth
from unimodal.tensors import weight_files
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

GROWTH = Growth(grid=Grid(3, 2))
NUM_OLD = checkpoints.NUM_ROWS


@pytest.fixture(scope="module")
def tokenizer(tiny_model, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny_model.image_tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def image(tiny_model) -> ImageTokenizer:
    return tiny_model.image_tokenizer


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        found |= load_file(path)
    return found
