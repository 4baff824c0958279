"""Declare the options that several verbs of `unimodal eval` share."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unimodal.model import Model
    from unimodal.rectified_flow import Solver
    from unimodal.sampling import Sampling

EVAL_SEED = 1_000_003  # training takes its scenes from other seeds


class OutFile(click.Path):
    """A file that can be written, whose folders are made, and that no other option writes: else
    the work for it would be lost.
    """

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path; fail where no folder above it can take the file, or another takes it."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            self.fail(f"{path} cannot be written: {there} is no folder that takes it", param, ctx)
        for other in ctx.command.params if ctx else ():
            taken = ctx.params.get(other.name) if isinstance(other.type, OutFile) else None
            if taken is not None and taken.resolve() == path.resolve():
                self.fail(f"{other.opts[0]} writes {path} too: give each its own", param, ctx)
        return path


OUT_FILE = OutFile()
IN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
IN_PATH = click.Path(path_type=Path)


def option(name: str, default: Any, words: str, kind: click.ParamType) -> Callable[..., Any]:
    """Return a click option that shows its default."""
    return click.option(name, default=default, show_default=True, help=words, type=kind)


def files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where scores go, and where they are computed."""
    for add in (
        click.option("--markdown", type=OUT_FILE, help="Write the table here."),
        click.option("--json", type=OUT_FILE, help="Write scores and every prediction here."),
        option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING),
    ):
        command = add(command)
    return command


def training_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that names training data, to look for what is asked in it."""
    words = "Shards that were trained on: count what is asked that was in them. Several times."
    return click.option("--training", multiple=True, metavar="SHARDS", help=words)(command)


def outputs(sheet: str) -> Callable[..., Any]:
    """Add those of `files`, and the ones that evaluations of a model or a tokenizer share; `sheet`
    says what the contact sheet shows.
    """

    def add_all(command: Callable[..., Any]) -> Callable[..., Any]:
        for add in (
            click.option("--contact-sheet", type=OUT_FILE, help=sheet),
            files,
            option("--batch-size", 32, "Requests or images at a time.", click.IntRange(1)),
            option("--seed", EVAL_SEED, "Of scenes, requests and noise.", click.IntRange(0, 2**40)),
        ):
            command = add(command)
        return command

    return add_all


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that evaluations of a model's replies share."""
    words = "Keep predictions here as they come; resume."
    for add in (
        click.option("--card", is_flag=True, help="Also write the scores into the model's card."),
        click.option("--predictions", type=OUT_FILE, help=words),
        click.option("--temperature", type=float, help="Of drawing [default: the model's]."),
        click.option("--guidance", type=float, help="Of drawing; 1 is off [default: the model's]."),
        click.option(
            "--image-solver",
            type=click.Choice(("euler", "heun")),
            help="Of drawing, where its head solves an equation.",
        ),
        click.option("--image-steps", type=int, help="Of drawing, where its head takes steps."),
    ):
        command = add(command)
    return command


def sampling_of(
    model: "Model",
    guidance: float | None,
    temperature: float | None,
    image_steps: int | None = None,
    image_solver: "Solver | None" = None,
) -> "Sampling":
    """Return how a model is asked to reply: as it says, but for what `model_options` gave."""
    sampling = model.sampling
    if guidance is not None:
        sampling = replace(sampling, guidance=guidance)
    if temperature is not None:
        sampling = replace(sampling, image_temperature=temperature)
    if image_steps is not None:
        sampling = replace(sampling, image_steps=image_steps)
    if image_solver is not None:
        sampling = replace(sampling, image_solver=image_solver)
    # Settings that its image head does not follow are refused before anything is asked.
    sampling.check(model.transformer.head.follows, model.transformer.architecture.image.head)
    return sampling


def check_devices(names: str) -> None:
    """Raise UsageError unless a model can be spread over devices (unimodal/placement.py)."""
    from unimodal.placement import devices_of

    try:
        devices = devices_of(names)
    except ValueError as error:
        raise click.UsageError(f"--device {names}: {error}") from error
    for one in devices:
        check_device(str(one))


def check_device(name: str) -> None:
    """Raise UsageError unless torch knows the device and it is there."""
    import torch

    try:
        torch.empty(0, device=name)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # a wrong name, no such device, no CUDA in torch
        raise click.UsageError(f"--device {name}: {error}; cpu is always there") from error
