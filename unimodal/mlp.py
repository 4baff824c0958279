"""Compute the MLP of a layer: a gated one, or a choice of several, the experts.

In: normalised vectors of the residual stream. Out: what is added to the stream. Parameters carry
the names that Hugging Face gives those of Llama and Qwen3-MoE in their files, one matrix each.

Letters: B rows, T tokens, N tokens of all rows, D width, M width inside, E experts, K chosen ones
of a token, n choices of all tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import Linear

Activation = Literal["silu", "gelu_tanh"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


@dataclass(frozen=True)
class ExpertsConfig:
    """An ExpertsConfig says how many MLPs a layer has, and how tokens choose among them."""

    number: int
    chosen: int
    """How many experts compute each token."""
    mlp_width: int
    """The width inside each expert."""
    normalised: bool = True
    """Whether the weights of a token's chosen experts add up to 1 (norm_topk_prob of Qwen3)."""
    dense_layers: tuple[int, ...] = ()
    """The numbers of the layers that have one MLP instead, of the transformer's mlp_width."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {getattr(self, name)}: at least 1"
            for name in ("number", "chosen", "mlp_width")
            if getattr(self, name) < 1
        ]
        if self.chosen > self.number:
            found.append(f"chosen {self.chosen}: at most number, {self.number}")
        return found


class MLP(nn.Module):
    """An MLP is a gated one: down(activation(gate(x)) * up(x))."""

    def __init__(self, width: int, mlp_width: int, activation: Activation) -> None:
        super().__init__()
        self.gate_proj = Linear(width, mlp_width, bias=False)
        self.up_proj = Linear(width, mlp_width, bias=False)
        self.down_proj = Linear(mlp_width, width, bias=False)
        self.activate = ACTIVATIONS[activation]

    def forward(self, x_D: Tensor) -> Tensor:
        """Return the MLP's output for x_D, (..., D)."""
        # SwiGLU, arXiv:2002.05202, eq. 6; GeGLU where the activation is GELU.
        gate_M, up_M = self.project(x_D)
        return self.down_proj(self.activate(gate_M) * up_M)

    def project(self, x_D: Tensor) -> Sequence[Tensor]:
        """Return the inputs of both factors, (..., M) each."""
        return self.gate_proj(x_D), self.up_proj(x_D)


@dataclass(frozen=True)
class Routing:
    """A Routing says which experts the tokens of all rows, end to end, were given to."""

    shares_NE: Tensor
    """The softmax of the scores of all experts, float32."""
    chosen_NK: Tensor
    """The numbers of the experts that were chosen, the best one first."""


class Experts(nn.Module):
    """Experts are MLPs of which each token is computed by a few, those that a linear map of it
    scores best.
    """

    def __init__(self, width: int, config: ExpertsConfig, activation: Activation) -> None:
        super().__init__()
        self.gate = Linear(width, config.number, bias=False)
        self.experts = nn.ModuleList(
            MLP(width, config.mlp_width, activation) for _ in range(config.number)
        )
        self.config = config
        self.routing: Routing | None = None
        """That of the last forward pass."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the weighted sum of what the chosen experts make of each token, (B, T, D)."""
        x_ND = x_BTD.flatten(0, -2)
        weights_NK, chosen_NK = self._route(x_ND)
        (N, K), choices_n = chosen_NK.shape, chosen_NK.flatten()
        order_n = choices_n.argsort(stable=True)  # by expert
        counts = choices_n.bincount(minlength=len(self.experts)).tolist()
        # In training all are called, some with no token: so each gets a gradient, if of zero, and
        # all ranks do the same.
        made_nD = torch.cat([
            expert(given_D)
            for expert, given_D in zip(self.each, x_ND[order_n // K].split(counts), strict=True)
            if torch.is_grad_enabled() or len(given_D)
        ])  # fmt: skip
        made_NKD = made_nD[order_n.argsort()].view(N, K, -1)
        out_ND = (made_NKD * weights_NK[..., None]).sum(1)
        return out_ND.to(x_BTD.dtype).view_as(x_BTD)

    @property
    def each(self) -> list[MLP]:
        """Return the experts in order."""
        return [one for one in self.experts if isinstance(one, MLP)]

    def _route(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the numbers of each token's experts, (N, K) each."""
        # Shazeer et al., arXiv:1701.06538, eq. 2, with the softmax before the choice as in Qwen3
        # (arXiv:2505.09388, sec. 2): p = softmax(W x); weights are the K largest of p, divided by
        # their sum where they are normalised.
        scores_NE = self.gate(x_ND)
        shares_NE = scores_NE.softmax(-1, dtype=torch.float32)
        weights_NK, chosen_NK = shares_NE.topk(self.config.chosen, dim=-1)
        self.routing = Routing(shares_NE, chosen_NK)
        if self.config.normalised:
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        return weights_NK.to(scores_NE.dtype), chosen_NK
