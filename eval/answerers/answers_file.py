"""Answers that are there already: those that another program wrote to a file.

    {"question_id": "random/17", "answer": "yes"}

In: a file of such objects (`id` and `prediction` will do), a line each or in a list. Out: an
`Answerer` that refuses, before anything is scored, ids that are unknown, missing or there twice. An
answer may be empty, which the benchmark's rule then judges; what is no text is an error.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..vqa.source import read_lines
from .answerer import UNKNOWN, Answerer, Question

MOST_TOLD = 5  # ids in a message


class AnswersFile(Answerer):
    """Answers from a file, by the ids of questions."""

    kind = "answers"
    is_recorded = True

    def __init__(self, file: Path) -> None:
        """Read the file; ValueError for what is no answer, and for an id that is there twice."""
        self._file, self._answers = file, _read(file)
        self._hash = hashlib.sha256(file.read_bytes()).hexdigest()

    def identity(self) -> dict[str, str]:
        """Return the file's name and hash."""
        return {"model": self._file.name, "revision": UNKNOWN, "hash": self._hash}

    def check(self, ids: Sequence[str]) -> None:
        """Raise ValueError unless the file answers each of these questions, and no other."""
        known = set(ids)
        wrong = [id for id in self._answers if id not in known]
        wrong += [id for id in ids if id not in self._answers]
        if wrong:
            raise ValueError(
                f"{self._file} has {len(self._answers)} answers to {len(ids)} questions; "
                f"{len(wrong)} ids are on one side alone, such as {', '.join(wrong[:MOST_TOLD])}"
            )

    def answers(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """Return what the file says; `max_tokens` was up to whoever wrote it."""
        return [self.of(question.id.partition("/")[2]) for question in questions]

    def of(self, id: str) -> str:
        """Return the answer to the question of an item's id, which `check` has found."""
        return self._answers[id]


def _read(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in read_lines(file):
        id, answer = row.text("question_id", "id"), row.get("answer", "prediction")
        if not isinstance(answer, str):
            raise ValueError(f"{row.place}: an answer is text, not {answer!r:.80}")
        if id in found:
            raise ValueError(f"{row.place}: {id} is answered twice")
        found[id] = answer
    return found
