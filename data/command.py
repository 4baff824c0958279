"""The group `unimodal data`, and its verb `scenes`.

Scenes are written shard by shard; a shard is a pure function of the settings and its number, so its
bytes do not depend on how many workers share the work, and finished ones need not be made again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .convert.command import convert
from .digest_command import digest
from .encode_command import encode
from .folder import SCENES, claim, shared
from .index_command import index
from .inspect.command import inspect
from .things.command import things

if TYPE_CHECKING:
    import numpy as np

    from unimodal.document import Document

    from .scenes.conversations import Mix
    from .things.conversations import ThingsMix

KINDS = ("conversations", "images", "drawings")
PREVIEW_SAMPLES = 24


@dataclass(frozen=True)
class SceneShards:
    """The settings of a folder of scenes shards, and what sample each index is."""

    kind: str
    """conversations (text and images), or for the image tokenizer images (exact scenes) or drawings
    (of all kinds)."""
    samples: int
    seed: int
    canvas: int
    """Pixels a side."""
    shard_samples: int
    """Samples in a shard; the last one may hold fewer."""
    mix: dict[str, Any]
    """Every field of the Mix of conversations or of drawings; empty for images."""
    things: Path | None = None
    """The folder of a table of icons (`unimodal data things`)."""
    photos: tuple[Path, ...] = ()
    """Shards whose photographs come into drawings."""
    max_objects: int | None = None
    """The most objects in a scene; None: those that the canvas has room for."""

    @property
    def num_shards(self) -> int:
        """Return how many shards hold the samples."""
        return -(-self.samples // self.shard_samples)

    def indices(self, number: int) -> range:
        """Return the samples of shard `number`."""
        first = number * self.shard_samples
        return range(first, min(self.samples, first + self.shard_samples))

    def note(self) -> dict[str, Any]:
        """Return every setting by name, those of the mix as `mix.name`, and of files a hash."""
        from .things.photos import photo_hash
        from .things.table import things_of

        note = asdict(self)
        things, photos, mix = (note.pop(name) for name in ("things", "photos", "mix"))
        if self.max_objects is None:  # as folders of earlier versions have it
            del note["max_objects"]
        note |= {f"mix.{name}": value for name, value in mix.items()}
        if things is not None:
            note["things"] = things_of(things).digest
        if photos:
            note["photos"] = photo_hash(photos)
        return note

    def document(self, index: int) -> "Document":
        """Return sample `index`, a pure function of the settings and the index."""
        from unimodal.document import Document, Image

        from .scenes.conversations import conversation
        from .scenes.world import render, scene, world_of

        if self.kind == "drawings":
            return Document((Image(self._drawing(index)),))
        if self.things is not None and (of_things := self._of_things(index)) is not None:
            return of_things
        world = world_of(self.canvas, self.max_objects)
        if self.kind == "conversations":
            mix, _ = mixes(self.mix)
            return conversation(self.seed, index, world, self.canvas, mix)
        image = scene(self.seed, index, world, seen_only=True)
        return Document((Image(render(image, self.canvas)),))

    def _of_things(self, index: int) -> "Document | None":
        """Make conversation `index` if it is one about things."""
        from .things.conversations import conversation, is_of_things
        from .things.table import things_of

        assert self.things is not None, "without a table no conversation is about things"
        mix, things_mix = mixes(self.mix)
        if not is_of_things(self.seed, index, mix, things_mix):
            return None
        things = things_of(self.things)
        return conversation(self.seed, index, things, self.canvas, mix, things_mix)

    def _drawing(self, index: int) -> "np.ndarray":
        """Draw wide drawing `index`: uint8 (canvas, canvas, 3)."""
        from .things.drawings import DrawingMix, drawing
        from .things.photos import photos_of
        from .things.table import things_of

        assert self.things is not None, "the command asks for the table of things"
        photos = photos_of(self.photos) if self.photos else None
        mix = DrawingMix(**self.mix)
        return drawing(self.seed, index, self.canvas, things_of(self.things), photos, mix)


@click.group()
def data() -> None:
    """Write shards of documents, look at them, encode them, and compare what training sees."""


data.add_command(convert)
data.add_command(encode)
data.add_command(inspect)
data.add_command(digest)
data.add_command(index)
data.add_command(things)


@data.command()
@options.output
@click.option("--samples", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=KINDS[0],
    show_default=True,
    help="Conversations, or for an image tokenizer images: of exact scenes, or drawings of all "
    "kinds: scenes exact and at large, icons, pens, photographs (needs --things).",
)
@click.option(
    "--canvas",
    type=click.IntRange(64, 512),
    default=64,
    show_default=True,
    help="Pixels a side; from 128 on scenes hold up to 6 objects, below up to 4.",
)
@click.option(
    "--max-objects",
    type=click.IntRange(1),
    help="The most objects in a scene, 2 for a laboratory [default: as many as the canvas holds].",
)
@options.shard_samples
@options.workers(2)
@click.option(
    "--mix",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A field of the mix of conversations (draw, ask, edit, chain, ...; with --things things, "
    "things_draw, things_name, ...), or first the name of a whole mix (plain, people), or a field "
    "of the mix of drawings (exact, shapes, icon, icons, pens, pages, photos); repeatable.",
)
@click.option(
    "--things",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of icons that `unimodal data things` wrote: some conversations are then about "
    "them (--mix things=0.5, beside the weights of draw, ask, ..., 1 in all).",
)
@click.option(
    "--photos",
    metavar="SHARDS",
    multiple=True,
    help="Shards, their folder or a pattern: drawings then hold crops of their photographs; "
    "repeatable.",
)
@click.option(
    "--preview",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Also draw the first {PREVIEW_SAMPLES} samples into this PNG.",
)
def scenes(
    output: Path,
    samples: int,
    seed: int,
    kind: str,
    canvas: int,
    max_objects: int | None,
    shard_samples: int,
    workers: int,
    mix: tuple[str, ...],
    things: Path | None,
    photos: tuple[str, ...],
    preview: Path | None,
) -> None:
    """Write shards of the scenes world into the folder OUTPUT.

    A stopped run goes on where it was: finished shards are kept. Other settings need another
    folder.

    \b
    unimodal data scenes shards/train --samples 200000 --seed 1
    unimodal data scenes shards/draw --samples 50000 --mix draw=1 --mix ask=0.2
    unimodal data scenes shards/people --samples 100000 --mix people --mix chain=0.3
    unimodal data scenes shards/images --kind images --samples 50000 --seed 2
    unimodal data scenes shards/both --samples 200000 --things runs/things --mix things=0.8
    unimodal data scenes shards/wide --kind drawings --things runs/things --photos "photos/*.tar"
    unimodal data scenes /tmp/look --samples 100 --preview look.png
    """
    from .things.photos import photo_paths

    check_files(kind, things, photos)
    check_objects(kind, canvas, max_objects, things)
    settings = SceneShards(
        kind,
        samples,
        seed,
        canvas,
        shard_samples,
        mix_of(kind, mix, things is not None),
        things,
        tuple(photo_paths(photos)),
        max_objects,
    )
    claim(output, SCENES, settings.note())
    todo = unfinished(output, settings)
    kept = settings.num_shards - len(todo)
    with click.progressbar(length=settings.num_shards, label="shards") as bar:
        bar.update(kept)
        try:
            for _ in write_shards(output, settings, todo, workers):
                bar.update(1)
        except OSError as error:
            again = "finished shards are kept: fix this and run the same command again"
            raise ValueError(f"{error}; {again}") from error
    if preview is not None:
        from unimodal.transcript import save_image

        from .sheet import document_sheet

        shown = [settings.document(index) for index in range(min(samples, PREVIEW_SAMPLES))]
        save_image(document_sheet(shown), preview)
    click.echo(f"{output}: {samples:,} samples in {settings.num_shards} shards, {kept} kept")


def check_files(kind: str, things: Path | None, photos: Sequence[str]) -> None:
    """ValueError where a kind needs files that are not given, or does not use given ones."""
    if kind == "drawings" and things is None:
        raise ValueError(
            "--kind drawings needs --things FOLDER: write one by `unimodal data things FOLDER`"
        )
    if kind == "images" and things is not None:
        raise ValueError("--things: images are exact scenes; give --kind drawings, or leave it out")
    if kind != "drawings" and photos:
        raise ValueError(f"--photos: {kind} hold none; give --kind drawings, or leave it out")


def check_objects(kind: str, canvas: int, max_objects: int | None, things: Path | None) -> None:
    """ValueError where the number of objects cannot be limited, or not so."""
    from .scenes.world import world_of

    if max_objects is None:
        return
    if kind == "drawings" or things is not None:
        raise ValueError("--max-objects: it limits exact scenes alone; leave it or --things out")
    world_of(canvas, max_objects)


def mixes(fields: dict[str, Any]) -> "tuple[Mix, ThingsMix]":
    """Return the mixes of conversations about scenes and about things that these fields make."""
    from .scenes.conversations import Mix
    from .things.conversations import ThingsMix

    of_things = {name: value for name, value in fields.items() if name.startswith("things")}
    of_scenes = {name: value for name, value in fields.items() if name not in of_things}
    return Mix(**of_scenes), ThingsMix(**of_things)


def mix_of(kind: str, changes: Sequence[str], with_things: bool = False) -> dict[str, float]:
    """Return every field of a mix: of that named first, with these `name=number` changes.

    Conversations have the fields of a ThingsMix besides `with_things`. ValueError for other names
    and numbers.
    """
    from unimodal.config import RENAMED

    from .scenes.mixes import MIXES, named
    from .things.conversations import ThingsMix
    from .things.drawings import DrawingMix

    if kind == "images":
        if changes:
            raise ValueError(f"--mix {changes[0]}: images have no mix; leave it out")
        return {}
    fields = asdict(DrawingMix())
    if kind == "conversations":
        mix, changes = named(changes)
        fields = asdict(mix) | (asdict(ThingsMix()) if with_things else {})
    for change in changes:
        name, _, number = change.partition("=")
        if RENAMED.get(name) in fields:
            raise ValueError(f"--mix {change}: {name} is called {RENAMED[name]} now")
        if name.startswith("things") and kind == "conversations" and not with_things:
            raise ValueError(f"--mix {change}: talk about things needs --things FOLDER")
        if name not in fields:
            raise ValueError(
                f"--mix {change}: the names are {', '.join(fields)}; or, first, {', '.join(MIXES)}"
            )
        try:
            fields[name] = type(fields[name])(number)
        except ValueError as error:
            raise ValueError(f"--mix {change}: {number!r} is no number") from error
    if kind == "drawings":
        return asdict(DrawingMix(**fields))
    mix, things_mix = mixes(fields)
    return asdict(mix) | (asdict(things_mix) if with_things else {})


def unfinished(output: Path, settings: SceneShards) -> list[int]:
    """Return the numbers of the shards that are not there yet."""
    from .shards import shard_name

    numbers = range(settings.num_shards)
    return [number for number in numbers if not (output / shard_name(number)).exists()]


def write_shards(
    output: Path, settings: SceneShards, numbers: list[int], workers: int
) -> Iterator[int]:
    """Write these shards in `workers` processes; yield the number of each when it is finished."""
    yield from shared(partial(write_shard, output, settings), numbers, workers)


def write_shard(output: Path, settings: SceneShards, number: int) -> int:
    """Write shard `number` and return it; an error leaves no unfinished file behind."""
    from .shards import ShardWriter

    with ShardWriter(output, max_samples=settings.shard_samples, first=number) as writer:
        for index in settings.indices(number):
            writer.write(f"{index:09d}", settings.document(index))
    return number
