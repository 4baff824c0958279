"""The data mixture: weighted sources, and how their weights change over a run.

In: for each source the location of its shards, its weight and format; stages of the run. Out: the
`Mixture` that holds from each stage on. `streams.py` reads the sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unimodal.document import MAX_WEIGHT

from . import formats
from .found import Place
from .measured import IGNORED
from .sizes import ImageRule


@dataclass(frozen=True)
class SourceConfig:
    """A source of documents: where its shards are, how they are read, how much they count."""

    shards: str
    """A folder of .tar or .tar.gz files, one of them, a URL that fsspec opens, or `pipe:` and a
    command; {000..123} stands for that many numbers."""
    weight: float = 1.0
    """Its share of tokens, relative to the other sources' weights; 0: not read."""
    format: str | None = None
    """The format of its samples, a key of formats.FORMATS; None: detect it for each sample."""
    pairs: str | None = None
    """A field of .json: samples of a shard that share its value are paired into edits."""
    split: tuple[float, float] = (0.0, 1.0)
    """Which samples are read: those whose hash, a number in [0, 1), lies from the first to before
    the second; (0, 0.95) is for training and (0.95, 1) is held out."""
    split_by: str | None = None
    """A field of .json whose value is hashed, so that samples which share it stay together; None:
    the key is hashed."""
    text_weight: float = 1.0
    """Multiplies the loss weight of learned text of this source."""
    image_weight: float = 1.0
    """Multiplies the loss weight of learned images of this source."""
    changed_weight: float = 1.0
    """Multiplies the loss weight of those codes of a learned image that differ from the codes in
    their place of the image before it, such as the one that is edited; an image that a vision
    tower alone sees has none to differ from."""
    ignore: tuple[str, ...] = ()
    """Extensions of files that are left unread: mask.png, cls. Without it, a file of an unknown
    kind beside words without an image makes a sample bad."""
    fields: dict[str, str] = field(default_factory=dict)
    """The fields of .json that fill roles, by role, where they have unusual names, such as
    {caption: my_words}; the roles are those of formats.ROLES."""
    index: str | None = None
    """A folder that `unimodal data index` has written of these shards: what is known of them then
    need not be measured. None: it is measured at the first start, and kept in the cache."""

    @property
    def place(self) -> Place:
        """Return where its shards are."""
        return Place(self.shards, self.index)

    @property
    def folder(self) -> Path:
        """Return the folder that its shards lie in."""
        shards = Path(self.shards)
        return shards.parent if shards.suffix == ".tar" else shards

    def problems(self) -> list[str]:
        """List what is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: a number from 0 to {MAX_WEIGHT:,.0f}"
            for name, value in vars(self).items()
            if name.endswith("weight") and not 0 <= value <= MAX_WEIGHT
        ]
        if self.format is not None and self.format not in formats.FORMATS:
            found.append(f"format {self.format!r}: one of {', '.join(formats.FORMATS)}")
        if not 0 <= self.split[0] < self.split[1] <= 1:
            found.append(
                f"split {list(self.split)}: two numbers from 0 to 1, the first the smaller"
            )
        if words := [name for name in self.ignore if not name or name.startswith(".")]:
            found.append(
                f"ignore {', '.join(map(repr, words))}: extensions without their first dot"
            )
        if self.split_by is not None and self.split == (0.0, 1.0):
            found.append("split_by: says nothing without a split")
        found += self._field_problems()
        if self.pairs is not None and self.format is not None:
            found.append("format: leave it out beside pairs, which makes edits")
        return found

    def not_ignored(self, notes: Mapping[str, int]) -> list[str]:
        """Return the extensions to ignore that no sample has, by the notes of its index."""
        return [f".{one}" for one in self.ignore if not notes.get(f"{IGNORED}.{one}")]

    def _field_problems(self) -> list[str]:
        """List what is wrong with `fields`: their roles are those of one format."""
        if self.format is not None and self.format in formats.FORMATS:
            able = formats.ROLES[self.format]
            return [
                f"fields.{role}: the format {self.format} reads {', '.join(able)}"
                for role in self.fields
                if role not in able
            ]
        known = sorted({role for roles in formats.ROLES.values() for role in roles})
        unknown = [role for role in self.fields if role not in known]
        if unknown:
            return [f"fields.{role}: the roles are {', '.join(known)}" for role in unknown]
        if not any(set(self.fields) <= set(roles) for roles in formats.ROLES.values()):
            return [f"fields {', '.join(self.fields)}: no format reads all of them"]
        return []


@dataclass(frozen=True)
class Stage:
    """A change, from a step on, of the mixture or of the size of images."""

    from_step: int
    weights: dict[str, float] = field(default_factory=dict)
    """New weights by source; those that are not named keep theirs."""
    target_pixels: int | None = None
    """Pixels of an image (width times height), about; None: as before."""

    def problems(self) -> list[str]:
        """List what is wrong with the values, one sentence each."""
        found = [
            f"weights.{n} {w}: from 0 to {MAX_WEIGHT:,.0f}"
            for n, w in self.weights.items()
            if not 0 <= w <= MAX_WEIGHT
        ]
        return found if self.from_step > 0 else [f"from_step {self.from_step}: at least 1", *found]


@dataclass(frozen=True)
class Mixture:
    """What holds from a step on: the weight of each source, and the size of images."""

    from_step: int
    weights: dict[str, float]
    rule: ImageRule | None


def mixtures(
    sources: Mapping[str, SourceConfig], stages: Sequence[Stage], rule: ImageRule | None
) -> list[Mixture]:
    """Return the mixture of the run's begin and of each stage; ValueError for impossible stages."""
    found = [Mixture(0, {name: source.weight for name, source in sources.items()}, rule)]
    for stage in stages:
        last = found[-1]
        unknown = [name for name in stage.weights if name not in sources]
        if unknown:
            raise ValueError(f"stages name {', '.join(unknown)}: sources are {', '.join(sources)}")
        if stage.from_step <= last.from_step:
            raise ValueError(f"a stage from step {stage.from_step} after one from {last.from_step}")
        if stage.target_pixels is not None and last.rule is None:
            raise ValueError("a stage sets target_pixels, but `images` is not set")
        rule = (
            replace(last.rule, target_pixels=stage.target_pixels)
            if stage.target_pixels and last.rule
            else last.rule
        )
        found.append(Mixture(stage.from_step, last.weights | stage.weights, rule))
    for mixture in found:
        if not any(mixture.weights.values()):
            raise ValueError(f"from step {mixture.from_step} on no source has a weight")
    return found
