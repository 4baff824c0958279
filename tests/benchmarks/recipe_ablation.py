"""What teaches a small model more at equal tokens: each lever alone, then the best, then together.

    python tests/benchmarks/recipe_ablation.py FOLDER [--lever NAME]...

Every run is the language model of configs/laboratory.yaml without addresses and factorised codes on
conversations about one or two objects, changed by one lever. They are screened with one seed; the
best few are trained longer, with more seeds, and so is all of them together. Each command does what
is not done yet, writes `FOLDER/screened.md` and `confirmed.md` after each lever, and goes on where
it was stopped. Conversations are encoded once for all runs, and --workers of these run at a time,
on a GPU if there is one. With --lever it screens these alone and prints them.
"""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.commands import cpu_minutes, encoded, scenes
from benchmarks.head_costs import one_thread
from benchmarks.head_exams import SWEEP_SEED, Scores, exam
from benchmarks.laboratory import MAX_OBJECTS, MIX, TALKS_SEED, Budget, Head, Laboratory, Trial
from benchmarks.markdown import write

from unimodal.eval.options import EVAL_SEED

# The 97.5 % quantiles of Student's t, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}
AT_LEAST_ONE = click.IntRange(1)
LR = 3e-3  # of AdamW, all levers'
WIDTH = 192
STEP_POSITIONS = 4 * 1024
PARTS = ("drawing", "questions", "edits")
HEAD = ("lever", "drawing", "questions", "edits", "mean", "gain of the mean", "CPU min")
# In place of the laboratory's shares: as levers were measured. By next_code images that are given
# are learned at no cost.
GIVEN = {
    "draw": 0.6, "ask": 0.15, "edit": 0.25, "exact_plan": 0, "seen_weight": 0.1,
    "asked_weight": 0.1, "plan_weight": 1,
}  # fmt: skip
BASE = (
    "model.factorised=false", "model.addresses=false", "sampling.image_temperature=0.7",
    f"loader.batch_rows={STEP_POSITIONS // 1024}", "loader.caption_dropout=0.1",
)  # fmt: skip


@dataclass(frozen=True)
class Lever:
    """A change of the recipe, alone."""

    name: str
    settings: tuple[str, ...] = ()
    mix: tuple[tuple[str, float], ...] = ()
    """Shares of conversations that are not the laboratory's."""
    tokenizer: str = "codes"

    def combined(self, other: "Lever") -> "Lever":
        """Return both at once; the other's image tokenizer where it has one of its own."""
        return Lever(
            self.name, (*self.settings, *other.settings), (*self.mix, *other.mix),
            other.tokenizer if self.tokenizer == "codes" else self.tokenizer,
        )  # fmt: skip


LEVERS = {
    lever.name: lever
    for lever in (
        Lever("factorised", ("model.factorised=true",)),
        Lever("addresses", ("model.addresses=true",)),
        Lever("1,024 codes", tokenizer="few_codes"),
        Lever("changed codes x 4", ("sources.scenes.changed_weight=4",)),
        Lever("more edits", mix=(("edit", 0.5), ("draw", 0.35), ("ask", 0.15))),
        Lever("contrast pairs", mix=(("contrast", 0.3), ("draw", 0.3))),
        Lever("no plan in words", mix=(("plan", 0.0),)),
        Lever("code noise", ("loader.code_noise=0.05",)),
        Lever("residual lambdas", ("model.residual_lambdas=true",)),
        Lever("weight decay", ("optimizer.weight_decay=0.1",)),
        Lever(
            "cautious weight decay", ("optimizer.weight_decay=0.1", "optimizer.cautious=true")
        ),
        Lever("value embeddings", ("model.value_embeddings=true",)),
        Lever("two-way prompts", ("model.two_way=true",)),
        Lever("decay from the start", ("schedule.decay_steps=LONGEST",)),
    )
}  # fmt: skip
NOTHING = Lever("nothing")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--lever", "names", type=click.Choice([NOTHING.name, *LEVERS]), multiple=True,
              help="Screen these alone, and end; repeatable.")  # fmt: skip
@click.option(
    "--screened",
    default=4_000_000,
    show_default=True,
    type=AT_LEAST_ONE,
    help="Positions of each lever.",
)
@click.option(
    "--confirmed",
    default=8_000_000,
    show_default=True,
    type=AT_LEAST_ONE,
    help="Those of the best.",
)
@click.option("--best", default=5, show_default=True, type=click.IntRange(1, len(LEVERS)))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(2, len(STUDENT) + 1))
@click.option("--scenes", "samples", default=Budget.scenes, show_default=True, type=AT_LEAST_ONE)
@click.option(
    "--tokenizer-steps", default=Budget.tokenizer_steps, show_default=True, type=AT_LEAST_ONE
)
@click.option("--samples", "asked", default=Budget.samples, show_default=True, type=AT_LEAST_ONE)
@click.option("--precision", default=Budget.precision, show_default=True,
              type=click.Choice(["bf16", "fp32"]))  # fmt: skip
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=AT_LEAST_ONE,
    help="Runs at a time, each with a thread of its own.",
)
def main(
    folder: Path, names: tuple[str, ...], screened: int, confirmed: int, best: int, seeds: int,
    samples: int, tokenizer_steps: int, asked: int, precision: str, workers: int,
) -> None:  # fmt: skip
    """Screen levers of a recipe in FOLDER, and confirm the best."""
    one_thread()
    budget = Budget(
        screened, samples, tokenizer_steps, asked, asked, checkpoints=1, width=WIDTH,
        precision=precision,
    )  # fmt: skip
    lab = Laboratory(folder.resolve(), budget)
    lab.claim()
    chosen = [{NOTHING.name: NOTHING, **LEVERS}[name] for name in names] or [
        NOTHING, *LEVERS.values()
    ]  # fmt: skip
    found = Rows(lab, "screened.md", f"{screened:,} positions, one seed")
    for lever, runs in _runs(lab, chosen, screened, 1, SWEEP_SEED, workers):
        found.add(lever, runs)
        if not names:
            found.write()
    if names:
        print("\n".join(" | ".join(row) for row in (HEAD, *found.cells)))
    else:
        _confirm(lab, found.best(best), confirmed, seeds, workers)


def _confirm(lab: Laboratory, best: list[Lever], positions: int, seeds: int, workers: int) -> None:
    """Train the best longer, with more seeds, and all of them together."""
    found = Rows(lab, "confirmed.md", f"{positions:,} positions, {seeds} seeds")
    levers = (NOTHING, *best, together(best))
    for lever, runs in _runs(lab, levers, positions, seeds, EVAL_SEED, workers):
        found.add(lever, runs)
        found.write()
    for name in ("screened.md", "confirmed.md"):
        print((lab.folder / name).read_text())


def together(levers: Sequence[Lever]) -> Lever:
    """Return all levers at once; of shares that several of them change, the last one's by name."""
    ordered = sorted(levers, key=lambda lever: lever.name)
    whole = reduce(Lever.combined, ordered)
    return replace(whole, name=f"together: {', '.join(lever.name for lever in ordered)}")


def _runs(
    lab: Laboratory, levers: Sequence[Lever], positions: int, seeds: int, asked: int, workers: int
) -> Iterator[tuple[Lever, list["Run"]]]:
    """Yield each lever with its runs, of which `workers` are made at a time."""
    run = partial(_run, lab, positions, asked)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        made = [[pool.submit(run, lever, seed) for seed in range(seeds)] for lever in levers]
        for lever, runs in zip(levers, made, strict=True):
            yield lever, [one.result() for one in runs]


def _run(lab: Laboratory, positions: int, asked: int, lever: Lever, seed: int) -> "Run":
    """Train a lever and let it sit the exam of the seed `asked`, as far as that is not done."""
    one_thread()
    steps = math.ceil(positions / STEP_POSITIONS)
    settings = [one.replace("LONGEST", str(steps - _warmup(steps))) for one in lever.settings]
    data = _encoded(lab, lever)
    name = "-".join([*re.findall(r"\w+", lever.name), str(positions)])
    own = (*BASE, f"sources.scenes.shards={data}", *settings)
    trial = Trial(Head(name, "next_code", lever.tokenizer, settings=own), LR, seed)
    run = lab.train(trial, steps)
    if run is None:
        raise click.ClickException(f"{trial.name}: its loss was not finite: see {lab.log(name)}")
    sat = f"{trial.name}-exam{asked}"
    scores = exam(lab, run / "bundle", sat, trial.head.main, lab.budget.samples, asked)
    return Run(scores, cpu_minutes(run))


def _warmup(steps: int) -> int:
    return min(100, steps // 10)


def _encoded(lab: Laboratory, lever: Lever) -> Path:
    """Encode the conversations of a lever, unless that is done, and return the folder."""
    talks = _conversations(lab, lever)
    tokenizer = lab.train_tokenizer(lever.tokenizer) / "tokenizer"
    folder = lab.folder / f"{talks.name}-{lever.tokenizer}"
    return encoded(talks, tokenizer, folder, lab.log("data"))


def _conversations(lab: Laboratory, lever: Lever) -> Path:
    """Write the conversations of a lever, unless they are there: of its own mix or of all's."""
    if not lever.mix:
        folder = lab.conversations
    else:
        folder = lab.folder / f"conversations-{'-'.join(f'{k}{v:g}' for k, v in lever.mix)}"
    mix = [word for name, share in (MIX | GIVEN | dict(lever.mix)).items()
           for word in ("--mix", f"{name}={share}")]  # fmt: skip
    few = ("--max-objects", str(MAX_OBJECTS))
    return scenes(folder, lab.budget.scenes, TALKS_SEED, lab.log("data"), *few, *mix)


@dataclass(frozen=True)
class Run:
    """What a run's exam found, and the minutes of a processor that its training took."""

    scores: Scores
    minutes: float

    def value(self, part: str) -> float:
        """Return a score, or the mean of all parts."""
        if part == "mean":
            return self.scores.mean
        estimate = getattr(self.scores, part)
        assert estimate is not None, "all parts are asked"
        return estimate["value"]


class Rows:
    """The rows of a table; gains are over the row of nothing, seed by seed."""

    def __init__(self, lab: Laboratory, name: str, title: str) -> None:
        self.path, self.title = lab.folder / name, f"{title}; {lab.budget.samples} of each kind"
        self.rows: dict[str, list[Run]] = {}

    def add(self, lever: Lever, runs: list[Run]) -> None:
        """Add a row."""
        self.rows[lever.name] = runs

    @property
    def cells(self) -> list[list[str]]:
        """Return the cells of all rows."""
        return [self._cells(name) for name in self.rows]

    def write(self) -> None:
        """Write what is known so far."""
        write(self.path, self.title, HEAD, self.cells)

    def best(self, count: int) -> list[Lever]:
        """Return the levers with the largest means, the largest first."""
        means = {name: _mean(runs, "mean") for name, runs in self.rows.items() if name in LEVERS}
        return [LEVERS[name] for name in sorted(means, key=means.__getitem__)[: -count - 1 : -1]]

    def _cells(self, name: str) -> list[str]:
        runs, base = self.rows[name], self.rows.get(NOTHING.name)
        values = [f"{_mean(runs, part):.3f}" for part in (*PARTS, "mean")]
        gain = "" if base is None or name == NOTHING.name else gained(runs, base)
        return [name, *values, gain, f"{np.mean([one.minutes for one in runs]):.1f}"]


def _mean(runs: Sequence[Run], part: str) -> float:
    return float(np.mean([one.value(part) for one in runs]))


def gained(runs: Sequence[Run], base: Sequence[Run]) -> str:
    """Return the mean gain of runs over those of the same seeds without the lever; of several seeds
    with its 95 % interval, by Student's t over seeds.
    """
    gains = [one.value("mean") - other.value("mean") for one, other in zip(runs, base, strict=True)]
    if len(gains) == 1:
        return f"{gains[0]:+.3f}"
    half = STUDENT[len(gains) - 1] * np.std(gains, ddof=1) / math.sqrt(len(gains))
    return f"{np.mean(gains):+.3f} ({np.mean(gains) - half:+.3f} to {np.mean(gains) + half:+.3f})"


if __name__ == "__main__":
    main()
