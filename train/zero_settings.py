"""Read DeepSpeed's settings of a run: those of its JSON file, and those that the run decides."""

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from unimodal.config import shipped

# What the run's own settings decide, so that a DeepSpeed file must not.
OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
    "torch_autocast",
)

# What would cut the model or the rows otherwise than the run knows.
PARALLEL = {
    "tensor_parallel": (
        "AutoTP leaves each rank the gradient of its own heads alone in the norms that all heads "
        "share (qk_norm), and cuts weights by columns, which checkpoints of flat ranges do not "
        "hold; take stage 3, or engine.fsdp"
    ),
    "pipeline": "the model is no sequence of stages; take stage 3",
    "expert_parallel": "stage 3 shards all weights alike; leave it out",
    "sequence_parallel_size": "ranks share rows by engine.sequence_parallel",
    "data_parallel_size": "it follows from the ranks and engine.sequence_parallel",
}


@dataclass(frozen=True)
class ZeroSettings:
    """Hold what is needed of a file's section `zero_optimization`, by DeepSpeed's names and with
    its defaults; sizes are elements.
    """

    deepspeed: dict[str, Any]
    """The whole file and the run's own settings, as DeepSpeed takes them."""
    stage: int
    offloads_optimizer: bool
    """Whether master weights and moments lie in the host's memory."""
    offloads_parameters: bool
    """Whether weights lie in the host's memory."""
    overlap_comm: bool = False
    contiguous_gradients: bool = True
    reduce_bucket_size: int = 500_000_000
    stage3_prefetch_bucket_size: int = 50_000_000
    stage3_param_persistence_threshold: int = 100_000
    stage3_model_persistence_threshold: int = sys.maxsize
    stage3_max_live_parameters: int = 1_000_000_000
    stage3_max_reuse_distance: int = 1_000_000_000
    sub_group_size: int = 1_000_000_000

    @classmethod
    def read(
        cls, path: Path, micro_batch_rows: int, accumulation: int, clip: float, bf16: bool
    ) -> "ZeroSettings":
        """Read a JSON file and add what the run decides.

        Raises ValueError where the file decides that too, or asks for what cannot be done.
        """
        given, zero = _section(path)
        ours = {
            "train_micro_batch_size_per_gpu": micro_batch_rows,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": clip,
            "bf16": {"enabled": bf16},
            "data_types": {"grad_accum_dtype": "fp32", **given.get("data_types", {})},
            "zero_allow_untested_optimizer": True,  # AdamW works on flat ranges as on tensors
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
        }
        names = {field.name for field in fields(cls)}
        return cls(
            deepspeed=given | ours,
            offloads_optimizer=_device(zero, "offload_optimizer") != "none",
            offloads_parameters=_device(zero, "offload_param") != "none",
            **{name: _whole(value) for name, value in zero.items() if name in names},
        )


def _section(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the file and its section zero_optimization, once nothing in them is a problem."""
    try:
        given = json.loads(shipped(path, ".json").read_text())
        zero = given["zero_optimization"]
        stage = zero["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"engine.deepspeed {path}: no JSON with zero_optimization.stage ({error!r})"
        ) from error
    problems = [f"{name}: the run's own settings decide it" for name in OURS if name in given]
    problems += [f"{name}: {why}" for name, why in PARALLEL.items() if name in given]
    if stage not in (1, 2, 3):
        problems.append(f"zero_optimization.stage {stage}: 1, 2 or 3")
    for name in ("offload_optimizer", "offload_param"):
        if _device(zero, name) == "nvme":
            problems.append(f"zero_optimization.{name}: to cpu, not to nvme")
    if problems:
        raise ValueError(f"engine.deepspeed {path}: " + "; ".join(problems))
    return given, zero


def _device(zero: dict[str, Any], name: str) -> str:
    return (zero.get(name) or {}).get("device", "none")


def _whole(value: Any) -> Any:
    """Return a number of elements that is written as 5e8 as an int."""
    return int(value) if isinstance(value, float) else value
