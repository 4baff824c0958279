"""How long training stands still while its state is saved, against torch.save of the same state,
and what the checksums take of a save.

Ours copies the state and writes it behind training's back; before each repeat the write of the one
before has ended, as it has in a run. The checksums are a part of that write, in the same thread.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from unimodal.tensors import Bytes, in_memory, write_file
from unimodal.train.checkpoint import MASTER, Checkpoint, ParameterShard
from unimodal.train.checksums import Summing
from unimodal.train.ranks import Ranks
from unimodal.train.saver import Saver

from .measured import Line, interleaved, ratios, spread
from .steps import Scale

KINDS = (MASTER, "exp_avg", "exp_avg_sq")
GOAL = 0.1
SHARE = 0.25  # of a save's write that checksums may take


def lines(scale: Scale) -> list[Line]:
    """Two lines: the stall of a save, and the share of the checksums."""
    state = _state(scale)
    pieces = {name: ParameterShard(tuple(one[MASTER].shape), 0, one) for name, one in state.items()}
    size = sum(tensor.nbytes for one in state.values() for tensor in one.values())
    ours: list[float] = []
    whole: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        saver = Saver(Path(folder), Ranks(), keep=1, keep_every=None, timeout_s=60)
        for repeat in range(scale.repeats + 1):  # the first one is not counted
            began = time.perf_counter()
            saver.save(repeat + 1, {"data": None}, pieces)
            stalled = time.perf_counter()
            saver.wait()
            written = time.perf_counter()
            torch.save(state, Path(folder) / "peer.pt")
            if repeat:
                ours.append(stalled - began)
                whole.append(written - began)
                peer.append(time.perf_counter() - written)
        found = Checkpoint(Path(folder) / f"step_{scale.repeats + 1:08d}")
        wrong = tuple(
            f"{name} {kind}"
            for name, one in state.items()
            for kind, tensor in one.items()
            if not torch.equal(found.whole(name, kind), tensor)
        )
    faster = ratios(ours, peer)
    return [
        Line(
            f"stall of a save of {size / 1e9:.2g} GB",
            f"{spread(ours, ' s')}; on disk, flushed, after {median(whole):.2f} s",
            f"torch.save {spread(peer, ' s')}",
            spread(faster),
            f"goal <= {GOAL}",
            median(faster) <= GOAL,
            "read back, verified, bit by bit",
            wrong,
        ),
        _checksums(state, [a - b for a, b in zip(whole, ours, strict=True)], scale.repeats),
    ]


class _Nowhere:
    def write(self, data: Bytes) -> int:
        return len(data)


def _checksums(
    state: dict[str, dict[str, torch.Tensor]], writes_s: list[float], repeats: int
) -> Line:
    """The time that summing adds to a write to nowhere, beside that of a write to the disk."""
    planned = [in_memory(f"{n}/{k}", t) for n, one in state.items() for k, t in one.items()]
    summed, plain = interleaved(
        repeats,
        lambda: write_file(Summing(_Nowhere()), planned),
        lambda: write_file(_Nowhere(), planned),
    )
    took = [max(a - b, 0.0) for a, b in zip(summed, plain, strict=True)]
    shares = ratios(took, writes_s)
    size = sum(tensor.nbytes for one in state.values() for tensor in one.values())
    return Line(
        f"checksums of a save of {size / 1e9:.2g} GB, beside training",
        f"{spread(took, ' s')}; {size / 1e9 / max(median(took), 1e-9):.2g} GB/s",
        f"the whole write {spread(writes_s, ' s')}",
        spread(shares),
        f"goal <= {SHARE}",
        median(shares) <= SHARE,
    )


def _state(scale: Scale) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights and moments by name."""
    generator = torch.Generator().manual_seed(0)
    size = scale.saved // scale.matrices
    return {
        f"layer.{number}.weight": {kind: torch.randn(size, generator=generator) for kind in KINDS}
        for number in range(scale.matrices)
    }
