"""Batched evaluation against one request at a time: `python tests/benchmarks/evaluation.py`.

    python tests/benchmarks/evaluation.py [--items N] [--repeats N] [--batch N]

The default model is asked two sets of requests: those of its exam (`unimodal eval scenes`:
drawings, questions, captions and edits, as many of each), and questions and captions alone,
answered in words and greedily as `unimodal eval vqa` does; both have the bar. A third one has six
questions about each image, as VQA sets do (VQAv2 5, POPE 18). Each side is timed at
each number of threads, in turns, and its fastest is taken; encoding the images is part of both. The
exit status is 1 where an answer or a code differs. Timings mean something on a quiet machine only:
the load is printed beside them, and the CPU seconds of both sides, which neighbours change less.
"""

import os
import platform
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import click
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.measured import Line, interleaved, spread, table

import unimodal
from unimodal.data.scenes.world import SMALL
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.run import Turns, run
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_request import SceneRequest
from unimodal.eval.scene_requests import WORLD_PARTS, make_requests
from unimodal.eval.vqa.asking import greedy
from unimodal.model import Model

BAR = 4.0  # times as fast as one by one
THREADS = (1, 2)
MAX_TOKENS = 64  # of an answer, as for captions
CAPTIONED = 2  # one item of so many
OF_AN_IMAGE = 6  # questions


class InWords(SceneEvaluator):
    """Asks for words alone, greedily, as `eval vqa` does."""

    def turns(self, request: SceneRequest) -> Turns:
        """The turns of a request, whose reply is no image."""
        for turn in super().turns(request):
            yield replace(turn, modality="text", sampling=greedy(turn.sampling, MAX_TOKENS, 0))


def exam(model: Model, items: int) -> SceneEvaluator:
    """An evaluator of so many requests of the exam, spread evenly over its kinds."""
    asked = [one for part in WORLD_PARTS for one in _some(part, -(-items // len(WORLD_PARTS)))]
    return SceneEvaluator(asked[:items], model.sampling, EVAL_SEED, model.canvas[0])


def words(model: Model, items: int) -> SceneEvaluator:
    """An evaluator of so many questions and captions."""
    told = items // CAPTIONED
    asked = _some("questions", items - told) + _some("captions", told)
    return InWords(asked, model.sampling, EVAL_SEED, model.canvas[0])


def of_shared_images(model: Model, items: int) -> SceneEvaluator:
    """An evaluator of so many questions, some about each image."""
    asked = _some("questions", items)
    whole = InWords(asked, model.sampling, EVAL_SEED, model.canvas[0])
    images = [whole.shown(asked[k // OF_AN_IMAGE * OF_AN_IMAGE]) for k in range(items)]
    shown = [replace(one, image=image) for one, image in zip(asked, images, strict=True)]
    return InWords(shown, model.sampling, EVAL_SEED, model.canvas[0])


def _some(part: str, items: int) -> list[SceneRequest]:
    """So many requests of a part, spread evenly over its kinds."""
    made = make_requests(part, items, EVAL_SEED, SMALL)
    return [made[k * len(made) // items] for k in range(items)]


def answered(
    model: Model, evaluator: SceneEvaluator, batch: int, threads: int
) -> list[tuple[object, ...]]:
    """The words and codes of every answer, at a batch size and a number of threads."""
    torch.set_num_threads(threads)
    found = run(model, evaluator, batch=batch)
    return [(str(one["answer"]), *map(tuple, one["codes"])) for one in found]


def cpu_seconds(model: Model, evaluator: SceneEvaluator, batch: int) -> float:
    """The CPU time of answering, on one thread."""
    began = time.process_time()
    answered(model, evaluator, batch, 1)
    return time.process_time() - began


def line(
    what: str, model: Model, evaluator: SceneEvaluator, batch: int, repeats: int, bar: float | None
) -> Line:
    """The comparison of one set as a line of the table."""
    ways = [(size, threads) for size in (batch, 1) for threads in THREADS]
    answers = {way: answered(model, evaluator, *way) for way in ways}
    cpu = [cpu_seconds(model, evaluator, size) for size in (batch, 1)]
    different = sum(len(set(said)) > 1 for said in zip(*answers.values(), strict=True))
    timed = interleaved(repeats, *(partial(answered, model, evaluator, *way) for way in ways))
    seconds = dict(zip(ways, timed, strict=True))
    fast, slow = (
        min((way for way in ways if way[0] == size), key=lambda way: median(seconds[way]))
        for size in (batch, 1)
    )
    ratio = median(seconds[slow]) / median(seconds[fast])
    items = len(answers[fast])
    return Line(
        f"{items} {what}, batch {batch}",
        f"{spread(seconds[fast], ' s')}, {fast[1]} threads",
        f"one by one {spread(seconds[slow], ' s')}, {slow[1]} threads",
        f"{ratio:.1f} (of CPU time on one thread {cpu[1] / cpu[0]:.1f}: {cpu[0]:.1f} and "
        f"{cpu[1]:.1f} s)", f">= {bar:g}" if bar else "", ratio >= bar if bar else None,
        f"{items} answers in {len(ways)} ways", (f"{different} answers differ",) * bool(different),
    )  # fmt: skip


@click.command()
@click.option("--items", default=64, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Of each way, after one to warm up.")
def main(items: int, batch: int, repeats: int) -> None:
    """Print the table."""
    before = os.getloadavg()[0]
    model = unimodal.load()
    found = [
        line("requests of the exam", model, exam(model, items), batch, repeats, BAR),
        line("questions and captions", model, words(model, items), batch, repeats, BAR),
        line(
            f"questions, {OF_AN_IMAGE} an image",
            model,
            of_shared_images(model, items),
            batch,
            repeats,
            None,
        ),
    ]
    machine = platform.processor() or platform.machine()
    load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"{machine}, {os.cpu_count()} CPUs, {load}, torch {torch.__version__}\n")
    print(table(found))
    sys.exit(any(one.wrong for one in found))


if __name__ == "__main__":
    main()
