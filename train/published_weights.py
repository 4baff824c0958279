"""Begin a run with the weights of a published model, of which it makes a bundle in its own folder.

    RUN/weights    the bundle, with the bytes of the published weights (families/bundled.py)

1. What config.json and the other small files say is compared with the settings (given.py), before
   the weights are fetched.
2. The first rank writes the bundle, anew at each start until the run has a checkpoint: a mistake in
   the published files may be put right.
3. From then on the run takes it from there, wherever the published model is by then.
"""

import shutil
import sys
from pathlib import Path

from unimodal import manifest
from unimodal.architecture import Architecture
from unimodal.atomic import PREFIX
from unimodal.bundle import directory_of
from unimodal.card import read_card
from unimodal.families.bundled import write_as_bundle
from unimodal.families.published import draws_already, is_published, look_at, read_plan
from unimodal.manifest import MANIFEST

from . import checkpoint
from .lock import held
from .ranks import Ranks
from .resuming import noted_inputs

BUNDLE = "weights"  # the folder of a run that holds the bundle
GROWN = "of a language model `unimodal grow {} --output BUNDLE` makes a bundle"


def weights_directory(weights: Path, run: Path) -> Path:
    """Return the directory of the bundle that a run begins with: the one that `weights` names, or
    what the run made of the published model of that name.
    """
    named = directory_of(weights)
    made = run / BUNDLE
    if (named / MANIFEST).is_file() or not (made / MANIFEST).is_file():
        return named
    return made if read_card(made).get("source") == named.as_posix() else named


def published_in(weights: Path, run: Path) -> str | None:
    """Return the published model of which a run has yet to make its bundle; None where it begins
    with a bundle, or has made it and taken steps from it.

    Raise ValueError where the run has taken steps from another, whose bundle would be lost.
    """
    named = directory_of(weights)
    if not is_published(named):
        return None
    if not _has_begun(run):
        return named.as_posix()
    made = run / BUNDLE
    source = read_card(made).get("source")
    if source != named.as_posix():
        raise ValueError(
            f"weights {weights}: {run} has taken steps from {source}, of which it made {made}: "
            f"say weights={made} where that is the same model, or give another output"
        )
    return None


def _has_begun(run: Path) -> bool:
    """Return whether a run has taken steps from the bundle that it made: one of a start that was
    refused may lie there too.
    """
    made = run / BUNDLE
    if not checkpoint.found(run) or not (made / MANIFEST).is_file():
        return False
    there = manifest.model_hash(manifest.read(made))
    return noted_inputs(run).get("weights", there) == there


def read_architecture(source: str) -> Architecture:
    """Return the architecture that a published model's small files say: whether its output table is
    tied is not known yet, and it counts as not tied.

    Raise ValueError where the model cannot be used.
    """
    directory, facts = look_at(source)
    try:
        return read_plan(directory).architecture
    except ValueError as error:
        hint = "" if draws_already(directory) else f"; {GROWN.format(source)}"
        raise ValueError(f"{error}{hint} ({source}: {facts})") from error


def make_bundle(source: str, run: Path) -> None:
    """Write the bundle of a published model into a run's folder, in the place of an older one.

    The first rank calls it. Raise ValueError where the model cannot be used, and Locked where
    another process has the run.
    """
    _, facts = look_at(source)
    with held(run, Ranks()):
        for left in run.glob(f"{PREFIX}*"):  # of a start that was killed while it wrote
            shutil.rmtree(left)
        print(f"{source}: {facts}; its bundle is written to {run / BUNDLE}", file=sys.stderr)
        write_as_bundle(source, run / BUNDLE)
