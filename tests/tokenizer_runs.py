"""Tiny runs of the image tokenizer on images of no meaning."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.faults import write_tar
from PIL import Image as PILImage
from tiny_runs import TINY

from unimodal.config import load
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.quantizers.config import QuantizerConfig
from unimodal.train import tokenizer
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

Files = dict[str, bytes]


def png(width: int, height: int, shade: int = 0, kind: str = "PNG") -> bytes:
    """A photograph's stand-in, smooth and never the same."""
    rng = np.random.default_rng([width, height, shade])
    small = PILImage.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((width, height), PILImage.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


def captions(count: int, *sizes: tuple[int, int]) -> dict[str, Files]:
    """Samples of an image of one of the sizes in turn, and words."""
    return {
        f"k{n}": {"png": png(*sizes[n % len(sizes)], n), "txt": b"an image"} for n in range(count)
    }


def tiny_run(folder: Path, samples: dict[str, Files], num_steps: int, **more) -> TokenizerRun:
    """The config of a run into `folder`, on a tar of these samples that is written there."""
    config = TokenizerRun(
        output=folder / "run", shards=str(write_tar(folder / "a.tar", samples)),
        schedule=ScheduleConfig(num_steps, 1), batch_images=8, model=TINY,
        optimizer=OptimizerConfig(lr=3e-3), loop=LoopConfig(num_threads=1),
    )  # fmt: skip
    return replace(config, **more)


def with_quantizer(**section) -> TokenizerConfig:
    """The tiny tokenizer with another quantizer."""
    return replace(TINY, quantizer=QuantizerConfig(**section))


def train(config: str, ranks: Ranks) -> None:
    """Train what a config file says, on ranks that are there."""
    tokenizer.train(load(TokenizerRun, config))
