"""Batched evaluation against one question at a time: `python tests/benchmarks/evaluation.py`.

    python tests/benchmarks/evaluation.py [--items N] [--repeats N] [--batch N]

The default model answers questions about scenes and captions them (half of the items), so
that prompts and answers are of mixed lengths. Each side is timed at each number of threads, in
turns, and its fastest is taken; encoding the images is part of both. The exit status is 1 where an
answer differs. Timings mean something on a quiet machine only: the load is printed beside them, and
the CPU seconds of both sides, which neighbours change less.
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
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.vqa.asking import greedy
from unimodal.model import Model

BAR = 4.0  # times as fast as one by one
THREADS = (1, 2)
MAX_TOKENS = 64  # of an answer, as for captions
CAPTIONED = 2  # one item of so many


class InWords(SceneEvaluator):
    """Asks for words alone, greedily, as `eval vqa` does."""

    def turns(self, request: SceneRequest) -> Turns:
        """The turns of a request, whose reply is no image."""
        for turn in super().turns(request):
            yield replace(turn, modality="text", sampling=greedy(turn.sampling, MAX_TOKENS, 0))


def mixed(model: Model, items: int) -> SceneEvaluator:
    """An evaluator of so many questions and captions."""
    asked = make_requests("questions", items, EVAL_SEED, SMALL)
    told = make_requests("captions", items, EVAL_SEED, SMALL)
    stride = max(1, len(asked) // items)
    some = asked[::stride][: items - items // CAPTIONED] + told[: items // CAPTIONED]
    return InWords(some, model.sampling, EVAL_SEED, model.canvas[0])


def answered(model: Model, evaluator: SceneEvaluator, batch: int, threads: int) -> list[str]:
    """The answers, at a batch size and a number of threads."""
    torch.set_num_threads(threads)
    return [str(one["answer"]) for one in run(model, evaluator, batch=batch)]


def cpu_seconds(model: Model, evaluator: SceneEvaluator, batch: int) -> float:
    """The CPU time of answering, on one thread."""
    began = time.process_time()
    answered(model, evaluator, batch, 1)
    return time.process_time() - began


def line(items: int, batch: int, repeats: int) -> Line:
    """The comparison as a line of the table."""
    model = unimodal.load()
    evaluator = mixed(model, items)
    ways = [(size, threads) for size in (batch, 1) for threads in THREADS]
    answers = {way: answered(model, evaluator, *way) for way in ways}
    cpu = [cpu_seconds(model, evaluator, size) for size in (batch, 1)]
    different = sum(len(set(said)) > 1 for said in zip(*answers.values(), strict=True))
    seconds = dict(
        zip(
            ways,
            interleaved(repeats, *(partial(answered, model, evaluator, *way) for way in ways)),
            strict=True,
        )
    )
    fast, slow = (
        min((way for way in ways if way[0] == size), key=lambda way: median(seconds[way]))
        for size in (batch, 1)
    )
    ratio = median(seconds[slow]) / median(seconds[fast])
    lengths = sorted(len(text.split()) for text in answers[fast])
    return Line(
        f"{items} items, answers of {lengths[0]} to {lengths[-1]} words, batch {batch}",
        f"{spread(seconds[fast], ' s')}, {fast[1]} threads",
        f"one by one {spread(seconds[slow], ' s')}, {slow[1]} threads",
        f"{ratio:.1f} (of CPU time on one thread {cpu[1] / cpu[0]:.1f}: {cpu[0]:.1f} and "
        f"{cpu[1]:.1f} s)", f">= {BAR:g}", ratio >= BAR, f"{items} answers in {len(ways)} ways",
        (f"{different} answers differ",) * bool(different),
    )  # fmt: skip


@click.command()
@click.option("--items", default=64, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Of each way, after one to warm up.")
def main(items: int, batch: int, repeats: int) -> None:
    """Print the table."""
    before = os.getloadavg()[0]
    found = line(items, batch, repeats)
    machine = platform.processor() or platform.machine()
    load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"{machine}, {os.cpu_count()} CPUs, {load}, torch {torch.__version__}\n")
    print(table([found]))
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
