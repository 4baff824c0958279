"""One model and its optimizers behind the few methods that the loop needs.

This is the single-process engine; a distributed one offers the same methods.
"""

import math

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .checkpoint import Names
from .schedule import ScheduleConfig

WAY_OUT = "the step was not taken; a lower optimizer.lr in another output may help"


class NotFinite(ValueError):
    """A loss or a gradient that is no finite number; nothing was changed by this step."""


class Engine:
    """Takes losses, changes weights, and reads and writes the state of both."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        schedule: ScheduleConfig,
        clip: float,
    ):
        self.model, self.optimizers, self.schedule, self.clip = model, optimizers, schedule, clip
        self._names = Names(model)

    def step(self, loss: torch.Tensor, step: int) -> float:
        """Backward, clip and update; returns the gradient's norm before clipping.

        Raises NotFinite before any weight changes when the loss or a gradient is not finite.
        """
        if not math.isfinite(loss.item()):
            raise NotFinite(f"the loss of step {step} is {loss.item()}: {WAY_OUT}")
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip))
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient's norm of step {step} is {norm}: {WAY_OUT}")
        factor = self.schedule.factor(step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def save(self, directory: str) -> None:
        """Write weights and optimizer state as safetensors."""
        weights = {
            name: tensor.detach().contiguous() for name, tensor in self.model.state_dict().items()
        }
        save_file(weights, f"{directory}/weights.safetensors")
        save_file(
            self._names.optimizer_tensors(self.optimizers), f"{directory}/optimizer.safetensors"
        )

    def load(self, directory: str) -> None:
        """Read what `save` wrote, for the same model and optimizers."""
        self.model.load_state_dict(load_file(f"{directory}/weights.safetensors"))
        self._names.restore(self.optimizers, load_file(f"{directory}/optimizer.safetensors"))
