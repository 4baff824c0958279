"""What one rank sends in a step, and how long that takes within a node and across nodes.

Letters: W ranks, N nodes.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from .assumptions import Assumptions
from .memory import FP32, Work

GB, MICRO = 1e9, 1e-6


class Traffic(NamedTuple):
    """Count the bytes that a rank sends in a step, and the collectives that carry them, by kind."""

    sent_bytes: dict[str, int]
    launched: dict[str, int]


class Transfer(NamedTuple):
    """Say how long collectives take: the slower of two links, and what every one waits."""

    node_s: float
    network_s: float
    latency_s: float

    @property
    def seconds(self) -> float:
        """Return the seconds of all; rings use both links at the same time."""
        return max(self.node_s, self.network_s) + self.latency_s


def traffic(run: Work) -> Traffic:
    """Return what one rank sends in a step, as rings do it: of a tensor that is gathered or
    scattered (W - 1) / W, of one that is summed twice that.
    """
    if run.ranks == 1 or not run.stage:
        return Traffic({}, {})
    if run.is_fsdp:
        return _of_fsdp(run)
    assert run.zero is not None, "many ranks are ZeRO's or FSDP2's"
    sent = run.low_bytes * (run.ranks - 1)  # for each element of a rank's share
    sizes = [run.sizes[name] for name in reversed(run.sizes) if name in run.trained]
    buckets = _buckets(sizes, run.zero.reduce_bucket_size)
    exchanged = _exchanged(run)
    if run.stage < 3:  # updated weights are gathered in place, those of a group at once
        times = run.accumulation if run.stage == 2 else 1
        return Traffic(
            {"all_reduce": 2 * times * sent * run.share, "all_gather": sent * run.share}
            | exchanged.sent_bytes,
            {"all_reduce": times * buckets, "all_gather": run.groups} | exchanged.launched,
        )
    elements = 0
    for name, size in run.sizes.items():
        # What stays is gathered once, after the update, each by a collective of its own.
        times = run.all_gathers.times[name] * run.accumulation or 1
        elements += math.ceil(size / run.ranks) * times
    launches = run.all_gathers.launches * run.accumulation + len(run.all_gathers.stay)
    return Traffic(
        {"all_gather": sent * elements, "reduce_scatter": sent * run.share * run.accumulation}
        | exchanged.sent_bytes,
        {"all_gather": launches, "reduce_scatter": buckets * run.accumulation} | exchanged.launched,
    )


def _of_fsdp(run: Work) -> Traffic:
    """Return what FSDP2 sends: each layer is gathered forward and again backward, what is in none
    once, and gradients are summed in float32; all of that in every micro-batch.
    """
    layers, all_cuts = len(run.layer_names), sum(run.cuts.values())
    inside = sum(run.cuts[name] for names in run.layer_names for name in names)
    exchanged, times = _exchanged(run), run.accumulation * (run.ranks - 1)
    return Traffic(
        {"all_gather": run.low_bytes * times * (all_cuts + inside),
         "reduce_scatter": FP32 * times * run.share} | exchanged.sent_bytes,
        {"all_gather": (2 * layers + 1) * run.accumulation,
         "reduce_scatter": (layers + 1) * run.accumulation} | exchanged.launched,
    )  # fmt: skip


def _exchanged(run: Work) -> Traffic:
    """Return what a rank sends to those that share rows with it: in each layer queries, keys and
    values at once, then outputs, and their gradients (see sequence_parallel.py).
    """
    size, shape = run.config.engine.sequence_parallel, run.shape
    if size == 1:
        return Traffic({}, {})
    kv_heads = max(shape.num_kv_heads, size)
    numbers = 2 * (shape.num_heads + kv_heads) * shape.head_width
    passes = (2 * shape.num_layers + run.model.recompute) * run.accumulation
    sent = run.tokens * numbers * (size - 1) // size
    return Traffic(
        {"all_to_all": sent * passes * run.low_bytes},
        {"all_to_all": 2 * passes},
    )


def _buckets(sizes: Iterable[int], most: int) -> int:
    """Return how many buckets gradients fill, in the order in which they come."""
    count, held = 0, math.inf
    for size in sizes:
        if held + size > most:
            count, held = count + 1, 0
        held += size
    return count


def transfer(sent: Traffic, ranks: int, assumed: Assumptions) -> Transfer:
    """Return how long it takes, by the model of NCCL's rings: a time for each hop, and one for each
    byte (Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in
    MPICH", 2005, section 4.1).

    A node has as many rings as adapters, and each ring leaves it by its own adapter: the bytes that
    a GPU sends within its node are those that all adapters of the node send together.
    """
    gpus = min(ranks, assumed.node_gpus)
    nodes = math.ceil(ranks / gpus)
    total = sum(sent.sent_bytes.values()) / (GB * assumed.link_share)
    network_hops, node_hops = nodes - 1, ranks - nodes
    ring_us = network_hops * assumed.network_hop_us + node_hops * assumed.node_hop_us
    waits_us = 0.0
    for kind, launches in sent.launched.items():
        rounds = 2 if kind == "all_reduce" else 1
        waits_us += launches * (assumed.launch_us + rounds * ring_us)
    network_s = total / (gpus * assumed.network_gb_s) if nodes > 1 else 0.0
    node_s = total / assumed.node_gb_s if gpus > 1 else 0.0
    return Transfer(node_s, network_s, waits_us * MICRO)
