"""Learning from replies to one prompt, the prompt read once or with each reply:
`python tests/benchmarks/rewards.py`.

    python tests/benchmarks/rewards.py [--prompts N] [--replies N] [--repeats N]

The default model answers requests of its exam by kind, several times each at temperature 1; one
update is computed on one thread, forward and backward, as `unimodal train rl` does and as it would
with a document for each reply. Both have the same scores, or the exit status is 1.
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
import numpy as np
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.measured import Line, interleaved, spread, table

import unimodal
from unimodal.data.scenes.world import SMALL
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import make_requests
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.train.rl.actor import sampled
from unimodal.train.rl.learner import PolicyLearner
from unimodal.train.rl.replay import Replay
from unimodal.train.rl.samples import Packed, Sample, pack

KINDS = ("drawing", "questions", "edits")
SAMPLING = Sampling(text_temperature=1.0, max_text_tokens=80, max_images=1)
SAME = 1e-4  # of a log-probability, in nats


def replies(model: Model, replay: Replay, kind: str, prompts: int, each: int) -> list[Sample]:
    """So many replies to each of so many requests of a kind."""
    requests = make_requests(kind, prompts, EVAL_SEED, SMALL)
    requests = [requests[k * len(requests) // prompts] for k in range(prompts)]
    evaluator = SceneEvaluator(requests, model.sampling, EVAL_SEED, model.canvas[0])
    asked = [next(iter(evaluator.turns(one))).document for one in requests]
    documents = model.codec.encode_documents(asked)
    seeds = [replace(SAMPLING, seed=seed) for seed in range(prompts * each)]
    found = sampled(model, [one for one in documents for _ in range(each)], seeds, None, len(seeds))
    ids = [ids for _, ids in found]
    return [
        Sample(kind, trajectory, 0.0, 0.0)
        for at, document in enumerate(documents)
        for trajectory in replay(document, ids[at * each : (at + 1) * each])
    ]


def update(learner: PolicyLearner, packed: Packed) -> np.ndarray:
    """The log-probabilities, after the backward pass of their sum."""
    log_p_M, _ = learner.scores(packed)
    log_p_M.sum().backward()
    return log_p_M.detach().numpy()


def line(learner: PolicyLearner, samples: list[Sample], pad: int, repeats: int) -> Line:
    """The comparison of one kind as a line of the table."""
    ways = [pack(samples, pad, "cpu", shared) for shared in (True, False)]
    ours, theirs = (update(learner, packed) for packed in ways)
    apart = float(np.abs(ours - theirs).max())
    runs = [partial(update, learner, packed) for packed in ways]
    once, each = interleaved(repeats, *runs, clock=time.process_time)
    tokens = [packed.batch.ids.numel() for packed in ways]
    wrong = (f"log-probabilities differ by {apart:.1e}",) * (apart > SAME)
    return Line(
        f"{len(samples)} replies, {samples[0].kind}",
        f"{spread(once, ' s')}, {tokens[0]:,} tokens",
        f"with each reply {spread(each, ' s')}, {tokens[1]:,} tokens",
        f"{median(each) / median(once):.1f}",
        check=f"log-probabilities within {SAME:g}", wrong=wrong,
    )  # fmt: skip


@click.command()
@click.option("--prompts", default=4, show_default=True, help="Of each kind.")
@click.option("--replies", "each", default=8, show_default=True, help="To each prompt.")
@click.option("--repeats", default=3, show_default=True, help="Of each way, after one to warm up.")
def main(prompts: int, each: int, repeats: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model = unimodal.load()
    replay = Replay(model, SAMPLING, None)
    samples = {kind: replies(model, replay, kind, prompts, each) for kind in KINDS}
    # Of weights that learn: those that only answer are laid out for that.
    policy = PolicyLearner(unimodal.load().transformer.requires_grad_(True), replay.masks)
    pad = model.vocabulary.special("pad")
    found = [line(policy, one, pad, repeats) for one in samples.values()]
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} CPUs, one thread, torch {torch.__version__}\n")
    print(table(found))
    sys.exit(any(one.wrong for one in found))


if __name__ == "__main__":
    main()
