"""A convolution that gives an image the bits alone that it has among others, and sooner."""

import torch
from torch import nn


class Convolution(nn.Conv2d):
    """An nn.Conv2d that is computed by oneDNN on a CPU, whatever the size, once training is over.

    torch computes small images otherwise, one alone and 1 x 1 kernels of a few: in another order of
    additions, and more slowly.
    """

    def _conv_forward(
        self, x_BChw: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if torch.is_grad_enabled() or not _is_for_onednn(x_BChw, weight):
            return super()._conv_forward(x_BChw, weight, bias)
        assert not isinstance(self.padding, str), "padding is told in places"
        return torch.mkldnn_convolution(
            x_BChw, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )


def _is_for_onednn(*tensors: torch.Tensor) -> bool:
    on = torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")
    return on and all(one.is_cpu and one.dtype == torch.float32 for one in tensors)
