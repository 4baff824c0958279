"""What the benchmarks of data read: shards of scenes made on the spot, and real sets where they
are.

The real sets are no part of the repository: they lie in `shared/data` beside it or nowhere, and a
part that needs them says so.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unimodal.bundle import DEFAULT
from unimodal.codec import ImageCodec
from unimodal.data.command import SceneShards, mix_of, write_shards
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.data.windows import LoaderState
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.vocabulary import Vocabulary

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
RULE = ImageRule(target_pixels=64 * 64, multiple=8, max_aspect_ratio=4)
SEED = 7


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    samples: int = 5000
    """Conversations about scenes."""
    repeats: int = 5
    windows: int = 3
    """Planned at least."""
    window_rows: int = LoaderConfig.window_rows
    streamed: int = 20_000
    """Samples over which the rate of the peer is measured that must fast-forward."""
    resume: int = 1_000_000
    """The document at which is resumed."""
    compared: int = 20_000
    """The document at which resumed rows are compared with those of a plan from the start."""
    rows: int = 200
    """Made before memory is read."""
    images: int = 24
    """Of one megapixel."""
    steps: int = 12
    """Of training."""


QUICK = Sizes(
    samples=1000, repeats=2, windows=1, window_rows=128, streamed=2000, compared=2000, rows=48,
    images=6, steps=5,
)  # fmt: skip


def write_scenes(folder: Path, samples: int, shard_samples: int = 500, workers: int = 2) -> Path:
    """Write conversations about scenes into a folder, and return it."""
    mix = mix_of("conversations", ())
    settings = SceneShards("conversations", samples, SEED, 64, shard_samples, mix)
    for _ in write_shards(folder, settings, list(range(settings.num_shards)), workers):
        pass
    return folder


def scenes(folder: str | Path) -> dict[str, SourceConfig]:
    """A folder of scenes as the only source."""
    return {"scenes": SourceConfig(str(folder))}


def real(folder: Path) -> dict[str, SourceConfig]:
    """The three real sets in four formats, of equal weights; FileNotFoundError without them."""
    for name in ("nlvr", "noto_emoji", "openstax"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"no {name} in shared/data beside the repository")
    emoji = str(folder / "noto_emoji")
    return {
        "questions": SourceConfig(str(folder / "nlvr")),
        "captions": SourceConfig(emoji),
        "edits": SourceConfig(emoji, pairs="base"),
        "interleaved": SourceConfig(str(folder / "openstax")),
    }


@cache
def tokenizers() -> tuple[Sequencer, ImageCodec]:
    """Those of the default bundle, read as training reads them: without its transformer."""
    text, image = TextTokenizer.load(DEFAULT / "text.json"), ImageTokenizer.load(DEFAULT)
    vocabulary = Vocabulary.new(text.num_ids, image.num_codes)
    return Sequencer(vocabulary, text, image.hash, NextCodeInputs()), ImageCodec(image)


def loader(
    sources: dict[str, SourceConfig],
    config: LoaderConfig,
    state: LoaderState | None = None,
    **more: Any,
) -> Loader:
    """A Loader with the tokenizers of the default bundle."""
    return Loader(sources, *tokenizers(), config, state, **more)
