"""Tiny runs of the language model: their data, their recipe, and what they log."""

import json
from dataclasses import asdict
from pathlib import Path

from tiny_tokenizers import of_patches

from unimodal.data.command import SceneShards
from unimodal.data.loader import LoaderConfig
from unimodal.data.scenes.conversations import Mix
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train.initial import ShapeConfig
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig

TINY = of_patches(levels=(4, 4, 4), encoder_width=16, decoder_width=16, num_blocks=1, pixel_width=4)
SHAPE = ShapeConfig(
    width=32, num_layers=2, num_heads=2, num_kv_heads=1, head_width=16, mlp_width=64
)


def write_conversations(folder: Path, samples: int, shard_samples: int) -> Path:
    """Write conversations about scenes of 64 pixels and return their folder."""
    scenes = SceneShards("conversations", samples, 7, 64, shard_samples, asdict(Mix()))
    with ShardWriter(folder, max_samples=shard_samples) as writer:
        for index in range(samples):
            writer.write(f"{index:06d}", scenes.document(index))
    return folder


def write_tokenizer(folder: Path) -> Path:
    """Write an untrained image tokenizer of 64 codes and return its folder."""
    folder.mkdir(exist_ok=True)
    ImageTokenizer(TINY).save(folder)
    return folder


def recipe(output: Path, shards: Path, tokenizer: Path, num_steps: int, **loop: int) -> LmRun:
    """Return the config of a run of a tiny model with Muon."""
    return LmRun(
        output=output,
        sources={"scenes": SourceConfig(str(shards))},
        tokenizer=tokenizer,
        schedule=ScheduleConfig(num_steps, warmup_steps=1),
        text_ids=300,
        model=SHAPE,
        loader=LoaderConfig(sequence_length=1024, batch_rows=1, window_rows=8),
        optimizer=OptimizerConfig(lr=3e-3, muon_lr=1e-2),
        loop=LoopConfig(**{"save_every_steps": 1000, **loop}),
        precision="fp32",  # what is compared with numbers of another machine, or with one process
    )


def metrics(output: Path) -> list[dict]:
    """Return the whole lines of a run's log, as far as it has come."""
    path = output / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def exact(output: Path) -> list[tuple]:
    """Return what must be equal bit for bit in two runs that are the same."""
    names = ("step", "loss", "loss_text", "loss_image", "gradient_norm")
    return [tuple(line[name] for name in names) for line in metrics(output)]
