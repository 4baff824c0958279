"""One rank of a real run that counts its own bytes: what `unimodal train plan` must predict.

The bytes of its tensors by part; the bytes that its last step sent by collective, counted where
torch.distributed has them; and under ZeRO-3 the most elements of gathered parameters that were
there at once, counted after each fetch of DeepSpeed's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from batches import batch_of

from unimodal import config as configuration
from unimodal.sequence import Batch
from unimodal.train import lora
from unimodal.train.checkpoint import EMA, MASTER
from unimodal.train.engine import Engine
from unimodal.train.learner import LanguageLearner
from unimodal.train.optimizer import build
from unimodal.train.plan.plan import shape_of
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.zero import Build, ZeroEngine, engine, gather_whole, sharded
from unimodal.transformer import initial_transformer_weight
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

STEPS = 3  # DeepSpeed learns the order of the layers in the first ones
# What a plan calls a collective, and how often each of W ranks sends (W - 1) / W of the tensor.
COLLECTIVES = {
    "all_gather_into_tensor": ("all_gather", 1),
    "reduce_scatter_tensor": ("reduce_scatter", 1),
    "all_reduce": ("all_reduce", 2),
    "all_gather_single": ("all_gather", 1),  # FSDP2's names for the first two
    "reduce_scatter_single": ("reduce_scatter", 1),
}
sent: Counter[str] = Counter()
launched: Counter[str] = Counter()


def count(name: str) -> None:
    """Wrap a collective of torch.distributed."""
    real, (kind, times) = getattr(dist, name), COLLECTIVES[name]

    def counted(*words: Any, **named: Any) -> Any:
        tensors = [one for one in (*words, *named.values()) if isinstance(one, torch.Tensor)]
        whole = max(one.numel() * one.element_size() for one in tensors)
        launched[kind] += 1
        sent[kind] += times * whole * (dist.get_world_size() - 1) // dist.get_world_size()
        return real(*words, **named)

    setattr(dist, name, counted)


def watch() -> None:
    """Count from now on what torch.distributed sends; DeepSpeed must not have met it yet."""
    for name in COLLECTIVES:
        count(name)


def size(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes of the memory that these tensors lie in."""
    stores = [one.untyped_storage() for one in tensors if one is not None]
    return sum({store.data_ptr(): store.nbytes() for store in stores}.values())


class Counted(ZeroEngine):
    """Notes what its gradients take before each update."""

    gradient_bytes = 0
    max_live = 0

    def watch_live(self) -> None:
        """Note from now on, after each fetch, how many elements are gathered or on their way."""
        coordinator = self.zero.parameter_offload.get_param_coordinator()
        fetch = coordinator.fetch_sub_module

        def fetched(*words: Any, **named: Any) -> None:
            fetch(*words, **named)
            parameters: Any = self.learner.parameters()
            live = (p.ds_numel for p in parameters if p.ds_status.name != "NOT_AVAILABLE")
            self.max_live = max(self.max_live, sum(live))

        coordinator.fetch_sub_module = fetched

    def _update(self, factor: float) -> float:
        if self.stage == 3:
            kept = [self.zero.grad_partitions_flat_buffer]
        else:
            averaged = getattr(self.zero, "averaged_gradients", {}).values()
            kept = [one for many in averaged for one in many or []]
            kept += getattr(self.zero, "fp32_groups_gradients_flat", [])
            kept += [parameter.grad for parameter in self.named.values()]
        self.gradient_bytes = size(kept)
        return super()._update(factor)

    def held(self) -> dict[str, int]:
        """Bytes of what stays from step to step."""
        states = [self.zero.optimizer.state[flat] for flat in self._flats()]
        weights: Any = self.learner.parameters()
        return {
            "weights": size(p.ds_tensor if self.stage == 3 else p for p in weights),
            "gradients": self.gradient_bytes,
            "master weights": size(self._flats()),
            "moments": size(one for state in states for key, one in state.items() if key != "step"),
            "EMA": size(self.ema.values()),
        }


def random_rows(config: LmRun, rows: int, vocabulary: Vocabulary) -> Batch:
    """Each row one document, with targets of both kinds."""
    shape = rows, config.loader.sequence_length
    ids, labels = torch.randint(vocabulary.size, (2, *shape))
    return batch_of(vocabulary, ids, labels)


def counts(path: str, ranks: Ranks) -> Mapping[str, Any]:
    """Of a config's model, trained for STEPS steps."""
    config = configuration.load(LmRun, path)
    shape, rows = shape_of(config), config.loader.batch_rows // ranks.world_size
    vocabulary = shape.vocabulary
    bf16 = config.precision == "bf16"
    settings = config.engine.zero(rows, config.optimizer.clip, bf16)
    assert settings is not None, "the bytes of ZeRO are counted"

    def make() -> UnifiedModel:
        bare = UnifiedModel(shape, 0, config.engine.recompute)
        return bare if config.lora is None else lora.adapted(bare, config.lora)

    def first(name: str, of: tuple[int, ...]) -> torch.Tensor:
        return initial_transformer_weight(name, of, shape.transformer, 0)

    filled = first if config.lora is None else lora.fill_adapters(first, 0)
    model = sharded(Build(make, filled), settings, "cpu", ranks)
    if config.engine.compile:  # what is gathered does not depend on what is compiled then
        gather_whole(model.model.layers)
    learner = LanguageLearner(model, config.loss, ())
    run = Counted(
        learner, build(model, config.optimizer), config.schedule, config.optimizer.clip,
        config.optimizer.ema_decay, ranks, settings,
    )  # fmt: skip
    if run.stage == 3:
        run.watch_live()
    counted = _steps(run, config, vocabulary, ranks)
    return counted | {"bytes": run.held(), "max_live": run.max_live}


def fsdp_counts(path: str, ranks: Ranks) -> Mapping[str, Any]:
    """Of a config's model under FSDP2."""
    config = configuration.load(LmRun, path)
    shape, rows = shape_of(config), config.loader.batch_rows // ranks.world_size
    bf16 = config.precision == "bf16"
    settings = config.engine.sharding(rows, config.optimizer.clip, bf16)

    def first(name: str, of: tuple[int, ...]) -> torch.Tensor:
        return initial_transformer_weight(name, of, shape.transformer, 0)

    build = Build(lambda: UnifiedModel(shape, recompute=config.engine.recompute), first)
    learner = LanguageLearner(sharded(build, settings, "cpu", ranks), config.loss, ())
    run = engine(learner, config.optimizer, config.schedule, ranks, settings, config.engine, bf16)
    counted = _steps(run, config, shape.vocabulary, ranks)
    tensors = [one.tensors for one in run.parameter_shards().values()]
    kinds = {"weights": [MASTER], "moments": ["exp_avg", "exp_avg_sq"], "EMA": [EMA]}
    held = {name: size(of.get(kind) for of in tensors for kind in of_name)
            for name, of_name in kinds.items()}  # fmt: skip
    return counted | {"bytes": held}


def _steps(run: Engine, config: LmRun, vocabulary: Vocabulary, ranks: Ranks) -> dict[str, Any]:
    """Take STEPS steps, and return what the last one sent."""
    rows = config.loader.batch_rows // ranks.world_size
    for step in range(STEPS):
        batch = random_rows(config, rows, vocabulary)
        found = run.learner.norms(batch)
        norms = {name: ranks.world_size * value for name, value in found.items()}
        sent.clear(), launched.clear()
        if isinstance(run, Counted):
            run.max_live = 0
        micro_batch_rows = config.engine.micro_batch_rows or rows
        run.step(step, run.learner.micro_batches(batch, micro_batch_rows), norms)
    return {"sent": dict(sent), "launched": dict(launched)}
