"""The memory of one GPU of a run, by part, from what is known before anything is allocated.

weights, their float32 masters, moments, EMA        counted from the model's parameters
gathered parameters, buckets                        DeepSpeed's rules (see all_gathers.py)
activations, loss                                   tensors that transformer.py and
                                                    cross_entropy.py keep for their backward
image tokenizer, reserve                            the latter a guess
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from unimodal.cross_entropy import CHUNK_LOGITS
from unimodal.hub.grow import TABLES
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.movq import Movq, MovqConfig
from unimodal.tokenizer.published import PIXELS_AT_ONCE
from unimodal.tokenizer.pyramid import PyramidConfig
from unimodal.tokenizer.vqgan import Vqgan
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel

from ..compact import BYTES_A_NUMBER
from ..optimizer import alike
from ..run import LmRun
from ..zero import EngineConfig
from ..zero_settings import ZeroSettings
from .all_gathers import AllGathers, record

FP32 = 4
MOMENTS = 2  # of AdamW
ACTIVATIONS = 4  # of a published image tokenizer at full resolution, that are there at a time
CONTEXT_BYTES = 2.5e9  # a guess: CUDA's context, NCCL's buffers, kernels' workspaces
FRAGMENTS = 0.05  # a guess: share of the rest that the allocator cannot use
When = Literal["always", "pass", "update"]


@dataclass(frozen=True)
class MemoryItem:
    """Count the bytes of one part of one GPU's memory."""

    name: str
    gpu_bytes: int
    when: When = "always"
    """Whether it is there during the whole run, only in a pass, or only while weights change."""
    host_bytes: int = 0
    """Bytes that lie in the host's memory instead."""
    note: str = ""


@dataclass(frozen=True)
class Work:
    """Say what one rank of a run does in a step."""

    config: LmRun
    shape: TransformerConfig
    tokenizer: TokenizerConfig | PyramidConfig | None
    """The image tokenizer's shape; None: it is not there yet."""
    model: UnifiedModel
    """The model on the meta device."""
    ranks: int
    micro_batch_rows: int
    accumulation: int
    zero: ZeroSettings | None
    """DeepSpeed's settings; None: FSDP2 shards, or nothing does."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Return the elements of each parameter, by name."""
        return {name: one.numel() for name, one in self.model.named_parameters()}

    @cached_property
    def trained(self) -> frozenset[str]:
        """Return the names of the parameters that change: all but with LoRA."""
        return frozenset(name for name, p in self.model.named_parameters() if p.requires_grad)

    @property
    def groups(self) -> int:
        """Return how many groups of parameters the optimizer has, by rate and decay."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return len(alike(named, self.config.optimizer, () if self.config.lora is None else TABLES))

    @property
    def parameters(self) -> int:
        """Return the elements of all parameters."""
        return sum(self.sizes.values())

    @property
    def num_trained(self) -> int:
        """Return the elements of the parameters that change."""
        return sum(self.sizes[name] for name in self.trained)

    @property
    def stage(self) -> int:
        """Return the stage of ZeRO, which for FSDP2 is 3; 0: one process alone."""
        if self.is_fsdp:
            return 3
        return self.zero.stage if self.zero is not None else 0

    @property
    def is_fsdp(self) -> bool:
        """Return whether torch's FSDP2 shards."""
        return self.config.engine.fsdp

    @cached_property
    def cuts(self) -> dict[str, int]:
        """Return the elements of a rank's part of each parameter, with padding: FSDP2 cuts rows."""
        if not self.is_fsdp:
            return {name: math.ceil(size / self.ranks) for name, size in self.sizes.items()}
        return {
            name: math.ceil(one.shape[0] / self.ranks) * math.prod(one.shape[1:])
            for name, one in self.model.named_parameters()
        }

    @cached_property
    def layer_names(self) -> list[list[str]]:
        """Return the names of the parameters that FSDP2 gathers together: each layer's."""
        layers = [f"model.layers.{number}." for number in range(self.shape.num_layers)]
        return [[name for name in self.sizes if name.startswith(one)] for one in layers]

    @property
    def low_bytes(self) -> int:
        """Return the bytes of a number in matrix products."""
        return FP32 if self.config.precision == "fp32" else 2  # GPUs have bfloat16: auto is it

    @property
    def share(self) -> int:
        """Return the elements that one rank steps: under ZeRO-3 of each parameter, with padding."""
        if self.stage < 3:
            return math.ceil(self.num_trained / self.ranks)
        return sum(self.cuts[name] for name in self.trained)

    @property
    def tokens(self) -> int:
        """Return the tokens of a micro-batch; of rows that ranks share, those of one rank."""
        length = self.config.loader.sequence_length // self.config.engine.sequence_parallel
        return self.micro_batch_rows * length

    @cached_property
    def all_gathers(self) -> AllGathers:
        """Return what a micro-batch gathers under ZeRO-3."""
        assert self.zero is not None, "only ZeRO gathers"
        calls = record(self.model, whole_layers=self.config.engine.compile)
        return AllGathers(calls, self.sizes, self.zero, self.accumulation, self.trained)

    @property
    def moment_bytes(self) -> float:
        """Return the bytes of one number of a moment."""
        return BYTES_A_NUMBER if self.config.optimizer.moments == "8bit" else FP32

    @property
    def offloads_optimizer(self) -> bool:
        """Return whether master weights and moments lie in the host's memory."""
        return self.zero is not None and self.zero.offloads_optimizer


def memory_items(run: Work) -> list[MemoryItem]:
    """Return the parts of a GPU's memory."""
    found = [*_state(run), *_buffers(run), *_activations(run), _loss(run), _images(run)]
    some = sum(item.gpu_bytes for item in found if item.when != "update")
    return [*found, MemoryItem("reserve", int(CONTEXT_BYTES + FRAGMENTS * some), note="a guess")]


def _state(run: Work) -> list[MemoryItem]:
    """Return what stays from step to step."""
    share, optimizer = run.share, run.offloads_optimizer
    weights = run.zero is not None and run.zero.offloads_parameters
    held, whole = run.num_trained, run.parameters
    if run.stage == 3:
        held, whole = share, sum(run.cuts.values())
    gradient_bytes = {0: held * FP32, 1: held * FP32, 2: share * FP32, 3: share * FP32}[run.stage]
    if run.stage == 1 and run.low_bytes < FP32:
        gradient_bytes += held * run.low_bytes  # both are kept
    masters = 0 if run.zero is None else share * FP32
    items = [
        _item("weights", whole * (run.low_bytes if run.zero is not None else FP32), weights),
        _item("gradients", gradient_bytes, optimizer),
        _item("master weights", masters, optimizer),
        _item("moments", int(MOMENTS * share * run.moment_bytes), optimizer),
    ]
    if run.config.optimizer.ema_decay is not None:
        items.append(_item("EMA", share * FP32, optimizer))
    return items


def _item(name: str, size: int, is_offloaded: bool) -> MemoryItem:
    if is_offloaded:
        return MemoryItem(name, 0, host_bytes=size, note="on the host")
    return MemoryItem(name, size)


def _buffers(run: Work) -> list[MemoryItem]:
    """Return what communication and the update need for a while."""
    largest = max(run.sizes.values())
    if run.is_fsdp:
        return _fsdp_buffers(run)
    if run.zero is None:
        casts = run.parameters * run.low_bytes if run.low_bytes < FP32 else 0
        return [MemoryItem("weights in bf16", casts, "pass")]
    bucket = run.zero.reduce_bucket_size
    if run.stage < 3:
        num_buckets = 2 if run.zero.overlap_comm else 1
        held = num_buckets * min(bucket, run.num_trained) + largest
        return [MemoryItem("gradient buckets", held * run.low_bytes, "pass")]
    live = run.all_gathers.max_live
    under_way = max(largest, min(run.zero.stage3_prefetch_bucket_size, run.parameters))
    buckets = bucket if run.zero.contiguous_gradients else 0
    scattered = max(largest, min(bucket, run.parameters))
    items = [
        MemoryItem("gathered parameters", (live + under_way) * run.low_bytes, "pass"),
        MemoryItem("gradient bucket", buckets * run.low_bytes),
        MemoryItem("gradients under way", (largest + scattered) * run.low_bytes, "pass"),
    ]
    if not run.offloads_optimizer:
        copied = min(run.zero.sub_group_size, run.share)
        items.append(MemoryItem("gradients of the update", copied * FP32, "update"))
    return items


def _fsdp_buffers(run: Work) -> list[MemoryItem]:
    """Return what is whole for a while: what is in no layer, the layer at work and the one that is
    gathered ahead; and the gradients of the larger of these, once more in float32 to be summed.
    """
    layers = [sum(run.sizes[name] for name in names) for names in run.layer_names]
    root, largest = run.parameters - sum(layers), max(layers)
    gradients = max(root, largest) * (run.low_bytes + FP32)
    return [
        MemoryItem("gathered parameters", (root + 2 * largest) * run.low_bytes, "pass"),
        MemoryItem("gradients under way", gradients, "pass", note="not counted"),
    ]


def layer_activations(shape: TransformerConfig) -> tuple[int, int]:
    """Return how many numbers of one token a layer keeps for its backward pass: in the dtype of
    matrix products, and in float32.
    """
    heads, kv_heads = shape.num_heads * shape.head_width, shape.num_kv_heads * shape.head_width
    residual = 4 * shape.width  # two inputs of norms, two outputs
    attention = heads + 2 * kv_heads + 2 * heads  # q k v, what comes out, and its copy by position
    normed = heads + kv_heads if shape.qk_norm or shape.joint_qk_norm else 0
    mlp = 4 * widest_mlp(shape)  # gate, its silu, up, their product
    if shape.experts is not None:  # what goes into each, and comes out
        mlp += 3 * shape.experts.chosen * shape.width
    return residual + attention + normed + mlp, shape.num_heads  # and each row's log-sum of scores


def widest_mlp(shape: TransformerConfig) -> int:
    """Return the width inside the MLP of a token, or of all its experts together."""
    experts = shape.experts
    return shape.mlp_width if experts is None else experts.chosen * experts.mlp_width


def activation_bytes(shape: TransformerConfig, tokens: int, low_bytes: int, recomputed: int) -> int:
    """Return the bytes that the layers keep of a micro-batch of so many tokens, of which the first
    `recomputed` keep their input alone; one of these is whole at a time.
    """
    layer, stream = _layer_bytes(shape, tokens, low_bytes)
    inside = shape.num_layers - recomputed + (recomputed > 0)
    return recomputed * stream + inside * layer + 3 * stream


def offloaded_bytes(run: Work) -> int:
    """Return the bytes of a micro-batch's activations that go to the host's memory: all but those
    of the layer at work, and the streams around it.
    """
    if not run.config.engine.offload_activations:
        return 0
    layer, stream = _layer_bytes(run.shape, run.tokens, run.low_bytes)
    kept = activation_bytes(run.shape, run.tokens, run.low_bytes, run.model.recompute)
    return kept - layer - 3 * stream


def _layer_bytes(shape: TransformerConfig, tokens: int, low_bytes: int) -> tuple[int, int]:
    """Return the bytes of all activations inside a layer, and those of the residual stream."""
    low, full = layer_activations(shape)
    return tokens * (low * low_bytes + full * FP32), tokens * shape.width * low_bytes


def recomputed_layers(
    engine: EngineConfig, shape: TransformerConfig, tokens: int, low_bytes: int
) -> int:
    """Return how many layers compute their activations again: all, none, or as few as keep within
    the engine's budget. Raises ValueError where all of them do not.
    """
    if engine.activation_gb is None:
        return shape.num_layers if engine.recompute else 0
    for recomputed in range(shape.num_layers + 1):
        needed = activation_bytes(shape, tokens, low_bytes, recomputed)
        if needed <= engine.activation_gb * 1e9:
            return recomputed
    raise ValueError(
        f"engine.activation_gb {engine.activation_gb}: {tokens:,} tokens need {needed / 1e9:.3g} "
        "GB even where every layer computes again; give more, or fewer engine.micro_batch_rows"
    )


def _activations(run: Work) -> list[MemoryItem]:
    recomputed = run.model.recompute
    kept = activation_bytes(run.shape, run.tokens, run.low_bytes, recomputed)
    widest = 3 * widest_mlp(run.shape) + 2 * run.shape.width
    on_host = offloaded_bytes(run)
    how = "kept"
    if recomputed:
        how = f"of {recomputed} of {run.shape.num_layers} layers computed again"
    return [
        MemoryItem("activations", kept - on_host, "pass", on_host, how),
        MemoryItem("their gradients", run.tokens * widest * run.low_bytes, "pass"),
    ]  # fmt: skip


def _loss(run: Work) -> MemoryItem:
    """Return the head's gradient, that of the hidden vectors, and a chunk of logits
    (cross_entropy.py).
    """
    head = run.shape.num_ids * run.shape.width
    gradient = head * FP32 + (head * run.low_bytes if run.low_bytes < FP32 else 0)
    hidden = run.tokens * run.shape.width * run.low_bytes
    chunk = CHUNK_LOGITS["cuda"] * (2 * FP32 + run.low_bytes)
    return MemoryItem("loss", gradient + hidden + chunk, "pass", note="no whole logits")


def _images(run: Work) -> MemoryItem:
    """Return the tokenizer's weights, and a row of images that it encodes."""
    shape = run.tokenizer
    if shape is None:
        return MemoryItem("image tokenizer", 0, note="unknown: it is not there yet")
    if isinstance(shape, PyramidConfig):
        kind = Movq if isinstance(shape, MovqConfig) else Vqgan
        weights = sum(p.numel() for p in kind(shape, None).parameters())
        at_once = ACTIVATIONS * shape.width * max(PIXELS_AT_ONCE, math.prod(shape.canvas))
        return MemoryItem("image tokenizer", FP32 * (weights + at_once))
    with torch.device("meta"):
        weights = sum(p.numel() for p in ImageTokenizer(shape).parameters())
    numbers = shape.autoencoder.encoding_numbers
    return MemoryItem(
        "image tokenizer", FP32 * (weights + run.config.loader.sequence_length * numbers)
    )
