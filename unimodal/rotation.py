"""The rotation of queries and keys to their positions by RoPE (arXiv:2104.09864).

In: a batch's positions, and a model's frequencies (rope.py). Out: cosines and sines, computed once
and shared by all layers of a kind, and what queries are multiplied by where attention has a
temperature.

Letters: B rows, T tokens, H heads, d head width, h pairs of channels of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .rope import RopeKind, frequencies
from .transformer_config import TransformerConfig


@dataclass(frozen=True)
class Rotation:
    """A Rotation holds RoPE's cosines and sines of a batch's positions, shared by layers."""

    cos_B1Td: Tensor
    sin_B1Td: Tensor
    scale_B1T1: Tensor | None = None
    """What queries are multiplied by; None: nothing."""

    @classmethod
    def at(
        cls,
        positions_BT: Tensor,
        config: TransformerConfig,
        dtype: torch.dtype,
        kind: RopeKind = "full",
    ) -> "Rotation":
        """Return the rotation of positions_BT (int, from 0 in each document) in layers of a kind.

        Angles are computed in float32; cosines and sines are rounded to `dtype` after that.
        """
        is_full = kind == "full"
        frequency_h, factor = frequencies(
            config.rotary_width or config.head_width,
            config.rope_theta if is_full else config.local_rope_theta,
            config.rope if is_full else None,
            positions_BT.device,
        )
        if kind == "none":
            frequency_h = torch.zeros_like(frequency_h)
        angle_B1Th = positions_BT[:, None, :, None].float() * frequency_h
        cos, sin = (angle_B1Th.cos() * factor).to(dtype), (angle_B1Th.sin() * factor).to(dtype)
        # RoPE (arXiv:2104.09864, eq. 34) rotates pairs of channels. As in Hugging Face, channel i
        # is paired with i + d/2: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
        scale_BT = _query_scale(positions_BT, config)
        scale = None if scale_BT is None else scale_BT[:, None, :, None].to(dtype)
        return cls(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1), scale)

    def __call__(self, x_BHTd: Tensor) -> Tensor:
        """Return queries or keys rotated to their positions, in their own dtype."""
        rotated = self.cos_B1Td.shape[-1]
        if rotated < x_BHTd.shape[-1]:
            return torch.cat((self(x_BHTd[..., :rotated]), x_BHTd[..., rotated:]), dim=-1)
        swapped_BHTd = x_BHTd.roll(rotated // 2, -1)
        return (x_BHTd * self.cos_B1Td + swapped_BHTd * self.sin_B1Td).to(x_BHTd.dtype)

    def scaled(self, q_BHTd: Tensor) -> Tensor:
        """Return rotated queries as attention takes them, in their own dtype."""
        scale = self.scale_B1T1
        return q_BHTd if scale is None else (q_BHTd * scale).to(q_BHTd.dtype)

    def __len__(self) -> int:
        """Return of how many positions this is."""
        return self.cos_B1Td.shape[2]

    def of(self, positions_BT: Tensor) -> "Rotation":
        """Return the rotation of positions, where this is that of one row of those from 0 on."""
        return self._each(lambda x_11Nd: x_11Nd[0, 0][positions_BT][:, None])

    def to(self, device: torch.device) -> "Rotation":
        """Return the rotation on a device."""
        return self._each(lambda x_B1Td: x_B1Td.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Rotation":
        scale = self.scale_B1T1
        changed = None if scale is None else change(scale)
        return Rotation(change(self.cos_B1Td), change(self.sin_B1Td), changed)


def _query_scale(positions_BT: Tensor, config: TransformerConfig) -> Tensor | None:
    """Return what queries are multiplied by beside 1 / sqrt(head_width), float32; None: nothing."""
    if config.query_beta is None and config.score_width is None:
        return None
    scale_BT = torch.ones_like(positions_BT, dtype=torch.float32)
    if config.score_width is not None:
        scale_BT = scale_BT * (config.head_width / config.score_width) ** 0.5
    if config.query_beta is not None and config.rope is not None:
        # Llama 4's attention temperature, which holds scores apart among many keys.
        spans_BT = (positions_BT / config.rope.original_positions).floor()
        scale_BT = scale_BT * (1 + config.query_beta * spans_BT.log1p())
    return scale_BT
