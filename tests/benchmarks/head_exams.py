"""Exams of models of the laboratory: `eval scenes` on scenes of few objects, kept as files.

An exam that is there is not taken again, and one that was stopped goes on from its predictions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import unimodal
from unimodal import config
from unimodal.atomic import write_bytes
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.scenes import evaluate
from unimodal.eval.score import write
from unimodal.train import metrics
from unimodal.train.lm import snapshot
from unimodal.train.run import LmRun

from .head_costs import draw_s
from .laboratory import MAX_OBJECTS, Drawing, Laboratory, Trial

PARTS = ("drawing", "questions", "edits")
SWEEP_SEED = EVAL_SEED + 30  # a learning rate is not chosen on the exam itself
Estimate = Mapping[str, Any]
"""A score: its value, and the ends of its 95 % interval."""


@dataclass(frozen=True)
class Scores:
    """What an exam found; None: not asked."""

    drawing: Estimate
    single: Estimate
    questions: Estimate | None = None
    blind: Estimate | None = None
    """The same questions without the image."""
    edits: Estimate | None = None

    @classmethod
    def of(cls, scores: Mapping[str, Any]) -> "Scores":
        """Take them from the scores of `eval scenes`."""
        drawing = scores["drawing"]
        if "questions" not in scores:
            return cls(drawing["overall"], drawing["single_object"])
        questions = scores["questions"]
        return cls(
            drawing["overall"], drawing["single_object"], questions["overall"],
            questions["blind"]["overall"], scores["edits"]["overall"],
        )  # fmt: skip

    @property
    def mean(self) -> float:
        """Return the mean of questions, drawing and edits, by which a learning rate is chosen."""
        assert self.questions is not None and self.edits is not None, "all were asked"
        return sum(one["value"] for one in (self.questions, self.drawing, self.edits)) / 3


def exam(
    lab: Laboratory, bundle: Path, name: str, drawing: Drawing, samples: int, seed: int,
    parts: tuple[str, ...] = PARTS,
) -> Scores:  # fmt: skip
    """Ask a model so many requests of each kind, once, and keep scores and predictions."""
    file = lab.folder / "scores" / f"{name}.json"
    if not file.exists():
        model = unimodal.load(bundle, "cuda" if torch.cuda.is_available() else "cpu")
        file.parent.mkdir(parents=True, exist_ok=True)
        report, _ = evaluate(
            model, samples, seed, drawing.of(model.sampling), parts=parts,
            file=file.with_suffix(".jsonl"), max_objects=MAX_OBJECTS,
        )  # fmt: skip
        write(file, report)
    return Scores.of(json.loads(file.read_text())["scores"])


def seconds(lab: Laboratory, bundle: Path, name: str, drawing: Drawing) -> float:
    """Return the CPU seconds that an image takes, measured once."""
    file = lab.folder / "seconds" / f"{name}.json"
    if not file.exists():
        model = unimodal.load(bundle)
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_s(model, drawing, requests=1)  # the first one prepares
        write_bytes(file, json.dumps(draw_s(model, drawing)).encode())
    return json.loads(file.read_text())


def trained_flops(run: Path, step: int | None = None) -> float:
    """Return the FLOPs of a run's steps, up to one of them or all."""
    lines = metrics.read(run)
    done = [line for line in lines if step is None or line["step"] < step]
    return sum(line["flops_per_s"] * line["step_s"] for line in done)


def kept_steps(run: Path) -> list[int]:
    """Return the steps of a run's checkpoints, without the last."""
    from unimodal.train.checkpoint import found, step_of

    return sorted(map(step_of, found(run)))[:-1]


def curve(lab: Laboratory, trial: Trial) -> list[tuple[float, Scores]]:
    """Return (FLOPs, scores) of a run's checkpoints: weights whose learning rate has not
    fallen yet.
    """
    run, points = lab.run(trial), []
    for step in kept_steps(run):
        name = f"{trial.name}-step{step}"
        bundle = lab.folder / "checkpoints" / name
        if not bundle.exists():
            recipe = config.saved(LmRun, run / "config.yaml")
            snapshot(recipe, bundle, step)
        scores = exam(lab, bundle, name, trial.head.main, lab.budget.sweep_samples, EVAL_SEED)
        points.append((trained_flops(run, step), scores))
    return points
