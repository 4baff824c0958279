"""Image heads on the same data, model, budget and exam: which one draws, answers and edits best.

    python tests/benchmarks/head_comparison.py FOLDER --dry-run
    python tests/benchmarks/head_comparison.py FOLDER

The first says what all of it takes; the second does what is not done yet, --workers runs at a time,
on a GPU if there is one, and goes on where it was stopped. Each head gets the FLOPs of training
`next_code` on `--positions`, at each of the learning rates with one seed; at the best, by an exam
of other requests, it gets the other seeds. `FOLDER/*.md` are written after each row, `FOLDER/*.png`
at the end. docs/comparison.md says more.
"""

import math
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import click

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks import head_tables as tables
from benchmarks.commands import cpu_minutes
from benchmarks.head_costs import (
    PLAN_HEAD,
    HeadCost,
    Times,
    head_cost,
    one_thread,
    plan,
    plan_cells,
    text_tokenizer,
)
from benchmarks.head_exams import SWEEP_SEED, Scores, curve, exam, seconds, trained_flops
from benchmarks.head_tables import Result
from benchmarks.laboratory import HEADS, REFERENCE, Budget, Drawing, Head, Laboratory, Trial
from benchmarks.markdown import write

from unimodal.eval.options import EVAL_SEED

RATES = (1e-3, 2e-3, 4e-3)
DEFAULT_HEADS = ("next_code", "masked", "flow", "scale")
PLANNED_SCENES = 400  # conversations that a dry run is counted on
DEFAULTS = Budget()
First = tuple[dict[Drawing, tuple[Scores, float]], list[tuple[float, Scores]]]
"""Of a first seed: scores and CPU seconds an image by drawing, (FLOPs, scores) of checkpoints."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--head", "names", type=click.Choice(list(HEADS)), multiple=True, default=DEFAULT_HEADS,
    show_default=True, help="Repeatable; pixel_flow is flow without an autoencoder.",
)  # fmt: skip
@click.option("--rate", "rates", type=float, multiple=True, default=RATES, show_default=True,
              help="Learning rates of AdamW, repeatable; Muon's is half of it.")  # fmt: skip
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--positions", default=DEFAULTS.positions, show_default=True, type=click.IntRange(1))
@click.option("--scenes", default=DEFAULTS.scenes, show_default=True, type=click.IntRange(1))
@click.option("--tokenizer-steps", default=DEFAULTS.tokenizer_steps, show_default=True,
              type=click.IntRange(1))  # fmt: skip
@click.option("--samples", default=DEFAULTS.samples, show_default=True, type=click.IntRange(1))
@click.option("--sweep-samples", default=DEFAULTS.sweep_samples, show_default=True,
              type=click.IntRange(1))  # fmt: skip
@click.option("--checkpoints", default=DEFAULTS.checkpoints, show_default=True,
              type=click.IntRange(1), help="That are examined, the last included.")  # fmt: skip
@click.option("--width", default=DEFAULTS.width, show_default=True, type=click.IntRange(64))
@click.option("--layers", default=DEFAULTS.layers, show_default=True, type=click.IntRange(1))
@click.option("--precision", default=DEFAULTS.precision, show_default=True,
              type=click.Choice(["bf16", "fp32"]))  # fmt: skip
@click.option("--compile", is_flag=True, help="Compile layers for training: a tenth less time; on a"
              " CPU it needs a C++ compiler.")  # fmt: skip
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1),
              help="Runs at a time, each with a thread of its own.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what it takes, and do nothing.")
def main(
    folder: Path, names: tuple[str, ...], rates: tuple[float, ...], seeds: int, workers: int,
    dry_run: bool, **budget: int | str,
) -> None:  # fmt: skip
    """Compare image heads at equal FLOPs in FOLDER."""
    one_thread()
    given = {field.name: budget[field.name] for field in fields(Budget)}
    lab = Laboratory(folder.resolve(), Budget(**given))  # type: ignore[arg-type]
    lab.claim()
    heads = [HEADS[name] for name in dict.fromkeys(names)]
    costs, flops = _planned(lab, heads, dry_run)
    rows = plan_cells(plan(lab, costs, heads, flops, len(rates), seeds))
    write(folder / "plan.md", _title(lab, flops, seeds), PLAN_HEAD, rows)
    print((folder / "plan.md").read_text())
    if dry_run:
        return
    results = [_result(lab, head, costs[head.name], flops) for head in heads]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        _compare(lab, results, rates, seeds, pool)
    for name in ("heads", "costs", "rates", "drawings"):
        print((folder / f"{name}.md").read_text())


def _result(lab: Laboratory, head: Head, cost: HeadCost, flops: float) -> Result:
    """Return what is known of a head before it is trained; its tokenizer is."""
    minutes = cpu_minutes(lab.train_tokenizer(head.tokenizer))
    lab.encode(head.tokenizer)
    return Result(head, cost, cost.steps(flops), minutes)


def _planned(
    lab: Laboratory, heads: list[Head], dry_run: bool
) -> tuple[dict[str, HeadCost], float]:
    """Return the cost of each head, and the FLOPs that each gets."""
    counted = lab
    if dry_run and not lab.conversations.exists():
        counted = Laboratory(lab.folder / "plan", lab.budget)
    samples = lab.budget.scenes if counted is lab else PLANNED_SCENES
    counted.write_conversations(counted.conversations, samples)
    text = text_tokenizer(counted)
    names = dict.fromkeys((REFERENCE.name, *(head.name for head in heads)))
    costs = {name: head_cost(counted, HEADS[name], text, Times()) for name in names}
    first = costs[REFERENCE.name]
    steps = math.ceil(lab.budget.positions / first.step_positions)
    return costs, steps * first.step_flops


def _title(lab: Laboratory, flops: float, seeds: int) -> str:
    budget = lab.budget
    return (
        f"Width {budget.width}, {budget.layers} layers, {budget.precision}, one thread; each run "
        f"{flops / 1e12:,.2f} x 10^12 FLOPs, those of {budget.positions:,} positions of next_code; "
        f"{seeds} seeds. Scenes of one or two objects"
    )


def _compare(
    lab: Laboratory, results: list[Result], rates: tuple[float, ...], seeds: int, pool: Executor
) -> None:
    """Do all there is to do, and write the tables as they grow: all heads at all learning rates,
    then their seeds at the best, then what is asked of the first of them.
    """
    few, many = lab.budget.sweep_samples, lab.budget.samples
    swept = [
        {lr: pool.submit(_sat, lab, Trial(one.head, lr), one.steps, "-sweep", few, SWEEP_SEED)
         for lr in rates}
        for one in results
    ]  # fmt: skip
    more = []
    for result, scores in zip(results, swept, strict=True):
        for lr, found in scores.items():
            result.sweep[lr] = found.result()
            _write(lab, results)
        finite = {lr: scores for lr, scores in result.sweep.items() if scores is not None}
        if not finite:
            said = ", ".join(map(str, rates))
            print(f"{result.head.name}: no learning rate of {said} kept a finite loss")
            continue
        result.lr = max(finite, key=lambda lr: finite[lr].mean)
        trials = [Trial(result.head, result.lr, seed) for seed in range(seeds)]
        sat = {trial.name: pool.submit(_sat, lab, trial, result.steps, "", many, EVAL_SEED)
               for trial in trials}  # fmt: skip
        more.append((result, sat))
    firsts = [(result, _seeds(lab, results, result, sat, pool)) for result, sat in more]
    for result, found in firsts:
        result.drawings, result.curve = found.result()
        result.curve.append((result.flops, result.seeds[0]))
        _write(lab, results)
        tables.save(tables.compute_plot(results), lab.folder / "compute.png")
        tables.save(tables.drawing_plot(results), lab.folder / "drawing.png")


def _sat(
    lab: Laboratory, trial: Trial, steps: int, exam_of: str, samples: int, asked: int
) -> Scores | None:
    """Train a head and let it sit an exam; None where its loss was not finite."""
    one_thread()
    run = lab.train(trial, steps)
    if run is None:
        return None
    return exam(lab, run / "bundle", f"{trial.name}{exam_of}", trial.head.main, samples, asked)


def _seeds(
    lab: Laboratory, results: list[Result], result: Result,
    sat: dict[str, "Future[Scores | None]"], pool: Executor,
) -> "Future[First]":  # fmt: skip
    """Take the exams of a head's seeds, and return what is to come of the first."""
    for name, found in sat.items():
        scores = found.result()
        if scores is None:
            print(f"{name}: its loss was not finite, and it is left out")
            continue
        result.seeds.append(scores)
        _write(lab, results)
    assert result.lr is not None, "the best learning rate is known"
    trial = Trial(result.head, result.lr)
    run = lab.run(trial)
    result.flops, result.model_minutes = trained_flops(run), cpu_minutes(run)
    return pool.submit(_first_seed, lab, trial, result.seeds[0])


def _first_seed(lab: Laboratory, trial: Trial, scores: Scores) -> First:
    """Examine the drawing steps and the checkpoints of a head's first seed."""
    one_thread()
    bundle, drawings = lab.run(trial) / "bundle", {}
    for drawing in trial.head.drawings:
        name = f"{trial.name}-drawn-{drawing.name}"
        each_s, found = seconds(lab, bundle, name, drawing), scores
        if drawing != trial.head.main:
            samples = lab.budget.samples
            found = exam(lab, bundle, name, drawing, samples, EVAL_SEED, ("drawing",))
        drawings[drawing] = found, each_s
    return drawings, curve(lab, trial)


def _write(lab: Laboratory, results: list[Result]) -> None:
    """Write the tables of what is known."""
    folder, budget = lab.folder, lab.budget
    asked = f"{budget.samples} requests of each kind, scenes of one or two objects"
    spoken = "\n".join(tables.said(results))
    write(
        folder / "heads.md",
        f"{asked}; means of seeds, with the least and the most\n\n{spoken}", tables.HEADS_HEAD,
        [tables.head_cells(one) for one in results],
    )  # fmt: skip
    write(
        folder / "costs.md", "A run of each head; FLOPs as the first seed's run logged them",
        tables.COSTS_HEAD, [tables.cost_cells(one) for one in results],
    )  # fmt: skip
    write(
        folder / "rates.md", f"{budget.sweep_samples} requests of each kind, of another seed",
        tables.RATES_HEAD, [row for one in results for row in tables.rate_cells(one)],
    )  # fmt: skip
    write(
        folder / "drawings.md", f"The first seed at its best learning rate; {asked}",
        tables.DRAWINGS_HEAD, [row for one in results for row in tables.drawing_cells(one)],
    )  # fmt: skip


if __name__ == "__main__":
    main()
