"""A Placement says on which device each part of a transformer lies, where one has no room for it.

Layers follow one another over the devices. What makes vectors of ids and images is with the first
of them; the output table and the image head are with the last, but a table that is both is with the
first. At a border the hidden vectors move, a few kilobytes a token. One device works at a time, so
more of them give room and no speed.

Every layer has the same bytes, and so have its keys and values. A device d with m_d free bytes that
holds f_d bytes beside n_d layers of w bytes has (m_d - f_d) / n_d - w left for each of its layers.
The least of these bounds the keys and values of a token, so that the placement is the one with the
largest least.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

LAYER = re.compile(r"model\.(?:layers|residual_lambdas)\.(\d+)\.")
ENDS = ("model.norm.", "lm_head.", "head.", "head_factors.")
ROOM = 0.8  # of the free memory: what weights may take of devices that were not named
AUTO = "auto"
Device = str | torch.device | Sequence[str | torch.device]
"""Where a model is asked to be: a device, several in a row or separated by commas, or AUTO."""


@dataclass(frozen=True)
class Placement:
    """A Placement is where the parts of a transformer lie."""

    start: torch.device
    """Of what makes vectors of ids and images."""
    layers: tuple[torch.device, ...]
    """Of each layer."""
    end: torch.device
    """Of the last norm, the output table and the image head."""

    @classmethod
    def on(cls, device: torch.device, num_layers: int) -> "Placement":
        """Return the placement of all on one device."""
        return cls(device, (device,) * num_layers, device)

    def with_head(self, is_tied: bool) -> "Placement":
        """Return the same with the head where its table is: at the start, if it is both tables."""
        return replace(self, end=self.start) if is_tied else self

    @property
    def devices(self) -> list[torch.device]:
        """Return the devices of which it makes use."""
        return list(dict.fromkeys((self.start, *self.layers, self.end)))

    @cached_property
    def borders(self) -> dict[int, torch.device]:
        """Return the layers, the end being one more, that begin on another device than what is
        before them, each with its device.
        """
        before, behind = (self.start, *self.layers), (*self.layers, self.end)
        pairs = enumerate(zip(before, behind, strict=True))
        return {number: there for number, (here, there) in pairs if here != there}

    def of(self, name: str) -> torch.device:
        """Return the device of a parameter, by its name."""
        if found := LAYER.match(name):
            return self.layers[int(found[1])]
        return self.end if name.startswith(ENDS) else self.start


def devices_of(asked: Device) -> list[torch.device]:
    """Return the devices that are asked for; of AUTO all GPUs, or the CPU where there is none.

    Raise ValueError where one is unknown, not there, or named twice.
    """
    num_gpus = torch.cuda.device_count()
    if asked == AUTO:
        return [torch.device("cuda", n) for n in range(num_gpus)] or [torch.device("cpu")]
    if isinstance(asked, torch.device):
        asked = str(asked)
    names = asked.split(",") if isinstance(asked, str) else asked
    try:
        devices = [torch.device(one) for one in names]
    except RuntimeError as error:
        raise ValueError(f"device {asked}: write cpu, cuda, cuda:0,cuda:1 or {AUTO}") from error
    if len({(one.type, one.index or 0) for one in devices}) < max(1, len(devices)):
        raise ValueError(f"device {asked}: name each device once, as in cuda:0,cuda:1")
    missing = [one for one in devices if one.type == "cuda" and (one.index or 0) >= num_gpus]
    if missing:
        raise ValueError(
            f"device {missing[0]}: {num_gpus} GPUs are here; {AUTO} takes what there is"
        )
    return devices


def spread(num_layers: int, room: Sequence[float]) -> list[int]:
    """Return how many of the layers each device holds, so that the least of room / layers is as
    large as can be. room: the bytes of each device that layers may take, keys and values included.
    """
    counts = [0] * len(room)
    for _ in range(num_layers):
        # One layer more lowers the quotient of its device alone: it goes where that stays largest.
        best = max(range(len(room)), key=lambda at: room[at] / (counts[at] + 1))
        counts[best] += 1
    return counts


def placed(
    sizes: Mapping[str, int],
    is_tied: bool,
    free: Mapping[torch.device, int],
    fewest: bool,
    beside: int = 0,
) -> Placement | None:
    """Return where a transformer is to lie; None where there is no room for it.

    sizes: bytes of each parameter, by name. is_tied: whether the output table is the embedding
    table. free: the bytes of each device, in order. fewest: whether as few of them are taken as
    have room for keys and values too. beside: bytes of an image tokenizer, which is at the end.
    """
    numbers = [found and int(found[1]) for found in map(LAYER.match, sizes)]
    num_layers = 1 + max(number for number in numbers if number is not None)
    of_layers = sum(size for name, size in sizes.items() if LAYER.match(name))
    of_end = beside + sum(size for name, size in sizes.items() if name.startswith(ENDS))
    of_start = beside + sum(sizes.values()) - of_layers - of_end
    tries = [(num, ROOM) for num in range(1, len(free) + 1)] if fewest else []
    for num, share in [*tries, (len(free), 1)]:
        devices = list(free)[:num]
        start, end = devices[0], devices[0] if is_tied else devices[-1]
        room = {device: free[device] * share for device in devices}
        room[start] -= of_start
        room[end] -= of_end
        counts = spread(num_layers, list(room.values()))
        if all(
            left >= n * of_layers / num_layers
            for left, n in zip(room.values(), counts, strict=True)
        ):
            layers = [one for one, n in zip(devices, counts, strict=True) for _ in range(n)]
            return Placement(start, tuple(layers), end)
    return None
