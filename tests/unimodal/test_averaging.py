"""The mean of two models' weights: numbers, what is taken from whom, and what is refused."""

import dataclasses

import pytest
import torch
from checkpoints import CARD
from other_architectures import with_boxes

from unimodal.averaging import average
from unimodal.bundle import BundleError, load, save_bundle
from unimodal.unified import UnifiedModel


@pytest.fixture
def pair(tiny_model, tmp_path):
    """Two bundles of the same kind; the second has other weights, sampling and card."""
    torch.manual_seed(1)
    other = UnifiedModel(tiny_model.transformer.architecture)
    second = dataclasses.replace(
        tiny_model,
        transformer=other,
        sampling=dataclasses.replace(tiny_model.sampling, guidance=2.5),
        card={**CARD, "scores": {"drawing": 0.5}, "scores_recipe": "seed 1"},
    )
    return save_bundle(tmp_path / "a", tiny_model), save_bundle(tmp_path / "b", second)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.9])
def test_weights_lie_between_and_all_else_is_the_seconds(pair, tmp_path, share):
    first, second = map(load, pair)
    found = load(average(*pair, tmp_path / "mean", share))
    ours, theirs = first.transformer.state_dict(), second.transformer.state_dict()
    for name, tensor in found.transformer.state_dict().items():
        expected = ((1 - share) * ours[name].double() + share * theirs[name].double()).float()
        # bfloat16 at rest has 8 bits of precision
        torch.testing.assert_close(tensor, expected, rtol=2**-8, atol=1e-6)
    assert found.sampling == second.sampling and found.sampling.guidance == 2.5
    assert found.image_tokenizer.hash == second.image_tokenizer.hash
    assert found.card["averaged"] == {"first": first.hash, "second": second.hash, "share": share}
    assert not any(name.startswith("scores") for name in found.card), "scores of another model"


def test_the_mean_of_a_model_and_itself_has_its_bytes(pair, tmp_path):
    mean = average(pair[0], pair[0], tmp_path / "mean", 0.3)
    weights = "model.safetensors"
    assert (mean / weights).read_bytes() == (pair[0] / weights).read_bytes()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_no_mean_is_refused(pair, tmp_path, share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        average(*pair, tmp_path / "mean", share)


def test_one_of_the_two_may_have_been_taught_boxes(pair, tmp_path):
    second = load(pair[1])
    taught = save_bundle(tmp_path / "taught", with_boxes(second))
    mean = average(pair[0], taught, tmp_path / "mean", 0.3)
    plain = average(pair[0], pair[1], tmp_path / "plain", 0.3)
    assert load(mean).takes_boxes and not load(plain).takes_boxes
    assert (mean / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_the_second_may_have_been_given_addresses(pair, tmp_path):
    """The first is as if its tables of them were zero; the other way round they would be lost."""
    second = load(pair[1])
    shape = second.transformer.architecture
    shape = dataclasses.replace(shape, image=dataclasses.replace(shape.image, addresses=True))
    addressed = UnifiedModel(shape)
    addressed.load_state_dict(second.transformer.state_dict(), strict=False)
    tables = {
        name for name in addressed.state_dict() if name not in second.transformer.state_dict()
    }
    with torch.no_grad():
        for name in tables:
            addressed.get_parameter(name).normal_()
    given = save_bundle(tmp_path / "given", dataclasses.replace(second, transformer=addressed))
    mean = load(average(pair[0], given, tmp_path / "mean", 0.25)).transformer.state_dict()
    plain = load(average(*pair, tmp_path / "plain", 0.25)).transformer.state_dict()
    assert tables and mean.keys() == plain.keys() | tables
    for name, tensor in mean.items():
        expected = plain[name] if name in plain else 0.25 * addressed.state_dict()[name]
        torch.testing.assert_close(tensor, expected, rtol=2**-8, atol=1e-6)
    with pytest.raises(BundleError, match="differ in image"):
        average(given, pair[0], tmp_path / "lost")


def test_models_of_other_kinds_are_refused(pair, drawing_model, tmp_path):
    other = save_bundle(tmp_path / "other", drawing_model)
    with pytest.raises(BundleError, match="differ in transformer"):
        average(pair[0], other, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_what_is_there_is_kept(pair, tmp_path):
    with pytest.raises(ValueError, match="choose another place"):
        average(*pair, pair[0])
