"""What a plan assumes of machines that it has not seen; measured numbers can be set instead."""

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Assumptions:
    """Assume how GPUs are connected, how evenly they work, how often they fail, what saving takes.

    Defaults are of machines with eight H100 or H200; what is called a guess was never measured.
    """

    node_gpus: int = 8
    """GPUs of a node."""
    node_gb_s: float = 450.0
    """10^9 bytes a second that a GPU sends within its node (NVLink, data sheet)."""
    network_gb_s: float = 50.0
    """10^9 bytes a second that a GPU's network adapter sends (400 Gb/s)."""
    link_share: float = 0.85
    """Which share of both collectives reach: 340 of 400 GB/s are usual of nodes with eight adapters
    of 400 Gb/s (https://github.com/NVIDIA/nccl/issues/1218)."""
    launch_us: float = 8.4
    """Microseconds that a collective takes at least; this and the next two are what NCCL reckons
    for its own choices (protocol Simple, hopper; src/graph/tuning.cc)."""
    node_hop_us: float = 3.4
    """Microseconds of each hop of a ring to a GPU of the same node."""
    network_hop_us: float = 14.0
    """Microseconds of each hop of a ring to another node."""
    noise: float = 0.002
    """By which share of a step a GPU is late in the mean, exponentially distributed: a guess."""
    slow_share: float = 1e-4
    """Share of the GPUs that are slow until the run starts again: a guess."""
    slow_by: float = 0.1
    """By which share of a step these are slower: a guess."""
    mtbf_h: float = 50_000.0
    """Hours of a GPU between failures that end the run: Llama 3's 16,384 H100 had 419 in 54 days,
    one in 50,700 (arXiv:2407.21783, section 3.3.4)."""
    restart_s: float = 600.0
    """Seconds from a failure to the next step: a guess."""
    write_gb_s: float = 10.0
    """10^9 bytes a second that the file system writes of a checkpoint, of all ranks: a guess."""
    stall_s: float = 0.5
    """Seconds that ranks stand still for a checkpoint, beside copying it to the host: a guess."""
    usd_per_gpu_hour: float | None = None
    """The price of a GPU; None: none is said."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        for name in ("node_gpus", "node_gb_s", "network_gb_s", "mtbf_h", "write_gb_s"):
            if not getattr(self, name) > 0:
                found.append(f"{name} {getattr(self, name)}: above 0")
        for name in ("link_share", "slow_share"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} {getattr(self, name)}: 0 to 1")
        if self.link_share == 0:
            found.append("link_share 0: above 0")
        times = ("launch_us", "node_hop_us", "network_hop_us", "restart_s", "stall_s")
        for name in (*times, "noise", "slow_by", "usd_per_gpu_hour"):
            if (getattr(self, name) or 0) < 0:
                found.append(f"{name} {getattr(self, name)}: cannot be negative")
        return found

    def words(self) -> Iterator[str]:
        """Yield a line for each kind of assumption."""
        yield (
            f"nodes of {self.node_gpus} GPUs; a GPU sends {self.node_gb_s:g} GB/s within its node, "
            f"{self.network_gb_s:g} GB/s to others, of which collectives reach "
            f"{self.link_share:.0%}; {self.launch_us:g} us a collective, {self.node_hop_us:g} and "
            f"{self.network_hop_us:g} us a hop"
        )
        yield (
            f"a GPU is late by {self.noise:.2%} of a step in the mean; {self.slow_share:.3%} of "
            f"them are {self.slow_by:.0%} slower; one fails in {self.mtbf_h:,.0f} hours, and "
            f"starting again takes {self.restart_s:g} s"
        )
        yield (
            f"checkpoints are written at {self.write_gb_s:g} GB/s while training goes on, after "
            f"{self.stall_s:g} s and the copy to the host"
        )

    def changed(self) -> dict[str, float]:
        """Return the values that are not the defaults."""
        pairs = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        return {name: value for name, value, default in pairs if value != default}


USUAL = Assumptions()
