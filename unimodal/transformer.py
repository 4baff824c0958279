"""The decoder-only transformer has RMSNorm, RoPE, grouped-query attention and gated MLPs.

Parameters carry the names that Hugging Face gives those of Llama and its kin (hub/parts.py), so a
state dictionary goes from one to the other unchanged. The transformer knows no mask and no cache:
the function `attend` is given each layer's queries, keys and values (see attention.py).

Letters: B rows, T tokens, D width, H query heads, G key-value heads, d head width, V ids.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unimodal.tokenizer.initial import normal

from .attention import Attend
from .mlp import MLP, Experts, Routing
from .placement import Placement
from .products import Linear, by_columns, is_plain, linear
from .rotation import Rotation
from .transformer_config import TransformerConfig as TransformerConfig

INIT_STD = 0.02
LAYER_NORM_EPS = 1e-5  # of Chameleon, whatever its configuration says of the other norms


class RMSNorm(nn.Module):
    """RMSNorm returns x / sqrt(mean(x^2) + eps) * weight over the last axis (arXiv:1910.07467);
    with 1 + weight where it is centred.
    """

    def __init__(self, width: int, eps: float, is_centred: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if is_centred else torch.ones(width))
        self.eps, self.is_centred = eps, is_centred

    @property
    def scale(self) -> Tensor:
        """Return what normalised vectors are multiplied by, (width,)."""
        return 1.0 + self.weight.float() if self.is_centred else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., width) normalised, in the same shape and dtype."""
        # arXiv:1910.07467, eq. 4.
        return F.rms_norm(x, self.weight.shape, self.scale.to(x.dtype), self.eps)


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


class Attention(nn.Module):
    """Attention projects the inputs and the output of `attend`, with grouped key-value heads."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        D, d, bias = config.width, config.head_width, config.attention_bias
        self.head_width, self.has_joint_norms = d, config.joint_qk_norm
        self.q_proj = Linear(D, config.num_heads * d, bias=bias)
        self.k_proj = Linear(D, config.num_kv_heads * d, bias=bias)
        self.v_proj = Linear(D, config.num_kv_heads * d, bias=bias)
        self.o_proj = Linear(config.num_heads * d, D, bias=False)
        self.q_norm, self.k_norm = (
            _norm(config, config.num_heads),
            _norm(config, config.num_kv_heads),
        )

    def forward(
        self,
        x_BTD: Tensor,
        rotate: Rotation,
        attend: Attend,
        layer: int,
        more_values_BTE: Tensor | None = None,
    ) -> Tensor:
        """Return the attention output of x_BTD, (B, T, D). more_values_BTE: what is added to the
        values of all heads side by side.
        """
        # Grouped-query attention (arXiv:2305.13245): H query heads share G key-value heads.
        q_BTE, k_BTE, v_BTE = self.project(x_BTD)
        q_BHTd = rotate(self._normed(self.q_norm, q_BTE))
        k_BGTd = rotate(self._normed(self.k_norm, k_BTE))
        if more_values_BTE is not None:
            v_BTE = v_BTE + more_values_BTE.to(v_BTE.dtype)
        v_BGTd = self._heads(v_BTE)
        out_BHTd = attend(layer, rotate.scaled(q_BHTd), k_BGTd, v_BGTd)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))

    def project(self, x_BTD: Tensor) -> Sequence[Tensor]:
        """Return the queries, keys and values of all heads side by side, (B, T, heads * d) each."""
        return self.q_proj(x_BTD), self.k_proj(x_BTD), self.v_proj(x_BTD)

    def _normed(self, norm: nn.Module, x_BTE: Tensor) -> Tensor:
        """Return normalised heads, (B, heads, T, d)."""
        return self._heads(norm(x_BTE)) if self.has_joint_norms else norm(self._heads(x_BTE))

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


def _norm(config: TransformerConfig, num_heads: int) -> nn.Module:
    """Return what queries or keys pass before the rotation."""
    if config.head_norms:
        return HeadNorms(num_heads, config.head_width, LAYER_NORM_EPS)
    if not (config.qk_norm or config.joint_qk_norm):
        return nn.Identity()
    width = config.head_width * (num_heads if config.joint_qk_norm else 1)
    return RMSNorm(width, config.norm_eps, config.centred_norms)


class Layer(nn.Module):
    """A Layer adds attention, then an MLP, to the residual stream, each on a normalised input, with
    a normalised output, or both.
    """

    def __init__(self, config: TransformerConfig, number: int) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = _mlp(config, number)
        self.norm_names = config.norm_names
        for name in sorted(filter(None, self.norm_names)):
            norm = RMSNorm(config.width, config.norm_eps, config.centred_norms)
            self.add_module(name, norm)

    def forward(
        self,
        x_BTD: Tensor,
        rotate: Rotation,
        attend: Attend,
        layer: int,
        more_values_BTE: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream after this layer, (B, T, D); more_values_BTE: as for
        Attention.
        """
        before, behind, before_mlp, behind_mlp = self.norms
        out_BTD = self.self_attn(before(x_BTD), rotate, attend, layer, more_values_BTE)
        x_BTD = x_BTD + behind(out_BTD)
        return x_BTD + behind_mlp(self.mlp(before_mlp(x_BTD)))

    @property
    def norms(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """Return what vectors pass before attention, behind it, before the MLP and behind it."""
        return [_same if name is None else getattr(self, name) for name in self.norm_names]


def _mlp(config: TransformerConfig, number: int) -> MLP | Experts:
    if config.experts is None or number in config.experts.dense_layers:
        return MLP(config.width, config.mlp_width, config.activation)
    return Experts(config.width, config.experts, config.activation)


def _same(x: Tensor) -> Tensor:
    return x


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

    def __call__(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        attend: Attend,
        seen_BN: Tensor | None,
        ids_BT: Tensor | None,
    ) -> Tensor:
        """Return hidden_BTD, or hidden_BND, as Transformer.forward does."""
        ...


class Trunk(nn.Module):
    """The Trunk is all but the output table; it gives parameters Hugging Face's prefix `model.`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.num_ids, config.width)
        self.layers = nn.ModuleList(Layer(config, n) for n in range(config.num_layers))
        if config.value_embeddings:
            width = config.num_kv_heads * config.head_width
            self.value_embeddings = nn.ModuleDict(
                {str(n): nn.Embedding(config.num_ids, width) for n in config.value_layers}
            )
        if config.residual_lambdas:
            self.residual_lambdas = nn.ModuleList(ResidualLambdas() for _ in self.layers)
        self.norm = RMSNorm(config.width, config.norm_eps, config.centred_norms)

    def more_values(self, layer: int, ids_BT: Tensor | None) -> Tensor | None:
        """Return what a layer's values get by their tokens' ids, (B, T, E); None: nothing."""
        if not hasattr(self, "value_embeddings") or str(layer) not in self.value_embeddings:
            return None
        assert ids_BT is not None, "value embeddings are those of ids"
        return self.value_embeddings[str(layer)](ids_BT)


class Transformer(nn.Module):
    """A Transformer maps ids to logits in three calls, so that images may enter as vectors.

    `embed` converts ids to vectors, `forward` these to hidden vectors, `logits` these to logits.
    """

    def __init__(
        self, config: TransformerConfig, seed: int = 0, recompute: bool | int = False
    ) -> None:
        """Initialise the weights from (config, seed) alone: see `initial_transformer_weight`.

        With `recompute`, training keeps no activations inside a layer, or inside the first so many
        layers, and computes them again in the backward pass.

        On the meta device there are none yet: they are to be loaded.
        """
        super().__init__()
        self.config = config
        self.recompute = config.num_layers if recompute is True else int(recompute)
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

    def forward(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        attend: Attend,
        seen_BN: Tensor | None = None,
        ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Return hidden_BTD, after the final norm, of x_BTD at positions_BT.

        positions_BT: int, from 0 in each document. attend: see attention.Attend. seen_BN: the
        tokens of each row whose hidden vectors are wanted, int, as places in 0 .. T - 1: hidden_BND
        is then returned, and `attend` may be asked for the attention of these alone. ids_BT: the
        tokens' ids, for value embeddings.
        """
        if self.copy is not None and is_plain(x_BTD) and self.copy.is_current:
            return self.copy(x_BTD, positions_BT, attend, seen_BN, ids_BT)
        kinds = self.config.layer_ropes
        rotations = {
            kind: Rotation.at(positions_BT, self.config, x_BTD.dtype, kind) for kind in set(kinds)
        }
        first_BTD = x_BTD = stream(x_BTD, self.config)
        borders = {} if self.placement is None else self.placement.borders
        for number, layer in enumerate(self.model.layers):
            if number in borders:
                there = borders[number]
                x_BTD, first_BTD = x_BTD.to(there), first_BTD.to(there)
                rotations = {kind: one.to(there) for kind, one in rotations.items()}
            rotate = rotations[kinds[number]]
            if self.config.residual_lambdas:
                x_BTD = self.model.residual_lambdas[number](x_BTD, first_BTD)
            more_BTE = self.model.more_values(number, ids_BT)
            more_BTE = None if more_BTE is None else more_BTE.to(x_BTD.device)
            given = x_BTD, rotate, attend, number, more_BTE
            if number < self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, *given, use_reentrant=False)
            else:
                x_BTD = layer(*given)
        x_BTD = x_BTD if seen_BN is None else tokens_at(x_BTD, seen_BN.to(x_BTD.device))
        if (end := len(self.model.layers)) in borders:
            x_BTD = x_BTD.to(borders[end])
        return self.model.norm(x_BTD)

    def routings(self) -> Iterator[Routing]:
        """Yield how each layer that has experts gave out the tokens of the last forward pass."""
        for layer in self.model.layers:
            if isinstance(layer.mlp, Experts) and layer.mlp.routing is not None:
                yield layer.mlp.routing

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


def stream(x_BTD: Tensor, config: TransformerConfig) -> Tensor:
    """Return the residual stream that embeddings begin."""
    return x_BTD * config.width**0.5 if config.scaled_embedding else x_BTD


def tokens_at(x_BTD: Tensor, seen_BN: Tensor) -> Tensor:
    """Return x_BND, the vectors of some tokens of each row."""
    return x_BTD.take_along_dim(seen_BN[..., None], dim=1)


def initial_transformer_weight(
    name: str, shape: tuple[int, ...], config: TransformerConfig, seed: int
) -> Tensor:
    """Return a parameter's initial value, float32: a pure function of the arguments.

    Norms multiply by one, and biases are zero. Matrices are normal with standard deviation
    INIT_STD; those that write to the residual stream are divided by sqrt(2 * num_layers), so that
    its variance does not grow with depth (GPT-2: Radford et al. 2019, sec. 2.3). With residual
    lambdas, which begin as the stream alone, these are zero. Value embeddings are zero.
    """
    if ".value_embeddings." in name:
        return torch.zeros(shape)
    if ".residual_lambdas." in name:
        start = torch.zeros(shape)
        start[:1] = 1  # the stream alone
        return start
    if name.endswith("norm.weight"):
        return torch.zeros(shape) if config.centred_norms else torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    residual = name.endswith(("o_proj.weight", "down_proj.weight"))
    if residual and config.residual_lambdas:
        return torch.zeros(shape)
    std = INIT_STD / math.sqrt(2 * config.num_layers) if residual else INIT_STD
    return normal(seed, name, shape, std)
