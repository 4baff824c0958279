"""Small runs that one process and two ranks must agree on.

Of every global batch the first half of the rows is text alone and the second half image codes
alone, with unequal numbers of targets, so that rank 0 never sees what rank 1 learns from.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flow_cases
import pytest
import scale_models
import torch
import towers

from unimodal.architecture import Architecture, ImageConfig
from unimodal.bundle import read_contents
from unimodal.heads import head_class
from unimodal.sequence import IGNORE, PADDING, Batch
from unimodal.tensors import find_tensors
from unimodal.train.checkpoint import MASTER, newest
from unimodal.train.engine import Engine, NotFinite
from unimodal.train.fsdp import FsdpEngine
from unimodal.train.initial import fill_from, from_checkpoint
from unimodal.train.learner import LanguageLearner
from unimodal.train.lora import LoraConfig, adapted, fill_adapters
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig, whole_shape
from unimodal.train.ranks import Ranks
from unimodal.train.saver import Saver
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.sequence_parallel import SequenceGroup
from unimodal.train.zero import Build, EngineConfig, engine, sharded
from unimodal.transformer import TransformerConfig, initial_transformer_weight
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

NUM_STEPS, HALF, ROWS, T = 4, 2, 8, 48
EMPTY = 1  # a step whose second half of the rows is padding alone, as where an epoch ends
VOCABULARY = Vocabulary.new(96, 64)
LEVELS = (4, 4, 4)  # of its codes, where they are factorised
LORA = LoraConfig(4, 6, ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"))
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Case:
    """What differs between the runs."""

    stage: int | None = None
    """Of ZeRO; None: one process without DeepSpeed, unless"""
    fsdp: bool = False
    """FSDP2 shards."""
    bf16: bool = False
    accumulation: int = 1
    tied: bool = True
    compile: bool = False
    recompute: bool = False
    ema_decay: float | None = None
    weights: str | None = None
    """A grown bundle to begin from, with its shape and vocabulary."""
    spoil: int | None = None
    """A step before which a weight becomes infinite on every rank."""
    resume: str | None = None
    """A run's folder, whose newest checkpoint is gone on from."""
    save: str | None = None
    """A folder for a checkpoint after HALF of the steps."""
    factorised: bool = False
    addresses: bool = False
    residual_lambdas: bool = False
    value_embeddings: bool = False
    head: str = "next_code"
    tower: str = ""
    """Whether images of the second half of the rows are given to a vision tower that is `frozen` or
    `trained`; none: they are codes."""
    sequence_parallel: int = 1
    num_heads: int = 2
    num_kv_heads: int = 1
    length: int = T
    """Tokens of a row."""
    lora: bool = False
    """Adapters train beside the frozen weights of a grown bundle, the rows of its own ids are kept.
    """


def shape(case: Case) -> Architecture:
    if case.weights:
        return read_contents(Path(case.weights)).config.architecture
    if case.head == "flow":
        sizes = flow_cases.VOCABULARY.size, 32, 2, case.num_heads, case.num_kv_heads, 16, 64
        transformer = TransformerConfig(*sizes, tied_head=case.tied, qk_norm=True)
        latents = {"latent_width": flow_cases.LATENT_WIDTH, "flow": flow_cases.FLOW}
        image = ImageConfig(case.head, (), case.addresses, False, **latents)
        return Architecture(transformer, flow_cases.VOCABULARY, image)
    head = head_class(case.head)
    has_rows = head.code_rows
    vocabulary = Vocabulary.new(96, 64, head.special_tokens)
    if case.head == "scale":
        vocabulary = scale_models.VOCABULARY
    num_ids = vocabulary.size if has_rows else vocabulary.num_words
    sizes = num_ids, 32, 2, case.num_heads, case.num_kv_heads, 16, 64
    transformer = TransformerConfig(
        *sizes,
        tied_head=case.tied,
        qk_norm=True,
        residual_lambdas=case.residual_lambdas,
        value_embeddings=case.value_embeddings,
    )
    levels = LEVELS if case.factorised or not has_rows else ()
    tower = replace(towers.SMALL, trained=case.tower == "trained") if case.tower else None
    image = ImageConfig(case.head, levels, case.addresses, code_rows=has_rows, tower=tower)
    return Architecture(transformer, vocabulary, image)


def batch(step: int, vocabulary: Vocabulary) -> Batch:
    """Half of the rows are text, half are image codes; the last quarter of the codes is padding,
    in step EMPTY all of them.
    """
    rng = torch.Generator().manual_seed(step)
    text = torch.randint(0, vocabulary.num_text, (ROWS // 2, T), generator=rng)
    codes = torch.randint(*vocabulary.code_slice, (ROWS // 2, T), generator=rng)
    ids = torch.cat([text, codes])
    labels = torch.cat([ids[:, 1:], torch.full((ROWS, 1), IGNORE)], 1)
    doc = (torch.arange(T) // 20).expand(ROWS, T).to(torch.int32).clone()
    doc[ROWS // 2 :, 0 if step == EMPTY else 3 * T // 4 :] = PADDING
    labels[(doc == PADDING) | (torch.rand(ROWS, T, generator=rng) < 0.2)] = IGNORE
    zeros = torch.zeros(ROWS, T, dtype=torch.int32)
    block = private = zeros
    if "mask" in vocabulary.special_tokens:
        ids, labels, block = masked(ids, labels, doc, vocabulary)
        private = (block == 1).to(torch.int32)
    is_code = torch.from_numpy(vocabulary.is_code(labels.numpy()))
    place = torch.arange(T).expand(ROWS, T)
    address = torch.stack([place // 8 + 1, place % 8 + 1], dim=-1) * is_code[..., None]
    return Batch(
        ids=ids,
        labels=labels,
        weights=torch.rand(ROWS, T, generator=rng) * (labels != IGNORE),
        modality=(labels != IGNORE).to(torch.int8) + is_code.to(torch.int8),
        block=block,
        private=private,
        positions=(torch.arange(T) % 20).expand(ROWS, T),
        address=address.to(torch.int16),
        doc=doc,
        source=zeros.to(torch.int16),
        spans=((),) * ROWS,
    )


def masked(
    ids: torch.Tensor, labels: torch.Tensor, doc: torch.Tensor, vocabulary: Vocabulary
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels and blocks of the same rows where each image is a masked copy, block 1, and its
    codes behind it, block 2.
    """
    is_image = (torch.arange(ROWS) >= ROWS // 2)[:, None] & (doc != PADDING)
    is_copy = is_image & (torch.arange(T) % 20 < 10)
    codes = ids.roll(-10, 1)
    is_masked = is_copy & (labels != IGNORE)
    ids = torch.where(is_masked, vocabulary.special("mask"), torch.where(is_copy, codes, ids))
    labels = torch.where(is_masked, codes, torch.where(is_image, IGNORE, labels))
    return ids, labels, (is_image.int() + (is_image & ~is_copy).int()).to(torch.int32)


def whole_batch(step: int, case: Case) -> Batch:
    """The batch that a case's head learns from."""
    if case.head == "flow":
        return flow_cases.batch(step, ROWS, case.length, step == EMPTY)
    if case.head == "scale":
        return scale_models.batch(step, ROWS, case.length, step == EMPTY)
    whole = batch(step, shape(case).vocabulary)
    return replace(whole, spans=towers.given_spans(step, ROWS)) if case.tower else whole


def rows_of(whole: Batch, ranks: Ranks) -> Batch:
    return whole.split(ROWS // ranks.data_size)[ranks.data_rank]


def made(case: Case, ranks: Ranks) -> Engine:
    """The engine of a case."""
    ranks = replace(ranks, sequence_parallel=case.sequence_parallel)
    whole, each = shape(case), ROWS // ranks.data_size
    micro_batch_rows = max(1, each // case.accumulation)
    settings = EngineConfig(
        None if case.stage is None else CONFIGS / f"zero{case.stage}.json",
        case.fsdp, micro_batch_rows, case.recompute, case.compile,
    )  # fmt: skip
    sharding = settings.sharding(each, 0.5, case.bf16)

    def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return initial_transformer_weight(name, shape, whole.transformer, seed=3)

    fill = fill_from(find_tensors(Path(case.weights))) if case.weights else drawn
    saved = newest(Path(case.resume)) if case.resume else None
    fill = from_checkpoint(saved, fill) if saved else fill

    def make() -> UnifiedModel:
        bare = UnifiedModel(whole, recompute=case.recompute)
        return adapted(bare, LORA) if case.lora else bare

    build = Build(make, fill_adapters(fill, 3) if case.lora else fill)
    model = sharded(build, sharding, "cpu", ranks)
    group = SequenceGroup.of(ranks, timeout_s=120)
    frozen_rows = whole.vocabulary.num_text if case.lora else 0
    learner = LanguageLearner(
        model, LossConfig(z=1e-3), ("only",), frozen_rows=frozen_rows, group=group
    )
    optimizer = OptimizerConfig(lr=1e-2, weight_decay=0.1, clip=0.5, ema_decay=case.ema_decay)
    schedule = ScheduleConfig(NUM_STEPS, warmup_steps=1)
    found = engine(learner, optimizer, schedule, ranks, sharding, settings, case.bf16)
    if saved is not None:
        found.restore(saved)
    return found


def steps(found: Engine, case: Case) -> list[dict]:
    """Reports and the gradient's norm of each step."""
    ranks, reports = found.ranks, []
    for step in range(HALF if case.resume else 0, NUM_STEPS):
        if case.save and step == HALF:
            saver = Saver(Path(case.save), ranks, keep=1, keep_every=None, timeout_s=60)
            saver.save(step, {"data": None}, found.parameter_shards())
            saver.wait()
            ranks.together(lambda: None)
        mine = rows_of(whole_batch(step, case), ranks)
        norms = found.learner.norms(mine)
        summed = ranks.all_reduce_sum(
            torch.tensor(list(norms.values()), dtype=torch.float64)
        ).tolist()
        rows = max(1, len(mine.ids) // case.accumulation)
        micro_batches = found.learner.micro_batches(mine, rows)
        if step == case.spoil:
            spoil(found)
        try:
            losses, norm = found.step(step, micro_batches, dict(zip(norms, summed, strict=True)))
        except NotFinite as error:
            return [*reports, {"stopped": str(error), "unchanged": unchanged(found)}]
        reports.append({**losses, "norm": norm})
    return reports


def alone(case: Case) -> list[dict]:
    """The same in one process."""
    twin = of_one(case)
    return steps(made(twin, Ranks()), twin)


def of_one(case: Case) -> Case:
    """The case of one process that shares nothing, in float32."""
    return replace(case, stage=None, fsdp=False, bf16=False, compile=False, sequence_parallel=1)


def same(ours: list[dict], expected: list[dict]) -> None:
    assert len(ours) == len(expected) > 0
    for step, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.keys() == other.keys()
        for name in one:
            # AdamW's first steps are signs of gradients: where one is nearly 0, rounding, which
            # differs between processors, moves a weight. Norms of later gradients show it most.
            rel = 5e-5 if name == "norm" else 1e-5
            close = pytest.approx(other[name], rel=rel, abs=1e-5)
            assert one[name] == close, f"{name} of step {step}"


def spoil(found: Engine) -> None:
    """From here on gradients of the first matrix are infinite, and losses are not."""
    weight = next(one for one in found.named.values() if len(whole_shape(one)) == 2)
    if isinstance(found, FsdpEngine):  # it takes whole gradients where no hook of a shard sees them
        layer = found.learner.model.model.layers[0]
        layer.register_forward_hook(lambda *call: _infinite(call[-1]))
    else:
        weight.register_hook(lambda gradient: gradient * torch.inf)
    found.before = {
        name: shard.tensors[MASTER].clone() for name, shard in found.parameter_shards().items()
    }


def _infinite(output: torch.Tensor) -> None:
    output.register_hook(lambda gradient: gradient * torch.inf)


def unchanged(found: Engine) -> bool:
    now = {name: shard.tensors[MASTER] for name, shard in found.parameter_shards().items()}
    return all(torch.equal(now[name], before) for name, before in found.before.items())


def run(case: dict[str, Any], ranks: Ranks) -> list[dict]:
    """Return the reports of a case that came as JSON."""
    made_of = Case(**case)
    return steps(made(made_of, ranks), made_of)


def measured(case: dict[str, Any], ranks: Ranks) -> dict[str, float]:
    """Return what a batch that every rank has reports, without a step."""
    made_of = Case(**case)
    return made(made_of, ranks).measure(whole_batch(0, made_of), None)
