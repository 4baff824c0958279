"""Configure a quantizer, and build it.

One of the sections `fsq`, `lfq`, `bsq` and `vq` says which codebook gives codes; the other keys how
often it is used for one latent vector: for parts of it (`groups`), for what is left (`residual`),
or for what is left on ever finer grids (`scales`).
"""

from dataclasses import dataclass, replace
from math import log2

from .bsq import BsqConfig
from .codebook import Codebook
from .fsq import FsqConfig
from .groups import Groups
from .lfq import LfqConfig
from .quantizer import MAX_GROUPS, Quantizer
from .residual import Residual
from .scales import Scales
from .vq import VqConfig

FLOAT32_BITS = 24  # of precision

__all__ = ["BsqConfig", "FsqConfig", "LfqConfig", "QuantizerConfig", "VqConfig"]


@dataclass(frozen=True)
class QuantizerConfig:
    """Configure a quantizer. No section at all means `fsq` with its defaults."""

    fsq: FsqConfig | None = None
    lfq: LfqConfig | None = None
    bsq: BsqConfig | None = None
    vq: VqConfig | None = None
    groups: int = 1
    """Parts into which a latent vector is cut, each with codes of its own."""
    residual: int = 1
    """Stages of residual quantization; each place has groups x residual codes."""
    scales: tuple[int, ...] = ()
    """Sides of the grids of multi-scale residual quantization, coarse to fine, in parts of the
    last one, which is the latents' own; (): one grid."""

    @property
    def codebook(self) -> FsqConfig | LfqConfig | BsqConfig | VqConfig:
        """Return the section that is given."""
        return self.fsq or self.lfq or self.bsq or self.vq or FsqConfig()

    @property
    def spelled_out(self) -> "QuantizerConfig":
        """Return the same quantizer with the section that is the default where none is given."""
        is_given = any((self.fsq, self.lfq, self.bsq, self.vq))
        return self if is_given else replace(self, fsq=FsqConfig())

    @property
    def width(self) -> int:
        """Return the numbers of a latent vector."""
        return self.groups * self.codebook.width

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each; sections report their own."""
        sections = {"fsq": self.fsq, "lfq": self.lfq, "bsq": self.bsq, "vq": self.vq}
        given = [name for name, section in sections.items() if section is not None]
        found = [
            f"{name} {getattr(self, name)}: at least 1"
            for name in ("groups", "residual")
            if getattr(self, name) < 1
        ]
        if len(given) > 1:
            found.append(f"{' and '.join(given)} are given: only one of {', '.join(sections)}")
        found += self._count_problems()
        return found + (self._scale_problems() if self.scales else [])

    def _count_problems(self) -> list[str]:
        found, count = [], self.groups * self.residual
        if count > MAX_GROUPS:
            found.append(
                f"groups {self.groups} and residual {self.residual} make {count:,} codes at each"
                f" place: at most {MAX_GROUPS}"
            )
        most = 1 + int(FLOAT32_BITS / log2(self._step)) if self._step > 1 else MAX_GROUPS
        if self.residual > most:
            found.append(
                f"residual {self.residual}: vectors are 1/{self._step} as large from stage to"
                f" stage, and float32 tells {most} stages apart"
            )
        return found

    @property
    def _step(self) -> int:
        """Return how many times smaller vectors become from stage to stage; 0 where they are
        learned.
        """
        if isinstance(codebook := self.codebook, FsqConfig):
            return max(codebook.levels, default=0)
        return 2 if isinstance(codebook, LfqConfig) else 0

    def _scale_problems(self) -> list[str]:
        found = []
        if self.groups > 1 or self.residual > 1:
            found.append(
                f"scales {self.scales} with groups {self.groups} and residual {self.residual}: "
                "scales need one group and one stage, for they are stages themselves"
            )
        rising = list(self.scales) == sorted(set(self.scales))
        if len(self.scales) < 2 or self.scales[0] < 1 or not rising:
            found.append(
                f"scales {self.scales}: at least two sides that grow, the first at least 1"
            )
        return found

    def build(self, seed: int) -> Quantizer:
        """Return the quantizer, a pure function of (config, seed).

        ValueError names everything that is wrong with the config.
        """
        if found := [*self.problems(), *self.codebook.problems()]:
            raise ValueError("; ".join(found))
        parts = [self._part(seed, group) for group in range(self.groups)]
        return parts[0] if self.groups == 1 else Groups(parts)

    def _part(self, seed: int, group: int) -> Quantizer:
        """Return the quantizer of one group."""
        stages: list[Codebook] = [
            self.codebook.build(stage, seed, f"codebook {group} {stage}")
            for stage in range(self.residual)
        ]
        if self.scales:
            return Scales(stages[0], self.scales)
        return stages[0] if self.residual == 1 else Residual(stages)
