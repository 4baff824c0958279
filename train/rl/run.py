"""Say what a run of learning from rewards is told: what is asked, rewarded, and learned."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unimodal.data.sources import SourceConfig
from unimodal.eval.options import EVAL_SEED
from unimodal.grammar import Modality
from unimodal.sampling import Sampling

from ..loop import LoopConfig
from ..optimizer import OptimizerConfig
from ..schedule import ScheduleConfig
from ..zero import EngineConfig
from .kinds import kinds_of


@dataclass(frozen=True)
class PromptsConfig:
    """Configure what is asked: requests in the world of scenes, or the user's own documents."""

    mix: dict[str, float] = field(default_factory=dict)
    """Weights of kinds of requests in the world of scenes: `drawing`, `questions`, `captions`,
    `edits`, `layout` (of models that take boxes), or one kind of them, such as `drawing/position`
    or `questions/count`. A part's weight is spread evenly over its kinds."""
    seed: int = 11
    """Of the scenes; the exam's is refused."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Shards whose documents are asked, up to their last reply, by name. Not beside `mix`."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        if bool(self.mix) == bool(self.sources):
            return ["mix or sources: one of them says what is asked"]
        found = []
        if self.sources and self.seed != PromptsConfig.seed:
            found.append("seed: with sources there are no scenes; leave it out")
        if not 0 <= self.seed < 2**40 or self.seed == EVAL_SEED:
            found.append(f"seed {self.seed}: 0 to 2^40, and not {EVAL_SEED}, that of the exam")
        for name, weight in self.mix.items():
            try:
                kinds_of(name)
            except ValueError as error:
                found.append(f"mix.{error}")
            if not weight > 0:
                found.append(f"mix.{name} {weight}: above 0")
        return found


@dataclass(frozen=True)
class ScenesReward:
    """Shape the reward in the world of scenes: `right` for a right answer, `wrong` + `share` x s
    for an image that can be read, or a caption that can be parsed, and shows the share s of what
    was asked for, and 0 for all else; and `plan` more for a wrong image behind a right plan in
    words. All or nothing: wrong=0 share=0.
    """

    right: float = 1.0
    wrong: float = 0.1
    share: float = 0.3
    plan: float = 0.0

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        parts = (self.wrong, self.share, self.plan)
        if not (min(parts) >= 0 and sum(parts) < self.right < math.inf):
            return [
                f"right {self.right}, wrong {self.wrong}, share {self.share}, plan {self.plan}: "
                "wrong, share and plan at least 0, and together below right, a finite number"
            ]
        return []


@dataclass(frozen=True)
class RewardConfig:
    """Configure what judges replies: exactly one of these."""

    scenes: ScenesReward | None = None
    """The verdicts of `eval scenes`, for prompts of the world of scenes."""
    python: str | None = None
    """A function `module:function` of (document, reply) that returns a number. It is imported, so
    name only what you trust."""
    command: str | None = None
    """A command that reads JSON lines, one a reply, and writes as many numbers (docs/rl.md)."""
    timeout_s: float = 600
    """How long a command may take for the replies of a rollout."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        given = [one for one in (self.scenes, self.python, self.command) if one is not None]
        found = [] if len(given) == 1 else ["scenes, python, command: give one of them"]
        if self.python is not None and not all(self.python.partition(":")):
            found.append(f"python {self.python!r}: module:function")
        if self.command is None and self.timeout_s != RewardConfig.timeout_s:
            found.append("timeout_s: only a command is waited for; leave it out")
        return found if self.timeout_s > 0 else [*found, f"timeout_s {self.timeout_s}: above 0"]


@dataclass(frozen=True)
class RolloutConfig:
    """Configure a rollout: what is sampled, always at temperature 1 from all that the grammar
    allows, before the weights change.
    """

    prompts: int = 8
    """Prompts of a rollout, on all ranks together."""
    samples: int = 8
    """Replies to each prompt: a group, within which rewards are compared."""
    minibatches: int = 1
    """Optimizer steps that share the prompts of a rollout."""
    epochs: int = 1
    """How often a rollout is gone through."""
    max_text_tokens: int = 64
    """The most text tokens of a reply, which is ended there."""
    max_images: int = 1
    """The most images of a reply."""
    modality: Modality | None = None
    """The modality constraint of replies: `text`, `image`, or null for what the model chooses."""
    batch: int = 256
    """Replies that are sampled at once, on each rank."""

    @property
    def updates(self) -> int:
        """Return how many optimizer steps learn from a rollout."""
        return self.minibatches * self.epochs

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: at least 1"
            for name, value in vars(self).items()
            if isinstance(value, int) and value < 1
        ]
        unused = {"image": ("max_text_tokens", "max_images"), "text": ("max_images",), None: ()}
        found += [
            f"{name}: of no reply with modality {self.modality}; leave it out"
            for name in unused[self.modality]
            if getattr(self, name) != getattr(RolloutConfig, name)
        ]
        if self.samples < 2:
            found.append(f"samples {self.samples}: at least 2, for replies are compared")
        if not found and self.prompts % self.minibatches:
            found.append(f"prompts {self.prompts} do not divide by minibatches {self.minibatches}")
        return found


@dataclass(frozen=True)
class GrpoConfig:
    """Configure group-relative policy optimisation (DeepSeekMath, arXiv:2402.03300)."""

    normalise: bool = True
    """Divide advantages by the standard deviation of their group's rewards; false: only the mean is
    subtracted, as in Dr. GRPO (arXiv:2503.20783), which does not favour easy and hard prompts."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    """Probability ratios count from 1 - clip_low to 1 + clip_high."""
    kl: float = 0.0
    """Weight of the divergence from the starting model; 0: that model is not held."""
    entropy: float = 0.0
    """Weight of the entropy of each choice, which is added to what is maximised."""
    mean: Literal["choices", "replies", "constant"] = "choices"
    """How losses of single choices (text tokens and codes) are weighed: all alike (DAPO,
    arXiv:2503.14476), so that each reply counts alike (GRPO), or all alike and divided by the
    number of replies times `constant_tokens`, whatever their lengths (Dr. GRPO)."""
    constant_tokens: int | None = None
    critical_share: float | None = None
    """Of each reply only this share of the choices has weight 1: those of the largest entropy when
    they were sampled (arXiv:2506.01939; GCPO, arXiv:2509.22485); null: all."""
    rest_weight: float = 0.0
    """The weight of the others."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: at least 0"
            for name in ("clip_low", "clip_high", "kl", "entropy", "rest_weight")
            if not 0 <= (value := getattr(self, name)) < math.inf
        ]
        if self.clip_low >= 1:
            found.append(f"clip_low {self.clip_low}: below 1")
        if (self.mean == "constant") != (self.constant_tokens is not None):
            found.append("constant_tokens: given with mean=constant, and with nothing else")
        if self.constant_tokens is not None and self.constant_tokens < 1:
            found.append(f"constant_tokens {self.constant_tokens}: at least 1")
        if self.critical_share is not None and not 0 < self.critical_share < 1:
            found.append(f"critical_share {self.critical_share}: above 0 and below 1")
        if self.critical_share is None and self.rest_weight:
            found.append("rest_weight: without critical_share there is no rest")
        return found


@dataclass(frozen=True)
class DpoConfig:
    """Configure direct preference optimisation (arXiv:2305.18290) on the best and the worst reply
    of each group.
    """

    beta: float = 0.1
    """How strongly the log-ratio to the starting model, which is held, is told apart."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        return [] if 0 < self.beta < math.inf else [f"beta {self.beta}: above 0, and finite"]


@dataclass(frozen=True)
class RlRun:
    """Configure a run that learns from rewards."""

    output: Path
    """The run's directory; the trained bundle is written to `output/bundle`."""
    weights: Path
    """The bundle to begin from."""
    schedule: ScheduleConfig
    """Its steps are updates of the weights; a rollout takes `rollout.minibatches` x
    `rollout.epochs` of them."""
    prompts: PromptsConfig
    reward: RewardConfig
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    grpo: GrpoConfig | None = None
    dpo: DpoConfig | None = None
    """The objective: one of these two; neither: grpo with its defaults."""
    seed: int = 0
    """Of the noise of replies."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-4))
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Its micro_batch_rows count replies."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    sampling: Sampling | None = None
    """The finished bundle's defaults for replies; null: those of `weights`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """The dtype of matrix products, in rollouts and updates, as for `train lm`."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if 0 <= self.seed < 2**40 else [f"seed {self.seed}: 0 to 2^40"]
        if self.grpo is not None and self.dpo is not None:
            found.append("grpo and dpo: one objective at a time")
        if self.engine.deepspeed is not None and self.optimizer.muon_lr is not None:
            found.append("optimizer.muon_lr: not with engine.deepspeed, which cuts matrices")
        if self.engine.fsdp or self.engine.sequence_parallel > 1:
            found.append(
                "engine.fsdp, engine.sequence_parallel: for `train lm`; an update here gathers "
                "weights for its rollouts, and its rows are short; take engine.deepspeed"
            )
        if self.engine.deepspeed is not None and self.optimizer.moments == "8bit":
            found.append("optimizer.moments 8bit: not with engine.deepspeed, which cuts moments")
        if self.reward.scenes is not None and not self.prompts.mix:
            found.append("reward.scenes: it judges prompts.mix; with sources give python, command")
        if self.loop.verify == "all" and not self.prompts.sources:
            found.append("loop.verify: scenes are made and not read; leave it out")
        if self.engine.activation_gb is not None:
            found.append("engine.activation_gb: replies are of any length; give engine.recompute")
        if self.loop.spikes is not None:
            found.append("loop.spikes: batches are sampled anew and none comes again; leave it out")
        if self.loop.data_workers:
            found.append("loop.data_workers: nothing is read ahead here; leave it out")
        return found

    @property
    def needs_start(self) -> bool:
        """Return whether the starting model is held beside the one that learns."""
        return self.dpo is not None or (self.grpo is not None and self.grpo.kl > 0)

    @property
    def replies(self) -> int:
        """Return how many replies, of all ranks, an update learns from."""
        of_group = self.rollout.samples if self.dpo is None else 2
        return self.rollout.prompts // self.rollout.minibatches * of_group

    def rank_problems(self, world_size: int) -> list[str]:
        """Return what is wrong with how so many ranks share a rollout, one sentence each."""
        groups, micro = self.rollout.prompts // self.rollout.minibatches, self.engine
        if groups % world_size:
            return [
                f"rollout.prompts {self.rollout.prompts} in {self.rollout.minibatches} minibatches "
                f"do not divide among {world_size} ranks: launch another number of them"
            ]
        if self.dpo is not None and (micro.micro_batch_rows or 2) % 2:
            return [f"engine.micro_batch_rows {micro.micro_batch_rows}: even, for pairs of replies"]
        return []
