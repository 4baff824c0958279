"""Layers packed for inference on a CPU: fewer bytes to stream, and fewer operations.

Maps of the same vectors are one product (products.PackedLinear), queries and keys are normalised
and rotated together, rotations are looked up, and no modules are called. What is packed is a copy:
the layers keep their parameters, and the copy is used where nothing is differentiated, as long as
the parameters are the ones that were packed.

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
from .mlp import MLP, Experts
from .products import Linear, PackedLinear, Snapshot, can_pack
from .rope import RopeKind
from .rotation import Rotation
from .transformer import (
    Attention,
    HeadNorms,
    Layer,
    RMSNorm,
    TransformerConfig,
    Trunk,
    stream,
    tokens_at,
)
from .unified import UnifiedModel

SHARE = 0.5  # of the free memory: what copies may take
POSITIONS = 256  # for which rotations are made at least


@torch.no_grad()
def pack(transformer: UnifiedModel) -> None:
    """Give a float32 model on a CPU packed copies of its layers, and of what scores codes, where
    there is memory for them.

    It computes the same, to the precision of float32; its parameters may change: then the copies
    are not used.
    """
    device = transformer.lm_head_weight.device
    num_bytes = sum(one.nbytes for one in transformer.parameters())
    if device.type != "cpu" or num_bytes > SHARE * free_bytes(device):
        return
    if all(can_pack(one.weight) for one in _linears(transformer.model)):
        transformer.copy = PackedTrunk(transformer.model, transformer.config)
    head = transformer.head
    if isinstance(head, CodeRowsHead):
        rows = slice(head.first, head.last)
        if can_pack(transformer.lm_head_weight[rows]):
            head.pack(transformer.output_table(), _rows(transformer, rows))
    for part in _linears(head, transformer.embedder):
        part.pack()


def _linears(*modules: nn.Module) -> list[Linear]:
    return [one for whole in modules for one in whole.modules() if isinstance(one, Linear)]


def _rows(transformer: UnifiedModel, rows: slice) -> Callable[[Tensor], Tensor]:
    """Return what multiplies vectors by some rows of the output table."""
    weight_CD = transformer.lm_head_weight[rows]
    if not transformer.architecture.is_factorised:
        return PackedLinear(weight_CD)
    # What is added to a row is a sum of rows of a small table: x (w + A t) = [x, t x] [w, A], where
    # A holds how often each of these is in the sum.
    factors = transformer.output_factors
    ids_C = torch.from_numpy(factors.vocabulary.code_ids)
    terms_VR = torch.zeros(len(transformer.lm_head_weight), len(factors.table.weight))
    terms_VR[ids_C] = F.one_hot(factors.index(ids_C.device), terms_VR.shape[1]).sum(1).float()
    packed = PackedLinear(torch.cat((weight_CD, terms_VR[rows]), dim=1))
    table_RD = factors.table.weight
    return lambda x: packed(torch.cat((x, F.linear(x, table_RD)), dim=-1))


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


class PackedTrunk:
    """A PackedTrunk computes what the layers and the last norm of a transformer do, without
    gradients, as long as it is current.
    """

    def __init__(self, trunk: Trunk, config: TransformerConfig) -> None:
        """Copy the weights, which float16 must hold."""
        self._config, self._kinds = config, config.layer_ropes
        self._tables = self._rotations(0)
        layers = [layer for layer in trunk.layers if isinstance(layer, Layer)]
        self._layers = [PackedLayer(layer) for layer in layers]
        self._mixes = trunk.residual_lambdas if config.residual_lambdas else None
        self._more_values = trunk.more_values
        self._norm = PackedNorm(trunk.norm.scale, trunk.norm.eps)
        used = _inside(trunk)  # as they are, whatever they hold
        wholes = trunk.layers, trunk.norm
        parts = [one for whole in wholes for one in whole.modules() if one not in used]
        self._parts = [
            (one._modules, name, part) for one in parts for name, part in one._modules.items()
        ]
        self._weights = [
            (one._parameters, name, Snapshot(weight))
            for one in parts
            for name, weight in one._parameters.items()
            if weight is not None
        ]

    @property
    def is_current(self) -> bool:
        """Return whether all modules and weights are still those that were packed."""
        return all([parts.get(name) is part for parts, name, part in self._parts]) and all(
            [seen.matches(weights.get(name)) for weights, name, seen in self._weights]
        )

    def __call__(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        attend: Attend,
        seen_BN: Tensor | None,
        ids_BT: Tensor | None,
    ) -> Tensor:
        """Return hidden_BTD, or hidden_BND, as Transformer.forward does."""
        num = int(positions_BT.max()) + 1
        if num > len(self._tables[self._kinds[0]]):
            self._tables = self._rotations(max(POSITIONS, 2 ** (num - 1).bit_length()))
        rotations = {kind: table.of(positions_BT) for kind, table in self._tables.items()}
        first_BTD = x_BTD = stream(x_BTD, self._config)
        last = len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            if self._mixes is not None:
                x_BTD = self._mixes[number](x_BTD, first_BTD)
            rotate, seen = rotations[self._kinds[number]], seen_BN if number == last else None
            more_BTE = self._more_values(number, ids_BT)
            x_BTD = layer(x_BTD, rotate, attend, number, seen, more_BTE)
        return self._norm(x_BTD)

    def _rotations(self, num: int) -> dict[RopeKind, Rotation]:
        """Return the tables of layers of each kind, of positions from 0 to num - 1."""
        positions_1N = torch.arange(num)[None]
        return {
            kind: Rotation.at(positions_1N, self._config, torch.float32, kind)
            for kind in set(self._kinds)
        }


class PackedLayer:
    """A PackedLayer computes what a Layer does."""

    def __init__(self, layer: Layer) -> None:
        """Copy the weights."""
        attention = layer.self_attn
        d = self._head_width = attention.head_width
        self._counts = attention.q_proj.out_features // d, attention.k_proj.out_features // d
        self._qkv = PackedLinear.of(attention.q_proj, attention.k_proj, attention.v_proj)
        self._joint_norms, self._head_norm = _joint(attention), _both(attention, self._counts)
        self._out = PackedLinear.of(attention.o_proj)
        self._mlp = layer.mlp if isinstance(layer.mlp, Experts) else PackedMLP(layer.mlp)
        self._norms = [
            PackedNorm(one.scale, one.eps) if isinstance(one, RMSNorm) else None
            for one in layer.norms
        ]

    def __call__(
        self,
        x_BTD: Tensor,
        rotate: Rotation,
        attend: Attend,
        layer: int,
        seen_BN: Tensor | None = None,
        more_values_BTE: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream after this layer, (B, T, D); with seen_BN, of these tokens
        alone, (B, N, D): the others are read by their keys and values.
        """
        read = self._normed(0, x_BTD), rotate, attend, layer
        out_BND = self._attention(*read, seen_BN, more_values_BTE)
        x_BND = x_BTD if seen_BN is None else tokens_at(x_BTD, seen_BN)
        x_BND = self._normed(1, out_BND).add_(x_BND)
        out_BND = self._mlp(self._normed(2, x_BND))
        return self._normed(3, out_BND).add_(x_BND)

    def _normed(self, place: int, x_BTD: Tensor) -> Tensor:
        norm = self._norms[place]
        return x_BTD if norm is None else norm(x_BTD)

    def _attention(
        self,
        x_BTD: Tensor,
        rotate: Rotation,
        attend: Attend,
        layer: int,
        seen_BN: Tensor | None,
        more_values_BTE: Tensor | None,
    ) -> Tensor:
        """Return what Attention does, of all tokens or of those seen."""
        B, T, _ = x_BTD.shape
        H, G = self._counts
        qkv_BTE = self._qkv(x_BTD)
        if more_values_BTE is not None:
            qkv_BTE[..., (H + G) * self._head_width :].add_(more_values_BTE)
        if self._joint_norms:
            q_norm, k_norm = self._joint_norms
            q_BTE, k_BTE, v_BTE = qkv_BTE.split_with_sizes(
                [n * self._head_width for n in (H, G, G)], -1
            )
            qkv_BTE = torch.cat((q_norm(q_BTE), k_norm(k_BTE), v_BTE), dim=-1)
        heads_BNTd = qkv_BTE.view(B, T, H + 2 * G, self._head_width).transpose(1, 2)
        qk_BNTd, v_BGTd = heads_BNTd.split_with_sizes((H + G, G), 1)
        if self._head_norm is not None:
            qk_BNTd = self._head_norm(qk_BNTd)
        q_BHTd, k_BGTd = _rotated(qk_BNTd, rotate).split_with_sizes((H, G), 1)
        q_BHTd = rotate.scaled(q_BHTd)
        if seen_BN is not None:
            q_BHTd = q_BHTd.take_along_dim(seen_BN[:, None, :, None], dim=2)
        out_BHTd = attend(layer, q_BHTd, k_BGTd, v_BGTd)
        return self._out(out_BHTd.transpose(1, 2).reshape(B, q_BHTd.shape[2], -1))


def _inside(trunk: Trunk) -> set[nn.Module]:
    """Return the modules that are experts, and those inside of them, which are not packed."""
    experts = [one for one in trunk.layers.modules() if isinstance(one, Experts)]
    return {part for one in experts for part in one.modules()}


class PackedMLP:
    """A PackedMLP computes what an MLP does."""

    def __init__(self, mlp: MLP) -> None:
        """Copy the weights."""
        self._gate_up = PackedLinear.of(mlp.gate_proj, mlp.up_proj)
        self._down, self._activate = PackedLinear.of(mlp.down_proj), mlp.activate

    def __call__(self, x_BTD: Tensor) -> Tensor:
        """Return the MLP's output, (B, T, D)."""
        gate_BTM, up_BTM = self._gate_up(x_BTD).chunk(2, dim=-1)
        return self._down(self._activate(gate_BTM).mul_(up_BTM))


def _rotated(x_BNTd: Tensor, by: Rotation) -> Tensor:
    """Return what a Rotation does, with fewer passes over memory where it rotates whole heads."""
    if by.cos_B1Td.shape[-1] < x_BNTd.shape[-1]:
        return by(x_BNTd)
    swapped_BNTd = x_BNTd.roll(x_BNTd.shape[-1] // 2, -1)
    return swapped_BNTd.mul_(by.sin_B1Td).addcmul_(x_BNTd, by.cos_B1Td)


def _joint(attention: Attention) -> list[PackedNorm]:
    """Return the norms of the queries, and of the keys, of all heads together, if there are."""
    norms = (attention.q_norm, attention.k_norm) if attention.has_joint_norms else ()
    return [PackedNorm(one.scale, one.eps) for one in norms if isinstance(one, RMSNorm)]


def _both(attention: Attention, counts: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
    """Return the norm of query heads and key heads in one; None where they have none."""
    q_norm, norms = attention.q_norm, (attention.q_norm, attention.k_norm)
    if isinstance(q_norm, RMSNorm) and not attention.has_joint_norms:
        scales = [one.scale.detach() for one in norms if isinstance(one, RMSNorm)]
        rows = [one.expand(n, 1, -1) for one, n in zip(scales, counts, strict=True)]
        return PackedNorm(torch.cat(rows), q_norm.eps)
    heads = [one for one in norms if isinstance(one, HeadNorms)]
    if isinstance(q_norm, HeadNorms):
        both = HeadNorms(sum(counts), q_norm.weight.shape[-1], q_norm.eps).requires_grad_(False)
        both.weight.copy_(torch.cat([one.weight for one in heads]))
        both.bias.copy_(torch.cat([one.bias for one in heads]))
        return both
    return None
