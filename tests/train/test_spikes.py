"""A spike of the loss sends a run back to a checkpoint and past the batches that did it."""

import random
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import launching
import pytest
from pair import Pair
from tiny_runs import metrics, recipe
from tokenizer_runs import captions, tiny_run
from train_files import history

from unimodal.config import save
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Text
from unimodal.train import lm
from unimodal.train import tokenizer as tokenizer_run
from unimodal.train.checkpoint import found, step_of
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.spikes import SpikeConfig, Spikes, WentBack, robust
from unimodal.train.zero import EngineConfig

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY, STEPS = 8, 44
GARBAGE = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?"
SPIKES = SpikeConfig(threshold=5.0, window_steps=16)


@pytest.fixture(scope="module")
def config(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> LmRun:
    """A run on 60 texts of one kind, each a row, and one of random letters."""
    folder, chance = tmp_path_factory.mktemp("spikes"), random.Random(3)
    with ShardWriter(folder / "shards") as writer:
        for number in range(60):
            text = f"a text of the number {number}. " * 18
            writer.write(f"{number:03d}", Document((Text(text),)))
        letters = "".join(chance.choice(GARBAGE) for _ in range(250))
        writer.write("garbage", Document((Text(letters),)))
    found = recipe(folder / "run", folder / "shards", tokenizer, STEPS, save_every_steps=EVERY)
    loader = LoaderConfig(sequence_length=256, batch_rows=1, window_rows=8)
    return replace(found, loader=loader, loop=replace(found.loop, spikes=SPIKES))


@pytest.fixture(scope="module")
def answered(config: LmRun) -> LmRun:
    """The run, which has met the spike and ended."""
    lm.train(config)
    return config


def exact(output: Path) -> list[tuple]:
    """What must be equal bit for bit; there are no images."""
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in metrics(output)]


def spikes_of(run: LmRun) -> list[tuple]:
    return [line for line in history(run.output) if line[1] == "spike"]


def elsewhere(config: LmRun, output: Path, **changes) -> LmRun:
    spikes = replace(SPIKES, **changes) if changes else SPIKES
    return replace(config, output=output, loop=replace(config.loop, spikes=spikes))


def test_the_run_is_the_one_without_the_batch(answered: LmRun, tmp_path: Path):
    """To the bit, by the digest that is noted; and the garbage would have spiked."""
    ((step, _, seen, (digest,)),) = spikes_of(answered)
    assert step == EVERY * (seen["step"] // EVERY) < seen["step"]
    assert seen["loss"] > seen["median"] + SPIKES.threshold * seen["spread"]
    loop = replace(answered.loop, spikes=None, skip_batches=(digest,))
    lm.train(replace(answered, output=tmp_path / "told", loop=loop))
    assert exact(answered.output) == exact(tmp_path / "told")
    losses = [line["loss"] for line in metrics(answered.output)]
    assert losses[seen["step"]] < seen["loss"] - 2 and len(losses) == STEPS
    counts = [line["spikes"] for line in metrics(answered.output)]
    assert counts == [0] * step + [1] * (STEPS - step)
    assert digest not in [line["batch"] for line in metrics(answered.output)]


def test_a_stop_on_the_way_changes_nothing(answered: LmRun, tmp_path: Path):
    """Just before the spike, where the window is read back; and after it, where the batch stays
    left out.
    """
    ((_, _, seen, _),) = spikes_of(answered)
    run = elsewhere(answered, tmp_path / "run")
    for steps in (seen["step"] - 2, seen["step"] + 1, STEPS):
        lm.train(replace(run, schedule=ScheduleConfig(steps, 1)))
    assert exact(run.output) == exact(answered.output)
    ((step, _, again, _),) = spikes_of(run)
    assert again == seen and step == seen["step"] - 2


def test_batches_before_the_spike_are_left_out_too(answered: LmRun, tmp_path: Path):
    """From a checkpoint before all of them; later ones are gone, and made anew."""
    ((_, _, seen, _),) = spikes_of(answered)
    plain = [line["batch"] for line in metrics(answered.output)]
    run = elsewhere(answered, tmp_path / "run", batches=EVERY)
    lm.train(run)
    ((step, _, again, digests),) = spikes_of(run)
    first = seen["step"] + 1 - EVERY
    assert again == seen and step == EVERY * (first // EVERY)
    assert digests[:-1] == plain[first : seen["step"]]
    batches = [line["batch"] for line in metrics(run.output)]
    assert batches[:first] == plain[:first] and not set(batches) & set(digests)
    assert batches[first] == plain[seen["step"]]  # what came after the garbage
    assert [step_of(path) for path in found(run.output)] == [STEPS // EVERY * EVERY, STEPS]


def test_a_mirror_goes_back_too(answered: LmRun, tmp_path: Path, monkeypatch):
    """The machine is lost as soon as the run has gone back; elsewhere it goes on without the
    batches, and what the mirror had of them is gone.
    """
    run = elsewhere(answered, tmp_path / "run", batches=EVERY + 1)
    url = f"memory://{uuid4().hex}/mine"
    run = replace(run, loop=replace(run.loop, mirror=url, keep_checkpoints=99))
    with monkeypatch.context() as lost:
        lost.setattr(lm, "going_back", lambda train: train())
        with pytest.raises(WentBack):
            lm.train(run)
    ((step, _, seen, digests),) = spikes_of(run)
    assert len(digests) == EVERY + 1 and step + EVERY <= seen["step"]
    other = replace(run, output=tmp_path / "other")
    lm.train(other)
    assert not {line["batch"] for line in metrics(other.output)} & set(digests)
    assert len(spikes_of(other)) == 1
    for path in found(other.output):
        sent = fsspec.filesystem("memory").cat_file(f"{url}/{path.name}/checksums.json")
        assert sent == (path / "checksums.json").read_bytes()


def test_one_spike_too_many_ends_the_run(answered: LmRun, tmp_path: Path):
    """And one that is not finite is then told as without the option."""
    shutil.copytree(answered.output, tmp_path / "run")
    spikes = Spikes(replace(SPIKES, max_spikes=1), tmp_path / "run", Ranks(), STEPS)
    assert spikes.count == 1 and spikes.met(STEPS, None, "0" * 16) is None
    spike = spikes.met(STEPS, 10.0, "1" * 16)
    assert spike is not None and (spike.from_step, spike.batches) == (STEPS, ("1" * 16,))
    with pytest.raises(ValueError, match="has gone back 1 times already: look at its data"):
        spikes.go_back(spike)
    assert found(tmp_path / "run") != []


def test_a_spike_without_a_checkpoint_is_said_and_gone_through(
    answered: LmRun, tmp_path: Path, capsys
):
    run = elsewhere(answered, tmp_path / "run")
    run = replace(run, loop=replace(run.loop, save_every_steps=1000))
    lm.train(run)
    assert "a spike, and no checkpoint to go back to" in capsys.readouterr().err
    assert spikes_of(run) == [] and len(metrics(run.output)) == STEPS


@pytest.mark.slow
def test_two_ranks_go_back_as_one_process(config: LmRun, tmp_path: Path, pair: Pair):
    def run(name: str, **engine) -> LmRun:
        return replace(
            elsewhere(config, tmp_path / name, window_steps=8),
            schedule=ScheduleConfig(24, 1),
            loop=replace(config.loop, save_every_steps=4, spikes=replace(SPIKES, window_steps=8)),
            loader=replace(config.loader, batch_rows=2),
            optimizer=OptimizerConfig(lr=2e-2),
            engine=EngineConfig(**engine),
        )

    alone = run("alone")
    lm.train(alone)
    two = run("two", deepspeed=launching.ROOT / "configs" / "zero3.json", timeout_s=100)
    save(two, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    assert len(spikes_of(alone)) == 1
    assert [line[3] for line in spikes_of(two)] == [line[3] for line in spikes_of(alone)]
    ours, expected = ([one["loss"] for one in metrics(each.output)] for each in (two, alone))
    assert ours == pytest.approx(expected, rel=1e-3) and len(ours) == 24


def test_the_spread_is_that_of_a_normal_distribution():
    chance = random.Random(0)
    values = [chance.gauss(3.0, 0.5) for _ in range(20_000)]
    middle, spread = robust([*values, *[1e9] * 100])
    assert middle == pytest.approx(3.0, abs=0.02) and spread == pytest.approx(0.5, abs=0.02)


def test_impossible_values_are_told():
    found = SpikeConfig(threshold=0.0, window_steps=3, batches=0, max_spikes=0).problems()
    assert [line.partition(" ")[0] for line in found] == [
        "threshold", "window_steps", "batches", "max_spikes"
    ]  # fmt: skip


def test_a_run_of_an_image_tokenizer_goes_back_too(tmp_path: Path):
    """Any rise is a spike here: the first one is answered, the second is one too many."""
    spikes = SpikeConfig(threshold=0.01, window_steps=8, max_spikes=1)
    loop = LoopConfig(num_threads=1, save_every_steps=2, spikes=spikes)
    config = tiny_run(tmp_path, captions(24, (16, 16)), 100, loop=loop)
    with pytest.raises(ValueError, match="has gone back 1 times already"):
        tokenizer_run.train(config)
    ((step, key, seen, (digest,)),) = [
        line for line in history(config.output) if line[1] == "spike"
    ]
    assert 0 < step <= seen["step"] and (seen["step"], "batch", digest, None) in history(
        config.output
    )
