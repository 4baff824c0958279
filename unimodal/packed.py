"""Layers packed for inference on a CPU: fewer bytes to stream, and fewer operations.

Maps of the same vectors are one product (products.PackedLinear), queries and keys are normalised
and rotated together, and no modules are called. A packed layer is a copy beside a layer, which
keeps its parameters: it is used where nothing is differentiated, and as long as the parameters are
the ones that were packed.

Letters: B rows, T tokens, D width, H query heads, G key-value heads, N heads of both, d head width,
M width of the MLP.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend
from .heads.code_rows import CodeRowsHead
from .memory import free_bytes
from .products import Linear, PackedLinear, Snapshot, num_halves
from .transformer import HeadNorms, Layer, RMSNorm, Rotation
from .unified import UnifiedModel

SHARE = 0.5  # of the free memory: what copies may take


@torch.no_grad()
def pack(transformer: UnifiedModel) -> None:
    """Give a float32 model on a CPU packed copies of its layers, and of what scores codes, where
    there is memory for them.

    It computes the same, to the precision of float32; its parameters may change: then the copies
    are not used.
    """
    weight = transformer.lm_head_weight
    num_bytes = sum(one.nbytes for one in transformer.parameters())
    if weight.device.type != "cpu" or num_bytes > SHARE * free_bytes(weight.device):
        return
    layers = list(transformer.model.layers)
    if all(num_halves(one.weight) == 1 for one in _linears(*layers)):
        transformer.copies = [PackedLayer(layer) for layer in layers if isinstance(layer, Layer)]
    head = transformer.head
    if isinstance(head, CodeRowsHead):
        head.pack(transformer.output_table())
    for part in _linears(head, transformer.embedder):
        part.pack()


def _linears(*modules: nn.Module) -> list[Linear]:
    return [one for whole in modules for one in whole.modules() if isinstance(one, Linear)]


class PackedNorm:
    """A PackedNorm computes the RMSNorm of vectors, or of heads that have weights of their own."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        """weight: (..., D); other dimensions than the last are those of the heads."""
        width = weight.shape[-1]
        self._scaled = weight.detach() * width**0.5
        self._least = torch.tensor((width * eps) ** 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x normalised, in the same shape."""
        # x w / sqrt(|x|^2 / D + eps) = x w sqrt(D) / sqrt(|x|^2 + D eps)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * self._scaled).div_(torch.hypot(length, self._least))


class PackedLayer:
    """A PackedLayer computes what a Layer does, without gradients."""

    def __init__(self, layer: Layer) -> None:
        """Copy a layer's weights, which float16 must hold."""
        attention, mlp = layer.self_attn, layer.mlp
        self._head_width, self._post_norm = attention.head_width, layer.post_norm
        self._num_query_heads = attention.q_proj.out_features // self._head_width
        self._num_kv_heads = attention.k_proj.out_features // self._head_width
        self._qkv = PackedLinear.of(attention.q_proj, attention.k_proj, attention.v_proj)
        self._head_norm = _both(attention.q_norm, attention.k_norm, self._counts)
        self._out = PackedLinear.of(attention.o_proj)
        self._gate_up = PackedLinear.of(mlp.gate_proj, mlp.up_proj)
        self._down = PackedLinear.of(mlp.down_proj)
        self._norms = [
            PackedNorm(one.weight, one.eps)
            for one in (layer.input_layernorm, layer.post_attention_layernorm)
        ]
        self._parts = [
            (whole._modules, name, part)
            for whole in layer.modules()
            for name, part in whole._modules.items()
        ]
        self._weights = [
            (part._parameters, name, Snapshot(weight))
            for part in layer.modules()
            for name, weight in part._parameters.items()
            if weight is not None
        ]

    @property
    def is_current(self) -> bool:
        """Return whether the layer's modules and weights are still those that were packed."""
        return all(parts.get(name) is part for parts, name, part in self._parts) and all(
            seen.matches(weights.get(name)) for weights, name, seen in self._weights
        )

    @property
    def _counts(self) -> tuple[int, int]:
        return self._num_query_heads, self._num_kv_heads

    def __call__(self, x_BTD: Tensor, rotate: Rotation, attend: Attend, layer: int) -> Tensor:
        """Return the residual stream after this layer, (B, T, D)."""
        before, behind = self._norms
        if self._post_norm:
            x_BTD = x_BTD + before(self._attention(x_BTD, rotate, attend, layer))
            return x_BTD + behind(self._mlp(x_BTD))
        x_BTD = self._attention(before(x_BTD), rotate, attend, layer).add_(x_BTD)
        return self._mlp(behind(x_BTD)).add_(x_BTD)

    def _attention(self, x_BTD: Tensor, rotate: Rotation, attend: Attend, layer: int) -> Tensor:
        """Return what Attention does."""
        B, T, _ = x_BTD.shape
        H, G = self._counts
        heads_BNTd = self._qkv(x_BTD).view(B, T, -1, self._head_width).transpose(1, 2)
        qk_BNTd, v_BGTd = heads_BNTd.split((H + G, G), dim=1)
        q_BHTd, k_BGTd = rotate(self._head_norm(qk_BNTd)).split((H, G), dim=1)
        out_BHTd = attend(layer, q_BHTd, k_BGTd, v_BGTd)
        return self._out(out_BHTd.transpose(1, 2).reshape(B, T, -1))

    def _mlp(self, x_BTD: Tensor) -> Tensor:
        """Return what MLP does."""
        gate_BTM, up_BTM = self._gate_up(x_BTD).chunk(2, dim=-1)
        return self._down(F.silu(gate_BTM).mul_(up_BTM))


def _both(
    q_norm: nn.Module, k_norm: nn.Module, counts: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Return the norm of query heads and of as many key heads in one."""
    norms = q_norm, k_norm
    weights = [one.weight.detach() for one in norms if isinstance(one, RMSNorm)]
    if isinstance(q_norm, RMSNorm):
        rows = [one.expand(n, 1, -1) for one, n in zip(weights, counts, strict=True)]
        return PackedNorm(torch.cat(rows), q_norm.eps)
    heads = [one for one in norms if isinstance(one, HeadNorms)]
    if isinstance(q_norm, HeadNorms):
        both = HeadNorms(sum(counts), q_norm.weight.shape[-1], q_norm.eps).requires_grad_(False)
        both.weight.copy_(torch.cat([one.weight for one in heads]))
        both.bias.copy_(torch.cat([one.bias for one in heads]))
        return both
    return nn.Identity()
