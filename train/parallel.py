"""Train a learner of several networks over several processes that each hold all of it.

Plain data parallel: each process has a part of a step's images, gradients are added up, and all
take the same step. An optimizer has the parameters of one network, which are clipped together: the
two sides of an adversarial loss know nothing of each other's norms. What is no parameter and yet
learns, such as the codebook of VQ, is saved and restored with the parameters.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .checkpoint import EMA, MASTER, Checkpoint, ParameterShard
from .engine import Engine, set_rates
from .optimizer import gradient_norm


class ParallelEngine(Engine):
    """Take the same steps in every process."""

    learner: Any

    def __init__(self, *args: Any, **more: Any) -> None:
        """See Engine; the learner names all that is trained, its model and what is beside it."""
        super().__init__(*args, **more)
        self.named = dict(self.learner.trained())
        known = dict(self.learner.model.named_parameters())
        state = self.learner.model.state_dict()
        self._buffers = {name: one for name, one in state.items() if name not in known}

    def step(
        self, step: int, micro_batches: Sequence[Any], norms: Mapping[str, float]
    ) -> tuple[dict[str, float], float]:
        """Take step number `step`, which the learner may ask for; see Engine."""
        self.learner.step = step
        return super().step(step, micro_batches, norms)

    def parameter_shards(self) -> dict[str, ParameterShard]:
        """Return the training state, all of it on the first rank: the others have the same."""
        if not self.ranks.is_first:
            return {}
        found = super().parameter_shards()
        for name, buffer in self._buffers.items():
            flat = buffer.detach().float().reshape(-1)
            kinds = (MASTER, EMA) if self.ema else (MASTER,)
            found[name] = ParameterShard(tuple(buffer.shape), 0, dict.fromkeys(kinds, flat))
        return found

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same learner, whatever number of processes wrote it."""
        super().restore(checkpoint)
        for name, buffer in self._buffers.items():
            buffer.copy_(checkpoint.whole(name))

    def _backward(self, total: Tensor, is_last: bool) -> None:
        total.backward()
        if self.ranks.world_size == 1:
            return
        gradients = [one.grad for one in self.named.values() if one.grad is not None]
        flat = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(
            gradients, flat.split([one.numel() for one in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def _update(self, factor: float) -> float:
        """Clip and update each network, unless a norm is not finite; return the first one's."""
        due = [
            (optimizer, parameters)
            for optimizer in self.optimizers
            if (parameters := _with_gradient(optimizer))
        ]
        norms = [gradient_norm(map(_gradient, parameters)) for _, parameters in due]
        wrong = [float(norm) for norm in norms if not math.isfinite(norm)]
        for (optimizer, parameters), norm in zip(due, norms, strict=True):
            if not wrong:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
                set_rates(optimizer, factor)
                optimizer.step()
        self._forget()
        return wrong[0] if wrong else float(norms[0])

    def _stored(self, checkpoint: Checkpoint, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return an optimizer's state of a parameter, that has learned from its first step on."""
        found = super()._stored(checkpoint, parameter)
        if "step" in found:
            name = next(name for name, one in self.named.items() if one is parameter)
            found["step"] = found["step"] - self.learner.first_step(name)
        return found

    def _check(self, checkpoint: Checkpoint) -> None:
        named, self.named = self.named, {**self.named, **self._buffers}
        try:
            super()._check(checkpoint)
        finally:
            self.named = named


def _with_gradient(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    every = (one for group in optimizer.param_groups for one in group["params"])
    return [one for one in every if one.grad is not None]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "only parameters with a gradient come here"
    return parameter.grad
