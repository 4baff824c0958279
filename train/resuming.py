"""Open a run's directory, new or not: choose what it goes on from, and note what has changed.

In: the config of this start and hashes of what it reads. Out: the newest checkpoint that is whole.
`changes` says what may differ from the last start; `history` keeps what did.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unimodal import config as configuration
from unimodal import noted
from unimodal.atomic import write_bytes

from . import changes, checkpoint, history
from .checkpoint import Checkpoint
from .history import Change
from .metrics import METRICS
from .mirror import fetch_missing
from .ranks import Ranks

CONFIG, INPUTS = "config.yaml", "inputs.json"
FINISHED = ("bundle", "tokenizer")  # what a run ends with
# What a run writes before its first step.
BEGUN = (
    "text.json", "tower.safetensors", "vocabulary.yaml", "commits.txt", "sources.json",
    "quarantine.jsonl", "before.json", INPUTS, history.HISTORY,
)  # fmt: skip


def prepare(
    config: Any,
    output: Path,
    inputs: dict[str, Any],
    ranks: Ranks | None = None,
    accept_change: bool = False,
) -> Checkpoint | None:
    """Open the run's directory and return its newest whole checkpoint; None for a new run.

    All ranks call it together; the first one writes. Damaged checkpoints above it are set aside.
    `inputs` are hashes of what the run reads, by name. What differs from the last start is refused
    or noted in the history as `changes` has it; `accept_change` lets more of it pass. Raises
    ValueError for what is refused, where no checkpoint is whole, and where the run is beyond the
    schedule's end.
    """
    ranks = ranks or Ranks()
    fetch_missing(config.loop.mirror, output, ranks)
    newest, damaged = checkpoint.resumable(output, ranks)
    begun = newest is not None or bool(damaged)

    def opened() -> None:
        if not begun:
            _begin_anew(output)
        elif newest is None:
            raise ValueError(_none_whole(output, damaged))
        else:
            _go_on(config, output, inputs, newest.step, accept_change)
        try:
            output.mkdir(parents=True, exist_ok=True)
            known = noted_inputs(output) | inputs
            write_bytes(output / INPUTS, (json.dumps(known, indent=1) + "\n").encode())
            configuration.save(config, output / CONFIG)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(output)) from error  # a write names none
        checkpoint.sweep(output)
        for directory, why in damaged.items():
            assert newest is not None, "or else it was refused"
            _set_aside(directory, why, newest.step)

    ranks.together(lambda: opened() if ranks.is_first else None)
    return newest


def _begin_anew(output: Path) -> None:
    """Remove what a run without a checkpoint has noted: a mistake may be put right.

    Raises ValueError for a finished run whose checkpoints are gone.
    """
    if (output / METRICS).exists():
        for name in FINISHED:
            if (output / name).exists():
                raise ValueError(
                    f"{output} holds a finished run, {name}, and no checkpoint to go on from: give "
                    "another output, or remove it"
                )
        print(f"{output} has no checkpoint yet: it begins at step 0", file=sys.stderr)
    for name in BEGUN if (output / INPUTS).exists() else ():  # nothing of no run's directory
        (output / name).unlink(missing_ok=True)


def _none_whole(output: Path, damaged: Mapping[Path, str]) -> str:
    said = "\n  ".join(f"{directory.name}: {why}" for directory, why in damaged.items())
    return (
        f"no checkpoint of {output} is whole; put one back from a copy, or give another output:"
        f"\n  {said}"
    )


def _go_on(
    config: Any, output: Path, inputs: dict[str, Any], step: int, accept_change: bool
) -> None:
    """Note what has changed in a run of so many steps. Raises ValueError where it may not."""
    if step > config.schedule.num_steps:
        raise ValueError(
            f"schedule.num_steps {config.schedule.num_steps}: {output} has taken {step} "
            "steps; give more, or another output"
        )
    saved = output / CONFIG
    found = changes.contents(noted_inputs(output), inputs)
    if saved.exists():
        found = changes.settings(_saved(config, saved), config, step) + found
    has_bundle = hasattr(config, "tokenizer")  # a run of an image tokenizer itself has none
    if problem := changes.refused(output, step, found, accept_change, has_bundle):
        raise ValueError(problem)
    for change, _ in found:
        print(f"{change} from step {step} on", file=sys.stderr)
    history.note(output, step, [change for change, _ in found])


def noted_inputs(output: Path) -> dict[str, Any]:
    """Return hashes of what a run has read so far, by name; none where it has not noted them."""
    inputs = output / INPUTS
    if not inputs.exists():
        return {}
    way_out = "remove it, and the shards are taken as they are now"
    return noted.parsed(inputs, inputs.read_bytes(), way_out)


def _saved(config: Any, path: Path) -> Any:
    """Return the settings of the last start. Raises ValueError where they cannot be read."""
    try:
        return configuration.saved(type(config), path)
    except ValueError as error:
        raise ValueError(
            f"{error}\n  remove it, and the settings are taken as they are now"
        ) from error


def _set_aside(directory: Path, why: str, step: int) -> None:
    kept = checkpoint.set_aside(directory)
    print(
        f"{directory} is damaged ({why}); it is kept as {kept.name}, and the run goes on from step "
        f"{step}",
        file=sys.stderr,
    )
    history.note(directory.parent, step, [Change("checkpoint", directory.name, f"step_{step:08d}")])
