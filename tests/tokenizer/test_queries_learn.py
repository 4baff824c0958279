"""The row of codes on real images: training takes it below what the mean image is wrong by."""

import tarfile
from pathlib import Path

import pytest
import torch

from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.pixels import fit, open_image, to_tensor
from unimodal.tokenizer.quantizers.config import FsqConfig, QuantizerConfig

EMOJI = Path(__file__).resolve().parents[3] / "shared/data/noto_emoji/noto-emoji-128.tar"
ROW = QueriesConfig(32, 64, 64, 8, 96, 2, 2, 8)


def emoji(count: int) -> torch.Tensor:
    """Images of 64 x 64 pixels from all over the set, float32 (count, 3, 64, 64)."""
    with tarfile.open(EMOJI) as tar:
        members = [one for one in tar.getmembers() if one.name.endswith(".png")]
        files = [tar.extractfile(one).read() for one in members[:: len(members) // count][:count]]
    images = to_tensor([fit(open_image(file).image, (64, 64)) for file in files])
    return images[torch.randperm(count, generator=torch.Generator().manual_seed(0))]


@pytest.mark.slow
@pytest.mark.skipif(not EMOJI.exists(), reason=f"no {EMOJI.name} in shared/data")
def test_a_row_of_codes_learns_real_images() -> None:
    images = emoji(360)
    learned, held_out = images[:300], images[300:]
    of_mean = (held_out - learned.mean(0)).square().mean()
    tokenizer = ImageTokenizer(
        TokenizerConfig(QuantizerConfig(FsqConfig((8, 8, 8, 6, 5))), queries=ROW)
    )
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=2e-3, betas=(0.9, 0.99))
    generator, shares = torch.Generator().manual_seed(1), []
    for step in range(200):
        batch = learned[torch.randint(0, len(learned), (16,), generator=generator)]
        error = tokenizer(batch).images_BCHW - batch
        optimizer.zero_grad()
        (error.square().mean() + 0.2 * error.abs().mean()).backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            back = tokenizer.eval().decode(*tokenizer.encode(held_out))
            shares.append(float((back - held_out).square().mean() / of_mean))
            tokenizer.train()
    assert shares[-1] < 0.9 < shares[0], shares
