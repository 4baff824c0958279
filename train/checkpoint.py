"""Checkpoints of a run: directories `step_N` that appear whole or not at all, and no pickle.

step_00001000/weights.safetensors  optimizer.safetensors  state.json
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn


class Names:
    """Optimizer state by the names of the parameters that it belongs to."""

    def __init__(self, model: nn.Module):
        self._name_of = {parameter: name for name, parameter in model.named_parameters()}

    def optimizer_tensors(self, optimizers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
        """{parameter name + '/' + state name: tensor} over all optimizers."""
        return {
            f"{self._name_of[cast(nn.Parameter, parameter)]}/{key}": value.detach().contiguous()
            for optimizer in optimizers
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
        }

    def restore(
        self, optimizers: list[torch.optim.Optimizer], tensors: dict[str, torch.Tensor]
    ) -> None:
        """Put such tensors back; a tensor that belongs to nothing is a ValueError."""
        rest = dict(tensors)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    prefix = self._name_of[parameter] + "/"
                    keys = [key for key in rest if key.startswith(prefix)]
                    optimizer.state[parameter] = {
                        key[len(prefix) :]: _like(parameter, rest.pop(key)) for key in keys
                    }
        if rest:
            raise ValueError(f"the checkpoint holds state of no parameter here: {sorted(rest)[:3]}")


def _like(parameter: nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where and how the parameter lies: fused optimizers walk both as flat memory."""
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.device)  # the number of steps
    return torch.empty_like(parameter).copy_(tensor)


def save(
    run: Path, step: int, state: dict[str, Any], write: Callable[[str], None], keep: int
) -> Path:
    """Write the checkpoint after `step` steps and remove all but the `keep` newest."""
    final, new = run / f"step_{step:08d}", run / f".new_step_{step:08d}"
    shutil.rmtree(new, ignore_errors=True)  # of a save that was cut off
    new.mkdir(parents=True)
    try:
        write(str(new))
        (new / "state.json").write_text(json.dumps({"step": step, **state}))
        for file in new.iterdir():
            _flush(file)
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        shutil.rmtree(new, ignore_errors=True)
        raise OSError(
            f"the checkpoint of step {step} cannot be written to {run}: {error}; "
            "earlier ones are whole: make room and run the same command again"
        ) from error
    if final.exists():
        shutil.rmtree(final)
    os.replace(new, final)
    _flush(run)
    for old in found(run)[:-keep]:
        shutil.rmtree(old)
    return final


def found(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(run.glob("step_*"))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `save` was given beside the step, with the step."""
    return json.loads((checkpoint / "state.json").read_text())


def _flush(path: Path) -> None:
    """Make a file or a directory's entries outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
