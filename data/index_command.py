"""The verb `unimodal data index`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from unimodal.tokenizer.codec import Geometry

    from .found import Finder
    from .loader import LoaderConfig
    from .tables import Measure

TEXT = "text.json"


@click.command()
@options.shards
@options.output
@click.option(
    "--config",
    help="The recipe of `train lm` or `train tokenizer` that will read SHARDS, a file or one that "
    "is shipped by its name.",
)
@click.option(
    "--part",
    metavar="K/N",
    help="Index the K-th of N parts, as one job of N; without it, join the parts that are there.",
)
@options.workers(os.cpu_count() or 1)
def index(shards: str, output: Path, config: str | None, part: str | None, workers: int) -> None:
    """Find out once and for all what a run asks of SHARDS at its start: hashes, and lengths of
    documents or sizes of images. A run that has the folder OUTPUT as the `index` of its source
    measures nothing, and maps the tables where they lie, on any number of machines.

    SHARDS is the location as the recipe has it. Without a recipe lengths are those of the model
    that is shipped, in sequences of 1,024 tokens. A run checks size, time of change and headers of
    each shard, reads those that differ, and stops where contents have changed: write the index
    again then, which measures changed shards alone.

    \b
    unimodal data index shards/talks indexes/talks --config lm.yaml
    unimodal data index 'https://host/{0000..0099}.tar' indexes/web --config lm.yaml --part 3/16
    unimodal data index 'https://host/{0000..0099}.tar' indexes/web --config lm.yaml
    """
    from .index import Work, write_index, write_share

    share = _share(part)
    output.mkdir(parents=True, exist_ok=True)
    measures, finder = _measures(shards, config, output)
    work = Work(shards, measures, finder, workers)
    made = write_index(output, work) if share is None else write_share(output, work, *share)
    sizes = sum(shard.state.size_bytes for shard in made.shards)
    click.echo(f"{made.folder}: {len(made.shards):,} shards of {sizes / 1e9:,.1f} GB")


def _share(part: str | None) -> tuple[int, int] | None:
    """Return the number of a part, from 0 on, and of how many it is."""
    if part is None:
        return None
    number, _, of = part.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--part {part}: K/N, such as 3/16, with K from 1 to N")
    return int(number) - 1, int(of)


def _measures(location: str, path: str | None, output: Path) -> "tuple[list[Measure], Finder]":
    """Return what a recipe measures of the shards at a location, and how it finds them."""
    from unimodal import config

    from .found import Finder

    tree = config.read(config.shipped(path)) if path is not None else {}
    if "shards" in tree:
        return _of_images(location, tree)
    return _of_documents(location, path, tree, output), Finder()


def _of_images(location: str, tree: dict[str, Any]) -> "tuple[list[Measure], Finder]":
    """Return what a recipe of an image tokenizer measures."""
    from unimodal import config
    from unimodal.tokenizer.autoencoder import TokenizerConfig

    from .image_folder import IMAGE_FINDER
    from .image_index import ImageMeasure
    from .sizes import ImageRule

    if tree["shards"] != location:
        raise ValueError(f"SHARDS {location}: the recipe reads {tree['shards']}")
    rule = config.of_tree(ImageRule, tree["images"]) if tree.get("images") else None
    model = config.of_tree(TokenizerConfig, tree.get("model") or {})
    return [ImageMeasure(rule, model).measure], IMAGE_FINDER


def _of_documents(
    location: str, path: str | None, tree: dict[str, Any], output: Path
) -> "list[Measure]":
    """Return what a recipe of a language model measures: of each source that reads these shards,
    held out or not, at each size of its images.
    """
    from unimodal import config

    from .digest import feed
    from .lengths import length_measure
    from .loader import places_measured
    from .sources import SourceConfig

    made = feed(None if path is not None else location, path, _learned_text(tree, output))
    held = (tree.get("held_out") or {}).get("sources") or {}
    asked: list[tuple[dict[str, SourceConfig], LoaderConfig]] = [(dict(made.sources), made.loader)]
    for name, source in held.items():
        asked.append(({name: config.of_tree(SourceConfig, source)}, made.loader.plain))
    geometry: Geometry = made.codec.geometry
    found = {
        estimator.key: length_measure(estimator)
        for sources, loader in asked
        for place, estimator in places_measured(sources, loader, made.sequencer, geometry)
        if place.shards == location
    }
    if not found:
        there = sorted({source.shards for sources, _ in asked for source in sources.values()})
        raise ValueError(f"SHARDS {location}: the recipe reads {', '.join(there)}")
    return list(found.values())


def _learned_text(tree: dict[str, Any], output: Path) -> "Path | None":
    """Return the text tokenizer that a recipe from scratch learns, learned here too; None where it
    has another's. ValueError for a recipe whose lengths depend on more.
    """
    from unimodal import config

    from .found import find
    from .learned_text import TEXT_IDS, learn_text
    from .sources import SourceConfig

    if tree.get("tower"):
        raise ValueError("tower: lengths beside a vision tower are measured by the run's own ranks")
    if not tree or tree.get("weights"):
        return None
    shape = tree.get("model") or {}
    if shape.get("head", "next_code") != "next_code" or shape.get("addresses"):
        raise ValueError(
            "model.head, model.addresses: of a recipe from scratch lengths are indexed for "
            "next_code without addresses; others are measured by the run's own ranks"
        )
    sources = {name: config.of_tree(SourceConfig, one) for name, one in tree["sources"].items()}
    sources = {name: replace(source, index=None) for name, source in sources.items()}
    shards = find({name: source.place for name, source in sources.items()})
    learn_text(output / TEXT, sources, tree.get("text_ids") or TEXT_IDS, shards)
    return output / TEXT
