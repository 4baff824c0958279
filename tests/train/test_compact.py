"""Moments of 8 bits: what codes stand for, and runs that learn as with float32 ones."""

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from tiny_runs import exact, metrics, recipe
from tokenizer_runs import captions, tiny_run

from unimodal.tokenizer.discriminator import AdversarialConfig
from unimodal.train import lm
from unimodal.train import tokenizer as tokenizer_run
from unimodal.train.checkpoint import Checkpoint, newest
from unimodal.train.compact import (
    BLOCK,
    BYTES_A_NUMBER,
    LEAST_NUMBERS,
    Compact,
    CompactAdamW,
    codebook,
)
from unimodal.train.initial import ShapeConfig
from unimodal.train.optimizer import OptimizerConfig, build
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
STEPS = 20
SHAPE = ShapeConfig(
    width=64, num_layers=2, num_heads=2, num_kv_heads=1, head_width=32, mlp_width=128
)


def normal(numbers: int, seed: int = 0) -> torch.Tensor:
    """Numbers of very different sizes."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(numbers, generator=rng) * 10 ** torch.empty(numbers).uniform_(
        -4, 0, generator=rng
    )


@pytest.mark.parametrize("signed", [True, False])
def test_the_codebook_is_that_of_the_paper(signed: bool):
    """Dynamic tree quantisation: sizes by decade, 0 and 1 exactly, and finer towards 1."""
    numbers, limits = codebook(signed, CPU)
    assert len(numbers.unique()) == 256 and len(limits) == 255
    assert 0.0 in numbers and numbers.max() == 1.0
    above = numbers[numbers > 0]
    in_decade = [int(((above > 10.0 ** -(e + 1)) & (above < 10.0**-e)).sum()) for e in range(7)]
    assert in_decade == [(64 if signed else 128) >> e for e in range(7)]
    assert torch.equal(-numbers[numbers < 0].flip(0), above[:-1]) if signed else numbers.min() == 0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("numbers", [1, BLOCK, 1000, 5000])
def test_narrowing_twice_is_narrowing_once(signed: bool, numbers: int):
    values = normal(numbers) if signed else normal(numbers).square()
    once = Compact(values, signed)
    wide = once.widened()
    assert torch.equal(Compact(wide, signed).widened(), wide)
    assert wide.shape == values.shape
    # Of each block the number of largest magnitude is exact, and no other is far from its own.
    for block, found in zip(values.split(BLOCK), wide.split(BLOCK), strict=True):
        most = block.abs().argmax()
        assert found[most] == block[most]
        bound = 0.5 * codebook(signed, CPU)[0].diff().max() * block[most].abs()
        assert (found - block).abs().max() <= bound * 1.001


def test_nothing_above_zero_becomes_zero_in_a_second_moment():
    values = torch.tensor([1.0, 1e-30, 0.0])
    assert (Compact(values, False).widened() > 0).tolist() == [True, True, False]
    assert Compact(values, True).widened()[1] == 0
    assert torch.equal(Compact(torch.zeros(300), True).widened(), torch.zeros(300))


def test_the_memory_is_what_is_told():
    values = torch.randn(64, 1024)
    assert Compact(values, True).num_bytes == values.numel() * BYTES_A_NUMBER < 0.26 * values.nbytes


def test_small_parameters_step_as_with_float32():
    """Bit for bit; a large one nearly, with a step that points the same way."""
    sizes = (LEAST_NUMBERS - 1, 2 * LEAST_NUMBERS)
    found = []
    for moments in ("fp32", "8bit"):
        model = torch.nn.ParameterList([normal(size, size) for size in sizes])
        (optimizer,) = build(model, OptimizerConfig(moments=moments, weight_decay=0.1))
        before = [one.detach().clone() for one in model]
        for step in range(5):
            for one in model:
                one.grad = normal(one.numel(), step)
            optimizer.step()
        found.append([one.detach() - old for one, old in zip(model, before, strict=True)])
    assert isinstance(optimizer, CompactAdamW)
    (small, large), (ours_small, ours_large) = found
    assert torch.equal(small, ours_small) and not torch.equal(large, ours_large)
    assert torch.cosine_similarity(large, ours_large, 0) > 0.97


@pytest.fixture(scope="module")
def config(shards: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> LmRun:
    """A run with moments of 8 bits, which has ended."""
    found = recipe(tmp_path_factory.mktemp("compact") / "run", shards, tokenizer, STEPS)
    found = replace(
        found,
        model=SHAPE,
        loader=replace(found.loader, sequence_length=512),
        optimizer=OptimizerConfig(lr=3e-3, weight_decay=0.1, moments="8bit"),
    )
    lm.train(found)
    return found


def test_losses_are_within_two_percent_of_those_with_float32(config: LmRun, tmp_path: Path):
    plain = replace(
        config, output=tmp_path / "run", optimizer=OptimizerConfig(3e-3, weight_decay=0.1)
    )
    lm.train(plain)
    ours, expected = ([line["loss"] for line in metrics(one.output)] for one in (config, plain))
    assert ours[0] == expected[0] and ours != expected
    assert ours == pytest.approx(expected, rel=0.02)
    assert expected[-1] < expected[0] - 1  # they have learned


def test_a_run_that_is_stopped_goes_on_bit_for_bit(config: LmRun, tmp_path: Path):
    run = replace(config, output=tmp_path / "run", schedule=ScheduleConfig(7, 1))
    lm.train(run)
    lm.train(replace(run, schedule=ScheduleConfig(STEPS, 1)))
    assert exact(run.output) == exact(config.output)
    one, two = newest(run.output), newest(config.output)
    assert isinstance(one, Checkpoint) and isinstance(two, Checkpoint)
    for name, kinds in one.kinds.items():
        assert kinds == two.kinds[name] and "exp_avg_sq" in kinds
        assert all(one.whole(name, kind).equal(two.whole(name, kind)) for kind in kinds)
    # And with float32 moments from here on: the checkpoint is the same.
    changed = replace(run, optimizer=replace(run.optimizer, moments="fp32"))
    lm.train(replace(changed, schedule=ScheduleConfig(STEPS + 1, 1)), accept_change=True)
    assert len(metrics(run.output)) == STEPS + 1


def test_what_has_not_learned_yet_has_no_moments(tmp_path: Path):
    """A run goes on before its discriminator has begun, and when it begins."""
    late = AdversarialConfig(start_step=3, width=16, num_layers=2)
    optimizer = OptimizerConfig(lr=3e-3, moments="8bit")
    run = tiny_run(tmp_path, captions(24, (16, 16)), 2, optimizer=optimizer)
    run = replace(run, loss=replace(run.loss, adversarial=late))
    tokenizer_run.train(run)
    before = newest(run.output)
    tokenizer_run.train(replace(run, schedule=ScheduleConfig(5, 1)))
    after = newest(run.output)
    assert isinstance(before, Checkpoint) and isinstance(after, Checkpoint)
    large = [
        name
        for name, shape in before.shapes.items()
        if name.startswith("discriminator.") and prod(shape) >= LEAST_NUMBERS
    ]
    assert large and all(before.kinds[name] == {"master"} for name in large)
    assert all("exp_avg_sq" in after.kinds[name] for name in large)


def test_what_does_not_go_together_is_told(config: LmRun):
    assert OptimizerConfig(moments="8bit", cautious=True, weight_decay=0.1).problems()
    cut = replace(config, engine=EngineConfig(Path("configs/zero1.json")))
    assert any("keep moments in parts" in line for line in cut.problems())
