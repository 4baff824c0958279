"""What a published model holds: the contents of a bundle, and where its weights lie."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from ..bundle import BundleContents
from ..bundle_config import BundleConfig
from ..hub.checkpoint import CheckpointError, raw_config, sound, weight_problems
from ..hub.image_checkpoint import read_image_tokenizer
from ..tensors import PlannedTensor, StoredTensor, find_tensors, in_memory
from ..unified import parameter_shapes
from .plan import Plan
from .spellings import read_text

UNTRAINED = "none: published by others"


@dataclass(frozen=True, eq=False)
class PublishedContents:
    """PublishedContents are all of a published model but its weights, of which the places are
    known.
    """

    contents: BundleContents
    names: dict[str, str]
    """How a weight is called in the files, by our name."""
    places: dict[str, StoredTensor]
    """Where it lies, by our name; of what heads share, one may lie there for several."""
    shapes: dict[str, tuple[int, ...]]
    """Its shape with us."""

    def planned(self) -> Iterator[PlannedTensor]:
        """Yield how each weight is written in a bundle: its bytes as they are, repeated where heads
        share them.
        """
        for ours, shape in self.shapes.items():
            place = self.places[ours]
            if place.shape == shape:
                yield replace(sound(self.names[ours], place), name=ours)
            else:
                yield in_memory(ours, of_each_head(_whole(place), shape))


def contents_of(source: str, directory: Path, plan: Plan, licence: str) -> PublishedContents:
    """Return what a published model holds; raise ValueError that names the file at fault."""
    tensors = find_tensors(directory)
    names = {ours: name for name in tensors if (ours := plan.renamed(name)) is not None}
    # Files say what is tied by what they store: flags have been wrong.
    tied = "lm_head.weight" not in names
    architecture = replace(
        plan.architecture, transformer=replace(plan.architecture.transformer, tied_head=tied)
    )
    places = {ours: tensors[name] for ours, name in names.items()}
    shapes = parameter_shapes(architecture)
    if problems := list(weight_problems(shapes, _repeated(plan, shapes, places))):
        raise CheckpointError(directory, problems)
    tokenizer = read_image_tokenizer(directory)
    about = {
        "source": source,
        "model_type": raw_config(directory / "config.json")["model_type"],
        "licence": licence,
    }
    config = BundleConfig(
        architecture.transformer, architecture.vocabulary, plan.grid, plan.sampling,
        architecture.transformer.max_positions, tokenizer.hash, architecture.image, plan.fit,
    )  # fmt: skip
    card = {"config": about, "commit": UNTRAINED, "hardware": UNTRAINED, "hours": 0.0, **about}
    text = read_text(directory, architecture.vocabulary)
    return PublishedContents(BundleContents(config, text, tokenizer, card), names, places, shapes)


def _repeated(
    plan: Plan, shapes: Mapping[str, tuple[int, ...]], places: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """Return the stored tensors, those of which each head has one as if all heads' were there."""
    found = dict(places)
    for name, place in places.items():
        if plan.per_head is None or not plan.per_head.search(name) or name not in shapes:
            continue
        num_heads, width = shapes[name]
        *groups, stored_width = place.shape
        if stored_width == width and num_heads % prod(groups) == 0:
            found[name] = replace(place, shape=shapes[name])
    return found


def of_each_head(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a weight in our shape: what is stored once for a group of heads for each of them."""
    if tensor.shape == shape:
        return tensor
    groups_Gd = tensor.reshape(-1, shape[1])
    return groups_Gd.repeat_interleave(shape[0] // len(groups_Gd), dim=0)


def _whole(place: StoredTensor) -> torch.Tensor:
    return torch.cat(list(place.row_blocks())).view(place.shape)
