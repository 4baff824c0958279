"""Train one learner with its optimizers in one process, behind the few methods that the loop needs.

    forward and backward of each micro-batch -> stop if not finite -> clip and update -> EMA

`ZeroEngine` (zero.py) and `FsdpEngine` (fsdp.py) take the same steps over many processes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import EMA, MASTER, Checkpoint, ParameterShard
from .compact import Compact, CompactAdamW, Widening
from .learner import TOTAL, Learner
from .objectives import reported
from .offloading import offloading
from .optimizer import gradient_norm, whole_shape
from .ranks import Ranks
from .schedule import ScheduleConfig

WAY_OUT = (
    "the step was not taken; a lower optimizer.lr or optimizer.clip (with --accept-change) may help"
)


class NotFinite(ValueError):
    """Say that a loss or a gradient is no finite number; its step has changed nothing."""


class Engine:
    """Take batches, change weights, and give and take the state of both."""

    def __init__(
        self,
        learner: Learner,
        optimizers: list[torch.optim.Optimizer],
        schedule: ScheduleConfig,
        clip: float,
        ema_decay: float | None = None,
        ranks: Ranks | None = None,
    ):
        """Keep an average of the weights, of which a step keeps the share `ema_decay` (0 to 1);
        None: keep no average. Gradients are clipped to the norm `clip`.
        """
        self.learner, self.optimizers = learner, optimizers
        self.schedule, self.clip = schedule, clip
        self.ranks = ranks or Ranks()
        self.named = {n: p for n, p in learner.model.named_parameters() if p.requires_grad}
        self.ema_decay = ema_decay
        self.offloads = False
        """Whether what the backward pass needs is kept in the host's memory."""
        self.ema: dict[str, Tensor] = {}

    def step(
        self, step: int, micro_batches: Sequence[Any], norms: Mapping[str, float]
    ) -> tuple[dict[str, float], float]:
        """Take step number `step`: forward and backward of each micro-batch, then one update.

        Returns the reports of the global batch and the gradient's norm before clipping. Raises
        NotFinite, before any weight changes, when the loss or the gradient is not finite.
        """
        values = None
        for number, micro_batch in enumerate(micro_batches):
            losses = self._forward(micro_batch, norms)
            self._backward(losses.pop(TOTAL), is_last=number + 1 == len(micro_batches))
            one = torch.stack([value.detach().double() for value in losses.values()])
            values = one if values is None else values + one
        assert values is not None, "a batch has a micro-batch"
        summed = self.ranks.all_reduce_sum(values.cpu()).tolist()
        reports = reported(dict(zip(losses, summed, strict=True)))
        if not math.isfinite(reports["loss"]):
            self._forget()
            raise NotFinite(f"the loss of step {step} is {reports['loss']}: {WAY_OUT}")
        norm = self._update(self.schedule.factor(step))
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient's norm of step {step} is {norm}: {WAY_OUT}")
        self.update_ema()
        return reports, norm

    @torch.no_grad()
    def measure(self, micro_batch: Any, norms: Mapping[str, float] | None) -> dict[str, float]:
        """Return what a forward pass over this rank's micro-batch alone reports."""
        losses = self._forward(micro_batch, norms)
        losses.pop(TOTAL)
        return reported({name: float(value) for name, value in losses.items()})

    @torch.no_grad()
    def parameter_shards(self) -> dict[str, ParameterShard]:
        """Return the training state of each parameter as far as this rank holds it, as live
        tensors.
        """
        found = {}
        for name, parameter in self.named.items():
            tensors: dict[str, Tensor | Compact] = {MASTER: parameter, **self._moments(parameter)}
            if self.ema:
                tensors[EMA] = self.ema[name]
            found[name] = ParameterShard(tuple(parameter.shape), 0, Widening(tensors))
        return found

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model and optimizer.

        Raises ValueError for a checkpoint of another one.
        """
        self._check(checkpoint)
        for name, parameter in self.named.items():
            parameter.copy_(checkpoint.whole(name))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    optimizer.state[parameter] = self._stored(checkpoint, parameter)
                    if isinstance(optimizer, CompactAdamW):
                        optimizer.narrow(parameter)
        for name in self.named if self.ema_decay is not None else ():
            ema = torch.empty_like(self.named[name], dtype=torch.float32)
            self.ema[name] = ema.copy_(checkpoint.whole(name, EMA))

    def _forward(self, micro_batch: Any, norms: Mapping[str, float] | None) -> dict[str, Tensor]:
        with offloading(self.offloads):
            return self.learner(micro_batch, norms)

    def _backward(self, total: Tensor, is_last: bool) -> None:
        total.backward()

    def _forget(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _update(self, factor: float) -> float:
        """Clip and update, unless the gradient's norm is not finite, and return that norm."""
        parameters = [*self.named.values()]
        total = gradient_norm(one.grad for one in parameters if one.grad is not None)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, total)
        norm = float(total)
        for optimizer in self.optimizers if math.isfinite(norm) else ():
            set_rates(optimizer, factor)
            optimizer.step()
        self._forget()
        return norm

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights a towards the weights w: a <- d a + (1 - d) w, d = ema_decay.

        The temporal averaging of Kingma and Ba (arXiv:1412.6980, section 7.2), begun at the first
        weights instead of at zero, so that there is no bias to correct.
        """
        if self.ema_decay is None:
            return
        masters = self._masters()
        if not self.ema:
            self.ema = {name: master.clone() for name, master in masters.items()}
            return
        ema = [self.ema[name] for name in masters]
        torch._foreach_lerp_(ema, list(masters.values()), 1 - self.ema_decay)

    def _masters(self) -> dict[str, Tensor]:
        return {name: parameter.detach().float() for name, parameter in self.named.items()}

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor | Compact]:
        for optimizer in self.optimizers:
            if state := optimizer.state.get(parameter):
                return {kind: value for kind, value in state.items() if kind != "step"}
        return {}

    def _stored(self, checkpoint: Checkpoint, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return an optimizer's state of a parameter, laid out in memory as the parameter is: fused
        optimizers walk both as flat memory.
        """
        name = next(name for name, one in self.named.items() if one is parameter)
        kinds = sorted(checkpoint.kinds[name] - {EMA, MASTER})
        found = {k: torch.empty_like(parameter).copy_(checkpoint.whole(name, k)) for k in kinds}
        if "exp_avg" in found:
            found["step"] = adam_steps(checkpoint, parameter)
        return found

    def _check(self, checkpoint: Checkpoint) -> None:
        """Raise ValueError, before anything changes, unless the checkpoint has just these
        parameters.
        """
        shapes = {name: whole_shape(parameter) for name, parameter in self.named.items()}
        odd = sorted(name for name in shapes | checkpoint.shapes
                     if shapes.get(name) != checkpoint.shapes.get(name))  # fmt: skip
        if odd:
            raise ValueError(
                f"{checkpoint.directory} is of another model: {', '.join(odd[:3])}"
                f"{f' and {len(odd) - 3} more' if len(odd) > 3 else ''} differ"
            )
        if self.ema_decay is not None and any(EMA not in k for k in checkpoint.kinds.values()):
            raise ValueError(f"{checkpoint.directory} holds no averaged weights")


def adam_steps(checkpoint: Checkpoint, parameter: Tensor) -> Tensor:
    """Return the number of steps as fused AdamW keeps it, for the bias of its moments: a tensor on
    the parameter's device.
    """
    return torch.tensor(float(checkpoint.step), device=parameter.device)


def set_rates(optimizer: Any, factor: float) -> None:
    """Multiply the plateau learning rate of each group by `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
