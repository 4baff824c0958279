"""What Weights & Biases is told of a run, read from the files that it writes without an account."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import recipe

from unimodal.train import lm


def test_weights_and_biases_gets_the_config_of_each_start(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="not installed: the extra `train`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    config = replace(config, loop=replace(config.loop, wandb="project"))
    lm.train(config)
    lm.train(replace(config, schedule=replace(config.schedule, num_steps=2)))
    written = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    contents = [path.read_bytes() for path in written]
    assert [b'"num_steps":1,"warmup_steps":1' in content for content in contents] == [True, False]
    assert [b'"num_steps":2,"warmup_steps":1' in content for content in contents] == [False, True]
    assert all(b'"sequence_length":1024' in content for content in contents)
