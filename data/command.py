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
from .inspect.command import inspect

if TYPE_CHECKING:
    from unimodal.document import Document

KINDS = ("conversations", "images")
PREVIEW_SAMPLES = 24


@dataclass(frozen=True)
class SceneShards:
    """The settings of a folder of scenes shards, and what sample each index is."""

    kind: str
    """conversations (text and images) or images (for the image tokenizer)."""
    samples: int
    seed: int
    canvas: int
    """Pixels a side."""
    shard_samples: int
    """Samples in a shard; the last one may hold fewer."""
    mix: dict[str, Any]
    """Every field of the Mix of conversations; empty for images."""

    @property
    def num_shards(self) -> int:
        """Return how many shards hold the samples."""
        return -(-self.samples // self.shard_samples)

    def indices(self, number: int) -> range:
        """Return the samples of shard `number`."""
        first = number * self.shard_samples
        return range(first, min(self.samples, first + self.shard_samples))

    def note(self) -> dict[str, Any]:
        """Return every setting by name, those of the mix as `mix.name`."""
        mix = {f"mix.{name}": value for name, value in self.mix.items()}
        return {name: value for name, value in asdict(self).items() if name != "mix"} | mix

    def document(self, index: int) -> "Document":
        """Return sample `index`, a pure function of the settings and the index."""
        from unimodal.document import Document, Image

        from .scenes.conversations import Mix, conversation
        from .scenes.world import LARGE, SMALL, render, scene

        world = SMALL if self.canvas < 128 else LARGE
        if self.kind == "conversations":
            return conversation(self.seed, index, world, self.canvas, Mix(**self.mix))
        image = scene(self.seed, index, world, seen_only=True)
        return Document((Image(render(image, self.canvas)),))


@click.group()
def data() -> None:
    """Write shards of documents, look at them, encode them, and compare what training sees."""


data.add_command(convert)
data.add_command(encode)
data.add_command(inspect)
data.add_command(digest)


@data.command()
@options.output
@click.option("--samples", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True)
@click.option(
    "--canvas",
    type=click.IntRange(64, 512),
    default=64,
    show_default=True,
    help="Pixels a side; from 128 on scenes hold up to 6 objects, below up to 4.",
)
@options.shard_samples
@options.workers(2)
@click.option(
    "--mix",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A field of the mix of conversations (draw, ask, edit, chain, ...), or first the name of "
    "a whole mix (plain, people); repeatable.",
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
    shard_samples: int,
    workers: int,
    mix: tuple[str, ...],
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
    unimodal data scenes /tmp/look --samples 100 --preview look.png
    """
    settings = SceneShards(kind, samples, seed, canvas, shard_samples, mix_of(kind, mix))
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


def mix_of(kind: str, changes: Sequence[str]) -> dict[str, float]:
    """Return every field of a Mix: of that named first, with these `name=number` changes.

    ValueError for other names and numbers.
    """
    from unimodal.config import RENAMED

    from .scenes.conversations import Mix
    from .scenes.mixes import MIXES, named

    if kind == "images":
        if changes:
            raise ValueError(f"--mix {changes[0]}: images have no mix; leave it out")
        return {}
    mix, changes = named(changes)
    fields = asdict(mix)
    for change in changes:
        name, _, number = change.partition("=")
        if RENAMED.get(name) in fields:
            raise ValueError(f"--mix {change}: {name} is called {RENAMED[name]} now")
        if name not in fields:
            raise ValueError(
                f"--mix {change}: the names are {', '.join(fields)}; or, first, {', '.join(MIXES)}"
            )
        try:
            fields[name] = type(fields[name])(number)
        except ValueError as error:
            raise ValueError(f"--mix {change}: {number!r} is no number") from error
    return asdict(Mix(**fields))


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
