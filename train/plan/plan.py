"""Predict what a run will take: memory, traffic, arithmetic and time of each GPU.

In: a run's config and the GPUs. Out: bytes by part (see memory.py), whether they fit, and if not
what to change. Nothing is allocated, only small files are downloaded, and no GPU is needed.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from unimodal.architecture import Architecture, ImageConfig
from unimodal.bundle import ROOM_BYTES
from unimodal.bundle_config import read_config
from unimodal.data.learned_text import TEXT_IDS
from unimodal.families.published import is_published
from unimodal.heads import head_class
from unimodal.image_tokenizers import tokenizer_config
from unimodal.tensors import BYTES
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

from .. import sequence_parallel
from ..finish import DTYPE
from ..flops import step_flops
from ..initial import ShapeConfig
from ..lora import LoraConfig, adapted
from ..published_weights import read_architecture, weights_directory
from ..room import Room, steps_saved
from ..run import LmRun
from ..tower import given_tower
from .assumptions import USUAL, Assumptions
from .memory import (
    FP32,
    MOMENTS,
    MemoryItem,
    Work,
    memory_items,
    offloaded_bytes,
    recomputed_layers,
)
from .traffic import Transfer, traffic, transfer

GB = 1e9
FP32_SPEED = 67 / 989  # of an H100 or H200 in float32 over that in bfloat16
# Settings of DeepSpeed that change what is held or sent in ways that are not predicted.
UNPLANNED = {
    "mics_shard_size": -1,
    "zero_hpz_partition_size": 1,
    "zero_quantized_gradients": False,
    "zero_quantized_nontrainable_weights": False,
    "zero_quantized_weights": False,
    "stage3_module_granularity_threshold": 0,
    "stage3_use_all_reduce_for_fetch_params": False,
}
STAGES = ("zero3.json", "zero3_offload.json")  # in configs/; the second needs less memory


@dataclass(frozen=True)
class Gpu:
    """Say what a GPU can do in a second."""

    limit_flops: float
    """FLOPs of packed rows when nothing but matrix products and attention takes time."""
    likely_flops: float
    """FLOPs that the best runs of comparable models reach."""
    memory_bytes: float
    """Bytes read from or written to its memory."""
    host_bytes: float = 50e9
    """Bytes to or from the host's memory (PCIe 5)."""


GPUS = {
    "H200": Gpu(657e12, 459e12, 4.3e12),
    "H100": Gpu(657e12, 459e12, 3.0e12),
}


@dataclass(frozen=True)
class Plan:
    """Hold the forecast for one GPU of a run."""

    parameters: int
    trained: int
    """How many parameters change."""
    shape: TransformerConfig
    num_gpus: int
    gpu: str
    memory_gb: float
    stage: int
    """The stage of ZeRO, 3 with FSDP2; 0: one process alone."""
    is_fsdp: bool
    micro_batch_rows: int
    accumulation: int
    tokens: int
    """Tokens of a step, over all GPUs."""
    memory: list[MemoryItem]
    sent_bytes: dict[str, int]
    """Bytes sent in a step, by collective."""
    launched: dict[str, int]
    """Collectives of a step, by kind."""
    transfer: Transfer
    """Seconds that they take, were nothing computed beside."""
    flops: float
    """Useful FLOPs of a step, over all GPUs; each row one document, half of whose targets are
    codes."""
    computed_s: float
    """Seconds of a step's likely arithmetic, what is computed again included."""
    limit_s: float
    likely_s: float
    """Seconds of a step."""
    checkpoint_bytes: int
    """Bytes of a checkpoint of all ranks together."""
    disk_bytes: int
    """Bytes of the checkpoints that are kept, of the one that is being written and of the bundle.
    """
    host_bytes: int
    """Bytes of one rank: what is offloaded, and the copy of a checkpoint that is being written."""
    change: dict[str, Any] = field(default_factory=dict)
    """Settings with which it fits; empty where it fits, or where none was found."""

    @property
    def total_bytes(self) -> int:
        """Return the most bytes that are there at once."""
        by_when = {when: 0 for when in ("always", "pass", "update")}
        for item in self.memory:
            by_when[item.when] += item.gpu_bytes
        return by_when["always"] + max(by_when["pass"], by_when["update"])

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a part of the GPU's memory."""
        return sum(item.gpu_bytes for item in self.memory if item.name == name)

    @property
    def fits(self) -> bool:
        """Return whether the GPU's memory holds them."""
        return self.total_bytes <= self.memory_gb * GB

    @property
    def tokens_per_s(self) -> float:
        """Return the tokens a second of all GPUs, at the likely pace."""
        return self.tokens / self.likely_s

    def as_json(self) -> dict[str, Any]:
        """Return all numbers, by name."""
        found = asdict(self)
        more = ("total_bytes", "fits", "tokens_per_s")
        return found | {name: getattr(self, name) for name in more} | {"predicted": True}


def plan(
    config: LmRun,
    num_gpus: int,
    memory_gb: float,
    gpu: str = "H100",
    num_ids: int | None = None,
    assumed: Assumptions = USUAL,
    suggest: bool = True,
) -> Plan:
    """Return the forecast; with `suggest`, the changes that make it fit where it does not.

    Raises ValueError for a config that cannot run on so many GPUs, or whose model cannot be known.
    """
    shape = shape_of(config, num_ids)
    made = _plan(config, shape, num_gpus, memory_gb, gpu, assumed)
    if made.fits or not suggest:
        return made
    return replace(made, change=_change(config, shape, made))


def shape_of(config: LmRun, num_ids: int | None = None) -> Architecture:
    """Return the model's shape, with its vision tower: the bundle's, or else that of the `model`
    section with `num_ids` ids (None: those of its tokenizers).
    """
    shape = _shape_without_tower(config, num_ids)
    given = given_tower(config.tower, shape if config.weights is not None else None)
    tower = None if given is None else given.tower
    return replace(shape, image=replace(shape.image, tower=tower))


def _shape_without_tower(config: LmRun, num_ids: int | None) -> Architecture:
    if config.weights is not None:
        bundle = weights_directory(config.weights, config.output)
        # A path that is not there yet reads like an id of the hub: the `model` section goes first.
        if is_published(bundle) and (bundle.is_dir() or config.model is None):
            return read_architecture(bundle.as_posix())
        if (bundle / "config.json").exists():
            return read_config(bundle / "config.json").architecture
    if config.weights is not None and config.model is None:
        raise ValueError(
            f"weights {config.weights}: no bundle is there yet; give the model section of the "
            "config, so that its shape is known"
        )
    tokenizer, model = tokenizer_config(config.tokenizer), config.model or ShapeConfig()
    if tokenizer is None and (num_ids is None or model.uses_levels):
        raise ValueError(
            f"tokenizer {config.tokenizer}: no image tokenizer is there, so the number of ids "
            "is unknown; train it first, or say --num-ids, with model.head next_code and without "
            "model.factorised"
        )
    levels, num_codes = ((), 1) if tokenizer is None else (tokenizer.levels, tokenizer.num_codes)
    latent_width = tokenizer.latent_width if isinstance(tokenizer, TokenizerConfig) else 0
    num_text = config.text_ids or TEXT_IDS
    if num_ids is not None:
        num_text = num_ids - len(model.vocabulary(1, 1).special_tokens) - num_codes
    return model.of(model.vocabulary(num_text, num_codes), levels, latent_width)


def _plan(
    config: LmRun,
    shape: Architecture,
    num_gpus: int,
    memory_gb: float,
    gpu: str,
    assumed: Assumptions = USUAL,
) -> Plan:
    run = _run(config, shape, num_gpus)
    found = memory_items(run)
    sent = traffic(run)
    flops = _flops(run)
    kinds = 1 + MOMENTS + (config.optimizer.ema_decay is not None)
    checkpoint = FP32 * kinds * run.num_trained
    loop, bundle_bytes = config.loop, ROOM_BYTES + BYTES[DTYPE] * run.parameters
    room = Room(checkpoint, bundle_bytes, loop.keep_checkpoints, loop.keep_every_steps)
    coming = steps_saved(0, config.schedule.num_steps, loop.save_every_steps)
    host = sum(item.host_bytes for item in found) + checkpoint // num_gpus
    took = transfer(sent, num_gpus, assumed)
    computed_s, limit_s, likely_s = _times(run, flops, took.seconds, GPUS[gpu])
    return Plan(
        parameters=run.parameters,
        trained=run.num_trained,
        shape=shape.transformer,
        num_gpus=num_gpus,
        gpu=gpu,
        memory_gb=memory_gb,
        stage=run.stage,
        is_fsdp=run.is_fsdp,
        micro_batch_rows=run.micro_batch_rows,
        accumulation=run.accumulation,
        tokens=config.loader.batch_rows * config.loader.sequence_length,
        memory=found,
        sent_bytes=sent.sent_bytes,
        launched=sent.launched,
        transfer=took,
        flops=flops,
        computed_s=computed_s,
        limit_s=limit_s,
        likely_s=likely_s,
        checkpoint_bytes=checkpoint,
        disk_bytes=room.needed_bytes((), coming),
        host_bytes=host,
    )


def _run(config: LmRun, shape: Architecture, num_gpus: int) -> Work:
    if not config.engine.shards and num_gpus > 1:
        raise ValueError(
            f"{num_gpus} GPUs need engine.deepspeed, such as engine.deepspeed=configs/zero3.json, "
            "or engine.fsdp=true"
        )
    if config.loader.sequence_length > shape.transformer.max_positions:
        raise ValueError(
            f"loader.sequence_length {config.loader.sequence_length} exceeds the model's "
            f"max_positions {shape.transformer.max_positions}"
        )
    if problems := config.rank_problems(num_gpus):
        raise ValueError("; ".join(problems))
    size, model = config.engine.sequence_parallel, shape.transformer
    heads = model.num_heads, model.num_kv_heads
    if problem := sequence_parallel.problem(size, *heads, config.loader.sequence_length):
        raise ValueError(problem)
    rows = config.rank_rows(num_gpus)
    settings = config.engine.zero(rows, config.optimizer.clip, config.precision != "fp32")
    if settings is not None and config.optimizer.muon_lr is not None:
        raise ValueError("optimizer.muon_lr: not with engine.deepspeed; leave it out")
    zero = {} if settings is None else settings.deepspeed["zero_optimization"]
    if unplanned := [name for name, usual in UNPLANNED.items() if zero.get(name, usual) != usual]:
        raise ValueError(
            f"engine.deepspeed {config.engine.deepspeed}: what {', '.join(unplanned)} would do is "
            "not predicted; plan with a file that leaves it out"
        )
    micro_batch_rows = min(config.engine.micro_batch_rows or rows, rows)
    accumulation = math.ceil(rows / micro_batch_rows)
    tokens = micro_batch_rows * config.loader.sequence_length // size
    low_bytes = FP32 if config.precision == "fp32" else 2
    recomputed = recomputed_layers(config.engine, shape.transformer, tokens, low_bytes)
    return Work(
        config, shape.transformer, tokenizer_config(config.tokenizer),
        _model(config, shape, recomputed), num_gpus, micro_batch_rows, accumulation, settings,
    )  # fmt: skip


def _model(config: LmRun, shape: Architecture, recomputed: int) -> UnifiedModel:
    ids = shape.vocabulary.num_text, shape.vocabulary.num_codes
    return _meta_model(shape.transformer, shape.image, ids, config.lora, recomputed)


@cache
def _meta_model(
    transformer: TransformerConfig,
    image: ImageConfig,
    ids: tuple[int, int],
    lora: LoraConfig | None,
    recomputed: int,
) -> UnifiedModel:
    """Return the model on the meta device; many settings are tried on the same one."""
    with torch.device("meta"):
        more = head_class(image.head).special_tokens
        shape = Architecture(transformer, Vocabulary.new(*ids, more), image)
        model = UnifiedModel(shape, recompute=recomputed)
        return model if lora is None else adapted(model, lora)


def _flops(run: Work) -> float:
    rows, length = run.config.loader.batch_rows, run.config.loader.sequence_length
    tokens = rows * length
    counts = {
        "tokens": tokens,
        "pairs": rows * length * (length + 1) / 2,
        "targets_text": tokens / 2,
        "targets_image": tokens / 2,
    }
    head_ids = {
        "text": run.model.architecture.vocabulary.num_words,
        "image": run.model.head.num_targets,
    }
    return step_flops(run.shape, counts, head_ids)


def _times(run: Work, flops: float, sent_s: float, gpu: Gpu) -> tuple[float, float, float]:
    """Return seconds of the likely arithmetic, and of a step (at the GPU's limit, likely).

    Traffic hides behind arithmetic as far as it can; the update hides behind nothing, nor do
    activations on their way to the host and back.
    """
    done = flops / run.ranks * (1 + run.model.recompute / run.shape.num_layers / 3)
    if run.low_bytes == FP32:
        done /= FP32_SPEED
    masters = 2 * FP32 * (1 + MOMENTS) + 3 * FP32  # read and written; and the gradient, twice read
    alone_s = run.share * masters / gpu.memory_bytes
    if run.offloads_optimizer:
        alone_s = run.share * (FP32 + run.low_bytes + masters) / gpu.host_bytes
    # There and back, and nothing is computed meanwhile (offloading.py).
    alone_s += 2 * offloaded_bytes(run) * run.accumulation / gpu.host_bytes
    least_s, computed_s = done / gpu.limit_flops, done / gpu.likely_flops
    return computed_s, max(least_s, sent_s) + alone_s, max(computed_s, sent_s) + alone_s


def _change(config: LmRun, shape: Architecture, tight: Plan) -> dict[str, Any]:
    """Return the first of these changes with which it fits: each alone, then all up to each."""
    halves = tight.micro_batch_rows
    is_less = config.engine.recompute or config.engine.activation_gb is not None
    single: list[dict[str, Any]] = [] if is_less else [{"engine.recompute": True}]
    while halves % 2 == 0:
        halves //= 2
        single.append({"engine.micro_batch_rows": halves})
    later = STAGES[STAGES.index("zero3.json") :] if tight.stage < 3 else STAGES[-1:]
    single += [{"engine.deepspeed": f"configs/{name}"} for name in later if not tight.is_fsdp]
    single += [{"gpus": tight.num_gpus * times} for times in (2, 4, 8, 16)]
    together: list[dict[str, Any]] = [{}]
    for one in single:
        together.append(together[-1] | one)
    for change in [*single, *together[1:]]:
        if _fits(config, shape, tight, change):
            return change
    return {}


def _fits(config: LmRun, shape: Architecture, tight: Plan, change: dict[str, Any]) -> bool:
    named = {name.removeprefix("engine."): value for name, value in change.items() if "." in name}
    if "deepspeed" in named:
        named["deepspeed"] = Path(named["deepspeed"])
    changed = replace(config, engine=replace(config.engine, **named))
    try:
        gpus = change.get("gpus", tight.num_gpus)
        return _plan(changed, shape, gpus, tight.memory_gb, tight.gpu).fits
    except ValueError:  # rows that do not divide
        return False
