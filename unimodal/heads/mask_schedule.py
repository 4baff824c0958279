"""The mask schedule says how much of an image is masked, in training and as a drawing goes on.

MaskGIT, arXiv:2202.04200; Show-o, arXiv:2408.12528, takes the same.
"""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskSchedule:
    """A MaskSchedule configures the `masked` head: what it learns, and how it draws by default."""

    schedule: Literal["cosine", "linear", "square"] = "cosine"
    """Which share of an image is masked, when a share r of a drawing is done: cos(pi r / 2), 1 - r
    or 1 - r^2. Training takes r at random."""
    steps: int = 16
    """In how many passes an image is drawn, 4 to 32 as a rule: fewer are faster, more are better.
    No image takes more passes than it has codes. `sampling.image_steps` replaces it."""
    choice_temperature: float | None = 4.5
    """How much chance has a say in which codes a pass keeps, beside the model's confidence; it
    falls to 0 with the last pass. None: places are chosen by chance alone, so that with as many
    passes as codes an image is drawn from exactly the distribution that the model gives it."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.steps >= 1 else [f"steps {self.steps}: at least 1"]
        temperature = self.choice_temperature
        if temperature is not None and not 0 <= temperature < math.inf:
            found.append(f"choice_temperature {temperature}: a number of at least 0, or null")
        return found

    def share(self, r: float) -> float:
        """Return the share gamma(r) of an image that is masked, from 1 at r = 0 to 0 at r = 1."""
        # arXiv:2202.04200, sec. 3.3 and appendix D: cosine, linear and square functions.
        if self.schedule == "cosine":
            return math.cos(math.pi / 2 * r)
        return 1 - r if self.schedule == "linear" else 1 - r**2

    def count(self, r: float, num_codes: int) -> int:
        """Return how many of an image's codes are masked in training, for r in [0, 1)."""
        # arXiv:2202.04200, sec. 3.1: ceil(gamma(r) N) tokens are masked, so at least one is.
        return math.ceil(self.share(r) * num_codes)

    def left(self, num_codes: int, steps: int) -> list[int]:
        """Return how many codes are still masked after each pass of a drawing, 0 after the last.

        Each pass keeps one code at least; there are min(steps, num_codes) passes.
        """
        steps, found, left = min(steps, num_codes), [], num_codes
        for step in range(1, steps + 1):
            # arXiv:2202.04200, sec. 3.2, step 3: n = ceil(gamma(t / T) N). Its code rounds down, as
            # here, and keeps a code in each pass; as many are left as there are passes to come.
            wanted = math.floor(self.share(step / steps) * num_codes)
            left = max(steps - step, min(left - 1, wanted))
            found.append(left)
        return found
