"""What a run of the language model is given, read and found to fit together before it begins.

In: its config, and how many ranks share it. Out: a `Given`, or a ValueError that names all that
does not fit; nothing is written.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unimodal.architecture import Architecture
from unimodal.bundle import BundleContents
from unimodal.data.folder import data_seeds
from unimodal.data.found import find
from unimodal.data.learned_text import TEXT_IDS
from unimodal.data.peers import ALONE, CacheMates, Peers
from unimodal.data.sizes import buckets, patch_problems
from unimodal.data.streams import Found
from unimodal.heads import head_class
from unimodal.heads.scale_maps import check_scales
from unimodal.image_tokenizers import (
    check_one_code,
    load_tokenizer,
    tokenizer_config,
    tokenizer_directory,
)
from unimodal.tensors import find_tensors
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.saved import SavedTokenizer
from unimodal.transformer import TransformerConfig

from . import lora, precision, sequence_parallel
from .finish import Base
from .initial import ShapeConfig, parent_of, shape_problems
from .published_weights import make_bundle, published_in, read_architecture, weights_directory
from .run import LmRun
from .tower import GivenTower, given_tower, tower_base


@dataclass(frozen=True, eq=False)
class Given:
    """What a run is given, read and found to fit together."""

    image: SavedTokenizer
    parent: BundleContents | None
    inputs: dict[str, Any]
    shards: Found
    tokenizer: Path
    weights: Path | None
    """Directories, where the config may say `default`, or name a published model."""
    output: Path
    tower: GivenTower | None = None

    @cached_property
    def base(self) -> Base:
        """Return where the weights lie that it begins from; from scratch, those of a tower alone.
        The run's folder must have these.
        """
        own = find_tensors(self.weights) if self.weights is not None else {}
        return {**own, **tower_base(self.output, self.tower)}


def check(config: LmRun, world_size: int) -> None:
    """Raise ValueError with what is wrong with a config, or lacks here; no shard is read."""
    lacking = [*config.engine.obstacles(), *config.loop.obstacles(), *precision.obstacles(config)]
    if lacking:
        raise ValueError("\n  ".join(lacking))
    if world_size > 1 and not config.engine.shards:
        raise ValueError(
            f"{world_size} ranks were launched, and engine.deepspeed does not say how they share "
            "the model: set it, such as engine.deepspeed=configs/zero3.json, or engine.fsdp=true"
        )
    if problems := config.rank_problems(world_size):
        raise ValueError("; ".join(problems))
    config.engine.zero(config.rank_rows(world_size), config.optimizer.clip, False)
    if problems := config.problems():
        raise ValueError("; ".join(problems))
    if config.lora is not None:
        lora.check_installed()


def begin_published(config: LmRun) -> None:
    """Make the bundle of a published model that `weights` names, where the run has yet to; the
    first rank calls it.

    ValueError where the settings do not fit its small files, before its weights are fetched.
    """
    source = None if config.weights is None else published_in(config.weights, config.output)
    if source is None:
        return
    shape = read_architecture(source)
    _check_published(config, shape)
    _check_shape(config, shape)
    given_tower(config.tower, shape)
    make_bundle(source, config.output)


def _check_published(config: LmRun, shape: Architecture) -> None:
    """ValueError where the config asks for another model, or its image tokenizer, of which no
    weights are fetched, has codes of another kind.
    """
    image = tokenizer_config(config.tokenizer)
    if image is None:
        load_tokenizer(config.tokenizer)  # which says what is wrong there
        raise ValueError(f"tokenizer {config.tokenizer} does not say what it is")
    if config.model is not None:  # whether the head is tied, weights alone say
        tied = replace(shape.transformer, tied_head=config.model.tied_head)
        shape = replace(shape, transformer=tied)
    latent_width = image.latent_width if isinstance(image, TokenizerConfig) else 0
    wrong = shape_problems(shape, config.model, config.text_ids, image.levels, latent_width)
    if image.num_codes != shape.vocabulary.num_codes:
        codes = f"{image.num_codes:,} codes, and {shape.vocabulary.num_codes:,} there"
        wrong.append(f"tokenizer has {codes}")
    if wrong:
        raise ValueError(f"weights {config.weights} do not fit: {'; '.join(wrong)}")


def read_given(config: LmRun, world_size: int, shards: Found | None = None) -> Given:
    """Read what a run is given. ValueError with what does not fit, before anything is written.

    `shards`: all of the run's; None: they are found now.
    """
    check(config, world_size)
    shards = shards if shards is not None else find_shards(config)
    tokenizer = tokenizer_directory(config.tokenizer)
    weights = None if config.weights is None else weights_directory(config.weights, config.output)
    image = load_tokenizer(tokenizer)
    if problems := patch_problems(config.loader.images, image.geometry.patch):
        raise ValueError(f"loader.{problems[0]}")
    for folder in folders(config):
        data_seeds(folder)  # a damaged note of them stops here, not at the end
    parent = None
    if weights is not None:
        parent = parent_of(weights, config.model, config.text_ids, image, config.new_tokenizer)
    _check_shape(config, _shape(config, parent, image))
    tower = given_tower(config.tower, None if parent is None else parent.config.architecture)
    inputs: dict[str, Any] = shard_hashes(config, shards)
    inputs |= {"tokenizer": image.hash, "weights": parent.hash if parent else None}
    if tower is not None and tower.found is not None:
        inputs["tower"] = tower.found.hash
    return Given(image, parent, inputs, shards, tokenizer, weights, config.output, tower)


def _shape(config: LmRun, parent: BundleContents | None, image: SavedTokenizer) -> Architecture:
    """Return the architecture of the bundle, or of a model from scratch with as many ids of texts
    as are usual. ValueError where image head and image tokenizer do not fit each other.
    """
    name = parent.config.image.head if parent else (config.model or ShapeConfig()).head
    kind = head_class(name, trusted=config.model is not None)
    check_one_code(config.tokenizer, image, kind.reads_scales)
    if kind.reads_scales:
        _check_scales(config, image)
    if parent is not None:
        return parent.config.architecture
    wanted = config.model or ShapeConfig()  # how many ids texts will have is not known yet
    vocabulary = wanted.vocabulary(TEXT_IDS, image.num_codes)
    return wanted.of(vocabulary, image.levels, image.latent_width)


def _check_shape(config: LmRun, shape: Architecture) -> None:
    """ValueError where the settings do not fit a model of such a shape."""
    name, transformer = shape.image.head, shape.transformer
    _check_experts(config, transformer)
    if config.sampling is not None:
        config.sampling.check(head_class(name, trusted=config.model is not None).follows, name)
    if not config.loss.sliced and not shape.image.code_rows:
        raise ValueError(
            f"loss.sliced false: with model.head {name} codes have no rows, so no "
            "softmax covers all ids; leave it out"
        )
    length, size = config.loader.sequence_length, config.engine.sequence_parallel
    if length > transformer.max_positions:
        raise ValueError(
            f"loader.sequence_length {length} exceeds the model's "
            f"max_positions {transformer.max_positions}"
        )
    if size > 1:
        heads = transformer.num_heads, transformer.num_kv_heads
        if problem := sequence_parallel.problem(size, *heads, length):
            raise ValueError(problem)


def _check_experts(config: LmRun, shape: TransformerConfig) -> None:
    """ValueError for a loss of experts that the model does not have."""
    if shape.experts is None and config.loss.balance is not None:
        raise ValueError(
            f"loss.balance {config.loss.balance}: the model has no experts that could be balanced; "
            "leave it out"
        )
    if shape.experts is not None and config.engine.sequence_parallel > 1:
        raise ValueError(
            f"engine.sequence_parallel {config.engine.sequence_parallel}: not with experts, whose "
            "balance loss is one of whole documents; leave it out"
        )


def _check_scales(config: LmRun, image: SavedTokenizer) -> None:
    """ValueError where images of a size that the loader makes have no scales that grow."""
    rule, geometry = config.loader.images, image.geometry
    sizes = [] if rule is None else buckets(rule)
    check_scales(geometry.default_grid)
    for width, height in sizes:
        check_scales(geometry.grid_of(height, width))


def shard_hashes(config: LmRun, shards: Found) -> dict[str, str]:
    """Return hashes of the shards that a run reads, by what they are."""
    learned, held_out = config.sources, config.held_out.sources
    found = {f"shards of {name}": shards[one.place].hash for name, one in learned.items()}
    return found | {
        f"held-out shards of {name}": shards[one.place].hash for name, one in held_out.items()
    }


def find_shards(
    config: LmRun, peers: Peers = ALONE, mates: CacheMates | None = None, workers: int = 1
) -> Found:
    """Return all shards that a run reads; all ranks call it. Raises ValueError with everything that
    is missing.
    """
    wanted = {name: source.place for name, source in config.sources.items()}
    for name, source in config.held_out.sources.items():
        same = wanted.get(name, source.place) == source.place
        wanted[name if same else f"held_out.{name}"] = source.place
    return find(wanted, peers, mates, workers, config.loop.verify == "all")


def folders(config: LmRun) -> list[Path]:
    """Return the folders that a run's shards lie in."""
    return [source.folder for source in config.sources.values()]
