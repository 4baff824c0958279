"""Checking judges a drawing by the model's own answers to questions about it (checks.py).

In: a model, a drawn image, and checks. Out: the probability of each hoped-for answer, and of all of
them together. Of several drawings the one with the largest is the best.

The probability that the model answers `yes` to a question made of the request is a score of how
well an image fits its words: VQAScore, Lin et al., arXiv:2404.01291, eq. 1,

    score(image, text) = P("yes" | image, question(text)).

Here there are several questions to a request, and their answers are taken as independent:

    score(image, text) = product over checks c of P(answer_c | image, question_c).

The judge is the model that drew, so what it does not see it does not miss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .branches import Branch, Branches
from .checks import NUMBERS, Check
from .document import Document, Image, Text
from .threads import enough_threads

if TYPE_CHECKING:
    from .model import Model

SATISFIED = 0.5  # the least probability of an answer that counts as given


@dataclass(frozen=True)
class Judgement:
    """A Judgement holds checks of one drawing, with the probability of each hoped-for answer."""

    checks: tuple[Check, ...]
    probabilities: tuple[float, ...]

    @property
    def score(self) -> float:
        """Return the probability of all hoped-for answers together, from 0 to 1."""
        return math.prod(self.probabilities)

    @property
    def unsatisfied(self) -> tuple[str, ...]:
        """Return what was asked for and is, by the model's answers, not there."""
        both = zip(self.checks, self.probabilities, strict=True)
        return tuple(check.wanted for check, probability in both if probability < SATISFIED)

    def __str__(self) -> str:
        if not self.unsatisfied:
            return "all that was asked about is there, by the model's own answers"
        return f"not satisfied, by the model's own answers: {'; '.join(self.unsatisfied)}"


def best(judgements: Sequence[Judgement]) -> int:
    """Return the number of the judgement with the largest score; of equal ones the first."""
    return max(range(len(judgements)), key=lambda number: judgements[number].score)


@torch.inference_mode()
def judged(model: "Model", image: Image, checks: Sequence[Check]) -> Judgement:
    """Ask a model the checks about an image, which has codes or latents, and return its judgement.

    Each question is asked by itself, right behind the image. An answer's probability is that of its
    first word, in small letters, with a capital, and as a digit.
    """
    shown = replace(image, role="user")
    if model.sequencer.is_soft(shown):  # a vision tower reads pixels
        (shown,) = model.codec.decode([shown])
    prompts = [
        model.sequencer.prompt(Document((shown, Text(check.question, role="user"))))
        for check in checks
    ]
    spelled = [
        (number, model.text_tokenizer.encode(spelling))
        for number, check in enumerate(checks)
        for spelling in _spellings(check.answer)
    ]
    # Of spellings of one token each, the question is read once.
    branches: dict[tuple[int, ...], Branch] = {}
    for number, ids in spelled:
        key = (number, *ids[:-1])
        if key not in branches:
            branches[key] = Branch(prompts[number])
            branches[key].add(ids[:-1])
    reading = Branches(model)
    with enough_threads(reading.flops([*branches.values()]), once=True):
        reading.read([*branches.values()])
    table_VD = model.transformer.output_table()
    found = [0.0] * len(checks)
    for number, ids in spelled:
        hidden_TD = reading.last([branches[(number, *ids[:-1])]], len(ids))[0]
        log_TV = F.linear(hidden_TD, table_VD).double().log_softmax(dim=-1)
        found[number] += math.exp(float(log_TV[range(len(ids)), ids].sum()))
    return Judgement(tuple(checks), tuple(found))


def _spellings(word: str) -> tuple[str, ...]:
    digit = (str(NUMBERS.index(word)),) if word in NUMBERS else ()
    return word, word.capitalize(), *digit
