"""Grow the vocabulary of a pretrained language model by special tokens and image codes.

    old ids 0 .. V - 1 (all rows of the embedding, padding included), special tokens, image codes

In: a checkpoint of Llama or its kin (parts.py), and an image tokenizer. Out: a bundle that can
be trained to read and draw images. Weights are copied from file to file a few megabytes at a time,
with unchanged bytes; only the new rows of the embedding, and of an untied output table, are
computed, from the statistics of the old ones. So the logits of old ids are unchanged. Every problem
is found before anything is written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.saved import SavedTokenizer

from .. import tensors
from ..bundle import MAX_SHARD_BYTES, BundleContents, Progress, check_output, write_bundle
from ..bundle_config import SAMPLING, BundleConfig
from ..layout import OWN_LAYOUT
from ..pretrained_text import read_pretrained
from ..tensors import PlannedTensor, StoredTensor
from ..text import TextTokenizer
from ..vocabulary import MAX_SIDE, SPECIAL_TOKENS, Vocabulary
from .checkpoint import Checkpoint, check_grows, read_checkpoint, sound, transformer_shapes
from .export_files import prove
from .new_rows import Statistics, gaussian_rows, matched_code_rows

ROWS = ("gaussian", "codes")
TABLES = ("model.embed_tokens.weight", "lm_head.weight")  # the tables with a row for each id
TEXT_ROOM = 32  # the tokens that a context needs beside those of one image


@dataclass(frozen=True)
class Growth:
    """A Growth holds the settings by which a vocabulary grows."""

    rows: str = "gaussian"
    """How new rows are initialised: 'gaussian' or 'codes' (see new_rows.py)."""
    seed: int = 0
    grid: Grid | None = None
    """The grid of the images that the model will draw; None: the image tokenizer's default."""
    context: int | None = None
    """The most tokens of a conversation; None: as many as the checkpoint is meant for."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.rows not in ROWS:
            found.append(f"rows {self.rows!r}: one of {', '.join(ROWS)}")
        if self.seed < 0:
            found.append(f"seed {self.seed}: at least 0")
        if self.grid is None:
            return found
        sides = self.grid.height, self.grid.width
        least = OWN_LAYOUT.image.length(self.grid) + TEXT_ROOM
        if not all(1 <= side <= MAX_SIDE for side in sides):
            found.append(f"grid {sides[0]}x{sides[1]}: sides from 1 to {MAX_SIDE}")
        elif self.context is not None and self.context < least:
            found.append(f"context {self.context}: an image and some text take {least} tokens")
        return found


def grow(
    source: Path,
    image: SavedTokenizer,
    output: Path,
    growth: Growth | None = None,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write the grown checkpoint as a bundle and return its directory.

    source: a checkpoint's directory (see checkpoint.fetch). image: the image tokenizer whose codes
    are added. Raise ValueError with all problems, before anything is written.
    """
    growth = growth or Growth()
    check_output(output)
    if image.latent_width:
        raise ValueError(
            "the image tokenizer makes latents, and a grown model reads codes: give a tokenizer "
            "that has a quantizer"
        )
    check_grows(source)
    checkpoint = read_checkpoint(source)
    text = read_pretrained(checkpoint.directory, checkpoint.config.num_ids)
    config = _config(checkpoint, image, growth)
    planned = list(_planned(checkpoint, config, text, image, growth))
    growth = replace(growth, grid=config.grid)
    contents = BundleContents(config, text, image, _card(checkpoint, growth))
    try:
        prove(contents, planned[0].dtype)
    except ValueError as error:
        raise ValueError(
            f"{source} could be grown and trained, but never exported: {error}"
        ) from error
    write_bundle(output, contents, planned, on_progress, max_shard_bytes)
    return output


def _config(checkpoint: Checkpoint, image: SavedTokenizer, growth: Growth) -> BundleConfig:
    """Return the bundle's configuration; raise ValueError with all that does not fit."""
    old = checkpoint.config
    context = old.max_positions if growth.context is None else growth.context
    grid = growth.grid or image.geometry.default_grid
    problems = replace(growth, context=context, grid=grid).problems()
    if context > old.max_positions:
        problems.append(f"context {context}: the checkpoint is meant for {old.max_positions}")
    if problems:
        raise ValueError("; ".join(problems))
    try:
        image.geometry.grid_of(*image.geometry.size_of(grid))
    except ValueError as error:
        raise ValueError(f"grid {grid.height}x{grid.width}: {error}") from error
    vocabulary = Vocabulary.new(old.num_ids, image.num_codes)
    grown = replace(old, num_ids=vocabulary.size)
    return BundleConfig(grown, vocabulary, grid, SAMPLING, context, image.hash)


def _planned(
    checkpoint: Checkpoint,
    config: BundleConfig,
    text: TextTokenizer,
    image: SavedTokenizer,
    growth: Growth,
) -> Iterator[PlannedTensor]:
    """Yield the plan of every tensor of the grown model, in its order."""
    for name, shape in transformer_shapes(config.transformer).items():
        old = checkpoint.weights[name]
        if name not in TABLES:
            yield sound(name, old)
            continue

        def chunks(name: str = name, old: StoredTensor = old) -> Iterator[bytes]:
            yield from old.chunks()
            statistics = Statistics.of(_text_rows(old, text))
            for block_nD in _new_rows(name, statistics, image, growth):
                yield tensors.as_bytes(block_nD, old.dtype)

        yield PlannedTensor(name, old.dtype, shape, chunks)


def _text_rows(old: StoredTensor, text: TextTokenizer) -> Iterator[Tensor]:
    """Yield the rows of ids that texts are encoded to; rows of others are often untrained."""
    first = 0
    for block_nD in old.row_blocks():
        yield block_nD[text.spelled[first : first + len(block_nD)]]
        first += len(block_nD)


def _new_rows(
    name: str, statistics: Statistics, image: SavedTokenizer, growth: Growth
) -> Iterable[Tensor]:
    """Yield the new rows: those of the special tokens, then those of the codes."""
    if growth.rows == "gaussian":
        yield from gaussian_rows(
            statistics, len(SPECIAL_TOKENS) + image.num_codes, growth.seed, name
        )
    else:
        yield from gaussian_rows(statistics, len(SPECIAL_TOKENS), growth.seed, name)
        yield from matched_code_rows(statistics, image, growth.seed)


def _card(checkpoint: Checkpoint, growth: Growth) -> dict:
    """Return the bundle's card, which says where it comes from."""
    return {
        "config": {
            "grown_from": str(checkpoint.directory),
            "family": checkpoint.family,
            **asdict(growth),
        },
        "commit": "none: grown, not trained",
        "hardware": "none: grown, not trained",
        "hours": 0.0,
    }
