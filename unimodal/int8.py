"""Matrices in 8 bits: a quarter of the bytes that a step of a small batch streams.

In: a model for inference. Out: the same with the matrices of its layers as int8, those that read
the same vectors in one, and the rows by which codes are scored. Norms, embeddings, attention, the
scores of text and other heads stay float32.

A row of a matrix has one scale, s_o = max_i |w_oi| / 127, and so has a vector that enters,
s_x = max_i |x_i| (symmetric and per channel: Dettmers et al., arXiv:2208.07339, sec. 3, without
its outliers):

    y_o = s_x s_o sum_i round(127 x_i / s_x) / 127 * round(w_oi / s_o)

A vector's scale is its own, so that what else is in the batch changes nothing. Products of 8-bit
integers are added up in 32 bits; processors with VNNI have an instruction for that.

Letters: O rows of a matrix, I columns, M vectors of all tokens.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from .heads.code_rows import CodeRowsHead
from .mlp import MLP, Experts
from .model import Model
from .transformer import Attention, Layer

LEAST = 1e-30  # a vector of zeros has a scale too


class Int8Linear(nn.Module):
    """An Int8Linear is one or more linear maps of the same vectors, with weights in 8 bits."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        """Round the weights (O, I) of linear maps; their biases (O,) stay as they are."""
        super().__init__()
        weight_OI = torch.cat([one.detach().float() for one in weights])
        scale_O = weight_OI.abs().amax(dim=1).clamp_min(LEAST) / 127
        rounded_OI = (weight_OI / scale_O[:, None]).round().to(torch.int8)
        zero_O = torch.zeros(len(scale_O), dtype=torch.int64)
        with warnings.catch_warnings():  # torch means to move these tensors elsewhere one day
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
            packed = torch._make_per_channel_quantized_tensor(
                rounded_OI, scale_O.double(), zero_O, 0
            )
        self._packed = torch.ops.quantized.linear_prepack(packed, None)
        ends = [0, *accumulate(len(one) for one in weights)]
        self._slices = [slice(*two) for two in pairwise(ends)]
        given = [one.detach() for one in biases if one is not None]
        self._bias_O = torch.cat(given) if given else None

    @classmethod
    def of(cls, *linears: nn.Linear) -> "Int8Linear":
        """Return the maps in one; all have a bias, or none."""
        return cls([one.weight for one in linears], [one.bias for one in linears])

    def forward(self, x: Tensor) -> Tensor:
        """Return the products of vectors x (..., I), float32 (..., O)."""
        top = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True).clamp_min(LEAST)
        y = top * torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / top, 1 / 127, 128, self._packed
        )
        return y if self._bias_O is None else y + self._bias_O

    def parts(self, x: Tensor) -> list[Tensor]:
        """Return what each of the linear maps makes of x, float32 (..., O) each."""
        y = self(x)
        return [y[..., part] for part in self._slices]


class Int8Attention(Attention):
    """An Int8Attention has its four matrices in 8 bits."""

    def __init__(self, old: Attention) -> None:
        nn.Module.__init__(self)
        self.head_width, self.has_joint_norms = old.head_width, old.has_joint_norms
        self.q_norm, self.k_norm = old.q_norm, old.k_norm
        self.qkv_proj = Int8Linear.of(old.q_proj, old.k_proj, old.v_proj)
        self.o_proj = Int8Linear.of(old.o_proj)  # type: ignore[assignment]

    def project(self, x_BTD: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values as Attention does."""
        return self.qkv_proj.parts(x_BTD)


class Int8MLP(MLP):
    """An Int8MLP has its three matrices in 8 bits."""

    def __init__(self, old: MLP) -> None:
        nn.Module.__init__(self)
        self.activate = old.activate
        self.gate_up_proj = Int8Linear.of(old.gate_proj, old.up_proj)
        self.down_proj = Int8Linear.of(old.down_proj)  # type: ignore[assignment]

    def project(self, x_BTD: Tensor) -> Sequence[Tensor]:
        """Return the inputs of both factors as MLP does."""
        return self.gate_up_proj.parts(x_BTD)


@torch.no_grad()
def in_int8(model: Model) -> Model:
    """Return a model with the layers of another, whose matrices are given up, in 8 bits.

    Raise ValueError where the model is not float32, on a processor with the arithmetic.
    """
    weight = model.transformer.lm_head_weight
    device, dtype = weight.device, str(weight.dtype).removeprefix("torch.")
    if dtype != "float32":
        raise ValueError(f"weights int8: they are made of float32, not of {dtype}: leave dtype out")
    if device.type != "cpu" or not torch.cpu._is_vnni_supported():
        raise ValueError(
            f"weights int8: this needs a processor with VNNI, not {device.type}: take fp32"
        )
    for layer in model.transformer.model.layers:
        assert isinstance(layer, Layer), "a transformer is made of layers"
        layer.self_attn = Int8Attention(layer.self_attn)
        if isinstance(layer.mlp, Experts):
            layer.mlp.experts = nn.ModuleList(Int8MLP(one) for one in layer.mlp.each)
        else:
            layer.mlp = Int8MLP(layer.mlp)
    head, table_VD = model.transformer.head, model.transformer.output_table()
    if isinstance(head, CodeRowsHead):
        head.rows = Int8Linear([table_VD[head.first : head.last]], [None])
    return replace(model, weights="int8")
