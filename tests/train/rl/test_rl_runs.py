"""Runs of learning from rewards, from a tiny bundle, whole, stopped and on two ranks."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import rl_cases
from pair import Pair
from rl_cases import recipe, whole
from tiny_runs import metrics

from unimodal import bundle
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.train.checkpoint import newest
from unimodal.train.rl.run import DpoConfig, GrpoConfig, PromptsConfig, RewardConfig, ScenesReward
from unimodal.train.rl.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def weights(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rl_cases.write_bundle(tiny_model, tmp_path_factory.mktemp("rl") / "bundle")


def test_a_taste_is_learned(weights: Path, tmp_path: Path) -> None:
    """The reward is the share of low codes, as a user's own function gives it."""
    finished = train(recipe(tmp_path / "run", weights, 12, lr=3e-2))
    rewards = [line["reward"] for line in metrics(tmp_path / "run")]
    assert len(rewards) == 12
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    model = bundle.load(finished)
    assert model.card["data_seeds"] == [11], "no exam on these scenes"
    assert "rollout" in model.card["config"]


@pytest.mark.parametrize(
    "objective",
    [
        {"grpo": GrpoConfig(kl=0.1, entropy=0.01, critical_share=0.5, rest_weight=0.1)},
        {"dpo": DpoConfig()},
    ],
    ids=["grpo", "dpo"],
)
def test_a_stopped_run_goes_on_bit_for_bit(weights: Path, tmp_path: Path, objective: dict) -> None:
    """It is stopped amid a rollout: of four updates one was taken."""
    config = recipe(tmp_path / "whole", weights, 5, minibatches=2, epochs=2)
    config = replace(config, **objective)
    train(config)
    cut = replace(config, output=tmp_path / "cut")
    train(replace(cut, schedule=replace(cut.schedule, num_steps=1)))
    train(cut)
    first, second = (metrics(tmp_path / name) for name in ("whole", "cut"))
    for name in ("loss", "reward", "entropy", "gradient_norm"):
        assert [line[name] for line in first] == [line[name] for line in second]
    assert first[2]["loss"] != first[3]["loss"]
    assert whole(newest(tmp_path / "whole")) == whole(newest(tmp_path / "cut"))


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_two_ranks_take_the_steps_of_one_process(
    pair: Pair, weights: Path, tmp_path: Path, stage: int
) -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed: the extra `train`")
    train(rl_cases.on_ranks(tmp_path / "one", weights))
    pair(rl_cases.run, str(tmp_path / "two"), str(weights), stage)
    first, second = (metrics(tmp_path / name) for name in ("one", "two"))
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        for name in ("loss", "reward", "entropy", "kl", "clip_share", "gradient_norm", "no_signal"):
            assert other[name] == pytest.approx(one[name], rel=2e-4, abs=2e-5), name


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda c: replace(c, reward=RewardConfig(python="no_such_module:f")), "no_such_module"),
        (lambda c: replace(c, reward=RewardConfig()), "give one of them"),
        (lambda c: replace(c, grpo=GrpoConfig(), dpo=DpoConfig()), "one objective"),
        (lambda c: replace(c, prompts=PromptsConfig({"drawing": 1.0}, 1_000_003)), "the exam"),
        (lambda c: replace(c, prompts=PromptsConfig({"painting": 1.0})), "no kind of request"),
        (lambda c: replace(c, grpo=GrpoConfig(mean="constant")), "constant_tokens"),
        (lambda c: replace(c, rollout=replace(c.rollout, samples=1)), "at least 2"),
        (lambda c: replace(c, rollout=replace(c.rollout, minibatches=3)), "do not divide"),
        (lambda c: replace(c, rollout=replace(c.rollout, max_images=2)), "max_images: of no reply"),
        (lambda c: replace(c, reward=replace(c.reward, timeout_s=5.0)), "only a command"),
        (lambda c: replace(c, reward=RewardConfig(python="rl_cases:ZERO")), "is no function"),
        (lambda c: replace(c, dpo=DpoConfig(float("inf"))), "finite"),
        (lambda c: replace(c, grpo=GrpoConfig(kl=float("nan"))), "kl nan"),
        (lambda c: replace(c, sampling=Sampling(image_steps=4)), "no image_steps 4"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    weights: Path, tmp_path: Path, change: Callable, said: str
) -> None:
    config = change(recipe(tmp_path / "run", weights, 2))
    parts = [config, config.prompts, config.reward, config.rollout, config.grpo, config.dpo]
    problems = [p for part in parts if part is not None for p in part.problems()]
    if problems:
        assert said in " ".join(problems)
        return
    with pytest.raises(ValueError, match=said):
        train(config)
    assert not (tmp_path / "run").exists()


def test_prompts_without_room_for_a_reply_are_refused_at_the_start(
    tiny_model: Model, tmp_path: Path
) -> None:
    narrow = rl_cases.write_bundle(replace(tiny_model, context=100), tmp_path / "narrow")
    config = replace(recipe(tmp_path / "run", narrow, 2), prompts=PromptsConfig({"edits": 1.0}))
    with pytest.raises(ValueError, match="none of 256 requests of edits/"):
        train(config)
    assert not [*(tmp_path / "run").iterdir()], "nothing is kept of it"


def test_replies_are_not_taken_for_those_to_other_prompts(weights: Path, tmp_path: Path) -> None:
    """A run that stopped amid a rollout goes on with prompts that were changed."""
    config = recipe(tmp_path / "run", weights, 1, epochs=2)
    train(config)
    config = replace(config, schedule=replace(config.schedule, num_steps=2))
    with pytest.raises(ValueError, match="amid a rollout whose replies answer other prompts"):
        train(replace(config, prompts=PromptsConfig({"drawing": 1.0}, 99)), accept_change=True)
    train(config, accept_change=True)


def test_the_exact_reward_is_that_of_the_verdicts(weights: Path, tmp_path: Path) -> None:
    """Random weights draw nothing that can be read: there is no reward and no signal."""
    config = recipe(tmp_path / "run", weights, 1)
    mix = {"drawing": 2.0, "questions": 1.0, "edits": 1.0, "captions": 1.0}
    train(
        replace(
            config, prompts=PromptsConfig(mix), reward=RewardConfig(scenes=ScenesReward()),
            rollout=replace(config.rollout, prompts=12, modality=None, max_text_tokens=8),
        )
    )  # fmt: skip
    (line,) = metrics(tmp_path / "run")
    assert line["reward"] == line["right"] == 0.0
    assert line["no_signal"] == 1.0
    assert line["loss"] == 0.0
    assert {name.split("/")[1] for name in line if name.startswith("right/")} >= {"drawing"}
    assert 0 < line["choices_per_reply"]
