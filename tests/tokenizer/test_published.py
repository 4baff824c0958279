"""Published image tokenizers: the codes and pixels of the classes of transformers, and the authors'
rule where those go another way.
"""

from pathlib import Path

import published_tokenizers as made
import pytest
import torch
from torch.nn import functional as F

from unimodal.hub.image_checkpoint import read_image_tokenizer
from unimodal.tokenizer import published
from unimodal.tokenizer.codebook import Codebook
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.movq import Movq, MovqConfig
from unimodal.tokenizer.pyramid import PyramidConfig
from unimodal.tokenizer.saved import load_tokenizer
from unimodal.tokenizer.vqgan import Vqgan, VqganConfig

SIZES = (24, 24), (16, 40), (40, 16)
EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Each family's model of transformers, and our tokenizer of the same weights."""
    pairs = {}
    for make in (made.chameleon, made.janus, made.emu3):
        model, folder = make(), tmp_path_factory.mktemp(make.__name__)
        model.save_pretrained(folder)
        pairs[make.__name__] = model, read_image_tokenizer(folder)
    return pairs


@torch.no_grad()
def emu3_codes(model, images: torch.Tensor) -> torch.Tensor:
    sizes = torch.tensor([images.shape[2:]] * len(images))
    return torch.stack(model.encode(images, sizes).image_tokens)


@pytest.mark.parametrize("size", SIZES)
def test_chameleons_codes(both, size: tuple[int, int]) -> None:
    model, tokenizer = both["chameleon"]
    images = made.images(*size)
    with torch.no_grad():
        wanted = model.encode(images).image_tokens
    codes, grid = tokenizer.encode(images)
    assert grid == Grid(size[0] // 4, size[1] // 4)
    assert codes.shape == (2, grid.size, 1) and codes.dtype == torch.int64
    assert torch.equal(codes.flatten(), wanted)
    assert codes.unique().numel() > 15


@pytest.mark.parametrize("size", SIZES)
def test_janus_pixels(both, size: tuple[int, int]) -> None:
    model, tokenizer = both["janus"]
    grid = tokenizer.geometry.grid_of(*size)
    codes = torch.randint(96, (2, grid.size, 1), generator=torch.Generator().manual_seed(0))
    model.quantize.quant_state_dims = [grid.height, grid.width]  # it knows squares alone
    with torch.no_grad():
        wanted = model.decode(codes[..., 0])
    pixels = tokenizer.decode(codes, grid)
    assert pixels.shape == (2, 3, *size) and wanted.std() > 0.3
    torch.testing.assert_close(pixels, wanted.clamp(-1, 1), **EXACT)


def test_janus_codes_are_the_authors_and_not_those_of_transformers(both) -> None:
    """If the last line fails, transformers follows the authors now: say so in vqgan.py."""
    model, tokenizer = both["janus"]
    images = made.images(24, 40)
    with torch.no_grad():
        z = model.quant_conv(model.encoder(images)).permute(0, 2, 3, 1).reshape(-1, 4)
        theirs = model.encode(images).image_tokens
    table = model.quantize.embedding.weight.detach()
    z = z / z.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    wanted = (z[:, None] - table[None]).norm(dim=2).argmin(dim=1)
    codes, _ = tokenizer.encode(images)
    assert torch.equal(codes.flatten(), wanted)
    assert (theirs == wanted).float().mean() < 0.5


@pytest.mark.parametrize("size", SIZES)
def test_emu3s_codes_and_pixels(both, size: tuple[int, int]) -> None:
    model, tokenizer = both["emu3"]
    images = made.images(*size)
    codes, grid = tokenizer.encode(images)
    wanted = emu3_codes(model, images)
    assert torch.equal(codes.reshape(wanted.shape), wanted)
    assert codes.unique().numel() > 15
    with torch.no_grad():
        pixels = model.decode(wanted)
    assert pixels.std() > 0.01
    torch.testing.assert_close(tokenizer.decode(codes, grid), pixels.clamp(-1, 1), **EXACT)


def test_training_mode_changes_no_code(both) -> None:
    """Batch norm by the batch would: transformers' own model shows that."""
    model, tokenizer = both["emu3"]
    images = made.images(24, 24)
    before, _ = tokenizer.encode(images)
    after, _ = tokenizer.train().encode(images)
    assert torch.equal(before, after) and not tokenizer.training
    copy = made.emu3().train()
    assert (emu3_codes(copy, images).flatten() != before.flatten()).float().mean() > 0.1


def test_images_are_never_padded(both) -> None:
    """A smaller image in a larger frame of zeros has other codes, so each size is encoded alone."""
    _, tokenizer = both["emu3"]
    image = made.images(24, 24, 1)
    codes, _ = tokenizer.encode(image)
    framed, grid = tokenizer.encode(F.pad(image, (0, 16, 0, 16)))
    inner = framed.reshape(grid.height, grid.width)[:6, :6]
    assert (inner.flatten() != codes.flatten()).float().mean() > 0.05


def test_a_batch_is_worked_on_a_few_images_at_a_time(both, monkeypatch) -> None:
    _, tokenizer = both["janus"]
    images = made.images(24, 24, 5)
    codes, grid = tokenizer.encode(images)
    pixels = tokenizer.decode(codes, grid)
    seen = []
    tokenizer.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    tokenizer.decoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    monkeypatch.setattr(published, "PIXELS_AT_ONCE", 2 * 24 * 24)
    assert torch.equal(tokenizer.encode(images)[0], codes)
    torch.testing.assert_close(tokenizer.decode(codes, grid), pixels, **EXACT)
    assert seen == [2, 2, 1, 2, 2, 1]


def test_codes_are_float32_under_autocast() -> None:
    book = Codebook(4, 2)
    book.embedding.weight.data = torch.tensor([[1.0, 0], [1.001, 0], [1.002, 0], [1.003, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        codes = book.nearest(book.embedding.weight.detach())
    assert codes.tolist() == [0, 1, 2, 3]  # in bfloat16 all four are equal
    assert book(codes).dtype == torch.float32


def test_vectors_are_compared_in_pieces() -> None:
    book = Codebook(7, 3)
    z = torch.randn(2500, 3)
    wanted = torch.cdist(z, book.embedding.weight).argmin(1)
    assert torch.equal(book.nearest(z), wanted)


@pytest.mark.parametrize("family", ["chameleon", "janus", "emu3"])
def test_files_round_trip_with_the_hash(both, family: str, tmp_path: Path) -> None:
    _, tokenizer = both[family]
    tokenizer.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert type(back) is type(tokenizer) and back.config == tokenizer.config
    assert back.hash == tokenizer.hash
    assert torch.equal(
        back.encode(made.images(24, 16))[0], tokenizer.encode(made.images(24, 16))[0]
    )
    back.quantize.embedding.weight[3, 1] += 1e-3
    assert back.hash != tokenizer.hash


def test_damaged_files_are_named(both, tmp_path: Path) -> None:
    _, tokenizer = both["janus"]
    tokenizer.save(tmp_path)
    config, weights = tmp_path / "tokenizer.json", tmp_path / "tokenizer.safetensors"
    text, content = config.read_text(), weights.read_bytes()
    for broken, message in (
        (text.replace('"vqgan"', '"magvit"'), "kind 'magvit' is none of vqgan, movq"),
        (text.replace('"num_blocks"', '"blocks"'), "describes no vqgan tokenizer.*blocks"),
        (text.replace('"width": 32', '"width": "32"'), "describes no vqgan tokenizer"),
        (text.replace('"width": 32', '"width": 33'), "multiple of 32"),
        (text.replace('"num_codes": 96', '"num_codes": 97'), r"has shape \(96, 4\)"),
        (text.replace('"num_blocks": 1', '"num_blocks": 2'), "weights are missing: decoder"),
    ):
        config.write_text(broken)
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path)
    config.write_text(text)
    weights.write_bytes(content[:-9])
    with pytest.raises(ValueError, match="damaged"):
        load_tokenizer(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"there is no tokenizer\.safetensors"):
        load_tokenizer(tmp_path)


def test_without_a_decoder_it_reads_and_says_that_it_draws_nothing(both) -> None:
    _, tokenizer = both["chameleon"]
    codes, grid = tokenizer.encode(made.images(24, 24))
    assert not tokenizer.decodes and both["janus"][1].decodes
    with pytest.raises(ValueError, match="draws none: its checkpoint stores no decoder"):
        tokenizer.decode(codes, grid)


def test_bad_input_is_refused(both) -> None:
    _, tokenizer = both["janus"]
    with pytest.raises(ValueError, match="26 x 24 pixels: both sides must be multiples of 4, from"):
        tokenizer.encode(made.images(24, 26))
    with pytest.raises(ValueError, match="to 2048"):
        tokenizer.geometry.grid_of(2052, 4)
    with pytest.raises(ValueError, match=r"\(2, 24, 24\)"):
        tokenizer.encode(made.images(24, 24)[:, 0])
    with pytest.raises(ValueError, match="do not fill"):
        tokenizer.decode(torch.zeros(1, 35, 1, dtype=torch.int64), Grid(6, 6))
    with pytest.raises(ValueError, match=r"codes 0\.\.96 outside 0\.\.95"):
        tokenizer.decode(torch.arange(97)[None, :, None].clamp(max=96), Grid(1, 97))


def test_a_wrong_config_names_everything() -> None:
    config = PyramidConfig(num_codes=0, width=100, multipliers=(1, 2), attention=(2,))
    assert len(config.problems()) == 3
    assert "canvas" in PyramidConfig(canvas=(500, 512)).problems()[0]
    assert len(MovqConfig(num_frames=3, code_width=8).problems()) == 2
    with pytest.raises(ValueError, match="at least 1"):
        Vqgan(VqganConfig(num_codes=0), None)


def test_the_defaults_are_the_published_sizes() -> None:
    """As many parameters as the classes of transformers have by default: 271 million Emu3's."""
    with torch.device("meta"):
        chameleon, emu3 = (
            made.ChameleonVQVAE(made.ChameleonVQVAEConfig()),
            made.Emu3VQVAE(made.Emu3VQVAEConfig()),
        )
    reader, movq = Vqgan(VqganConfig(has_decoder=False), None), Movq(MovqConfig(), None)
    assert numbers(reader) == numbers(chameleon) - numbers(chameleon.post_quant_conv)
    assert numbers(movq) == numbers(emu3) > 270e6
    assert (reader.geometry.patch, movq.geometry.patch) == (16, 8)
    assert reader.geometry.default_grid == Grid(32, 32)


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_vectors_of_codes_are_of_one_scale(both) -> None:
    _, tokenizer = both["emu3"]
    vectors = tokenizer.code_vectors(torch.arange(96)[:, None])
    assert vectors.mean(0).abs().max() < 1e-5
    assert vectors.square().sum(1).mean() == pytest.approx(1, abs=1e-5)
    table = tokenizer.quantize.table_VD
    near = torch.cdist(table, table).fill_diagonal_(9).argmin(1)
    assert torch.equal(torch.cdist(vectors, vectors).fill_diagonal_(9).argmin(1), near)
