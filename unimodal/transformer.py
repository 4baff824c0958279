"""The decoder-only transformer has RMSNorm, RoPE, grouped-query attention and SwiGLU.

Parameters carry the names that Hugging Face gives those of Llama, Mistral, Qwen2 and Qwen3, so a
state dictionary goes from one to the other unchanged. The transformer knows no mask and no cache:
the function `attend` is given each layer's queries, keys and values (see attention.py).

Letters: B rows, T tokens, D width, H query heads, G key-value heads, d head width, V ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unimodal.tokenizer.initial import normal

from .attention import Attend
from .placement import Placement
from .products import Linear, by_columns, is_plain, linear
from .rope import RopeScaling, frequencies

INIT_STD = 0.02
LAYER_NORM_EPS = 1e-5  # of Chameleon, whatever its configuration says of the other norms


@dataclass(frozen=True)
class TransformerConfig:
    """A TransformerConfig determines the parameters of a transformer and how it computes.

    Raises ValueError, naming every problem at once.
    """

    num_ids: int
    """The number of rows of the embedding: text, special tokens and image codes together."""
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """The number of key-value heads, each shared by num_heads / num_kv_heads query heads."""
    head_width: int
    mlp_width: int
    rope_theta: float = 10000.0
    """The base of RoPE: wavelengths go from 2 pi to 2 pi * rope_theta positions."""
    norm_eps: float = 1e-5
    qk_norm: bool = False
    """Whether each head's queries and keys pass an RMSNorm before the rotation (as in Qwen3)."""
    attention_bias: bool = False
    """Whether the query, key and value projections have biases (as in Qwen2)."""
    tied_head: bool = True
    """Whether the output table is the embedding table."""
    max_positions: int = 2048
    """The longest sequence that the model is meant for, in tokens."""
    rope: RopeScaling | None = None
    """How RoPE was scaled to a longer context; None: not at all."""
    head_norms: bool = False
    """Whether each head's queries and keys pass a LayerNorm of that head's own weights and biases
    before the rotation (as in Chameleon)."""
    post_norm: bool = False
    """Whether attention and MLP are normalised behind, not before, themselves (as in Chameleon-30B,
    where it is called swin norm)."""
    residual_lambdas: bool = False
    """Whether each layer reads a learned mix of the residual stream and the embeddings that it
    began as (modded-nanogpt), and projections into the stream begin at zero."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be above 0, got {value}"
            for name, value in vars(self).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        ]
        if self.rope is not None:
            problems += [f"rope.{problem}" for problem in self.rope.problems()]
        if self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_kv_heads must divide num_heads, got {self.num_kv_heads} and {self.num_heads}"
            )
        if self.head_norms and self.qk_norm:
            problems.append("qk_norm and head_norms: one of them")
        if self.head_width % 2:
            problems.append(f"head_width must be even (RoPE turns pairs), got {self.head_width}")
        if problems:
            raise ValueError("transformer: " + "; ".join(problems))


class RMSNorm(nn.Module):
    """RMSNorm returns x / sqrt(mean(x^2) + eps) * weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., width) normalised, in the same shape and dtype."""
        # arXiv:1910.07467, eq. 4.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class HeadNorms(nn.Module):
    """HeadNorms are a LayerNorm (arXiv:1607.06450) over each head's width, with weights and biases
    for each head.
    """

    def __init__(self, num_heads: int, head_width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_heads, head_width))
        self.bias = nn.Parameter(torch.zeros(num_heads, head_width))
        self.eps = eps

    def forward(self, x_BHTd: Tensor) -> Tensor:
        """Return x normalised, in the same shape and dtype."""
        normed_BHTd = F.layer_norm(x_BHTd, x_BHTd.shape[-1:], eps=self.eps)
        return normed_BHTd * self.weight[:, None] + self.bias[:, None]


@dataclass(frozen=True)
class Rotation:
    """A Rotation holds RoPE's cosines and sines of a batch's positions, shared by all layers."""

    cos_B1Td: Tensor
    sin_B1Td: Tensor

    @classmethod
    def at(cls, positions_BT: Tensor, config: TransformerConfig, dtype: torch.dtype) -> "Rotation":
        """Return the rotation of positions_BT (int, from 0 in each document).

        Angles are computed in float32; cosines and sines are rounded to `dtype` after that.
        """
        frequency_h, factor = frequencies(
            config.head_width, config.rope_theta, config.rope, positions_BT.device
        )
        angle_B1Th = positions_BT[:, None, :, None].float() * frequency_h
        cos, sin = (angle_B1Th.cos() * factor).to(dtype), (angle_B1Th.sin() * factor).to(dtype)
        # RoPE (arXiv:2104.09864, eq. 34) rotates pairs of channels. As in Hugging Face, channel i
        # is paired with i + d/2: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
        return cls(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))

    def __call__(self, x_BHTd: Tensor) -> Tensor:
        """Return queries or keys rotated to their positions, in their own dtype."""
        swapped_BHTd = x_BHTd.roll(x_BHTd.shape[-1] // 2, -1)
        return (x_BHTd * self.cos_B1Td + swapped_BHTd * self.sin_B1Td).to(x_BHTd.dtype)

    def to(self, device: torch.device) -> "Rotation":
        """Return the rotation on a device."""
        return Rotation(self.cos_B1Td.to(device), self.sin_B1Td.to(device))


class Attention(nn.Module):
    """Attention projects the inputs and the output of `attend`, with grouped key-value heads."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        D, d, bias = config.width, config.head_width, config.attention_bias
        self.head_width = d
        self.q_proj = Linear(D, config.num_heads * d, bias=bias)
        self.k_proj = Linear(D, config.num_kv_heads * d, bias=bias)
        self.v_proj = Linear(D, config.num_kv_heads * d, bias=bias)
        self.o_proj = Linear(config.num_heads * d, D, bias=False)
        self.q_norm, self.k_norm = (
            _norm(config, config.num_heads),
            _norm(config, config.num_kv_heads),
        )

    def forward(self, x_BTD: Tensor, rotate: Rotation, attend: Attend, layer: int) -> Tensor:
        """Return the attention output of x_BTD, (B, T, D)."""
        # Grouped-query attention (arXiv:2305.13245): H query heads share G key-value heads.
        q_BTE, k_BTE, v_BTE = self.project(x_BTD)
        q_BHTd = rotate(self.q_norm(self._heads(q_BTE)))
        k_BGTd = rotate(self.k_norm(self._heads(k_BTE)))
        v_BGTd = self._heads(v_BTE)
        out_BHTd = attend(layer, q_BHTd, k_BGTd, v_BGTd)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))

    def project(self, x_BTD: Tensor) -> Sequence[Tensor]:
        """Return the queries, keys and values of all heads side by side, (B, T, heads * d) each."""
        return self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


def _norm(config: TransformerConfig, num_heads: int) -> nn.Module:
    """Return what queries or keys pass before the rotation."""
    if config.head_norms:
        return HeadNorms(num_heads, config.head_width, LAYER_NORM_EPS)
    return RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else nn.Identity()


class MLP(nn.Module):
    """The MLP of a layer is a SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the MLP's output for x_BTD, (B, T, D)."""
        # SwiGLU, arXiv:2002.05202, eq. 6.
        gate_BTM, up_BTM = self.project(x_BTD)
        return self.down_proj(F.silu(gate_BTM) * up_BTM)

    def project(self, x_BTD: Tensor) -> Sequence[Tensor]:
        """Return the inputs of both factors, (B, T, mlp_width) each."""
        return self.gate_proj(x_BTD), self.up_proj(x_BTD)


class Layer(nn.Module):
    """A Layer adds attention, then an MLP, to the residual stream, each on a normalised input (or
    with a normalised output).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_norm = config.post_norm

    def forward(self, x_BTD: Tensor, rotate: Rotation, attend: Attend, layer: int) -> Tensor:
        """Return the residual stream after this layer, (B, T, D)."""
        if self.post_norm:  # Swin v2, arXiv:2111.09883, sec. 3.2
            x_BTD = x_BTD + self.input_layernorm(self.self_attn(x_BTD, rotate, attend, layer))
            return x_BTD + self.post_attention_layernorm(self.mlp(x_BTD))
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotate, attend, layer)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class ResidualLambdas(nn.Module):
    """ResidualLambdas mix the residual stream with the embeddings: x <- a x + b x_0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x_BTD: Tensor, first_BTD: Tensor) -> Tensor:
        """Return the mix of the stream x_BTD and the embeddings, in their shape and dtype."""
        of_stream, of_first = self.weight.to(x_BTD.dtype)
        return of_stream * x_BTD + of_first * first_BTD


class TrunkCopy(Protocol):
    """A TrunkCopy computes what the layers do, without gradients, as long as it is current."""

    @property
    def is_current(self) -> bool:
        """Return whether the layers and their weights are still those that were copied."""
        ...

    def __call__(self, x_BTD: Tensor, positions_BT: Tensor, attend: Attend) -> Tensor:
        """Return hidden_BTD as Transformer.forward does."""
        ...


class Trunk(nn.Module):
    """The Trunk is all but the output table; it gives parameters Hugging Face's prefix `model.`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.num_ids, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        if config.residual_lambdas:
            self.residual_lambdas = nn.ModuleList(ResidualLambdas() for _ in self.layers)
        self.norm = RMSNorm(config.width, config.norm_eps)


class Transformer(nn.Module):
    """A Transformer maps ids to logits in three calls, so that images may enter as vectors.

    `embed` converts ids to vectors, `forward` these to hidden vectors, `logits` these to logits.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0, recompute: bool = False) -> None:
        """Initialise the weights from (config, seed) alone: see `initial_transformer_weight`.

        With `recompute`, training keeps no activations inside a layer and computes them again in
        the backward pass.

        On the meta device there are none yet: they are to be loaded.
        """
        super().__init__()
        self.config = config
        self.recompute = recompute
        self.model = Trunk(config)
        self.copy: TrunkCopy | None = None
        """A copy of the layers that is faster without gradients (see packed.py)."""
        self.placement: Placement | None = None
        """Where the layers are; None: all of them where the weights are."""
        if not config.tied_head:
            self.lm_head = Linear(config.width, config.num_ids, bias=False)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.is_meta:
                    continue
                parameter.copy_(
                    initial_transformer_weight(name, tuple(parameter.shape), config, seed)
                )

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the embeddings x_BTD of ids_BT (int in [0, num_ids))."""
        return self.model.embed_tokens(ids_BT)

    def forward(self, x_BTD: Tensor, positions_BT: Tensor, attend: Attend) -> Tensor:
        """Return hidden_BTD, after the final norm, of x_BTD at positions_BT.

        positions_BT: int, from 0 in each document. attend: see attention.Attend.
        """
        if self.copy is not None and is_plain(x_BTD) and self.copy.is_current:
            return self.copy(x_BTD, positions_BT, attend)
        rotate = Rotation.at(positions_BT, self.config, x_BTD.dtype)
        first_BTD = x_BTD
        borders = {} if self.placement is None else self.placement.borders
        for number, layer in enumerate(self.model.layers):
            if number in borders:
                there = borders[number]
                x_BTD, first_BTD = x_BTD.to(there), first_BTD.to(there)
                rotate = rotate.to(there)
            if self.config.residual_lambdas:
                x_BTD = self.model.residual_lambdas[number](x_BTD, first_BTD)
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, rotate, attend, number, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, rotate, attend, number)
        if (end := len(self.model.layers)) in borders:
            x_BTD = x_BTD.to(borders[end])
        return self.model.norm(x_BTD)

    @property
    def layer_devices(self) -> Sequence[torch.device]:
        """Return the device of each layer."""
        if self.placement is not None:
            return self.placement.layers
        return [self.lm_head_weight.device] * self.config.num_layers

    def logits(
        self, hidden_BTD: Tensor, first: int | None = None, last: int | None = None
    ) -> Tensor:
        """Return logits (..., V) of the ids in [first, last), by default of all, from (..., D)."""
        return linear(hidden_BTD, self.lm_head_weight[first:last])

    def lay_by_columns(self) -> None:
        """Lay the matrices of the layers in memory as products without gradients like it."""
        for part in self.model.layers.modules():
            if isinstance(part, Linear):
                part.weight = nn.Parameter(by_columns(part.weight.detach()))

    @property
    def lm_head_weight(self) -> Tensor:
        """Return the output table (num_ids, D): the embedding table where they are tied."""
        return self.model.embed_tokens.weight if self.config.tied_head else self.lm_head.weight


def initial_transformer_weight(
    name: str, shape: tuple[int, ...], config: TransformerConfig, seed: int
) -> Tensor:
    """Return a parameter's initial value, float32: a pure function of the arguments.

    Norms are one and biases zero. Matrices are normal with standard deviation INIT_STD; those that
    write to the residual stream are divided by sqrt(2 * num_layers), so that its variance does not
    grow with depth (GPT-2: Radford et al. 2019, sec. 2.3). With residual lambdas, which begin as
    the stream alone, these are zero.
    """
    if ".residual_lambdas." in name:
        start = torch.zeros(shape)
        start[:1] = 1  # the stream alone
        return start
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    residual = name.endswith(("o_proj.weight", "down_proj.weight"))
    if residual and config.residual_lambdas:
        return torch.zeros(shape)
    std = INIT_STD / math.sqrt(2 * config.num_layers) if residual else INIT_STD
    return normal(seed, name, shape, std)
