"""A convolution that gives one small image the bits that it has among others, and sooner."""

import torch
from torch import nn


class Convolution(nn.Conv2d):
    """An nn.Conv2d that leaves the choice of how to compute to torch but for one image on a CPU.

    There torch takes a way of its own where the image is small, which adds up in another order than
    oneDNN does for a batch and is the slower one.
    """

    def _conv_forward(
        self, x_BChw: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if len(x_BChw) > 1 or not _is_for_onednn(x_BChw, weight):
            return super()._conv_forward(x_BChw, weight, bias)
        assert not isinstance(self.padding, str), "padding is told in places"
        return torch.mkldnn_convolution(
            x_BChw, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )


def _is_for_onednn(*tensors: torch.Tensor) -> bool:
    on = torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")
    return on and all(one.is_cpu and one.dtype == torch.float32 for one in tensors)
