"""Train over many processes, whose shards of the model and its state torch's FSDP2 keeps.

`FsdpEngine` takes the steps that `ZeroEngine` (zero.py) takes, by `fully_shard` of torch itself
(Zhao et al., "PyTorch FSDP", arXiv:2304.11277) instead of DeepSpeed: each parameter is cut along
its first axis, a layer's parameters are gathered around its passes, and gradients are summed over
ranks to the shards. Checkpoints are those of all engines.

Letters: W ranks.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from .checkpoint import EMA, MASTER, Checkpoint, ParameterShard
from .engine import Engine, adam_steps, set_rates
from .ranks import connect_alone


@dataclass(frozen=True)
class FsdpSettings:
    """Say how FSDP2 shards a run."""

    bf16: bool
    """Whether parameters are gathered, and multiplied, in bfloat16; shards, gradients and their
    sums are float32 all the same."""

    def shard(self, modules: Iterable[nn.Module], device: str) -> None:
        """Shard over all ranks the parameters of each module, but for those that are already."""
        connect_alone()
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        dtype = torch.bfloat16 if self.bf16 else None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        for module in modules:
            fully_shard(module, mesh=mesh, mp_policy=policy)
            assert isinstance(module, FSDPModule), "fully_shard makes it one"
            # The loss of a rank is its part of a sum: gradients add up.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def fill(parameter: Tensor, whole: Callable[[], Tensor]) -> None:
    """Copy this rank's shard of a value into a parameter, or all of it where it is not cut."""
    if isinstance(parameter, DTensor):
        start, stop = shard_rows(parameter)
        parameter.to_local().copy_(whole()[start:stop])
    else:
        parameter.copy_(whole())


def shard_rows(parameter: DTensor) -> tuple[int, int]:
    """Return which rows, along the first axis, lie on this rank: the first ranks have
    ceil(rows / W), the last ones fewer or none.
    """
    rows = parameter.shape[0]
    most = math.ceil(rows / dist.get_world_size())
    start = min(dist.get_rank() * most, rows)
    return start, min(start + most, rows)


class FsdpEngine(Engine):
    """Train one learner over many ranks, or one, each of which holds a shard of all its state.

    All parameters are sharded, and the one optimizer works on each weight alone.
    """

    @torch.no_grad()
    def parameter_shards(self) -> dict[str, ParameterShard]:
        """Return the range of each parameter that lies on this rank, as live tensors."""
        found = {}
        for name, parameter in self.named.items():
            start, stop = _range(parameter)
            if start == stop:
                continue
            tensors = {MASTER: parameter, **self._moments(parameter)}
            flat = {kind: _local(tensor).reshape(-1) for kind, tensor in tensors.items()}
            if self.ema:
                flat[EMA] = self.ema[name].reshape(-1)
            found[name] = ParameterShard(tuple(parameter.shape), start, flat)
        return found

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model and optimizer, of any engine and number of
        ranks. Raises ValueError for another model's.
        """
        self._check(checkpoint)
        (optimizer,) = self.optimizers
        for name, parameter in self.named.items():
            kinds = sorted(checkpoint.kinds[name] - {EMA, MASTER})
            moments = {kind: torch.zeros_like(parameter) for kind in kinds}
            for kind, tensor in {MASTER: parameter, **moments}.items():
                self._read(checkpoint, name, kind, _local(tensor))
            steps = adam_steps(checkpoint, _local(parameter))
            optimizer.state[parameter] = {"step": steps, **moments}
            if self.ema_decay is not None:
                self.ema[name] = torch.empty_like(_local(parameter))
                self._read(checkpoint, name, EMA, self.ema[name])

    def _read(self, checkpoint: Checkpoint, name: str, kind: str, local: Tensor) -> None:
        start, stop = _range(self.named[name])
        if start < stop:
            local.copy_(checkpoint.read(name, kind, start, stop).view(local.shape))

    def _update(self, factor: float) -> float:
        """Clip and update, unless the gradient's norm is not finite, and return that norm."""
        gradients = [_local(one.grad) for one in self.named.values() if one.grad is not None]
        squares = [one.double().square().sum() for one in gradients]
        total = torch.stack(squares).sum()
        dist.all_reduce(total)
        norm = math.sqrt(total)
        if math.isfinite(norm):
            # Pascanu et al., arXiv:1211.5063, algorithm 1, as torch's clip_grad_norm_ has it.
            torch._foreach_mul_(gradients, min(1.0, self.clip / (norm + 1e-6)))
            (optimizer,) = self.optimizers
            set_rates(optimizer, factor)
            optimizer.step()
        self._forget()
        return norm

    def _masters(self) -> dict[str, Tensor]:
        return {name: _local(parameter.detach()) for name, parameter in self.named.items()}


def _local(tensor: Any) -> Tensor:
    """Return this rank's shard of a tensor, which shares its memory."""
    local: Tensor = tensor.to_local()
    return local


def _range(parameter: Any) -> tuple[int, int]:
    """Return which range of the flat parameter lies here."""
    start, stop = shard_rows(parameter)
    width = math.prod(parameter.shape[1:])
    return start * width, stop * width
