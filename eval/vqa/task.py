"""What a benchmark is: how its files are read, how it asks, how it judges, how it sums up.

In: a `Source`. Out: items; for an answer a verdict; for all verdicts the scores. A verdict needs
the prediction alone, so that a file of predictions can be scored again without model and data.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..intervals import Estimate
from ..score import Prediction
from .choices import guess
from .clusters import mean_of_clusters
from .item import Item
from .source import Source

SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
LETTER = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."

LONGEST = 100_000  # letters of a question: the time to cut one into tokens grows with its square


@dataclass(frozen=True)
class Verdict:
    """What an answer says by the task's rule, and what that is worth."""

    value: float
    """0 to 1."""
    parsed: str | None
    """What was read in the answer; None: nothing, so that the answer is unparsed."""
    guess: str | None = None
    """The option drawn by chance in its place."""
    also: Mapping[str, float] | None = None
    """Its worth by other rules, by their names."""


class Task(ABC):
    """A benchmark: its reader, its prompt, its rules and its scores."""

    name: str
    rules: str
    """Whose rules these are, in a few words."""
    template = SHORT_ANSWER
    max_tokens = 16
    """Of an answer, which is ended there."""
    has_options = False
    most = 1.0
    """What the best answer is worth."""
    package: str | None = None
    """That scores, where another than ours does: its version stands beside the score."""
    left_out = 0
    """How many questions of the files are of a kind that is not asked; `items` counts them."""

    @abstractmethod
    def items(self, source: Source) -> list[Item]:
        """Return all questions; ValueError that names the file and the place of what is wrong."""

    @abstractmethod
    def judged(self, predictions: Sequence[Prediction], seed: int) -> list[Prediction]:
        """Return predictions with what their answers are worth (`value`), what was read in them
        (`parsed`) and whether nothing was (`unparsed`), from `expected` and `answer` alone.
        """

    @abstractmethod
    def constant(self, expected: dict[str, Any]) -> str:
        """Return what a guesser who says one thing always would best say to this question."""

    def check(self) -> None:
        """Raise ValueError where something that scoring needs is missing."""
        return None

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the task's scores of judged predictions, each with an interval."""
        return {
            "overall": mean(predictions),
            **by(predictions, "kind"),
        }

    def whole(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return judged predictions as the overall score counts them: here one by one."""
        return list(predictions)

    def told_options(self, expected: dict[str, Any]) -> str:
        """Return what takes the place of {options} in a prompt."""
        return ""


class AnswerTask(Task):
    """A benchmark whose answers are judged one by one."""

    @abstractmethod
    def judge(self, expected: dict[str, Any], answer: str, chance: "Chance") -> Verdict:
        """Return the verdict on an answer."""

    def judged(self, predictions: Sequence[Prediction], seed: int) -> list[Prediction]:
        """Return predictions with their verdicts."""
        return [self._judged(prediction, seed) for prediction in predictions]

    def _judged(self, prediction: Prediction, seed: int) -> Prediction:
        chance = Chance(seed, prediction["item"])
        verdict = self.judge(prediction["expected"], prediction["answer"], chance)
        return {
            **prediction,
            "parsed": verdict.parsed,
            "unparsed": verdict.parsed is None,
            **({} if verdict.guess is None else {"guess": verdict.guess}),
            "value": verdict.value,
            **(verdict.also or {}),
        }


@dataclass(frozen=True)
class Chance:
    """What is drawn for an answer that cannot be read: the same in every run and baseline."""

    seed: int
    id: str

    def choice(self, parsed: str | None, right: str, letters: Sequence[str]) -> Verdict:
        """Return the verdict on a letter, or where none was read on one drawn by chance."""
        drawn = guess(letters, self.seed, self.id) if parsed is None else None
        return Verdict(float((parsed or drawn) == right), parsed, drawn)


def mean(predictions: Sequence[Prediction], name: str = "value") -> Estimate:
    """Return the mean of a value of 0 to 1, its interval clustered by group."""
    return mean_of_clusters((one["group"], one[name]) for one in predictions)


def by(predictions: Sequence[Prediction], name: str) -> dict[str, Estimate]:
    """Return the mean of each category, in the order of their names."""
    found: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        found.setdefault(prediction[name], []).append(prediction)
    return {category: mean(found[category]) for category in sorted(found)}


def most_common(answers: Sequence[str]) -> str:
    """Return the most common of answers, of equally common ones the first by its letters."""
    counts = Counter(answers)
    return min(counts, key=lambda one: (-counts[one], one))


def check_items(items: Sequence[Item]) -> None:
    """Raise ValueError where there are no items, two of one id, or one that nobody wrote."""
    if not items:
        raise ValueError("there are no questions in these files")
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise ValueError(f"the id {twice[0]} stands for several questions ({len(twice)} such ids)")
    long = [item.id for item in items if len(item.question) > LONGEST]
    if long:
        raise ValueError(
            f"the question {long[0]:.80} has more than {LONGEST:,} letters: it is none"
        )
