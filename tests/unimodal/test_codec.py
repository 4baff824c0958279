"""The one place where images of documents are encoded and decoded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import unimodal
from unimodal import codec as codec_module
from unimodal.codec import ImageCodec
from unimodal.document import Document, Image, StoredFile, Text
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import to_tensor

SIZES = [(16, 24), (8, 16), (16, 24), (24, 16), (8, 16), (16, 24)]  # height, width


@pytest.fixture(scope="module")
def codec(tiny_model) -> ImageCodec:
    return ImageCodec(tiny_model.image_tokenizer)


@pytest.fixture(scope="module")
def foreign(tiny_model) -> ImageCodec:
    return ImageCodec(ImageTokenizer(tiny_model.image_tokenizer.config, seed=5).eval())


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(**changes) -> Image:
    return Image(**{"pixels": pixels(16, 24, 3), "role": "user", "weight": 0.3} | changes)


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_images_of_mixed_sizes_are_encoded_as_each_alone(codec, monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(codec_module, "IMAGES_AT_ONCE", at_once)
    images = [seen(pixels=pixels(*size, seed)) for seed, size in enumerate(SIZES)]
    encoded = codec.encode(images)
    for image, found, (height, width) in zip(images, encoded, SIZES, strict=True):
        expected, grid = codec.image_tokenizer.encode(to_tensor([image.pixels]))
        assert found.grid == grid == Grid(height // 8, width // 8)
        np.testing.assert_array_equal(found.codes, expected[0].numpy())
        assert found.codes.shape == (grid.size, 1) and found.codec_hash == codec.hash
        assert found.pixels is image.pixels and (found.role, found.weight) == ("user", 0.3)


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_codes_of_mixed_grids_are_decoded_as_each_alone(codec, monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(codec_module, "IMAGES_AT_ONCE", at_once)
    images = codec.encode([seen(pixels=pixels(*size, seed)) for seed, size in enumerate(SIZES)])
    bare = [replace(image, pixels=None) for image in images]
    for image, found, (height, width) in zip(bare, codec.decode(bare), SIZES, strict=True):
        codes_1nG = torch.from_numpy(image.codes)[None]
        expected = codec.image_tokenizer.decode(codes_1nG, image.grid)
        assert found.pixels.shape == (height, width, 3) and found.pixels.dtype == np.uint8
        assert (to_tensor([found.pixels]) - expected).abs().max() <= 0.5 / 127.5 + 1e-6
        assert found.codes is image.codes and (found.role, found.weight) == ("user", 0.3)


def test_the_tokenizer_is_called_once_for_all_of_a_size(codec, monkeypatch) -> None:
    sizes = []
    encode = codec.image_tokenizer.encode
    monkeypatch.setattr(
        type(codec.image_tokenizer),
        "encode",
        lambda self, x: sizes.append(tuple(x.shape)) or encode(x),
    )
    codec.encode([seen(pixels=pixels(*size, seed)) for seed, size in enumerate(SIZES)])
    assert sizes == [(3, 3, 16, 24), (2, 3, 8, 16), (1, 3, 24, 16)]


def test_equal_pixels_are_encoded_once(codec: ImageCodec, monkeypatch) -> None:
    """Also where they would come in several groups."""
    sizes, encode = [], codec.image_tokenizer.encode
    monkeypatch.setattr("unimodal.codec.IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(
        codec.image_tokenizer, "encode", lambda x: sizes.append(len(x)) or encode(x)
    )
    seeds = (1, 2, 1, 1, 2)
    images = codec.encode([seen(pixels=pixels(*SIZES[0], seed)) for seed in seeds])
    assert sizes == [2]
    for image, seed in zip(images, seeds, strict=True):
        (alone,) = codec.encode([seen(pixels=pixels(*SIZES[0], seed))])
        assert np.array_equal(image.codes, alone.codes)
    assert not np.array_equal(images[0].codes, images[1].codes)


def test_what_is_there_stays(codec) -> None:
    """Codes are not encoded, nor pixels decoded, though they would become others."""
    (image,) = codec.encode([seen()])
    other = replace(image, codes=(image.codes + 1) % 64)
    assert codec.encode([other])[0].codes is other.codes
    assert codec.decode([other])[0].pixels is image.pixels
    assert codec.encode([]) == codec.decode([]) == []


def test_images_of_several_contents(codec) -> None:
    """Pixels beside a file, latents of this codec, and of another."""
    stored = StoredFile(b"nothing", "a.png")
    assert codec.encode([seen(stored=stored)])[0].stored is None, "a file is read once"
    latents = np.ones((6, 4), np.float32)
    own = seen(latents=latents, grid=Grid(2, 3), codec_hash=codec.hash)
    (found,) = codec.encode([own])
    assert found.latents is latents and found.codes.shape == (6, 1)
    theirs = seen(latents=latents, grid=Grid(2, 3), codec_hash="of another")
    (found,) = codec.encode([theirs])
    assert found.latents is None and found.codec_hash == codec.hash
    coarse = seen(latents=latents[:1], grid=Grid(1, 1), codec_hash="of another")
    assert codec.encode([coarse])[0].grid == Grid(2, 3)


def test_codes_of_another_codec(codec, foreign) -> None:
    (theirs,) = foreign.encode([seen()])
    assert theirs.codec_hash == foreign.hash != codec.hash
    bare = replace(theirs, pixels=None)
    (own,) = codec.encode([seen()])
    for turn in (codec.decode, codec.encode):
        with pytest.raises(ValueError, match=f"codes of tokenizer {foreign.hash}, .* again"):
            turn([replace(own, pixels=None) if turn == codec.decode else own, bare])
    (again,) = codec.encode([theirs])  # pixels are there: they are encoded again
    np.testing.assert_array_equal(again.codes, own.codes)
    assert again.codec_hash == codec.hash


def test_what_cannot_be_is_said(codec) -> None:
    latents = seen(
        pixels=None, latents=np.ones((6, 4), np.float32), grid=Grid(2, 3), codec_hash="x"
    )
    for image in (latents, seen(pixels=None, stored=StoredFile(b"", "a.png"))):
        with pytest.raises(ValueError, match="needs pixels before it can be encoded"):
            codec.encode([image])
        with pytest.raises(ValueError, match="needs codes before it can be decoded"):
            codec.decode([image])
    with pytest.raises(ValueError, match="8-pixel patches"):
        codec.encode([seen(pixels=pixels(16, 23, 0))])


def test_documents_keep_their_parts_in_order(codec) -> None:
    first, second = (seen(pixels=pixels(16, 24, seed)) for seed in (1, 2))
    (known,) = codec.encode([seen(pixels=pixels(8, 16, 3))])
    document = Document((Text("a", "user"), first, replace(known, pixels=None), Text("b"), second))
    encoded = codec.encode_document(document)
    decoded = codec.decode_document(encoded)
    for found in (encoded, decoded):
        assert found.parts[0] is document.parts[0] and found.parts[3] is document.parts[3]
    images = [part for part in encoded.parts if isinstance(part, Image)]
    expected = [image.codes.tolist() for image in codec.encode([first, known, second])]
    assert [image.codes.tolist() for image in images] == expected
    assert images[1].pixels is None
    assert all(part.pixels is not None for part in decoded.parts if isinstance(part, Image))
    assert decoded.parts[1].pixels is first.pixels
    plain = Document((Text("a"),))
    assert codec.encode_document(plain) == codec.decode_document(plain) == plain


def test_a_codec_does_not_train(tiny_model) -> None:
    tokenizer = ImageTokenizer(tiny_model.image_tokenizer.config).train()
    codec = ImageCodec(tokenizer)
    assert not tokenizer.training and not any(p.requires_grad for p in tokenizer.parameters())
    assert (codec.num_codes, codec.hash) == (64, tokenizer.hash)
    assert codec.geometry.size_of(codec.geometry.grid_of(16, 24)) == (16, 24)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_drawing_alone_has_the_pixels_that_it_has_among_others(threads: int) -> None:
    """The default decoder, whose small images torch would convolve in another order alone, and of
    1 x 1 with one thread.
    """
    codec, generator = unimodal.load().codec, np.random.default_rng(1)
    (first,) = codec.encode([Image(pixels=np.zeros((64, 64, 3), np.uint8))])
    drawn = [
        replace(first, pixels=None, codes=generator.integers(0, codec.num_codes, (64, 1)))
        for _ in range(7)
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = codec.decode(drawn)
        alone = [codec.decode([image])[0] for image in drawn]
    finally:
        torch.set_num_threads(before)
    for one, found in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, found.pixels)


def test_images_of_several_documents_are_decoded_together(codec) -> None:
    images = codec.encode([Image(pixels=pixels(16, 24, seed)) for seed in range(3)])
    drawn = [replace(image, pixels=None) for image in images]
    documents = [Document((Text("one"), drawn[0])), Document(()), Document(tuple(drawn[1:]))]
    turned = codec.decode_documents(documents)
    assert [len(one.parts) for one in turned] == [2, 0, 2]
    assert turned[0].parts[0] == Text("one")
    found = [turned[0].parts[1], *turned[2].parts]
    for one, together in zip(found, codec.decode(drawn), strict=True):
        np.testing.assert_array_equal(one.pixels, together.pixels)
