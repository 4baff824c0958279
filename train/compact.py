"""Keep AdamW's moments in 8 bits a number: blockwise dynamic quantisation.

    a block of 256 numbers -> its number of largest magnitude, float32, and 256 codes of a byte

Dettmers et al., "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861, sections 2.1 and
2.2. A step widens the moments of one parameter at a time, updates them as float32 and narrows them.
Two things are otherwise. A scale has its number's sign, so that this number itself is one of the
codes: what is narrowed, widened and narrowed again is the same, and a checkpoint, which holds
float32, loses nothing. And a second moment above zero never becomes zero, by which the first one
would be divided.
"""

from collections.abc import Iterator, Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

BLOCK = 256  # numbers of a scale
LEAST_NUMBERS = 4096  # a parameter with fewer keeps float32 moments, as norms and biases do
EXPONENTS = 7
SIGNED = {"exp_avg": True, "exp_avg_sq": False}
BYTES_A_NUMBER = 1 + 4 / BLOCK


@cache
def codebook(signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the 256 numbers in [-1, 1], or [0, 1], that codes stand for, ascending, and the 255
    limits between them; float32.

    Dynamic tree quantisation (section 2.1 and figure 2): a number 10^-e times a fraction in
    [0.1, 1], of which fewer bits are left the larger e is; and 0 and 1.
    """
    found = [0.0, 1.0]
    for place in range(EXPONENTS):
        limits = torch.linspace(0.1, 1, 2 ** (place + (not signed)) + 1, dtype=torch.float64)
        middles = (limits[:-1] + limits[1:]) / 2 * 10.0 ** (place + 1 - EXPONENTS)
        found += [*middles.tolist(), *((-middles).tolist() if signed else ())]
    numbers = torch.tensor(sorted(found), dtype=torch.float32)
    assert len(numbers) == 256, "a byte has as many"
    return numbers.to(device), ((numbers[:-1] + numbers[1:]) / 2).to(device)


class Compact:
    """A tensor of float32, by codes of 8 bits and a scale for each block."""

    def __init__(self, values: Tensor, signed: bool) -> None:
        """Narrow values of any shape; those that are not `signed` are at least 0."""
        self.signed, self.shape = signed, values.shape
        flat = values.reshape(-1)
        blocks_NB = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        self.scales_N1 = blocks_NB.gather(1, blocks_NB.abs().argmax(1, keepdim=True))
        ratios_NB = blocks_NB / torch.where(self.scales_N1 == 0, 1, self.scales_N1)
        _, limits = codebook(signed, flat.device)
        codes_NB = torch.bucketize(ratios_NB, limits)
        if not signed:
            codes_NB += (codes_NB == 0) & (blocks_NB > 0)
        self.codes_NB = codes_NB.to(torch.uint8)

    def widened(self) -> Tensor:
        """Return the float32 numbers that it stands for, in its shape."""
        numbers, _ = codebook(self.signed, self.codes_NB.device)
        values_NB = numbers[self.codes_NB.int()] * self.scales_N1
        return values_NB.view(-1)[: self.shape.numel()].view(self.shape)

    @property
    def num_bytes(self) -> int:
        """Return the bytes that it takes."""
        return self.codes_NB.nbytes + self.scales_N1.nbytes


class Widening(Mapping[str, Tensor]):
    """Flat tensors by name, of which compact ones are widened each time that they are asked for:
    all of them at once would be what there is no room for.
    """

    def __init__(self, parts: Mapping[str, Tensor | Compact]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, laid out flat."""
        part = self._parts[name]
        return (part.widened() if isinstance(part, Compact) else part.detach()).reshape(-1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class CompactAdamW(torch.optim.AdamW):
    """Update by AdamW with moments of 8 bits."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient, one at a time."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
                    self.narrow(parameter)

    def narrow(self, parameter: nn.Parameter) -> None:
        """Narrow the moments of a parameter, which are float32 after an update or a restore; one
        that has not learned yet has none.
        """
        state = self.state[parameter]
        for name, signed in SIGNED.items() if parameter.numel() >= LEAST_NUMBERS else ():
            if name in state:
                state[name] = Compact(state[name], signed)

    def _update(self, parameter: nn.Parameter, group: dict) -> None:
        assert parameter.grad is not None, "only parameters with a gradient come here"
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state |= {name: torch.zeros_like(parameter) for name in SIGNED}
        for name in SIGNED:
            if isinstance(state[name], Compact):  # in memory as the parameter is
                state[name] = torch.empty_like(parameter).copy_(state[name].widened())
        beta1, beta2 = group["betas"]
        adamw(
            [parameter], [parameter.grad], [state["exp_avg"]], [state["exp_avg_sq"]], [],
            [state["step"]], fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
