"""Configure a quantizer, and build it: `QuantizerConfig`, and one section for each codebook."""

from dataclasses import dataclass
from math import prod

from .fsq import FSQ, Bound
from .quantizer import MAX_CODES, Quantizer


@dataclass(frozen=True)
class FsqConfig:
    """Configure finite scalar quantization; see fsq.py."""

    levels: tuple[int, ...] = (8, 8, 8, 8)
    """Of each number of a vector; their product is the number of codes."""
    bound: Bound = "equal_width"
    """How a number is bounded before it is rounded."""

    @property
    def width(self) -> int:
        """Return the numbers of a vector."""
        return len(self.levels)

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        least = 3 if self.bound == "shifted" else 2
        if not self.levels or min(self.levels) < least:
            whose = " with the bound 'shifted'" if least == 3 else ""
            return [f"levels {self.levels}: at least one, each of at least {least}{whose}"]
        codes = prod(self.levels)
        too_many = f"levels {self.levels} make {codes:,} codes: at most {MAX_CODES:,}"
        return [too_many] if codes > MAX_CODES else []


@dataclass(frozen=True)
class QuantizerConfig:
    """Configure a quantizer: one section, or none for FSQ with its defaults."""

    fsq: FsqConfig | None = None

    @property
    def codebook(self) -> FsqConfig:
        """Return the section that is given."""
        return self.fsq or FsqConfig()

    @property
    def width(self) -> int:
        """Return the numbers of a latent vector."""
        return self.codebook.width

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each; sections report their own."""
        return []

    def build(self, seed: int) -> Quantizer:
        """Return the quantizer, a pure function of (config, seed).

        ValueError names everything that is wrong with the config.
        """
        if found := [*self.problems(), *self.codebook.problems()]:
            raise ValueError("; ".join(found))
        return FSQ(self.codebook.levels, self.codebook.bound)
