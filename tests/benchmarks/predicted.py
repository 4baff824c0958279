"""How well a language model learns to draw with a quantizer's codes.

For each contender: an image tokenizer trained on scenes, the model of configs/scenes_lm.yaml
trained on conversations about others, and its drawings judged by `unimodal eval scenes`. The bits
that it needs for a pixel of held-out images break ties.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.train import metrics

from . import contenders
from .commands import ROOT, call, cpu_file, cpu_minutes, scenes, scored
from .contenders import Contender
from .markdown import interval

BATCH, PIXELS = 16, 64 * 64
ROW_POSITIONS = 4 * 1024  # of a step of scenes_lm
HELD_OUT_SEED = 1_000_003
HEAD = (
    "quantizer", "drawing", "drawing over what its codes can show", "bits a pixel, held out",
    "PSNR of scenes, dB", "scenes read right", "CPU min, tokenizer", "CPU min, model",
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """What every contender gets."""

    scenes: int
    tokenizer_steps: int
    positions: int
    samples: int
    precision: str

    @property
    def model_steps(self) -> int:
        """The steps of the language model."""
        return math.ceil(self.positions / ROW_POSITIONS)

    @property
    def title(self) -> str:
        """What the table says of it."""
        return (
            f"Tokenizers: {self.tokenizer_steps:,} steps of {BATCH} scenes of 64 x 64 pixels, out "
            f"of {self.scenes:,}. Language model of configs/scenes_lm.yaml: {self.model_steps:,} "
            f"steps of {ROW_POSITIONS:,} positions, the same conversations for all; "
            f"{self.precision}, one thread. {self.samples} drawings of each of six tasks"
        )


def scores(contender: Contender, budget: Budget, folder: Path) -> dict[str, Any]:
    """Train and measure a contender, as far as it is not."""
    log = folder / "logs" / f"{contender.name}.txt"
    images = scenes(folder / "images", budget.scenes, 1, log, "--kind", "images")
    talks = scenes(folder / "conversations", budget.scenes, 2, log)
    fresh = scenes(folder / "held_out", max(64, budget.scenes // 100), HELD_OUT_SEED, log)
    steps = contenders.Budget(budget.tokenizer_steps, BATCH, budget.precision, lr=2e-3)
    run = contenders.trained(contender, steps, images, folder)
    model = language_model(contender, budget, run / "tokenizer", (talks, fresh), folder, log)
    ceiling = scored(
        run, file=folder / "scores" / f"{contender.name}-tokenizer.json", images=None,
        samples=max(100, budget.samples), log=log,
    )["scores"]  # fmt: skip
    drawn = _drawn(contender, model / "bundle", budget, folder, log)
    loss = metrics.read(model)[-1]["held_out.fresh.image"]
    return {
        "drawing": drawn["drawing"]["overall"],
        "over_ceiling": drawn["drawing"]["over_ceiling"],
        "bits": loss / math.log(2) * 64 / PIXELS,
        "psnr_db": ceiling["psnr_db"],
        "right": ceiling["right"],
        "minutes": [cpu_minutes(run), cpu_minutes(model)],
    }


def language_model(
    contender: Contender, budget: Budget, tokenizer: Path, shards: tuple[Path, Path], folder: Path,
    log: Path,
) -> Path:  # fmt: skip
    """Train the model, as far as it is not, and return its run's folder."""
    output, steps = folder / "models" / contender.name, budget.model_steps
    compiled = str(budget.precision == "bf16").lower()
    if not (output / "bundle").exists():
        call(
            "train", "lm", ROOT / "configs/scenes_lm.yaml", f"output={output}",
            f"tokenizer={tokenizer}", f"sources.scenes.shards={shards[0]}",
            f"held_out.sources.fresh.shards={shards[1]}", f"schedule.num_steps={steps}",
            f"schedule.warmup_steps={min(100, steps // 10)}", f"schedule.decay_steps={steps // 3}",
            f"precision={budget.precision}", f"engine.compile={compiled}", "loop.num_threads=1",
            "loop.save_every_steps=200",
            log=log, cpu=cpu_file(output),
        )  # fmt: skip
    return output


def _drawn(
    contender: Contender, bundle: Path, budget: Budget, folder: Path, log: Path
) -> dict[str, Any]:
    """The scores of its drawings."""
    file = folder / "scores" / f"{contender.name}-drawing.json"
    if not file.exists():
        call(
            "eval", "scenes", "--model", bundle, "--tasks", "drawing", "--samples", budget.samples,
            "--predictions", file.with_suffix(".jsonl"), "--json", file, log=log,
        )  # fmt: skip
    return json.loads(file.read_text())["scores"]


def cells(kind: str, found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    return [
        kind, interval(found["drawing"], 3), interval(found["over_ceiling"], 3),
        f"{found['bits']:.4f}", interval(found["psnr_db"], 2), interval(found["right"], 3),
        *(f"{one:.1f}" for one in found["minutes"]),
    ]  # fmt: skip
