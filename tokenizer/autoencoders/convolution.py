"""A convolution that gives one small image the bits that it has among others, and sooner."""

import torch
from torch import nn


class Convolution(nn.Conv2d):
    """An nn.Conv2d that oneDNN computes on a CPU, however many images and threads there are.

    Left alone torch takes ways of its own, which add up in another order than oneDNN does: for one
    small image, where that is the slower one, and for kernels of 1 x 1 with one thread. Compiled,
    exported and without oneDNN it is nn.Conv2d.
    """

    def _conv_forward(
        self, x_BChw: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if not x_BChw.numel() or not _is_for_onednn(x_BChw, weight):
            return super()._conv_forward(x_BChw, weight, bias)
        assert not isinstance(self.padding, str), "padding is told in places"
        return torch.mkldnn_convolution(
            x_BChw, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )


def _is_for_onednn(*tensors: torch.Tensor) -> bool:
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return all(_is_plain(one) for one in tensors)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has float32 data on a CPU, as a fake one, of a trace, has not."""
    is_real = type(tensor) in (torch.Tensor, nn.Parameter)
    return is_real and tensor.is_cpu and tensor.dtype == torch.float32
