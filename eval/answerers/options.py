"""The options that say who answers, where it is no model of ours."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import IN_FILE

if TYPE_CHECKING:
    from .answerer import Answerer
    from .endpoint import Endpoint

PRECISIONS = ("float32", "bfloat16", "float16")
KEY_VARIABLE = "OPENAI_API_KEY"
WHO = ("transformers", "server", "answers")
NEEDS = {"revision": "transformers", "precision": "transformers", "served_model": "server",
         "key_variable": "server"}  # fmt: skip


def answerer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of other people's models."""
    for add in (
        click.option("--answers", type=IN_FILE, help="Answers of another program, as JSON lines."),
        click.option("--key-variable", metavar="NAME",
                     help=f"--server: where the key is [default: {KEY_VARIABLE}]."),
        click.option("--served-model", metavar="NAME", help="--server: the model's name there."),
        click.option("--server", metavar="URL", help="One that speaks OpenAI's chat completions."),
        click.option("--precision", type=click.Choice(PRECISIONS),
                     help="--transformers: of its weights [default: float32]."),
        click.option("--revision", metavar="NAME", help="--transformers: of the hub's repository."),
        click.option("--transformers", metavar="PATH_OR_ID",
                     help="An image-text-to-text model of transformers."),
    ):  # fmt: skip
        command = add(command)
    return command


def answerer_of(model: Path | None, device: str, **given: Any) -> "Answerer | None":
    """Return the answerer that the options name; None: a model of ours. UsageError where several
    are named, or an option would be ignored.
    """
    named = [f"--{who}" for who in WHO if given[who] is not None] + ["--model"] * bool(model)
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} name several models: give one")
    for name, who in NEEDS.items():
        if given[name] is not None and given[who] is None:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --{who}")
    if given["transformers"] is not None:
        from .pretrained import Pretrained

        precision = given["precision"] or PRECISIONS[0]
        return Pretrained(given["transformers"], device, precision, given["revision"])
    if given["server"] is not None:
        from .server import Server

        return Server(*endpoint_of(given["server"], given["served_model"], given["key_variable"]))
    if given["answers"] is not None:
        from .answers_file import AnswersFile

        return AnswersFile(given["answers"])
    return None


def endpoint_of(url: str, model: str | None, variable: str | None) -> "tuple[Endpoint, str]":
    """Return a server and the model's name there; UsageError where name or key are missing."""
    from .endpoint import Endpoint

    if model is None:
        raise click.UsageError("--server needs --served-model: what the server calls the model")
    key = os.environ.get(variable or KEY_VARIABLE)
    if variable is not None and not key:
        raise click.UsageError(f"--key-variable {variable}: the environment has no such variable")
    return Endpoint(url, key), model
