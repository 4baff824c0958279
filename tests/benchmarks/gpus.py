"""What needs a GPU: utilisation of a training step, and memory of the loss.

FLOPs are counted as train/flops.py does.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from statistics import median

import torch

from unimodal.architecture import Architecture
from unimodal.cross_entropy import linear_cross_entropy
from unimodal.sequence import MODALITIES, Batch
from unimodal.train.flops import document_counts, step_flops
from unimodal.train.objectives import LossConfig, language
from unimodal.train.optimizer import OptimizerConfig, build
from unimodal.train.precision import has_fp8, in_float8
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

from .heads import inputs
from .measured import Line, spread
from .steps import Scale, packed

TFLOPS, LOSS_GB = 500, 2.5  # the bars
VOCABULARY = Vocabulary.new(151_936, 64_000)
SHAPE = TransformerConfig(
    VOCABULARY.size, 2048, 28, 16, 8, 128, 6144, rope_theta=1e6, qk_norm=True, max_positions=8192
)  # Qwen3-1.7B's
ROW_LENGTH, LOSS_POSITIONS = 8192, 65_536
NEEDS = "needs a GPU"
FP8 = "the same step with layers in fp8 (torchao)"


def lines(scale: Scale) -> list[Line]:
    """Empty where there is no GPU."""
    step = f"step at Qwen3-1.7B's shape, {VOCABULARY.size:,} ids, rows of {ROW_LENGTH:,}, bf16"
    loss = f"memory of the loss, {LOSS_POSITIONS:,} positions, {VOCABULARY.size:,} ids, bf16"
    if not torch.cuda.is_available():
        return [
            Line(step, NEEDS, bar=f">= {TFLOPS} TFLOP/s"),
            Line(FP8, NEEDS),
            Line(loss, NEEDS, bar=f"<= {LOSS_GB} GB"),
        ]
    batch = packed(VOCABULARY, 1, ROW_LENGTH).to("cuda")
    seconds = timed(training(batch), scale.repeats)
    counts = document_counts(batch)
    for number, name in enumerate(MODALITIES, start=1):
        counts[f"targets_{name}"] = float((batch.modality == number).sum())
    head_ids = {"text": VOCABULARY.num_words, "image": VOCABULARY.num_codes}
    rates = [step_flops(SHAPE, counts, head_ids) / s / 1e12 for s in seconds]
    speed = counts["tokens"] / median(seconds)
    held = torch.cuda.max_memory_allocated() / 1e9
    fp8 = spread([1e3 * s for s in timed(training(batch, True), scale.repeats)], " ms") if (
        has_fp8() and find_spec("torchao")
    ) else "needs float8 arithmetic and torchao"  # fmt: skip
    gigabytes = loss_gigabytes()
    return [
        Line(
            step, spread(rates, " TFLOP/s"), f"{speed:,.0f} positions/s",
            f"{held:.0f} GB held",
            f">= {TFLOPS} TFLOP/s", median(rates) >= TFLOPS,
        ),
        Line(FP8, fp8, spread([1e3 * s for s in seconds], " ms in bf16")),
        Line(
            loss, f"{gigabytes:.2f} GB, both gradients included", bar=f"<= {LOSS_GB} GB",
            met=gigabytes <= LOSS_GB,
        ),
    ]  # fmt: skip


def training(batch: Batch, fp8: bool = False) -> Callable[[], None]:
    """A whole step as `train lm` takes it with precision bf16, or fp8, and compile."""
    torch.set_float32_matmul_precision("high")
    with torch.device("cuda"):
        model = UnifiedModel(Architecture(SHAPE, VOCABULARY))
    if fp8:
        in_float8(model.model.layers)
    for layer in model.model.layers:
        layer.compile()
    optimizers = build(model, OptimizerConfig(), "model.layers.", torch.bfloat16)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            losses = language(model, batch, LossConfig())
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def timed(work: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of each of `repeats` runs after three that warm up."""
    found = []
    for _ in range(3 + repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return found[3:]


def loss_gigabytes() -> float:
    """What the loss holds at most beyond its inputs, gradients included."""
    hidden_ND, head_VD, targets = inputs(VOCABULARY, SHAPE.width, LOSS_POSITIONS)
    moved = [x.detach().to("cuda", torch.bfloat16).requires_grad_() for x in (hidden_ND, head_VD)]
    placed = [
        replace(one, at_M=one.at_M.cuda(), ids_M=one.ids_M.cuda(), weights_M=one.weights_M.cuda())
        for one in targets
    ]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_cross_entropy(*moved, placed)[0].backward()
    return (torch.cuda.max_memory_allocated() - before) / 1e9
