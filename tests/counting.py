"""One rank of a real run that counts its own bytes: what `unimodal train plan` must foretell.

    torchrun --nproc-per-node 2 -m tests.counting SETTINGS.json OUTPUT.json

SETTINGS: `shape` of a TransformerConfig, `num_text`, `zero` (a DeepSpeed file), `micro_rows`,
`accumulation`, `row_length`, `average`, `recompute`. OUTPUT: bytes of tensors by part, and bytes
that the last of four steps sent, of rank 0. Collectives are counted where torch.distributed has
them, before DeepSpeed takes hold of them.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from unimodal.drawer import NextCode
from unimodal.reader import CodeReader
from unimodal.sequence import Batch
from unimodal.train.engine import Build, EngineConfig, ZeroEngine, engine, sharded, zero_settings
from unimodal.train.learner import LanguageLearner
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import connect
from unimodal.train.schedule import ScheduleConfig
from unimodal.transformer import Transformer, TransformerConfig, initial
from unimodal.vocabulary import Vocabulary

STEPS = 4  # DeepSpeed learns the order of layers in the first ones
# Of a collective over W ranks, each sends so many times (W - 1) / W of the whole tensor.
SHARES = {
    "all_gather_into_tensor": 1,
    "_all_gather_base": 1,
    "reduce_scatter_tensor": 1,
    "_reduce_scatter_base": 1,
    "all_reduce": 2,
}
sent: Counter[str] = Counter()
calls: list[tuple[str, int]] = []


def count(name: str) -> None:
    """Wrap a collective of torch.distributed."""
    real = getattr(dist, name)

    def counted(*words: Any, **named: Any) -> Any:
        tensors = [one for one in (*words, *named.values()) if isinstance(one, torch.Tensor)]
        whole = max(one.numel() * one.element_size() for one in tensors)
        world = dist.get_world_size()
        sent[name] += SHARES[name] * whole * (world - 1) // world
        calls.append((name, whole))
        return real(*words, **named)

    setattr(dist, name, counted)


def batch(rows: int, length: int, vocabulary: Vocabulary) -> Batch:
    """Random rows of one document, half of whose targets are codes."""
    shape = rows, length
    ids = torch.randint(vocabulary.size, shape)
    labels = torch.randint(vocabulary.size, shape)
    zeros = torch.zeros(shape, dtype=torch.int64)
    positions = torch.arange(length).expand(shape).contiguous()
    ones = torch.ones(shape)
    return Batch(ids, labels, ones, zeros, zeros, zeros.bool(), positions, zeros)


def held(run: ZeroEngine) -> dict[str, int]:
    """Bytes of the tensors that stay from step to step."""
    zero = run.zero
    flats = run._flats()
    states = [zero.optimizer.state[flat] for flat in flats]
    weights = [p.ds_tensor for p in run.named.values()] if run.stage == 3 else run.named.values()
    return {
        "weights": size(weights),
        "master weights": size(flats),
        "moments": size(one for state in states for key, one in state.items() if key != "step"),
        "average": size(run.averages.values()),
    }


def gradients(run: ZeroEngine) -> int:
    """Bytes of gradients before an update."""
    zero = run.zero
    if run.stage == 3:
        return size([zero.grad_partitions_flat_buffer])
    kept = [p.grad for p in run.named.values()]
    kept += [getattr(p, "grad_accum", None) for p in run.named.values()]
    kept += getattr(zero, "fp32_groups_gradients_flat", [])
    for many in getattr(zero, "averaged_gradients", {}).values():
        kept += many or []
    stores = {
        one.untyped_storage().data_ptr(): one.untyped_storage() for one in kept if one is not None
    }
    return sum(store.nbytes() for store in stores.values())


class Counted(ZeroEngine):
    """Notes what its gradients take."""

    gradient_bytes = 0

    def _update(self, factor: float) -> float:
        self.gradient_bytes = gradients(self)
        return super()._update(factor)


def size(tensors: Any) -> int:
    """Bytes of tensors."""
    return sum(one.numel() * one.element_size() for one in tensors)


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train STEPS steps."""
    shape = TransformerConfig(**settings["shape"])
    vocabulary = Vocabulary(
        settings["num_text"], shape.num_ids - Vocabulary(settings["num_text"], 0).size
    )
    ranks = connect(60)
    rows, accumulation = settings["micro_rows"], settings["accumulation"]
    zero = zero_settings(
        Path(settings["zero"]), rows, accumulation, 1.0, settings.get("bf16", False)
    )
    build = Build(
        lambda: Transformer(shape, recompute=settings["recompute"]),
        lambda name, of: initial(name, of, shape.num_layers, 0),
    )
    model = sharded(build, zero, "cpu", ranks)
    learner = LanguageLearner(model, CodeReader(), NextCode(vocabulary), LossConfig(), ())
    optimizer = OptimizerConfig(average=settings["average"])
    run = engine(learner, optimizer, ScheduleConfig(9, 1), ranks, zero, EngineConfig(), False)
    assert isinstance(run, ZeroEngine)
    run.__class__ = Counted
    torch.manual_seed(ranks.rank)
    for step in range(STEPS):
        one = batch(rows * accumulation, settings["row_length"], vocabulary)
        norms = {name: 2 * value for name, value in learner.norms(one).items()}
        sent.clear()
        calls.clear()
        run.step(step, learner.parts(one, rows), norms)
    return {
        "bytes": {**held(run), "gradients": run.gradient_bytes},
        "sent": dict(sent),
        "calls": calls,
    }


if __name__ == "__main__":
    for name in SHARES:
        count(name)
    found = main(json.loads(Path(sys.argv[1]).read_text()))
    if dist.get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(found))
