"""The verb `unimodal train plan`."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .plan import Plan

WHEN = {"always": "", "pass": "during a pass", "update": "during an update"}


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
@click.option("--gpus", type=click.IntRange(1), required=True, help="GPUs of the run.")
@click.option(
    "--memory-gb",
    type=click.FloatRange(0, min_open=True),
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
@click.option("--json", "as_json", is_flag=True, help="One line of JSON: all numbers.")
def plan(
    config: str,
    overrides: tuple[str, ...],
    gpus: int,
    memory_gb: float,
    gpu: str,
    num_ids: int | None,
    as_json: bool,
) -> None:
    """Say what a run of CONFIG, with OVERRIDES on top, will take on so many GPUs: memory, traffic
    and time. Everything is predicted; nothing is run.

    \b
    Examples:
      unimodal train plan lm_1.7b --gpus 8 --memory-gb 80
      unimodal train plan lm_7b --gpus 64 --memory-gb 141 --gpu H200

    CONFIG is a YAML file, or the name of a recipe that is shipped.
    The exit status is 0 where it fits, 1 where it does not, 2 where CONFIG is at fault.
    """
    from unimodal.config import load

    from ..run import LmRun
    from . import plan as plans

    made = plans.plan(load(LmRun, config, overrides), gpus, memory_gb, gpu, num_ids)
    if as_json:
        click.echo(json.dumps(made.as_json(), default=str))
    else:
        from rich.console import Console

        Console(highlight=False).print(_shown(made))
        click.echo(_verdict(made))
    if not made.fits:
        raise SystemExit(1)


def _shown(made: "Plan") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    memory = Table("memory of a GPU", title_justify="left")
    memory.add_column("GB", justify="right")
    memory.add_column("on the host, GB", justify="right")
    memory.add_column("when, how")
    for item in made.memory:
        words = ", ".join(word for word in (WHEN[item.when], item.note) if word)
        host = _gb(item.host_bytes) if item.host_bytes else ""
        memory.add_row(item.name, _gb(item.gpu_bytes), host, words)
    memory.add_section()
    memory.add_row("most at once", _gb(made.total_bytes), "", f"of {made.memory_gb:g}")
    numbers = Table("predicted", "", show_header=True)
    for name, value in _numbers(made):
        numbers.add_row(name, value)
    return Group(memory, numbers)


def _numbers(made: "Plan") -> list[tuple[str, str]]:
    zero = f"ZeRO-{made.stage}" if made.stage else "one process, no ZeRO"
    rows = f"{made.accumulation} x {made.micro_batch_rows} rows of each GPU"
    sent = ", ".join(f"{_gb(size)} GB {name}" for name, size in made.sent_bytes.items())
    reached = made.flops / made.num_gpus / made.likely_s / 1e12
    model = f"{made.parameters / 1e9:.3g} billion parameters, {made.shape.num_ids:,} ids"
    if made.trained < made.parameters:
        model += f"; {made.trained / 1e9:.3g} billion train"
    return [
        ("model", model),
        ("GPUs", f"{made.num_gpus} x {made.gpu}, {zero}"),
        ("a step", f"{rows}: {made.tokens:,} tokens"),
        ("sent by a GPU in a step", sent or "nothing"),
        ("useful FLOPs of a step", f"{made.flops:.3g} (each row one document)"),
        ("seconds of a step", f"{made.likely_s:.3g}; {made.limit_s:.3g} at the GPU's limit"),
        ("tokens a second", f"{made.tokens_per_s:,.0f}; {reached:.0f} TFLOP/s of each GPU"),
        ("a checkpoint", f"{_gb(made.checkpoint_bytes)} GB of all ranks; disk for "
                         f"{_gb(made.disk_bytes)} GB"),
        ("host memory of a rank", f"{_gb(made.host_bytes)} GB beside its loader"),
    ]  # fmt: skip


def _verdict(made: "Plan") -> str:
    if made.fits:
        return "fits"
    short = f"does not fit: {_gb(made.total_bytes)} GB of {made.memory_gb:g}"
    if not made.change:
        return f"{short}; no change that was tried makes it fit: give more GPUs, or a smaller model"
    words = [
        f"--gpus {value}" if name == "gpus" else f"{name}={_word(value)}"
        for name, value in made.change.items()
    ]
    return f"{short}; it would with {' '.join(words)}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f}"
