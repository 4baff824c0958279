"""The learning rate: it rises, stays and falls, and stages scale it."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import metrics, recipe

from unimodal.config import load, save
from unimodal.train import lm
from unimodal.train.run import LmRun
from unimodal.train.schedule import Rate, ScheduleConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_schedule_rises_stays_and_falls_to_almost_nothing() -> None:
    schedule = ScheduleConfig(10, warmup_steps=3, decay_steps=4)
    assert [round(schedule.factor(step), 2) for step in range(10)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        1,
        0.8,
        0.6,
        0.4,
        0.2,
    ]
    assert ScheduleConfig(5, 4, 4).problems() == [
        "warmup_steps 4 and decay_steps 4 do not fit in num_steps 5"
    ]


def test_stages_scale_the_learning_rate() -> None:
    stages = (Rate(4, 0.5), Rate(6, 2.0))
    plain, staged = (ScheduleConfig(10, 3, 4, stages=given) for given in ((), stages))
    factors = [1, 1, 1, 1, 0.5, 0.5, 2, 2, 2, 2]
    assert [staged.factor(step) for step in range(10)] == [
        plain.factor(step) * factor for step, factor in enumerate(factors)
    ]
    assert Rate(0, 0.0).problems() == ["from_step 0: at least 1", "lr 0.0: above 0"]
    for wrong in ((Rate(6, 1.0), Rate(4, 1.0)), (Rate(4, 1.0), Rate(4, 2.0)), (Rate(10, 1.0),)):
        (problem,) = ScheduleConfig(10, stages=wrong, warmup_steps=3).problems()
        assert problem.endswith("rising, and below num_steps 10")


def test_a_run_takes_its_stages_rates(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 4)
    save(
        replace(config, schedule=ScheduleConfig(4, 0, stages=(Rate(2, 0.25),))),
        tmp_path / "lm.yaml",
    )
    lm.train(load(LmRun, tmp_path / "lm.yaml"))
    assert [m["lr_factor"] for m in metrics(tmp_path / "run")] == [1, 1, 0.25, 0.25]
