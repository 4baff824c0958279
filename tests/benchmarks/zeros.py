"""A step under ZeRO-3 at one rank against the same step of a process alone.

At one rank nothing is sent: what is lost is what ZeRO-3's bookkeeping costs. On a GPU at the shape
of Qwen3-1.7B in bf16, where the bar holds; on a CPU at the small shape of `step`, for the way.
"""

import time
from pathlib import Path
from statistics import median

import torch

from unimodal.architecture import Architecture
from unimodal.train.learner import LanguageLearner
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import Build, EngineConfig, engine, sharded
from unimodal.unified import UnifiedModel, initial_weight

from .gpus import ROW_LENGTH, SHAPE, VOCABULARY
from .measured import Line, spread
from .steps import Scale, packed

ZERO3 = Path(__file__).resolve().parents[2] / "configs" / "zero3.json"
SHARE, SAME = 0.97, {"cuda": 1e-2, "cpu": 1e-5}  # the bar; of the first losses


def lines(scale: Scale) -> list[Line]:
    """One line; without a GPU it has no bar."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    alone_s, alone = measured(scale, None, device)
    zero_s, zero = measured(scale, ZERO3, device)
    share = median(alone_s) / median(zero_s)
    apart = abs(zero - alone) / alone
    return [
        Line(
            "step under ZeRO-3 at one rank" + ("" if device == "cuda" else ", on the CPU"),
            spread(zero_s, " s"),
            f"one process {spread(alone_s, ' s')}",
            f"{share:.3f} of its speed",
            f">= {SHARE} on a GPU",
            share >= SHARE if device == "cuda" else None,
            f"first losses equal to {apart:.0e}",
            () if apart <= SAME[device] else (f"first losses {alone} and {zero}",),
        )
    ]


def measured(scale: Scale, deepspeed: Path | None, device: str) -> tuple[list[float], float]:
    """Seconds of each step after two that warm up, and the loss of the first."""
    on_gpu = device == "cuda"
    shape = Architecture(SHAPE, VOCABULARY) if on_gpu else scale.shape
    rows, sequence_length = (1, ROW_LENGTH) if on_gpu else (scale.rows, scale.sequence_length)
    config = EngineConfig(deepspeed, compile=on_gpu)
    settings = config.zero(rows, 1.0, bf16=on_gpu)

    def fill(name: str, sizes: tuple[int, ...]) -> torch.Tensor:
        return initial_weight(name, sizes, shape.transformer, seed=0)

    model = sharded(Build(lambda: UnifiedModel(shape), fill), settings, device, Ranks())
    learner = LanguageLearner(
        model, LossConfig(), (), device, autocast=on_gpu and deepspeed is None
    )
    schedule = ScheduleConfig(scale.repeats + 2)
    made = engine(learner, OptimizerConfig(), schedule, Ranks(), settings, config, on_gpu)
    batch = packed(shape.vocabulary, rows, sequence_length)
    norms, seconds, losses = learner.norms(batch), [], []
    for step in range(scale.repeats + 2):
        began = time.perf_counter()
        reports, _ = made.step(step, [batch], norms)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(reports["loss"])
    return seconds[2:], losses[0]
