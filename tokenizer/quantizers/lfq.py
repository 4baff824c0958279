"""Keep the sign of each number of a vector: lookup-free quantization (LFQ).

Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (MAGVIT-v2,
arXiv:2310.05737), sec. 3.1.

Bit order: the first number of a vector is the lowest bit of its code, as in the paper's index
sum_i 2^(i-1) [z_i > 0]; a bit is 1 for a positive number, 0 for a negative one and for zero.
`vector-quantize-pytorch` and codes made with it have the first number as the highest bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .codebook import Codebook
from .entropy import entropy_of_mean, mean_entropy
from .quantizer import MAX_CODES, too_many


@dataclass(frozen=True)
class LfqConfig:
    """Configure lookup-free quantization. Losses are in nats, and squares of latent numbers."""

    bits: int = 14
    """Numbers of a vector; there are 2 ** bits codes."""
    entropy_weight: float = 0.1
    """Of the mean entropy of a vector's code, which becomes small."""
    diversity_weight: float = 0.1
    """Of the entropy of all codes of a batch, which becomes large."""
    commitment_weight: float = 0.25
    """Of the mean squared distance between numbers and what they are quantized to."""
    temperature: float = 0.01
    """A code c has probability exp(-|z - c|^2 / temperature), but for a constant factor, in both
    entropies."""
    factor_bits: int | None = None
    """Bits whose joint distribution the entropy of a batch knows of, others are taken for
    independent of them. None: all, which is exact."""

    @property
    def width(self) -> int:
        """Return the numbers of a vector."""
        return self.bits

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        weights = ("entropy_weight", "diversity_weight", "commitment_weight")
        found = [
            f"{name} {getattr(self, name)}: at least 0"
            for name in weights
            if getattr(self, name) < 0
        ]
        if self.bits < 1:
            found.append(f"bits {self.bits}: at least 1")
        elif 2**self.bits > MAX_CODES:
            found.append(too_many(f"bits {self.bits}", 2**self.bits))
        if self.temperature <= 0:
            found.append(f"temperature {self.temperature}: above 0")
        if self.factor_bits is not None and not 1 <= self.factor_bits <= max(self.bits, 1):
            found.append(f"factor_bits {self.factor_bits}: from 1 to the {self.bits} bits, or null")
        return found

    def build(self, stage: int, seed: int, name: str) -> "LFQ":
        """Return the codebook; nothing in it is random."""
        return LFQ(self, stage)


class LFQ(Codebook):
    """Quantizes each number of a vector to plus or minus `size`."""

    _radix: Tensor

    def __init__(self, config: LfqConfig, stage: int = 0) -> None:
        """Make the codebook of a config that has no problems.

        stage: of a residual quantizer, from 0: the vectors are half as large each stage.
        """
        super().__init__()
        self.config = config
        self.size = 2.0**-stage
        self.width, self.num_codes = config.bits, 2**config.bits
        self.levels = (2,) * config.bits
        self.register_buffer("_radix", 2 ** torch.arange(config.bits), persistent=False)

    def nearest(self, x: Tensor) -> Tensor:
        """Return sum_i 2^(i-1) [x_i > 0] (MAGVIT-v2, eq. 4)."""
        return ((x > 0) * self._radix).sum(-1)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Return sign(z), times `size` (MAGVIT-v2, eq. 3)."""
        bits = codes[..., None] // self._radix % 2
        return (2 * bits - 1).float() * self.size

    def losses(self, x: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return the entropies of eq. 5 of MAGVIT-v2 and the commitment loss of VQ-VAE."""
        config = self.config
        # exp(-|x - c|^2 / t) is, but for a factor, the product over numbers of exp(2 x_i c_i / t):
        # a bit is one with probability sigmoid(4 x_i size / t).
        logits_nK = x.reshape(-1, self.width) * (4 * self.size / config.temperature)
        diversity = entropy_of_mean(logits_nK, config.factor_bits or config.bits)
        return {
            "entropy": config.entropy_weight * mean_entropy(logits_nK),
            "diversity": -config.diversity_weight * diversity,
            # VQ-VAE (arXiv:1711.00937), eq. 3: |z - sg(e)|^2.
            "commitment": config.commitment_weight * F.mse_loss(x, vectors.detach()),
        }
