"""Some steps of a run are profiled, and nothing else changes."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import exact, recipe

from unimodal.train import lm
from unimodal.train.loop import LoopConfig
from unimodal.train.profiling import ProfileConfig
from unimodal.train.spikes import SpikeConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def traced(run: Path) -> dict[str, list[str]]:
    """The names of the events of each trace."""
    found = {}
    for path in sorted((run / "profile").iterdir()):
        with gzip.open(path) as stream:
            found[path.name] = [event.get("name", "") for event in json.load(stream)["traceEvents"]]
    return found


def test_a_trace_has_the_chosen_steps(shards: Path, tokenizer: Path, tmp_path: Path):
    plain = recipe(tmp_path / "plain", shards, tokenizer, 4)
    lm.train(plain)
    loop = replace(plain.loop, profile=ProfileConfig(from_step=1, steps=2))
    lm.train(replace(plain, output=tmp_path / "run", loop=loop))
    ((name, events),) = traced(tmp_path / "run").items()
    assert name == "steps_00000001_rank_00000.json.gz"
    assert [one for one in events if one.startswith("step ")] == ["step 1", "step 2"]
    assert events.count("aten::_fused_adamw_") == 2  # an update a step
    assert exact(tmp_path / "run") == exact(tmp_path / "plain")


def test_the_last_steps_are_written_too(shards: Path, tokenizer: Path, tmp_path: Path):
    config = recipe(tmp_path / "run", shards, tokenizer, 2)
    loop = replace(config.loop, profile=ProfileConfig(from_step=1, steps=10))
    lm.train(replace(config, loop=loop))
    ((_, events),) = traced(tmp_path / "run").items()
    assert events.count("aten::_fused_adamw_") == 1


def test_steps_that_never_come_are_told(shards: Path, tokenizer: Path, tmp_path: Path, capsys):
    config = recipe(tmp_path / "run", shards, tokenizer, 2)
    loop = replace(config.loop, profile=ProfileConfig(from_step=2), spikes=SpikeConfig())
    assert loop.unreached(101) == []
    lm.train(replace(config, loop=loop))
    said = capsys.readouterr().err
    assert "note: loop.profile.from_step 2 is not reached: num_steps is 2\n" in said
    assert "note: loop.spikes.window_steps 100 is not reached: num_steps is 2\n" in said
    assert not (tmp_path / "run" / "profile").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, whose memory is recorded")
def test_memory_without_a_gpu_is_refused(shards: Path, tokenizer: Path, tmp_path: Path):
    config = recipe(tmp_path / "run", shards, tokenizer, 2)
    loop = replace(config.loop, profile=ProfileConfig(memory=True))
    with pytest.raises(ValueError, match="loop.profile.memory: it records a GPU's allocations"):
        lm.train(replace(config, loop=loop))
    assert len(ProfileConfig(-1, 0).problems()) == 2
    lacking = LoopConfig(profile=ProfileConfig(memory=True), mirror="gs://bucket/run").obstacles()
    assert [line.partition(":")[0] for line in lacking] == ["loop.profile.memory", "loop.mirror"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_gpu(shards: Path, tokenizer: Path, tmp_path: Path):
    config = recipe(tmp_path / "run", shards, tokenizer, 3)
    loop = replace(config.loop, profile=ProfileConfig(1, 1, memory=True))
    lm.train(replace(config, loop=loop))
    page = (tmp_path / "run" / "profile" / "memory_00000001_rank_00000.html").read_text()
    assert "<html" in page.lower() and len(page) > 10_000
