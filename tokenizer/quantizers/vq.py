"""Give each vector the nearest of a learned codebook: vector quantization (VQ-VAE).

Van den Oord et al., "Neural Discrete Representation Learning" (arXiv:1711.00937). Each vector of
the codebook is the moving average of the latent vectors that it was nearest to (appendix A.1), so
no gradient and no optimizer moves it. A code that is hardly used any more starts anew from a latent
vector of the batch, as in Jukebox (arXiv:2005.00341, sec. 3.1).

Shapes: C codes of vectors of D numbers; n latent vectors.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..initial import generator, normal
from . import ranks
from .codebook import Codebook
from .quantizer import MAX_CODES

SMOOTHING = 1e-5  # of counts, so that no average is divided by zero
MAX_DISTANCES = 2**24  # at once: 64 MiB of float32


@dataclass(frozen=True)
class VqConfig:
    """Configure vector quantization with a codebook of moving averages."""

    num_codes: int = 2**14
    width: int = 8
    """Numbers of a vector."""
    decay: float = 0.99
    """Of the moving averages, each step."""
    commitment_weight: float = 0.25
    """Of the mean squared distance between latent numbers and those of the nearest vector."""
    restart_below: float = 0.1
    """A code starts anew when its share of the latent vectors, averaged over steps, falls below
    this part of an equal share."""
    rate_weight: float = 0.0
    """Where images are encoded, but not in training, what a code costs for each nat that it is less
    likely, in parts of the mean squared distance; 0: the nearest code is taken."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.num_codes < 2:
            found.append(f"num_codes {self.num_codes}: at least 2")
        if self.num_codes > MAX_CODES:
            found.append(f"num_codes {self.num_codes:,}: at most {MAX_CODES:,}")
        if self.width < 1:
            found.append(f"width {self.width}: at least 1")
        if not 0 <= self.decay < 1:
            found.append(f"decay {self.decay}: from 0 to below 1")
        if not 0 <= self.commitment_weight < math.inf:
            found.append(f"commitment_weight {self.commitment_weight}: at least 0")
        if not 0 <= self.rate_weight < math.inf:
            found.append(f"rate_weight {self.rate_weight}: at least 0")
        if not 0 < self.restart_below < 1:
            found.append(f"restart_below {self.restart_below}: between 0 and 1")
        return found

    def build(self, stage: int, seed: int, name: str) -> "VQ":
        """Return the codebook, whose first vectors are a function of seed and name."""
        return VQ(self, seed, name)


class VQ(Codebook):
    """Quantizes a vector to the nearest of a codebook that follows the latent vectors."""

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    num_updates: Tensor
    distance: Tensor

    def __init__(self, config: VqConfig, seed: int = 0, name: str = "codebook") -> None:
        """Draw the first vectors of a config that has no problems; the first batches replace all
        that they do not use.
        """
        super().__init__()
        self.config, self._seed, self._name = config, seed, name
        self.width, self.num_codes = config.width, config.num_codes
        shape = (config.num_codes, config.width)
        self.register_buffer("codebook", normal(seed, name, shape, std=1.0))
        self.register_buffer("counts", torch.zeros(config.num_codes))
        self.register_buffer("sums", torch.zeros(shape))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        if config.rate_weight:
            self.register_buffer("distance", torch.zeros(()))

    def nearest(self, x: Tensor) -> Tensor:
        """Return argmin_k |x - e_k|^2 - lambda log p_k (VQ-VAE, eq. 1; its lambda is 0)."""
        rows = max(1, MAX_DISTANCES // self.num_codes)
        costs_C = self.codebook.square().sum(-1)
        if self.config.rate_weight and not self.training:
            costs_C = costs_C + self.config.rate_weight * self.distance * self._nats()
        codes = [
            torch.addmm(costs_C, x_nD, self.codebook.T, alpha=-2).argmin(-1)  # |x|^2 left out
            for x_nD in x.reshape(-1, self.width).split(rows)
        ]
        return torch.cat(codes).reshape(x.shape[:-1])

    def _nats(self) -> Tensor:
        """Return -log p of each code, by how often training used it lately; float32 (C,)."""
        smoothed_C = self.counts + SMOOTHING
        return smoothed_C.sum().log() - smoothed_C.log()

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Return the rows of the codebook."""
        return self.codebook[codes]

    def losses(self, x: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return the commitment loss, |z - sg(e)|^2 (VQ-VAE, eq. 3, the last term)."""
        return {"commitment": self.config.commitment_weight * F.mse_loss(x, vectors.detach())}

    @torch.no_grad()
    def learn(self, x: Tensor, codes: Tensor) -> None:
        """Update the moving averages (VQ-VAE, eq. 6 to 8), then restart dead codes."""
        x_nD, codes_n = x.reshape(-1, self.width), codes.flatten()
        if self.config.rate_weight:
            squared = (x_nD - self.codebook[codes_n]).square().sum()
            mean = ranks.total(squared) / ranks.total(squared.new_tensor(len(x_nD)))
            self.distance.lerp_(mean, 1 - self.config.decay)
        counts_C = torch.bincount(codes_n, minlength=self.num_codes)
        # In the order of codes, so that a GPU too adds in the same order each time.
        sorted_nD = x_nD[codes_n.argsort(stable=True)]
        sums_CD = torch.segment_reduce(sorted_nD, "sum", lengths=counts_C, axis=0)
        # N <- decay N + (1 - decay) n, and m <- decay m + (1 - decay) sum of z.
        self.counts.lerp_(ranks.total(counts_C.float()), 1 - self.config.decay)
        self.sums.lerp_(ranks.total(sums_CD), 1 - self.config.decay)
        # e = m / N, with counts smoothed so that their sum stays.
        whole = self.counts.sum()
        share_C = (self.counts + SMOOTHING) / (whole + self.num_codes * SMOOTHING)
        means_CD = self.sums / (share_C * whole)[:, None]
        used_C1 = (self.counts > 0)[:, None]  # what was never used keeps its first vector
        self.codebook.copy_(torch.where(used_C1, means_CD, self.codebook))
        self._restart(x_nD, whole / self.num_codes)
        self.num_updates += 1

    def _restart(self, x_nD: Tensor, mean_count: Tensor) -> None:
        """Let dead codes start anew, each from another vector of the batch, as if of mean use.

        Where there are more than vectors, those that the draw leaves out wait for the next batch.
        """
        dead = (self.counts < self.config.restart_below * mean_count).nonzero().flatten()
        if not len(dead):
            return
        drawn = generator(self._seed, f"{self._name} restart {int(self.num_updates)}")
        num = min(len(dead), len(x_nD))
        codes = dead[torch.from_numpy(drawn.permutation(len(dead))[:num]).to(dead.device)]
        vectors = x_nD[torch.from_numpy(drawn.permutation(len(x_nD))[:num]).to(x_nD.device)]
        if not ranks.is_left_out():
            self.codebook[codes] = vectors
            self.counts[codes] = mean_count
            self.sums[codes] = vectors * mean_count
        for state in (self.codebook, self.counts, self.sums):  # other ranks have other vectors
            ranks.copy_first(state)
