"""T2I-CompBench's prompts, judged by one question about the whole prompt.

Karine-Huang/T2I-CompBench at 1b70949, MIT: a file of prompts, one a line, for each of eight
categories (`color_val.txt`, ...). Images are files `<prompt>_<6-digit id>.png`, officially ten of
each prompt.

The judge is asked 'Does this figure show "<prompt>"? Please answer yes or no.', as VQAScore does
(Lin et al. 2024, arXiv:2404.01291), and an image is worth p(yes) / (p(yes) + p(no)), as BLIP-VQA's
answers are in T2I-CompBench. Its own numbers are those of BLIP-VQA on noun chunks, UniDet and CLIP,
and no number here is one of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..score import Prediction
from ..vqa.clusters import mean_of_clusters
from ..vqa.source import lines_of
from .benchmark import Benchmark, grouped
from .judge import NO, YES
from .question import Question, check_images, images_by_prompt


class CompBench(Benchmark):
    """Yes against no about whole prompts."""

    name = "compbench"
    rules = "T2I-CompBench 1b70949, whole prompts"
    samples = 10

    def prompts(self, data: Path) -> dict[str, str]:
        """Return each line by its number."""
        try:
            lines = lines_of(data.read_bytes().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{data} is no UTF-8: {error}") from error
        prompts = [line.strip() for line in lines if line.strip()]
        if not prompts or len(set(prompts)) < len(prompts):
            raise ValueError(f"{data} holds no prompts, or one of them twice")
        return {f"{number:05d}": prompt for number, prompt in enumerate(prompts)}

    def file_name(self, item: str, prompt: str, sample: int) -> str:
        """Return the prompt with the sample's number, as the official scripts name images."""
        return f"{prompt}_{sample:06d}.png"

    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return a question for each image."""
        prompts, found = self.prompts(data), images_by_prompt(images)
        check_images([*prompts.values()], found, images)
        return [
            Question(
                item, cell, 0, prompt,
                f'Does this figure show "{prompt}"? Please answer yes or no.',
                {"yes": YES, "no": NO}, "yes", data.stem, picture,
            )
            for item, prompt in prompts.items()
            for cell, picture in enumerate(found[prompt])
        ]  # fmt: skip

    def value(self, prediction: Prediction) -> float:
        """Return p(yes) / (p(yes) + p(no))."""
        return yes_against_no(prediction)

    def prompt_values(self, predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
        """Return the mean over each prompt's images, by category."""
        found: dict[str, dict[str, float]] = {}
        for some in grouped(predictions, "kind", "item"):
            values = [yes_against_no(one) for one in some]
            prompts = found.setdefault(f"vqascore_{some[0]['kind']}", {})
            prompts[some[0]["item"]] = sum(values) / len(values)
        return found

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the mean over images, by category."""
        return {
            f"vqascore_{some[0]['kind']}": mean_of_clusters(
                (one["item"], yes_against_no(one)) for one in some
            )
            for some in grouped(predictions, "kind")
        }


def yes_against_no(prediction: Prediction) -> float:
    """Return p(yes) / (p(yes) + p(no)); ValueError where both are 0."""
    yes, no = prediction["p"]["yes"], prediction["p"]["no"]
    if yes + no == 0:
        raise ValueError(f"the judge says neither yes nor no to {prediction['question']!r}")
    return yes / (yes + no)
