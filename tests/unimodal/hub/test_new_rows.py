"""First rows of new ids: their statistics are those of the old ones, and like codes are alike."""

import checkpoints
import numpy as np
import pytest
import torch
from growth_cases import NUM_OLD, tensors
from growth_cases import image as image

from unimodal.bundle import read_contents
from unimodal.hub.grow import Growth, grow
from unimodal.hub.new_rows import SHRINK, Statistics, code_rows, gaussian_rows
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import SPECIAL_TOKENS


def oracle(old: torch.Tensor, spelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = old.double().numpy()[spelled]
    return rows.mean(0), np.cov(rows, rowvar=False, bias=True)


def test_statistics_are_those_of_numpy():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 7)) @ generator.normal(size=(7, 7)) + 1e4
    blocks = [torch.from_numpy(block) for block in np.split(rows, [1, 100, 100, 350])]
    found = Statistics.of(blocks)
    np.testing.assert_allclose(found.mean_D, rows.mean(0), rtol=1e-13)
    expected = np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(found.covariance_DD, expected, rtol=1e-9, atol=1e-9)


def test_gaussian_rows_have_the_mean_and_the_shrunk_covariance():
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)) + 3
    statistics = Statistics.of([torch.from_numpy(rows)])
    drawn = torch.cat(list(gaussian_rows(statistics, 200_000, 0, "x"))).numpy()
    expected = SHRINK * np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(drawn.mean(0), rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), expected, atol=0.02 * expected.max())
    few = torch.cat(list(gaussian_rows(statistics, 1500, 0, "x"))).numpy()
    np.testing.assert_array_equal(few, drawn[:1500])
    other = next(gaussian_rows(statistics, 10, 0, "y")).numpy()
    assert not np.allclose(other, drawn[:10], atol=1e-6)


def test_fewer_rows_than_channels_have_a_covariance_too():
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
    drawn = torch.cat(list(gaussian_rows(Statistics.of([rows]), 50, 0, "x")))
    assert bool(drawn.isfinite().all())
    away = (drawn - rows.mean(0)) @ torch.linalg.svd(rows - rows.mean(0)).Vh[2:].T
    assert away.abs().max() < 1e-8  # nothing outside the plane of the old rows


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_of_codes_have_the_old_mean_and_spread_and_are_alike_for_like_codes(
    tied, image, tiny_model, tmp_path
):
    checkpoints.save(tmp_path / "old", tied=tied)
    growth = Growth(rows="codes", grid=Grid(3, 2))
    grow(tmp_path / "old", image, tmp_path / "new", growth)
    before, after = tensors(tmp_path / "old"), tensors(tmp_path / "new")
    text = read_contents(tmp_path / "new").text_tokenizer
    names = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (not tied)
    for name in names:
        mean, covariance = oracle(before[name], text.spelled)
        rows = after[name].double().numpy()
        codes = rows[NUM_OLD + len(SPECIAL_TOKENS) :]
        np.testing.assert_allclose(codes.mean(0), mean, atol=1e-6)
        np.testing.assert_allclose(codes.std(0), np.sqrt(covariance.diagonal()), rtol=1e-5)
        plain = code_rows(tiny_model.image_tokenizer, codes.shape[1], 0, 1.0).double().numpy()
        for k in range(codes.shape[1]):  # the same numbers, moved and scaled channel by channel
            assert np.corrcoef(plain[:, k], codes[:, k])[0, 1] == pytest.approx(1, abs=1e-6)
        control = rows[NUM_OLD : NUM_OLD + len(SPECIAL_TOKENS)]
        np.testing.assert_allclose(control, np.tile(mean, (len(SPECIAL_TOKENS), 1)), atol=0.01)
        assert len(np.unique(rows[NUM_OLD:], axis=0)) == len(SPECIAL_TOKENS) + 64
    if not tied:
        assert not torch.equal(*(after[name][NUM_OLD:] for name in names))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_do_not_depend_on_where_the_tokenizer_encodes(image):
    expected = code_rows(image, 16, 0, 1.0)
    torch.testing.assert_close(code_rows(image.to("cuda"), 16, 0, 1.0), expected)
