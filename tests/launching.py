"""What tests that launch real runs share: a tiny run's config, and the environment of its ranks."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from unimodal.config import save
from unimodal.data.command import SceneShards
from unimodal.data.loader import LoaderConfig
from unimodal.data.scenes.conversations import Mix
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.train.initial import ShapeConfig
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

ROOT = Path(__file__).resolve().parents[1]


def tiny_run(folder: Path, num_steps: int) -> Path:
    """The config of a run under ZeRO-3 in `folder`, with its shards and its image tokenizer."""
    scenes = SceneShards(
        kind="conversations", samples=24, seed=7, canvas=64, shard_samples=24, mix=asdict(Mix())
    )
    with ShardWriter(folder / "shards", max_samples=24) as writer:
        for index in range(scenes.samples):
            writer.write(f"{index:06d}", scenes.document(index))
    (folder / "tokenizer").mkdir()
    ImageTokenizer(
        TokenizerConfig(
            levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4
        )
    ).save(folder / "tokenizer")
    config = LmRun(
        output=folder / "run",
        sources={"scenes": SourceConfig(str(folder / "shards"))},
        tokenizer=folder / "tokenizer",
        schedule=ScheduleConfig(num_steps, warmup_steps=1),
        text_ids=300,
        model=ShapeConfig(32, 2, 2, 1, 16, 64),
        loader=LoaderConfig(sequence_length=512, batch_rows=2, window_rows=8),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(deepspeed=ROOT / "configs" / "zero3.json", timeout_s=120),
        loop=LoopConfig(save_every_steps=1000, num_threads=1),
    )
    save(config, folder / "config.yaml")
    return folder / "config.yaml"


def metrics(folder: Path) -> list[dict]:
    """The log of the run in `folder`, as far as it has come."""
    path = folder / "run" / "metrics.jsonl"
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def environment(**more: str) -> dict[str, str]:
    """Of a process that launches ranks on the CPU."""
    ours = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **ours, **more}
