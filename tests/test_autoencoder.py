"""The image tokenizer: shapes, locality of codes, files and hash."""

from pathlib import Path

import pytest
import torch

from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid

CONFIG = TokenizerConfig(
    levels=(5, 5, 5), encoder_width=16, decoder_width=16, num_blocks=1, pixel_width=4
)


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(CONFIG).eval()


def pictures(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_ranges(tokenizer: ImageTokenizer) -> None:
    codes, grid = tokenizer.encode(pictures(2, 3, 32, 48))
    assert codes.shape == (2, 24, 1) and codes.dtype == torch.int64 and grid == Grid(4, 6)
    assert 0 <= codes.min() and codes.max() < tokenizer.num_codes == 125
    images = tokenizer.decode(codes, grid)
    assert images.shape == (2, 3, 32, 48) and images.abs().max() <= 1


def test_training_and_decoding_agree(tokenizer: ImageTokenizer) -> None:
    images = pictures(2, 3, 32, 32)
    torch.testing.assert_close(
        tokenizer(images).clamp(-1, 1), tokenizer.decode(*tokenizer.encode(images))
    )


def test_a_code_knows_only_its_patch_and_margin(tokenizer: ImageTokenizer) -> None:
    images = pictures(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 24:32, 24:32] = -changed[:, :, 24:32, 24:32]
    before, after = tokenizer.encode(images)[0], tokenizer.encode(changed)[0]
    different = (before != after).reshape(8, 8).nonzero()
    assert len(different) and (different - 3).abs().max() <= 1


def test_files_round_trip_with_the_hash(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    back = ImageTokenizer.load(tmp_path)
    assert back.hash == tokenizer.hash and back.config == CONFIG
    images = pictures(1, 3, 16, 16)
    assert torch.equal(
        back.decode(*back.encode(images)), tokenizer.decode(*tokenizer.encode(images))
    )


def test_the_hash_sees_every_weight(tokenizer: ImageTokenizer) -> None:
    other = ImageTokenizer(CONFIG)
    other.load_state_dict(tokenizer.state_dict())
    assert other.hash == tokenizer.hash
    with torch.no_grad():
        other.decoder.out.bias[0] += 1e-3
    assert other.hash != tokenizer.hash


def test_bad_input_is_refused(tokenizer: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match="8-pixel patches"):
        tokenizer.encode(pictures(1, 3, 30, 32))
    with pytest.raises(ValueError, match="do not fill"):
        tokenizer.decode(torch.zeros(1, 5, 1, dtype=torch.int64), Grid(2, 3))
    with pytest.raises(ValueError, match="at most 16384"):
        ImageTokenizer(TokenizerConfig(levels=(16, 16, 16, 16)))


def test_every_problem_of_a_shape_is_told_at_once() -> None:
    config = TokenizerConfig(levels=(), encoder_width=0, decoder_width=12, num_blocks=-1, margin=9)
    assert config.problems() == [
        "encoder_width 0: at least 1",
        "num_blocks -1: at least 0",
        "decoder_width 12: a multiple of 8",
        "levels (): at least one, each of at least 2",
        "margin 9: from 0 to the patch's 8",
    ]
