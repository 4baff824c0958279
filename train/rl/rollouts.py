"""Rollouts: prompts, replies from the live weights, rewards, and the batches of an update.

    refresh the actor -> sample G replies to each prompt -> judge -> compare within groups
      -> score by the weights before the first update, and by the starting model -> minibatches

Prompt number r P + p is that of rollout r, and its noise depends on that number alone, so the same
replies are sampled on any number of ranks, of which each has its share of the prompts. All that a
rollout is lies in the state beside its batches until they are used up: a run goes on, bit for bit,
from a checkpoint amid a rollout too.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch

from unimodal.document import Image, Part
from unimodal.model import Model
from unimodal.sampling import Sampling

from .. import heap
from ..engine import Engine
from ..ranks import Ranks
from .actor import refresh, sampled
from .learner import PolicyLearner
from .objective import advantages
from .prompts import Prompt, Prompts, noise_seeds
from .replay import Replay, Trajectory
from .rewards import Judge, Mark
from .run import RlRun
from .samples import Sample, Scores

SCORED_AT_ONCE = 64  # replies, without gradients, where engine.micro_batch_rows does not say


@dataclass(frozen=True)
class Judged:
    """A Judged reply, as it is kept in a checkpoint: what it was and what it was worth."""

    ids: tuple[int, ...]
    mark: Mark


Group = list[Judged]


class Rollouts:
    """Rollouts give the batches of one rank, each with the state behind it."""

    def __init__(
        self,
        config: RlRun,
        prompts: Prompts,
        judge: Judge,
        actor: Model,
        replay: Replay,
        engine: Engine,
        start: PolicyLearner | None,
        ranks: Ranks,
    ) -> None:
        """`start` scores by the starting model, where the objective needs it."""
        self.config, self.prompts, self.judge, self.actor = config, prompts, judge, actor
        self.replay, self.engine, self.start, self.ranks = replay, engine, start, ranks
        self.sampling = sampling_of(config)

    def batches(
        self, state: dict[str, Any] | None
    ) -> Iterator[tuple[list[Sample], dict[str, Any]]]:
        """Yield batches for ever, from the state of a checkpoint on; None: from the beginning."""
        number, update = (state["rollout"], state["update"]) if state else (0, 0)
        kept = state.get("samples") if state else None
        while True:
            groups = self._rollout(number) if kept is None else self._restored(number, kept)
            kept = None
            updates = self.config.rollout.updates
            for at in range(update, updates):
                yield self._minibatch(groups, at), self._state(number, at + 1, groups)
            number, update = number + 1, 0

    @property
    def policy(self) -> PolicyLearner:
        """Return what the engine trains."""
        return cast(PolicyLearner, self.engine.learner)

    def _numbers(self, rollout: int) -> list[int]:
        """Return the numbers of this rank's prompts: of each minibatch its share."""
        shape, ranks = self.config.rollout, self.ranks
        per_batch = shape.prompts // shape.minibatches
        mine = per_batch // ranks.world_size
        first = rollout * shape.prompts
        return [
            first + batch * per_batch + ranks.rank * mine + at
            for batch in range(shape.minibatches)
            for at in range(mine)
        ]

    def _rollout(self, rollout: int) -> list[list[Sample]]:
        """Return the samples of each of this rank's prompts."""
        heap.give_back()  # of the last rollout and its updates, whose sizes were others
        refresh(self.actor.transformer, self.policy.model)
        asked = self.ranks.together(
            lambda: [self.prompts(number) for number in self._numbers(rollout)]
        )
        groups = self._groups(asked, self.ranks.together(lambda: self._judged(rollout, asked)))
        return self._scored(groups)

    def _judged(self, rollout: int, asked: Sequence[Prompt]) -> list[Group]:
        """Return the replies to each prompt with their marks."""
        shape = self.config.rollout
        prompts = [prompt for prompt in asked for _ in range(shape.samples)]
        seeds = [
            seed
            for number in self._numbers(rollout)
            for seed in noise_seeds(self.config.seed, number, shape.samples)
        ]
        replies = sampled(
            self.actor,
            [prompt.document for prompt in prompts],
            [replace(self.sampling, seed=seed) for seed in seeds],
            shape.modality,
            shape.batch,
        )
        parts = with_pixels(self.actor, [parts for parts, _ in replies])
        marks = self.judge(prompts, parts)
        judged = [Judged(ids, mark) for (_, ids), mark in zip(replies, marks, strict=True)]
        return [judged[at : at + shape.samples] for at in range(0, len(judged), shape.samples)]

    def _groups(self, asked: Sequence[Prompt], judged: Sequence[Group]) -> list[list[Sample]]:
        """Return the samples of each group that are learned from, compared with one another."""
        rewards_PG = torch.tensor(
            [[one.mark.reward for one in group] for group in judged], dtype=torch.float64
        )
        config = self.config.grpo
        compared_PG = advantages(rewards_PG, config is None or config.normalise)
        groups = []
        for prompt, group, advantage_G in zip(asked, judged, compared_PG.tolist(), strict=True):
            alike = {"no_signal": float(_are_equal(group))}
            replayed = self.replay(prompt.document, [one.ids for one in group])
            made = [
                Sample(prompt.kind, trajectory, one.mark.reward, advantage, one.mark.facts | alike)
                for trajectory, one, advantage in zip(replayed, group, advantage_G, strict=True)
            ]
            groups.append(made if self.config.dpo is None else _pair(made))
        return groups

    def _scored(self, groups: list[list[Sample]]) -> list[list[Sample]]:
        """Return the samples with their scores before the first update, where there are several,
        and by the starting model, where it is held.
        """
        samples = [sample for group in groups for sample in group]
        if self.config.rollout.updates > 1 and self.config.dpo is None:
            scores = self._scores(samples, self.policy, self._measured)
            samples = [replace(s, old=score) for s, score in zip(samples, scores, strict=True)]
        if self.start is not None:
            start = self.start
            scores = self._scores(samples, start, lambda some: start(some, None))
            samples = [
                replace(s, start_n=score.log_p_n) for s, score in zip(samples, scores, strict=True)
            ]
        length = len(groups[0])
        return [samples[at : at + length] for at in range(0, len(samples), length)]

    def _measured(self, some: list[Sample]) -> None:
        self.engine.measure(some, None)

    def _scores(
        self, samples: list[Sample], learner: PolicyLearner, run: Callable[[list[Sample]], Any]
    ) -> list[Scores]:
        """Return the scores of samples by a learner's weights, without gradients."""
        found = []
        at_once = self.config.engine.micro_batch_rows or SCORED_AT_ONCE
        with torch.no_grad():
            for some in learner.micro_batches(samples, at_once):
                run(some)
                found += learner.scored
        return found

    def _minibatch(self, groups: list[list[Sample]], update: int) -> list[Sample]:
        """Return the samples of an update; epochs go through the same minibatches in order."""
        minibatches = self.config.rollout.minibatches
        length, at = len(groups) // minibatches, update % minibatches
        return [sample for group in groups[at * length :][:length] for sample in group]

    def _state(self, number: int, update: int, groups: list[list[Sample]]) -> dict[str, Any]:
        """Return what the run goes on from behind an update; all ranks call it together."""
        if update == self.config.rollout.updates:
            return {"rollout": number + 1, "update": 0}
        numbers = self._numbers(number)
        mine = {
            n: [_plain(one) | {"asked": self._asked(one.trajectory)} for one in group]
            for n, group in zip(numbers, groups, strict=True)
        }
        kept: dict[str, Any] = {}
        for text in self.ranks.all_gather(json.dumps(mine)):
            kept |= json.loads(text)
        return {"rollout": number, "update": update, "samples": kept}

    def _asked(self, trajectory: Trajectory) -> str:
        """Return a digest of the prompt that a reply answers, and of how it was sampled."""
        how = repr((self.config.rollout.modality, self.sampling))
        return sha256(trajectory.prompt.ids.tobytes() + how.encode()).hexdigest()[:16]

    def _restored(self, number: int, kept: dict[str, Any]) -> list[list[Sample]]:
        """Return this rank's groups of a rollout that was kept."""
        numbers, shape = self._numbers(number), self.config.rollout
        whole = [str(number * shape.prompts + at) for at in range(shape.prompts)]
        if sorted(kept) != sorted(whole):
            raise ValueError(
                f"rollout.prompts {shape.prompts}: the checkpoint lies amid a rollout of "
                f"{len(kept)}; put it back, and change it where a rollout ends"
            )
        groups = []
        for at in numbers:
            prompt, group = self.prompts(at), kept[str(at)]
            replayed = self.replay(prompt.document, [tuple(one["ids"]) for one in group])
            if any(
                one["asked"] != self._asked(here) for one, here in zip(group, replayed, strict=True)
            ):
                raise ValueError(
                    "prompts, rollout: the checkpoint lies amid a rollout whose replies answer "
                    "other prompts or were sampled otherwise; put them back, and change them where "
                    "a rollout ends"
                )
            groups.append([
                _sample(prompt.kind, trajectory, one)
                for trajectory, one in zip(replayed, group, strict=True)
            ])  # fmt: skip
        return groups


def sampling_of(config: RlRun) -> Sampling:
    """Return how replies are sampled: at temperature 1, from everything, without guidance."""
    return Sampling(
        text_temperature=1.0, image_temperature=1.0,
        max_text_tokens=config.rollout.max_text_tokens,
        max_images=config.rollout.max_images,
    )  # fmt: skip


def with_pixels(model: Model, replies: Sequence[Sequence[Part]]) -> list[tuple[Part, ...]]:
    """Return replies whose images have pixels; those of all are decoded together."""
    images = [part for parts in replies for part in parts if isinstance(part, Image)]
    decoded = iter(model.codec.decode(images))
    return [
        tuple(next(decoded) if isinstance(part, Image) else part for part in parts)
        for parts in replies
    ]


def _are_equal(group: Group) -> bool:
    """Return whether all replies of a group have one reward, so that nothing is learned of it."""
    return len({one.mark.reward for one in group}) == 1


def _pair(group: list[Sample]) -> list[Sample]:
    """Return the best and the worst sample of a group; of equal ones the earlier."""
    best, worst = (choose(group, key=lambda one: one.reward) for choose in (max, min))
    if best.reward == worst.reward:
        best, worst = group[:2]
    tells = float(best.reward > worst.reward)
    return [replace(best, advantage=tells), replace(worst, advantage=tells)]


def _plain(sample: Sample) -> dict[str, Any]:
    """Return all of a sample but its prompt, as JSON; its floats come back as the same bits."""
    found: dict[str, Any] = {
        "ids": sample.trajectory.reply_ids, "reward": sample.reward, "advantage": sample.advantage,
        "facts": sample.facts,
    }  # fmt: skip
    if sample.old is not None:
        found |= {"old": sample.old.log_p_n.tolist(), "entropy": sample.old.entropy_n.tolist()}
    if sample.start_n is not None:
        found["start"] = sample.start_n.tolist()
    return found


def _sample(kind: str, trajectory: Trajectory, plain: dict[str, Any]) -> Sample:
    old = None
    if "old" in plain:
        old = Scores(_array(plain["old"]), _array(plain["entropy"]))
    start_n = _array(plain["start"]) if "start" in plain else None
    return Sample(
        kind, trajectory, plain["reward"], plain["advantage"], plain["facts"], old, start_n
    )


def _array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)
