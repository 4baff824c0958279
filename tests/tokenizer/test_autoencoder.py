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
    return ImageTokenizer(CONFIG).eval()


def random_pixels(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_ranges(tokenizer: ImageTokenizer) -> None:
    codes, grid = tokenizer.encode(random_pixels(2, 3, 32, 48))
    assert codes.shape == (2, 24, 1) and codes.dtype == torch.int64 and grid == Grid(4, 6)
    assert 0 <= codes.min() and codes.max() < tokenizer.num_codes == 125
    images = tokenizer.decode(codes, grid)
    assert images.shape == (2, 3, 32, 48) and images.abs().max() <= 1


def test_training_and_decoding_agree(tokenizer: ImageTokenizer) -> None:
    images = random_pixels(2, 3, 32, 32)
    torch.testing.assert_close(
        tokenizer(images).clamp(-1, 1), tokenizer.decode(*tokenizer.encode(images))
    )


def test_a_code_knows_only_its_patch_and_margin(tokenizer: ImageTokenizer) -> None:
    images = random_pixels(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 24:32, 24:32] = -changed[:, :, 24:32, 24:32]
    before, after = tokenizer.encode(images)[0], tokenizer.encode(changed)[0]
    different = (before != after).reshape(8, 8).nonzero()
    assert len(different) and (different - 3).abs().max() <= 1


def test_files_round_trip_with_the_hash(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    back = ImageTokenizer.load(tmp_path)
    assert back.hash == tokenizer.hash and back.config == CONFIG
    images = random_pixels(1, 3, 16, 16)
    assert torch.equal(
        back.decode(*back.encode(images)), tokenizer.decode(*tokenizer.encode(images))
    )


def test_what_is_no_tokenizer_is_named(tokenizer: ImageTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere holds no image tokenizer: there is no tok"):
        ImageTokenizer.load(tmp_path / "nowhere")
    tokenizer.save(tmp_path)
    weights, config = tmp_path / "tokenizer.safetensors", tmp_path / "tokenizer.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="tokenizer.safetensors is damaged or belongs to another"):
        ImageTokenizer.load(tmp_path)
    weights.write_bytes(whole)
    described = config.read_text()
    config.write_text(described.replace('"decoder_width": 16', '"decoder_width": 24'))
    with pytest.raises(ValueError, match="tokenizer.safetensors is damaged or belongs to another"):
        ImageTokenizer.load(tmp_path)
    for wrong in ("{", '{"levels": 3}', described.replace('"patch"', '"pitch"'), "[]"):
        config.write_text(wrong)
        with pytest.raises(ValueError, match="tokenizer.json describes no image tokenizer"):
            ImageTokenizer.load(tmp_path)


def test_first_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(5)
    one, again, other = (ImageTokenizer(CONFIG, seed) for seed in (3, 3, 4))
    assert one.hash == again.hash != other.hash
    assert one.decoder.blocks[0].second.weight.count_nonzero() == 0
    assert one.encoder.patches.weight.std().item() == pytest.approx((3 * 12 * 12) ** -0.5, rel=0.1)


def test_the_hash_sees_every_weight(tokenizer: ImageTokenizer) -> None:
    other = ImageTokenizer(CONFIG, seed=1)
    other.load_state_dict(tokenizer.state_dict())
    assert other.hash == tokenizer.hash
    with torch.no_grad():
        other.decoder.out.bias[0] += 1e-3
    assert other.hash != tokenizer.hash


def test_bad_input_is_refused(tokenizer: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match="8-pixel patches"):
        tokenizer.encode(random_pixels(1, 3, 30, 32))
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
