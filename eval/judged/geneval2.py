"""GenEval 2: each atom of a prompt is a question, each answer a probability (Soft-TIFA).

facebookresearch/GenEval2 at a6e82d2 (arXiv:2512.16853). Its 800 prompts are CC BY-NC 4.0 and are
read from the file that the user has: lines {prompt, atom_count, vqa_list: [[question, answer]],
skills}. Images: a JSON file {prompt: image}, or a folder (fidelity/prompted.py); one a prompt.

1. The judge is asked "<question> Answer in one word."; officially it is Qwen3-VL-8B-Instruct.
2. An atom is worth the probability that the answer begins with the right word: of `How many` the
   number as a word or digits, of all others a yes, each in several spellings, whose probabilities
   are added up. A token that begins two of them counts twice, as officially.
3. Soft-TIFA AM is a prompt's mean over its atoms, GM the geometric mean; both are averaged over
   prompts. Skills pool the atoms (AM); `gm_of_N_atoms` is GM over the prompts of so many.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..score import Prediction
from ..vqa.clusters import mean_of_clusters
from ..vqa.source import Row, read_lines
from .benchmark import Benchmark, grouped, mean_of_prompts
from .judge import YES
from .question import Question, check_images, images_by_prompt

SUFFIX = " Answer in one word."
COUNT = "How many"
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
RIGHT = "right"


class GenEval2(Benchmark):
    """Soft-TIFA over atoms."""

    name = "geneval2"
    rules = "GenEval2 a6e82d2, Soft-TIFA"
    once = False
    index = "images.json"

    def prompts(self, data: Path) -> dict[str, str]:
        """Return each prompt by its number."""
        prompts = [row.text("prompt") for row in read_lines(data)]
        if len(set(prompts)) < len(prompts) or not prompts:
            raise ValueError(f"{data} holds no prompts, or one of them twice")
        return {f"{number:05d}": prompt for number, prompt in enumerate(prompts)}

    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return a question for each atom."""
        rows, found = read_lines(data), images_by_prompt(images)
        prompts = self.prompts(data)
        check_images([*prompts.values()], found, images)
        if any(len(some) > 1 for some in found.values()):
            raise ValueError(f"{images} has several images of a prompt: GenEval 2 takes one")
        made = []
        for row, (item, prompt) in zip(rows, prompts.items(), strict=True):
            atoms = _atoms(row)
            for number, (question, answer, skill) in enumerate(atoms):
                words = _words(question, answer, row.place)
                made.append(Question(
                    item, 0, number, prompt, question + SUFFIX, {RIGHT: words}, RIGHT,
                    skill, found[prompt][0], about={"atoms": len(atoms), "answer": answer},
                ))  # fmt: skip
        return made

    def value(self, prediction: Prediction) -> float:
        """Return the probability of the right answer."""
        return prediction["p"][RIGHT]

    def prompt_values(self, predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
        """Return the geometric mean of each prompt's atoms, and the arithmetic one."""
        prompts = {
            some[0]["item"]: [*map(self.value, some)] for some in grouped(predictions, "item")
        }
        return {
            "soft_tifa_gm": {item: geometric_mean(values) for item, values in prompts.items()},
            "soft_tifa_am": {item: sum(values) / len(values) for item, values in prompts.items()},
        }

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return GM and AM over prompts, AM of each skill, GM by the number of atoms."""
        prompts = grouped(predictions, "item")
        whole = self.prompt_values(predictions)
        gm = list(whole["soft_tifa_gm"].values())
        skills = {
            f"am_of_{some[0]['kind']}": mean_of_clusters((o["item"], self.value(o)) for o in some)
            for some in grouped(predictions, "kind")
        }
        sizes = sorted({some[0]["about"]["atoms"] for some in prompts})
        by_size = {
            f"gm_of_{size}_atoms": mean_of_prompts(
                g for g, some in zip(gm, prompts, strict=True) if len(some) == size
            )
            for size in sizes
        }
        return {
            **{name: mean_of_prompts(values.values()) for name, values in whole.items()},
            **skills,
            **by_size,
        }


def geometric_mean(values: Sequence[float]) -> float:
    """Return the n-th root of the product of n numbers of at least 0."""
    if 0 in values:
        return 0.0
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _atoms(row: Row) -> list[tuple[str, str, str]]:
    """Return question, answer and skill of each atom; ValueError where their numbers differ."""
    asked, skills = row.get("vqa_list"), row.texts("skills")
    is_list = isinstance(asked, list) and all(
        isinstance(one, list) and len(one) == 2 and all(isinstance(o, str) for o in one)
        for one in asked
    )
    if not is_list or not asked or len(skills) != len(asked):
        raise ValueError(
            f"{row.place}: vqa_list is a list of [question, answer] as long as skills, not "
            f"{asked!r:.80} and {skills!r:.80}"
        )
    count = row.get("atom_count")
    if count != len(asked):
        raise ValueError(f"{row.place}: atom_count is {count}, but {len(asked)} atoms are asked")
    return [(*atom, skill) for atom, skill in zip(asked, skills, strict=True)]


def _words(question: str, answer: str, place: str) -> tuple[str, ...]:
    """Return the spellings that count as the right answer; ValueError for an unknown one."""
    plain = answer.strip().lower()
    if not question.startswith(COUNT):
        if plain != "yes":
            raise ValueError(f"{place}: the answer to {question!r} is {answer!r}, not yes")
        return YES
    known = {**{word: at for at, word in enumerate(NUMBERS)}, **_digits()}
    if plain not in known:
        raise ValueError(f"{place}: the answer to {question!r} is {answer!r}, no number to twenty")
    digits, word = str(known[plain]), NUMBERS[known[plain]]
    either = (word, word.capitalize())
    return (*either, *(f" {one}" for one in either), digits, f" {digits}")


def _digits() -> dict[str, int]:
    return {str(at): at for at in range(len(NUMBERS))}
