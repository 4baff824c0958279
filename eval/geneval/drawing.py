"""Draw the images of GenEval's prompts with a model, into a folder of the official layout.

In: a model, prompts, and how many images of each. Out: the folder (folder.py). The model is asked
for an image and nothing else, so that each request has one; where it stopped, it goes on.

The noise of an image is that of seed * 2^32 + 2^10 * the prompt's number + the sample's: it depends
on no other prompt, no batch and no rank, and more samples leave the first ones as they were.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from unimodal.atomic import write_bytes
from unimodal.document import Document, Text
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.transcript import png_bytes

from ..answer import Answer
from ..predictions import PredictionsFile
from ..run import Evaluator, Turn, Turns, run
from ..score import Prediction, digest
from .folder import DRAWN, id_of, sample_file, write_grid, write_prompt
from .prompts import Prompt, prompts_hash

MOST_SAMPLES = 2**10  # of a prompt: seeds of more would be those of the next


@dataclass(frozen=True)
class Rewriting:
    """The prompts in other words, and who wrote them: scores of these are another number."""

    rewriter: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One image to draw: the sample-th of a prompt."""

    number: int
    sample: int
    text: str

    @property
    def id(self) -> str:
        """Return the image's id."""
        return id_of(self.number, self.sample)


class Drawing(Evaluator[Sample]):
    """Asks for the images and writes each into its place."""

    name = "geneval"

    def __init__(
        self, root: Path, texts: Sequence[str], samples: int, seed: int, sampling: Sampling
    ) -> None:
        self._root, self._texts, self._samples = root, texts, samples
        self._seed, self._sampling = seed, sampling

    def requests(self) -> list[Sample]:
        """Return every sample of every prompt."""
        return [
            Sample(number, sample, text)
            for number, text in enumerate(self._texts)
            for sample in range(self._samples)
        ]

    def turns(self, request: Sample) -> Turns:
        """Say the prompt; an image alone may be the reply."""
        document = Document((Text(request.text, role="user"),))
        yield Turn(document, replace(self._sampling, seed=self._noise(request)), "image")

    def score(self, request: Sample, answer: Answer) -> Prediction:
        """Write the image; its line says what was asked, and with which seed."""
        assert len(answer.images) == 1, f"{len(answer.images)} images where one is asked for"
        file = sample_file(self._root, request.number, request.sample)
        write_bytes(file, png_bytes(Image.fromarray(answer.images[0])))
        return {"prompt": request.text, "seed": self._noise(request)}

    def _noise(self, request: Sample) -> int:
        return noise_seed(self._seed, request.number, request.sample)


def noise_seed(seed: int, number: int, sample: int) -> int:
    """Return the seed of the noise of a prompt's sample-th image."""
    return (seed * 2**32 + number * MOST_SAMPLES + sample) % 2**64


def draw(
    model: Model,
    prompts: Sequence[Prompt],
    root: Path,
    samples: int,
    seed: int,
    sampling: Sampling | None = None,
    rewriting: Rewriting | None = None,
    batch: int = 32,
) -> None:
    """Draw `samples` images of each prompt into a folder, those that are not there yet.

    sampling: None takes the model's own; its seed is ignored. ValueError where the folder holds
    images of other prompts, or drawn otherwise or by others.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"{samples} images of each prompt: give 1 to {MOST_SAMPLES}")
    sampling = sampling or model.sampling
    texts = tuple(prompt.text for prompt in prompts) if rewriting is None else rewriting.texts
    evaluator = Drawing(root, texts, samples, seed, sampling)
    root.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(model, prompts, samples, seed, sampling, rewriting)
    files = {one.id: sample_file(root, one.number, one.sample) for one in evaluator.requests()}
    with PredictionsFile.of_images(root / DRAWN, recipe, files) as kept:
        for number, prompt in enumerate(prompts):
            write_prompt(root, number, prompt)
        run(model, evaluator, kept, batch)
    for number in range(len(prompts)):
        write_grid(root, number, samples)


def _recipe(
    model: Model,
    prompts: Sequence[Prompt],
    samples: int,
    seed: int,
    sampling: Sampling,
    rewriting: Rewriting | None,
) -> dict[str, Any]:
    """Return what the images depend on."""
    return {
        "prompts": prompts_hash(prompts),
        "num_prompts": len(prompts),
        "rewriter": None if rewriting is None else rewriting.rewriter,
        "rewritten": None if rewriting is None else digest(rewriting.texts),
        "samples_per_prompt": samples,
        **how_drawn(model, seed, sampling),
    }


def how_drawn(model: Model, seed: int, sampling: Sampling) -> dict[str, Any]:
    """Return what drawings depend on beside what is asked for."""
    parameter = next(model.transformer.parameters())
    width, height = model.canvas
    return {
        "model": model.hash,
        "tokenizer": model.sequencer.codec_hash,
        "seed": seed,
        **{name: value for name, value in asdict(sampling).items() if name != "seed"},
        "steps": model.grid.size,  # every head here draws one code, with all its levels, at a time
        "resolution": f"{width}x{height}",
        "device": parameter.device.type,
        "precision": str(parameter.dtype).removeprefix("torch."),
    }
