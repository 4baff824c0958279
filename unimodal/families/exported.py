"""Export a bundle of a published model in that model's own form, which transformers loads.

In: the bundle, perhaps trained further, and the published model that it comes from. Out: a
directory with that model's names of weights, its image tokenizer and its small files, and the
bundle's weights in their own dtype.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..bundle import (
    MAX_SHARD_BYTES,
    Progress,
    byte_counter,
    check_output,
    check_space,
    copied_tensor,
    directory_of,
    read_contents,
    write_directory,
)
from ..bundle_config import BundleConfig
from ..hub.checkpoint import fetch
from ..tensors import INDEX, PlannedTensor, StoredTensor, find_tensors, write_tensors
from .contents import contents_of
from .plan import Plan
from .published import FILES, SMALL, look_at, read_plan


def export_like(
    bundle: Path | None,
    like: str,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write a bundle as a published model is written, and return its directory.

    like: the published model, a directory or an id of the hub. Raise ValueError, before anything is
    written, where the bundle is not made of it.
    """
    check_output(output)
    place = directory_of(bundle)
    config = read_contents(place).config
    directory, facts = look_at(like)
    plan = read_plan(directory)
    directory = fetch(like, FILES)
    theirs = contents_of(like, directory, plan, facts.licence).contents.config
    if wrong := list(_differences(config, theirs)):
        raise ValueError(f"{place} is not made of {like}: another {', '.join(wrong)}")
    planned = list(_planned(plan, find_tensors(directory), find_tensors(place)))
    check_space(output, sum(tensor.num_bytes for tensor in planned))

    def fill(fresh: Path) -> None:
        count = byte_counter(planned, on_progress)
        write_tensors(fresh, planned, max_shard_bytes, {"format": "pt"}, count)
        for path in (path for pattern in SMALL for path in directory.glob(pattern)):
            if path.name != INDEX:
                shutil.copyfile(path, fresh / path.name)

    write_directory(output, fill)
    return output


def _differences(mine: BundleConfig, theirs: BundleConfig) -> Iterator[str]:
    """Yield in what a bundle differs from a published model, where training changes nothing."""
    if mine.transformer != theirs.transformer:
        yield "transformer"
    if mine.vocabulary != theirs.vocabulary:
        yield "vocabulary"
    # Whether a tower was trained says nothing of its shape.
    if _untrained(mine) != _untrained(theirs):
        yield "image head or vision tower"
    if mine.tokenizer_hash != theirs.tokenizer_hash:
        yield "image tokenizer"


def _untrained(config: BundleConfig) -> object:
    tower = config.image.tower
    return replace(config.image, tower=tower and replace(tower, trained=False))


def _planned(
    plan: Plan, theirs: Mapping[str, StoredTensor], mine: Mapping[str, StoredTensor]
) -> Iterator[PlannedTensor]:
    """Yield the weights under the published names: the bundle's, and what it leaves alone."""
    for name, place in theirs.items():
        ours = plan.renamed(name)
        yield copied_tensor(name, place if ours is None else mine[ours])
