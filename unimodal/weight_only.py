"""Matrices of few bits, and vectors as they are: what makes a large model fit into memory.

In: matrices, one after the other as they are read, so that a model is never whole in its own
numbers. Out: linear maps, in the place of those of the layers, that hold them in 8 or 4 bits.
Embeddings, output tables, norms and biases, image heads and vision towers stay as they are.

8 bits, a scale for each row (symmetric): s_o = max_i |w_oi| / 127, and

    y_o = s_o sum_i x_i round(w_oi / s_o)

4 bits, a scale and an offset for each group of columns of a row (asymmetric; the form of GPTQ's
groups, arXiv:2210.17323, sec. 4, but rounded to nearest): with the least l and the largest h,

    s = (h - l) / 15,    z = l + 8 s,    q_i = round((w_i - z) / s) + 8 in 0 .. 15,
    w_i ~ (q_i - 8) s + z

torch multiplies by both as they lie in memory, on a CPU and on a GPU. It does so in bfloat16, to
which vectors, scales and offsets are rounded: its kernels for other numbers, if any, are slow.

Letters: O rows of a matrix, I columns, K columns of a group, N groups of a row.
"""

import re
from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn

from .model import Weights
from .unified import UnifiedModel

MATRIX = re.compile(r"model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj\.weight")
GROUPS = 64, 32  # columns of a group: the first by which a matrix can be divided
ROWS = 16  # a multiple of which the kernels for 4 bits ask for
TILES = 8, 4, 2  # of 16 columns each, that a GPU's kernel reads together
LEAST = 1e-8  # a group of equal weights has a scale too
DTYPE = torch.bfloat16  # of products
CAPABILITY = 8, 0  # of a GPU that has the arithmetic


class WeightOnlyLinear(nn.Module):
    """A WeightOnlyLinear is a linear map whose weight has few bits."""

    def __init__(self, bias_O: nn.Parameter | None) -> None:
        super().__init__()
        self.register_parameter("bias", bias_O)

    def forward(self, x: Tensor) -> Tensor:
        """Return the products of vectors x (..., I) with the rows, (..., O), in their dtype."""
        y_MO = self.products(x.reshape(-1, x.shape[-1]).to(DTYPE))
        y = y_MO.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias

    def products(self, x_MI: Tensor) -> Tensor:
        """Return the products without the bias, (M, O)."""
        raise NotImplementedError


class Linear8(WeightOnlyLinear):
    """A Linear8 has weights in 8 bits."""

    def __init__(self, weight_OI: Tensor, bias_O: nn.Parameter | None = None) -> None:
        """Round a weight."""
        super().__init__(bias_O)
        weight_OI = weight_OI.detach().float()
        scale_O = (weight_OI.abs().amax(dim=1) / 127).clamp_min(LEAST).to(DTYPE)
        self._q_OI = (weight_OI / scale_O.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self._scale_O = scale_O

    def products(self, x_MI: Tensor) -> Tensor:
        """Return the products without the bias, (M, O)."""
        return torch._weight_int8pack_mm(x_MI, self._q_OI, self._scale_O)


class Linear4(WeightOnlyLinear):
    """A Linear4 has weights in 4 bits."""

    def __init__(self, weight_OI: Tensor, bias_O: nn.Parameter | None = None) -> None:
        """Round a weight; raise ValueError where its sides do not divide into groups."""
        super().__init__(bias_O)
        self._group = group_of(weight_OI.shape)
        q_OI, scale_ON, zero_ON = in_4_bits(weight_OI.detach(), self._group)
        self._packed = _packed(q_OI)
        self._scales_NO2 = torch.stack((scale_ON, zero_ON), dim=-1).transpose(0, 1).contiguous()

    def products(self, x_MI: Tensor) -> Tensor:
        """Return the products without the bias, (M, O)."""
        if x_MI.device.type == "cpu":
            multiply = torch._weight_int4pack_mm_for_cpu
        else:
            multiply = torch._weight_int4pack_mm
        return multiply(x_MI, self._packed, self._group, self._scales_NO2)


def group_of(shape: tuple[int, ...]) -> int:
    """Return the columns of a group of a matrix; raise ValueError where there is none."""
    rows, columns = shape
    groups = [one for one in GROUPS if columns % one == 0]
    if not groups or rows % ROWS:
        raise ValueError(
            f"weights int4: a matrix of {rows} x {columns} is not of multiples of {ROWS} rows and"
            f" {GROUPS[-1]} columns: take int8, or fp32"
        )
    return groups[0]


def in_4_bits(weight_OI: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (q_OI, scale_ON, zero_ON) of a matrix: q int32 in 0 .. 15, the others of DTYPE."""
    weight_ONK = weight_OI.float().unflatten(1, (-1, group))
    low_ON, high_ON = weight_ONK.aminmax(dim=-1)
    # Rounded first, so that q makes up for that.
    scale_ON = ((high_ON - low_ON) / 15).clamp_min(LEAST).to(DTYPE)
    zero_ON = (low_ON + 8 * scale_ON.float()).to(DTYPE)
    about_ONK = (weight_ONK - zero_ON.float()[..., None]) / scale_ON.float()[..., None]
    q_ONK = (about_ONK.round() + 8).clamp(0, 15)
    return q_ONK.flatten(1).to(torch.int32), scale_ON, zero_ON


def _packed(q_OI: Tensor) -> Tensor:
    """Return numbers of 4 bits as the kernels of their device read them."""
    if q_OI.device.type == "cpu":
        return torch._convert_weight_to_int4pack_for_cpu(q_OI, 1)
    tiles = next(one for one in TILES if q_OI.shape[1] % (16 * one) == 0)
    pairs_OI = (q_OI[:, ::2] << 4 | q_OI[:, 1::2]).to(torch.uint8)
    return torch._convert_weight_to_int4pack(pairs_OI, tiles)


def check(weights: Weights, devices: Iterable[torch.device]) -> None:
    """Raise ValueError where a device has no arithmetic for such weights."""
    for device in devices:
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"weights {weights}: these are for a CPU or a GPU, not for {device}")
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
            raise ValueError(
                f"weights {weights}: {device} has no bfloat16, which they are multiplied in: take"
                " fp32, or a GPU of compute capability 8.0"
            )


def num_bytes(name: str, shape: tuple[int, ...], dtype: torch.dtype, weights: Weights) -> int:
    """Return the bytes that a parameter takes, its scales included."""
    size = prod(shape)
    if weights == "fp32" or not MATRIX.fullmatch(name):
        return size * dtype.itemsize
    if weights == "int8":
        return size + shape[0] * DTYPE.itemsize
    return size // 2 + 2 * size // group_of(shape) * DTYPE.itemsize


def fill(
    transformer: UnifiedModel, tensors: Iterable[tuple[str, Tensor]], weights: Weights = "fp32"
) -> None:
    """Give a model without weights those that are read, the matrices of its layers in few bits
    where `weights` says so; each is made small before the next one is read.
    """
    kinds = {"int8": Linear8, "int4": Linear4}
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if weights in kinds and MATRIX.fullmatch(name):
            place = name.removesuffix(".weight")
            bias = transformer.get_submodule(place).bias
            assert bias is None or isinstance(bias, nn.Parameter), "a linear map has a bias or none"
            transformer.set_submodule(place, kinds[weights](tensor, bias))
        else:
            plain[name] = tensor
    transformer.load_state_dict(plain, assign=True)
