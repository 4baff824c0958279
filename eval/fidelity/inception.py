"""FID and the Inception Score, on the network that published numbers are of.

The network is torch-fidelity's port of the TensorFlow Inception of 2015, with its own bilinear
resizing to 299 x 299 pixels; the package is in the extra `metrics`, the weights come by path. FID
is the Frechet distance on its 2,048 features (Heusel et al. 2017, arXiv:1706.08500, eq. 6).
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..intervals import Estimate, mean
from ..lpips import read_weights
from .embedder import Embedder, weights_hash

SPLITS = 10  # of the Inception Score, as its authors and torch-fidelity take them
SHUFFLE_SEED = 2020  # torch-fidelity's
WIDTH = 2048  # of the features; the logits follow them


def load_inception(path: Path) -> nn.Module:
    """Return torch-fidelity's Inception with the weights of a file
    (`weights-inception-2015-12-05-6726825d.pth`); ValueError where either cannot be had.
    """
    read_weights(path)  # torch-fidelity would run whatever else the file holds
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            f"FID and rFID need the extra `metrics` ({error}): install unimodal[metrics] into an "
            "environment of its own"
        ) from error
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], str(path)
        )
    except RuntimeError as error:
        raise ValueError(f"{path} holds no weights of torch-fidelity's Inception") from error


def inception_embedder(network: nn.Module) -> Embedder:
    """Return the network as an embedder: features, and behind them the logits."""
    device = next(iter(network.state_dict().values())).device

    @torch.inference_mode()
    def look(images: Sequence[np.ndarray]) -> Tensor:
        seen = []
        for image in images:  # of any sizes, so one by one
            x_1CHW = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].to(device)
            seen.append(torch.cat([one.float() for one in network(x_1CHW)], dim=1))
        return torch.cat(seen)

    name = f"inception-v3-compat_torch-fidelity-{version('torch-fidelity')}_bilinear-299"
    return Embedder(name, weights_hash(network), look)


def inception_score(logits_nK: np.ndarray) -> tuple[Estimate, Estimate]:
    """Return exp(mean KL(p(y|x) || p(y))), its mean over ten splits, and their standard deviation.

    Salimans et al. 2016, arXiv:1606.03498, sec. 4. ValueError for fewer images than splits.
    """
    n = len(logits_nK)
    if n < SPLITS:
        raise ValueError(f"the Inception Score takes {SPLITS} splits: there are only {n} images")
    shuffled = np.random.RandomState(SHUFFLE_SEED).permutation(n)
    log_p_nK = torch.from_numpy(logits_nK[shuffled]).double().log_softmax(dim=1)
    ends = [at * n // SPLITS for at in range(SPLITS + 1)]
    scores = [_score(log_p_nK[start:end]) for start, end in zip(ends, ends[1:], strict=False)]
    found = mean(scores)
    spread = Estimate(float(np.std(scores)), None, None, SPLITS)
    return Estimate(found.value, found.low, found.high, n), spread


def _score(log_p_nK: Tensor) -> float:
    p_nK = log_p_nK.exp()
    return float((p_nK * (log_p_nK - p_nK.mean(0).log())).sum(1).mean().exp())
