"""Quantizers on two ranks, each with half of a batch: what `pair` calls on both."""

import torch
import torch.distributed as dist

from unimodal.tokenizer.quantizers.config import LfqConfig, QuantizerConfig, VqConfig
from unimodal.tokenizer.quantizers.quantizer import Quantizer
from unimodal.tokenizer.quantizers.ranks import left_out
from unimodal.train.ranks import Ranks

LFQ = QuantizerConfig(lfq=LfqConfig(bits=6, commitment_weight=0.0, temperature=1.0))
VQ = QuantizerConfig(vq=VqConfig(num_codes=5, width=4))
RESTARTED = QuantizerConfig(vq=VqConfig(num_codes=200, width=4))


def batch(width: int) -> torch.Tensor:
    """The latent vectors of all ranks."""
    return torch.randn(2, 6, 6, width, generator=torch.Generator().manual_seed(0))


def slopes(quantizer: Quantizer, z_BhwD: torch.Tensor, share: float = 1.0) -> torch.Tensor:
    """The gradient of all losses, times the share of a batch that these latent vectors are."""
    z_BhwD = z_BhwD.clone().requires_grad_()
    (sum(quantizer(z_BhwD).losses.values()) * share).backward()
    return z_BhwD.grad


def of_halves(ranks: Ranks) -> dict:
    """What each rank's quantizers made of its half, gathered on all."""
    half = slice(ranks.rank, ranks.rank + 1)
    gradient = slopes(LFQ.build(0), batch(6)[half])
    gradients = [torch.zeros_like(gradient) for _ in range(2)]
    dist.all_gather(gradients, gradient)
    # A data-parallel engine takes the mean over ranks of what the ranks' latents give.
    found = {"gradient": (torch.cat(gradients) / 2).flatten().tolist()}
    for name, config in (("learned", VQ), ("restarted", RESTARTED)):
        quantizer = config.build(0)
        for _ in range(2):
            quantizer(batch(4)[half])
        books = [torch.zeros_like(quantizer.codebook) for _ in range(2)]
        dist.all_gather(books, quantizer.codebook)
        found[name] = [book.flatten().tolist() for book in books]
    return found


def of_unequal_parts(ranks: Ranks) -> dict:
    """What two ranks learn, of which the second has an image of the batch, and then none at all."""
    found = {}
    for name, images in {"one": slice(1, 2), "none": slice(0)}.items():
        part = slice(1) if ranks.is_first else images
        for kind, config, width in (("lfq", LFQ, 6), ("vq", VQ, 4), ("dead", RESTARTED, 4)):
            z_BhwD = batch(width)[part]
            if len(z_BhwD) and name == "one" and not ranks.is_first:
                z_BhwD = z_BhwD[:, :2]  # an image of fewer latent vectors
            has_none = not len(z_BhwD)
            z_BhwD = torch.full((1, 6, 6, width), 9.0) if has_none else z_BhwD
            quantizer = config.build(0)
            share = 0.0 if has_none else z_BhwD.numel() / whole(width, name).numel()
            with left_out(has_none):
                gradient = slopes(quantizer, z_BhwD, share)
            found[f"{kind} {name}"] = (
                gradient.flatten() if kind == "lfq" else quantizer.codebook.flatten()
            ).tolist()
    return found


def whole(width: int, name: str) -> torch.Tensor:
    """All latent vectors of the ranks in `of_unequal_parts`, (1, 1, n, D)."""
    first, second = (one.flatten(0, 1) for one in batch(width))
    return torch.cat([first, second[:12]] if name == "one" else [first])[None, None]
