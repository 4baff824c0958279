"""A trial is what the candidates of a request are judged by, and what an answer tells of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checking import Judgement
from ..checks import Check, checks_of
from .job import Job

if TYPE_CHECKING:
    from .work import Heard


@dataclass(frozen=True)
class Trial:
    """A Trial says how many candidates each reply has, and what they are judged by."""

    checks: tuple[Check, ...] = ()
    num: int = 1
    is_in_vain: bool = False
    """Whether candidates were asked for, and the words name nothing to ask about."""

    @classmethod
    def of(cls, words: str, candidates: int) -> "Trial":
        """Return the trial of a request's words."""
        if candidates == 1:
            return cls()
        checks = checks_of(words)
        return cls(checks, candidates) if checks else cls(is_in_vain=True)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A Chosen is a reply, the best of its candidates."""

    job: Job
    heard: "Heard"
    notes: tuple[str, ...] = ()
    judgement: Judgement | None = None
    """How it was judged; None: it was not."""
    others: tuple["Chosen", ...] = ()
    """The candidates that were not kept and have an image, in the order of their seeds."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return what an answer tells of it beside what it is: its seed, and the checks."""
        seed = {"seed": self.job.sampling.seed}
        if self.judgement is None:
            return seed
        both = zip(self.judgement.checks, self.judgement.probabilities, strict=True)
        checks = [
            {"question": check.question, "answer": check.answer, "probability": probability}
            for check, probability in both
        ]
        return seed | {"unsatisfied": [*self.judgement.unsatisfied], "checks": checks}
