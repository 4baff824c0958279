"""Log what a run measures: one JSON line a step, and the same to Weights & Biases if asked for."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unimodal import config, noted
from unimodal.atomic import write_bytes

METRICS = "metrics.jsonl"
REMOVE = "remove this line, and the run goes on"
WANDB_ID = "wandb_id.txt"  # so that a resumed run goes on in the same curves


@contextmanager
def metrics(output: Path, start: int, project: str | None) -> Iterator[Callable[[Mapping], None]]:
    """Give a function that logs the values of a step, the first one of step `start`.

    Lines of steps that are done again are dropped. `project` of Weights & Biases (None: none) gets
    the run's config.yaml too.
    """
    path = output / METRICS
    _drop(path, start)
    curves = _wandb(output, project) if project is not None else None

    def log(values: Mapping[str, Any]) -> None:
        try:
            with path.open("a") as file:
                print(json.dumps(values), file=file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if curves is not None:
            curves.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])

    try:
        yield log
    finally:
        if curves is not None:
            curves.finish()


def hours(output: Path) -> float:
    """Return what the steps of a run have taken, in hours; 0 where there is no run."""
    return sum(line["step_s"] for line in read(output)) / 3600


def read(output: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's log, one a step."""
    return noted.lines(output / METRICS, REMOVE)


def last(output: Path, done: int) -> dict[str, Any]:
    """Return the line of the last of `done` steps; an empty one where the log has none."""
    return next((line for line in read(output) if line["step"] == done - 1), {})


def _drop(path: Path, start: int) -> None:
    if path.exists():
        steps = [line["step"] for line in noted.lines(path, REMOVE)]
        there = zip(noted.whole_lines(path), steps, strict=True)
        write_bytes(path, b"".join(line for line, step in there if step < start))


def _wandb(output: Path, project: str) -> Any:
    import wandb

    name = output / WANDB_ID
    if not name.exists():
        name.write_text(secrets.token_hex(4))
    curves = wandb.init(
        project=project, name=output.name, id=name.read_text(), dir=output, resume="allow"
    )
    # What a resumed run has otherwise is no error there either.
    curves.config.update(config.read(output / "config.yaml"), allow_val_change=True)
    return curves
