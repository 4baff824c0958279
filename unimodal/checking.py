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
from torch import Tensor

from .branch import Branch
from .branches import Branches
from .checks import NUMBERS, Check
from .document import Document, Image, Text
from .sequence import Sequence as Prompt
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


@dataclass(frozen=True, eq=False)
class _Question:
    """A _Question is a check as the model reads it: a prompt, and ids of the answer's spellings."""

    prompt: Prompt
    spelled: Sequence[Sequence[int]]

    @property
    def begun(self) -> list[tuple[int, ...]]:
        """Return what is read behind the prompt: spellings without their last ids, each once."""
        return list(dict.fromkeys(tuple(ids[:-1]) for ids in self.spelled))


@torch.inference_mode()
def judged(model: "Model", image: Image, checks: Sequence[Check]) -> Judgement:
    """Ask a model the checks about an image, which has codes or latents, and return its judgement.

    Each question is asked by itself, right behind the image, so that the keys and values of one
    alone are held. An answer's probability is that of its first word, in small letters, with a
    capital, and as a digit.
    """
    questions = _questions(model, image, checks)
    return Judgement(tuple(checks), tuple(_probability(model, one) for one in questions))


@torch.inference_mode()
def needed_bytes(model: "Model", image: Image, checks: Sequence[Check]) -> int:
    """Return the most bytes of keys and values that `judged` holds at once."""
    reading = Branches(model)
    rooms = [
        (len(one.begun), len(one.prompt) + max(map(len, one.spelled)))
        for one in _questions(model, image, checks)
    ]
    return max((reading.least_bytes(*room) for room in rooms), default=0)


def _questions(model: "Model", image: Image, checks: Sequence[Check]) -> list[_Question]:
    shown = replace(image, role="user")
    if model.sequencer.is_soft(shown):  # a vision tower reads pixels
        (shown,) = model.codec.decode([shown])
    return [
        _Question(
            model.sequencer.prompt(Document((shown, Text(check.question, role="user")))),
            [model.text_tokenizer.encode(spelling) for spelling in _spellings(check.answer)],
        )
        for check in checks
    ]


def _probability(model: "Model", question: _Question) -> float:
    """Return the probability of the hoped-for answer, of all its spellings together."""
    branches = {ids: Branch(question.prompt) for ids in question.begun}
    for begun, branch in branches.items():
        branch.add([*begun])
    reading = Branches(model)
    with enough_threads(reading.flops([*branches.values()]), once=True):
        reading.read([*branches.values()], max(map(len, question.spelled)))
    found = 0.0
    for ids in question.spelled:
        hidden_TD = reading.last([branches[tuple(ids[:-1])]], len(ids))[0]
        found += math.exp(float(_word_log_p(model, hidden_TD)[range(len(ids)), ids].sum()))
    return found


def _word_log_p(model: "Model", hidden_TD: Tensor) -> Tensor:
    """Return the log-probability of each text and special token, float64 (T, words).

    Codes are left out, as where text is learned: what their rows say of it means nothing.
    """
    vocabulary = model.vocabulary
    words_TV = F.linear(hidden_TD, model.transformer.output_table()[: vocabulary.num_words])
    if vocabulary.word_mask is not None:
        is_code_V = torch.from_numpy(~vocabulary.word_mask).to(words_TV.device)
        words_TV = words_TV.masked_fill(is_code_V, -math.inf)
    return words_TV.double().log_softmax(dim=-1)


def _spellings(word: str) -> tuple[str, ...]:
    digit = (str(NUMBERS.index(word)),) if word in NUMBERS else ()
    return word, word.capitalize(), *digit
