"""Draw the prompts of a judged benchmark with a model, into the folder that its judge reads.

In: a model, a benchmark and its official file. Out: a folder of the benchmark's own layout:

    geneval2     00000.png ..., and images.json {prompt: image}
    dpg          <item_id>.png, grids of 2 x 2 images, or single ones
    tifa         <id>.png
    compbench    <prompt>_000000.png ...

and `drawn.jsonl`: model, sampling, and the seeds of each file. The model is asked for an image and
nothing else; where it stopped, it goes on. The noise of an image is that of GenEval's drawings
(geneval/drawing.py): it depends on no other prompt, no batch and no rank.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from unimodal.atomic import write_bytes
from unimodal.document import Document, Text
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.transcript import png_bytes

from ..answer import Answer
from ..geneval.drawing import MOST_SAMPLES, how_drawn, noise_seed
from ..geneval.folder import DRAWN
from ..predictions import PredictionsFile
from ..run import Evaluator, Turn, Turns, run
from ..score import Prediction, digest
from .benchmark import Benchmark

MOST_BYTES = 255  # of a file's name
GRID = 2  # images of a side, where a file holds several


@dataclass(frozen=True)
class Wanted:
    """A file to draw: its images are the prompt's from the sample-th on, one a seed."""

    name: str
    text: str
    seeds: tuple[int, ...]

    @property
    def id(self) -> str:
        """Return the file's name."""
        return self.name


class Drawing(Evaluator[Wanted]):
    """Asks for the images of each file and writes it."""

    def __init__(self, name: str, root: Path, files: Sequence[Wanted], sampling: Sampling) -> None:
        self.name = f"{name}: drawing"
        self._root, self._files, self._sampling = root, files, sampling

    def requests(self) -> Sequence[Wanted]:
        """Return every file."""
        return self._files

    def turns(self, request: Wanted) -> Turns:
        """Say the prompt once for each image; an image alone may be the reply."""
        for seed in request.seeds:
            document = Document((Text(request.text, role="user"),))
            yield Turn(document, replace(self._sampling, seed=seed), "image")

    def score(self, request: Wanted, answer: Answer) -> Prediction:
        """Write the file; its line says what was asked, and with which seeds."""
        images = [one.images[0] for one in (*answer.earlier, answer)]
        write_bytes(self._root / request.name, png_bytes(Image.fromarray(_grid(images))))
        return {"prompt": request.text, "seeds": list(request.seeds)}


def draw(
    model: Model,
    benchmark: Benchmark,
    data: Path,
    root: Path,
    samples: int,
    cells: int,
    seed: int,
    sampling: Sampling | None = None,
    batch: int = 32,
) -> int:
    """Draw `samples` files of each prompt, `cells` images in each, those that are not there yet;
    return how many files there are.

    sampling: None takes the model's own; its seed is ignored. ValueError where the folder holds
    images of other prompts, or drawn otherwise or by others, and for prompts that name no file.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"{samples} images of each prompt: give 1 to {MOST_SAMPLES}")
    sampling = sampling or model.sampling
    prompts = benchmark.prompts(data)
    files = _wanted(benchmark, prompts, samples, cells, seed)
    recipe = {
        "benchmark": benchmark.name, "prompts": digest([*prompts.items()]),
        "num_prompts": len(prompts), "samples_per_prompt": samples, "images_a_file": cells,
        **how_drawn(model, seed, sampling),
    }  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    images = {file.id: root / file.name for file in files}
    with PredictionsFile.of_images(root / DRAWN, recipe, images) as kept:
        run(model, Drawing(benchmark.name, root, files, sampling), kept, batch)
    if benchmark.index is not None:
        named = {file.text: file.name for file in files}
        write_bytes(root / benchmark.index, f"{json.dumps(named, indent=1)}\n".encode())
    return len(files)


def _wanted(
    benchmark: Benchmark, prompts: dict[str, str], samples: int, cells: int, seed: int
) -> list[Wanted]:
    found = []
    for number, (item, text) in enumerate(prompts.items()):
        for sample in range(samples):
            name = benchmark.file_name(item, text, sample)
            _check_name(name)
            first = sample * cells
            seeds = tuple(noise_seed(seed, number, first + cell) for cell in range(cells))
            found.append(Wanted(name, text, seeds))
    return found


def _check_name(name: str) -> None:
    """Raise ValueError for what is no name of a file."""
    if len(name.encode()) > MOST_BYTES or "/" in name or "\0" in name or name.startswith("."):
        raise ValueError(
            f"{name!r:.120} is no name of a file: the layout names images so, up to {MOST_BYTES} "
            "bytes without '/'; draw these prompts otherwise and give {prompt or id: image} as JSON"
        )


def _grid(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return an image as it is, and four of one size as a grid of 2 x 2, row by row."""
    if len(images) == 1:
        return images[0]
    rows = [np.concatenate(images[at : at + GRID], axis=1) for at in range(0, len(images), GRID)]
    return np.concatenate(rows, axis=0)
