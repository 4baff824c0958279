"""Begin a run with a vision tower: its weights, copied into the run's folder, and a new projector.

In: what the config names. Out: `tower.safetensors` in the run's folder, under the model's names of
the weights, from which every start of the run fills the tower, and its end copies a frozen one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unimodal.architecture import Architecture
from unimodal.atomic import replacing
from unimodal.hub.towers import FoundTower, read_tower
from unimodal.tensors import StoredTensor, stored_in, write_file
from unimodal.tower import NETWORK, PROJECTOR, Tower
from unimodal.unified import initial_weight

from .initial import InitialState, fill_from

WEIGHTS = "tower.safetensors"


@dataclass(frozen=True)
class TowerConfig:
    """Configure the vision tower by which images that are given enter, and how."""

    network: str | None = None
    """A SigLIP, CLIP or DINOv2 of Hugging Face, by its id or its folder, or efficientnet-lite0;
    None: the tower that `weights` has."""
    trained: bool = False
    """Train the tower too; otherwise the projector alone learns, beside the language model."""
    codes: bool = False
    """Given images enter as codes too, behind their soft vectors."""
    layer: int | None = None
    """Which hidden state is taken, -1 the last one before a final norm (LLaVA-1.5 takes CLIP's -2),
    or which feature map of efficientnet-lite0; None: what the network puts out at its end."""
    side: int | None = None
    """Pixels of a side of what the tower is given; None: as its preprocessor_config.json says."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.layer is not None and self.layer >= 0:
            found.append(f"layer {self.layer}: below 0, counted from the last one, -1")
        if self.side is not None and self.side < 1:
            found.append(f"side {self.side}: at least 1 pixel")
        return found


@dataclass(frozen=True, eq=False)
class GivenTower:
    """A GivenTower is what a run does with a tower: its own, found one, or that of its weights."""

    tower: Tower
    found: FoundTower | None
    """Where its weights are yet to be copied from; None: they are those of `weights`."""


def given_tower(config: TowerConfig | None, parent: Architecture | None) -> GivenTower | None:
    """Return the tower of a run; None where it has none. parent: the architecture of `weights`.

    ValueError where two are named, or none, and for one that cannot be read.
    """
    there = None if parent is None else parent.image.tower
    if config is None:
        return None if there is None else GivenTower(there, None)
    if config.network is not None:
        if there is not None:
            raise ValueError("tower.network: `weights` has a vision tower already; leave it out")
        found = read_tower(config.network, config.layer, config.side)
        tower = replace(found.tower, trained=config.trained, codes=config.codes)
        return GivenTower(tower, found)
    if there is None:
        raise ValueError("tower: `weights` has no vision tower; name one as tower.network")
    asked = {"codes": config.codes, "layer": config.layer, "side": config.side}
    has = {"codes": there.codes, "layer": None, "side": None}
    if odd := [f"tower.{name} {value}" for name, value in asked.items() if value != has[name]]:
        raise ValueError(
            f"{', '.join(odd)}: how `weights` is given images is settled (codes: {there.codes}); "
            "leave it as it is"
        )
    return GivenTower(replace(there, trained=config.trained), None)


def copy_tower(folder: Path, given: GivenTower | None) -> None:
    """Write the weights of a tower that is new to the run into its folder, once."""
    path = folder / WEIGHTS
    if given is None or given.found is None or path.exists():
        return
    with replacing(path) as fresh, fresh.open("wb") as stream:
        write_file(stream, given.found.weights, {"format": "pt"})


def tower_base(folder: Path, given: GivenTower | None) -> Mapping[str, StoredTensor]:
    """Return where the weights of a tower that is new to the run lie, by name."""
    if given is None or given.found is None:
        return {}
    return stored_in(folder / WEIGHTS)


def with_tower(
    initial: InitialState, folder: Path, given: GivenTower | None, seed: int
) -> InitialState:
    """Return the initial state with the run's tower, whose projector begins as a function of the
    seed where the tower is new.
    """
    if given is None:
        return initial
    shape = replace(initial.shape, image=replace(initial.shape.image, tower=given.tower))
    if given.found is None:
        return replace(initial, shape=shape)
    copied = fill_from(tower_base(folder, given))

    def fill(name: str, size: tuple[int, ...]) -> Tensor:
        if name.startswith(NETWORK):
            return copied(name, size)
        if name.startswith(PROJECTOR):
            return initial_weight(name, size, shape.transformer, seed)
        return initial.fill(name, size)

    return replace(initial, shape=shape, fill=fill)
