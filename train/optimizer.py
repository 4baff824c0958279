"""Optimize hidden matrices by Muon and everything else by AdamW, each group at its learning rate.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon) moves a matrix by the orthogonalised momentum of its
gradient. torch's own always multiplies in bfloat16, which a CPU without bfloat16 arithmetic does
hundreds of times slower than float32; here that is a choice. AdamW is Loshchilov and Hutter's
(arXiv:1711.05101, algorithm 2).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from .compact import CompactAdamW


@dataclass(frozen=True)
class OptimizerConfig:
    """Configure the plateau's learning rates, which the schedule scales, decay, clipping, EMA."""

    lr: float = 1e-3
    """AdamW's learning rate, for all that Muon does not take."""
    lr_scale: dict[str, float] = field(default_factory=dict)
    """Factors on `lr` for parameters whose name begins with the key; the longest key wins."""
    muon_lr: float | None = None
    """Muon's learning rate for hidden matrices, in units of the update's root mean square; None:
    AdamW takes them too."""
    weight_decay: float = 0.0
    """Shrink matrices by lr * weight_decay a step; vectors are spared."""
    cautious: bool = False
    """Shrink only those numbers that the step's update moves towards zero as well."""
    beta1: float = 0.9
    beta2: float = 0.95
    moments: Literal["fp32", "8bit"] = "fp32"
    """How AdamW's moments are kept: 8bit takes 2 bytes of each weight instead of 8, in one process
    alone. Checkpoints are the same; Muon's momentum is float32."""
    momentum: float = 0.95
    """Muon's momentum."""
    clip: float = 1.0
    """The largest norm of the whole gradient; a larger one is scaled down to it (Pascanu et al.,
    arXiv:1211.5063, algorithm 1)."""
    ema_decay: float | None = None
    """The share of the averaged weights (EMA) that a step keeps, such as 0.999; the bundle then has
    these. None: no average is kept."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        rates = {
            "lr": self.lr,
            "clip": self.clip,
            **{f"lr_scale.{k}": v for k, v in self.lr_scale.items()},
        }
        if self.muon_lr is not None:
            rates["muon_lr"] = self.muon_lr
        found = [f"{name} {value}: above 0" for name, value in rates.items() if not value > 0]
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            found.append(f"ema_decay {self.ema_decay}: above 0 and below 1")
        if not self.weight_decay >= 0:
            found.append(f"weight_decay {self.weight_decay}: at least 0")
        if self.cautious and self.moments == "8bit":
            found.append("moments 8bit: cautious decay looks into float32 ones; leave one out")
        if self.cautious and not self.weight_decay:
            found.append("cautious: it says when weights decay, and weight_decay is 0")
        return found + [
            f"{name} {value}: from 0 to below 1"
            for name in ("beta1", "beta2", "momentum")
            if not 0 <= (value := getattr(self, name)) < 1
        ]


def orthogonalised(matrix_BMN: torch.Tensor, num_steps: int = 5) -> torch.Tensor:
    """Return roughly the nearest orthogonal matrices: singular values go to about 0.7 .. 1.2.

    Newton-Schulz: X <- a X + (b X X^T + c (X X^T)^2) X with Jordan's coefficients, from X / |X|_F.
    matrix_BMN and the result have one shape and dtype.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix_BMN.shape[-2] > matrix_BMN.shape[-1]
    x = matrix_BMN.mT if tall else matrix_BMN
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class CautiousAdamW(torch.optim.AdamW):
    """Update by AdamW, whose decay spares numbers that the update moves away from zero.

    Cautious weight decay, arXiv:2510.12402, algorithm 1: with the update u of AdamW without decay,
    x <- x - lr u - lr decay x [u x >= 0], element by element.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            self._decay(group)
            group["weight_decay"] = 0.0
        super().step()
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay

    def _decay(self, group: dict) -> None:
        """Shrink a group's weights where the update that is to come shrinks them: its sign is that
        of the gradients' average, and it does not depend on the weights.
        """
        for parameter in group["params"] if group["weight_decay"] else ():
            if parameter.grad is not None:
                before, (beta1, _) = self.state[parameter].get("exp_avg"), group["betas"]
                update = parameter.grad * (1 - beta1)
                if before is not None:
                    update.add_(before, alpha=beta1)
                shrunk = _decayed(parameter, update)
                parameter.sub_(shrunk, alpha=group["lr"] * group["weight_decay"])


def _decayed(weights: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """Return the weights that cautious decay shrinks, zero where updates move away from zero."""
    return weights * (updates * weights >= 0)


class Muon(torch.optim.Optimizer):
    """Update matrices by Muon with Nesterov momentum; those of one shape are orthogonalised
    together in `dtype`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
        cautious: bool = False,
    ):
        self.dtype, self.cautious = dtype, cautious
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict) -> None:
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None, "only parameters with a gradient come here"
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
        updates = orthogonalised(torch.stack(directions).to(self.dtype))
        # Moonlight's scale (arXiv 2502.16982, eq. 4): an update's root mean square is lr, as
        # AdamW's about is.
        scale = max(parameters[0].shape) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            old = _decayed(parameter, update) if self.cautious else parameter
            parameter.sub_(old, alpha=group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)


def gradient_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm of all gradients as one vector, its squares summed in float64."""
    norms = [torch.linalg.vector_norm(one, dtype=torch.float64) for one in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return a parameter's shape, the whole one where ZeRO-3 has cut it and it looks empty."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def alike(
    named: Mapping[str, nn.Parameter], config: OptimizerConfig, no_decay: Collection[str] = ()
) -> dict[tuple[float, float], list[nn.Parameter]]:
    """Return the parameters that AdamW takes by their learning rates and decays."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        keys = [key for key in config.lr_scale if name.startswith(key)]
        scale = config.lr_scale[max(keys, key=len)] if keys else 1.0
        decays = len(whole_shape(parameter)) >= 2 and name not in no_decay
        decay = config.weight_decay if decays else 0.0
        found.setdefault((config.lr * scale, decay), []).append(parameter)
    return found


def build(
    model: nn.Module,
    config: OptimizerConfig,
    hidden: str | None = None,
    muon_dtype: torch.dtype = torch.float32,
    no_decay: Collection[str] = (),
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of the parameters of a model that train.

    Muon takes the matrices whose name begins with `hidden` and orthogonalises in `muon_dtype`;
    weight decay spares the names in `no_decay`. Each group notes its plateau learning rate as
    `initial_lr`. Raises ValueError for a `lr_scale` that matches no parameter: an ignored setting
    is a mistake.
    """
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    unused = [key for key in config.lr_scale if not any(name.startswith(key) for name in named)]
    if unused:
        raise ValueError(f"optimizer.lr_scale {unused}: no parameter's name begins so")
    matrices = {
        name: parameter
        for name, parameter in named.items()
        if config.muon_lr is not None
        and hidden is not None
        and name.startswith(hidden)
        and len(whole_shape(parameter)) == 2
    }
    others = {name: parameter for name, parameter in named.items() if name not in matrices}
    groups = [
        {"params": parameters, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in alike(others, config, no_decay).items()
    ]
    betas = (config.beta1, config.beta2)
    kind = CautiousAdamW if config.cautious else torch.optim.AdamW
    kind = CompactAdamW if config.moments == "8bit" else kind
    optimizers: list[torch.optim.Optimizer] = [kind(groups, betas=betas, fused=True)]
    if matrices:
        assert config.muon_lr is not None, "there are matrices only with Muon"
        optimizers.append(
            Muon(
                matrices.values(),
                config.muon_lr,
                config.momentum,
                config.weight_decay,
                muon_dtype,
                config.cautious,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers
