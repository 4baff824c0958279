"""The verb `unimodal train plan`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unimodal.finite_range import FiniteRange

if TYPE_CHECKING:
    from ..run import LmRun
    from .assumptions import Assumptions


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option(
    "--gpus",
    type=click.IntRange(1),
    multiple=True,
    required=True,
    help="GPUs of the run; given several times, a table of all.",
)
@click.option(
    "--memory-gb",
    type=FiniteRange(0, min_open=True),
    required=True,
    help="Memory of each, in 10^9 bytes: 80 of an H100, 141 of an H200.",
)
@click.option(
    "--gpu",
    type=click.Choice(["H100", "H200"]),
    default="H100",
    show_default=True,
    help="Whose speed is assumed.",
)
@click.option(
    "--num-ids",
    type=click.IntRange(1),
    help="Of the vocabulary, where neither bundle nor image tokenizer is there yet.",
)
@click.option("--usd-per-gpu-hour", type=FiniteRange(0), help="The price of a GPU.")
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME=VALUE",
    help="A measured number in place of an assumed one, such as mtbf_h=20000 (docs/planning.md).",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the table of several --gpus as a PNG file.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON: all numbers.")
def plan(
    config: str,
    overrides: tuple[str, ...],
    gpus: tuple[int, ...],
    memory_gb: float,
    gpu: str,
    num_ids: int | None,
    usd_per_gpu_hour: float | None,
    assume: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Say what a run of CONFIG, with OVERRIDES on top, will take on so many GPUs: memory, traffic,
    time, cost, and what failures take of it. Everything is predicted; nothing is run.

    \b
    Examples:
      unimodal train plan lm_1.7b --gpus 8 --memory-gb 80
      unimodal train plan lm_7b --gpus 64 --memory-gb 141 --gpu H200
      unimodal train plan lm_7b --gpus 64 --gpus 512 --memory-gb 80 --usd-per-gpu-hour 2.5

    CONFIG is a YAML file, or the name of a recipe that is shipped.
    The exit status is 0 where it fits, with several --gpus any of them; 1 where it does not, 2
    where CONFIG is at fault.
    """
    from unimodal.config import load

    from ..run import LmRun
    from .assumptions import Assumptions

    price = () if usd_per_gpu_hour is None else (f"usd_per_gpu_hour={usd_per_gpu_hour}",)
    assumed = load(Assumptions, overrides=(*assume, *price))
    run = load(LmRun, config, overrides)
    if len(set(gpus)) > 1:
        fits = _many(run, list(gpus), (memory_gb, gpu, num_ids, assumed), plot, as_json)
    elif plot is not None:
        raise click.UsageError("--plot draws several numbers of GPUs: give --gpus more than once")
    else:
        fits = _one(run, gpus[0], (memory_gb, gpu, num_ids, assumed), as_json)
    if not fits:
        raise SystemExit(1)


Machine = tuple[float, str, int | None, "Assumptions"]  # of `plans.plan`, in its order


def _one(run: "LmRun", gpus: int, machine: Machine, as_json: bool) -> bool:
    """Show the plan of one number of GPUs, and return whether it fits."""
    from . import plan as plans
    from .scale import forecast

    made = plans.plan(run, gpus, *machine)
    found = forecast(run, made, machine[-1])
    if as_json:
        _print_json(found.as_json(), machine[-1])
        return made.fits
    from rich.console import Console

    from . import shown

    Console(highlight=False).print(shown.one(found))
    click.echo(shown.verdict(made))
    return made.fits


def _many(
    run: "LmRun", gpus: list[int], machine: Machine, plot: Path | None, as_json: bool
) -> bool:
    """Show the plans of several numbers of GPUs, and return whether one fits."""
    from .scale import at_scale

    found, refused = at_scale(run, gpus, *machine)
    if plot is not None:
        from unimodal.atomic import write_bytes

        from . import chart

        write_bytes(plot, chart.drawn(found, machine[-1]))
    if as_json:
        plans = {"plans": [one.as_json() for one in found]}
        _print_json(plans | {"refused": refused}, machine[-1])
    else:
        from rich.console import Console

        from . import shown

        Console(highlight=False).print(shown.many(found, refused, machine[-1]))
        if plot is not None:
            click.echo(plot)
    return any(one.plan.fits for one in found)


def _print_json(found: dict[str, Any], assumed: "Assumptions") -> None:
    from dataclasses import asdict

    click.echo(json.dumps(found | {"assumed": asdict(assumed)}, default=str))
