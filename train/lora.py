"""Train a large model by low-rank adapters (LoRA): few numbers change, and no old weight.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), eq. 3 and
section 4.1: W x becomes W x + (alpha / rank) B A x, where A (rank, in) begins at random, B (out,
rank) at zero, and W is frozen. What growth brought trains whole: the rows of special tokens and
image codes in the embedding and in a head of its own (see `LanguageLearner`).

peft makes the layers. It names them so, and the weights beside them stay what they are:

    ...q_proj.base_layer.weight  ...q_proj.lora_A.default.weight  ...q_proj.lora_B.default.weight
"""

import importlib.util
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor

from unimodal.architecture import Architecture
from unimodal.atomic import replacing
from unimodal.bundle_config import BundleConfig
from unimodal.hub.checkpoint import transformer_shapes
from unimodal.hub.grow import TABLES
from unimodal.hub.parts import parts_of, whole_of
from unimodal.tensors import ROWS_BYTES, StoredTensor, in_memory, write_file
from unimodal.tokenizer.initial import normal
from unimodal.tower import TOWER
from unimodal.unified import TRANSFORMER, UnifiedModel

from .checkpoint import EMA, MASTER, Checkpoint
from .initial import Fill

T = TypeVar("T", bound=UnifiedModel)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE, A, B = ".base_layer.", ".lora_A.default.", ".lora_B.default."


@dataclass(frozen=True)
class LoraConfig:
    """Configure adapters beside frozen weights."""

    rank: int = 16
    alpha: int = 32
    """The numerator of the factor alpha / rank on what the adapters add."""
    targets: tuple[str, ...] = TARGETS
    """The matrices of every layer that get an adapter."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {getattr(self, name)}: at least 1"
            for name in ("rank", "alpha")
            if getattr(self, name) < 1
        ]
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            found.append(f"targets {list(self.targets)}: some of {', '.join(TARGETS)}")
        return found


def check_installed() -> None:
    """Raise ValueError where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError("lora: peft is not installed; pip install 'unimodal[train]'")


def adapted(transformer: T, config: LoraConfig) -> T:
    """The same transformer with adapters: these train, the tables of ids where growth brought them
    rows, and an image head's own parts; nothing else does.
    """
    from peft import inject_adapter_in_model

    # Not into a vision tower, which has matrices of these names too.
    inject_adapter_in_model(_peft(config, init_lora_weights=False), transformer.model)
    tables = TABLES if has_new_rows(transformer.architecture) else ()
    for name, parameter in transformer.named_parameters():
        is_new = name in tables or not name.startswith(TRANSFORMER) and parameter.requires_grad
        parameter.requires_grad_(is_new or A in name or B in name)
    return transformer


def has_new_rows(shape: Architecture) -> bool:
    """Return whether the tables of ids have rows that growth brought, as a published model that
    draws has not.
    """
    return shape.num_rows > shape.vocabulary.num_text


def fill_adapters(fill: Fill, seed: int) -> Fill:
    """Return how to fill an adapted transformer: with `fill`, and adapters that add nothing yet, a
    pure function of (seed, name).
    """

    def filled(name: str, shape: tuple[int, ...]) -> Tensor:
        if A in name:  # the variance that nn.Linear begins with, as in the authors' own code
            return normal(seed, name, shape, 1 / math.sqrt(3 * shape[1]))
        return torch.zeros(shape) if B in name else fill(_plain(name), shape)

    return filled


@dataclass(frozen=True, eq=False)
class Merge:
    """Add the adapters of a checkpoint to the frozen weights that they are beside."""

    stored: Mapping[str, StoredTensor]
    """Where the frozen weights lie, by plain names."""
    config: LoraConfig

    def changes(self, checkpoint: Checkpoint, name: str) -> bool:
        """Return whether the checkpoint has an adapter beside the weight of a plain name."""
        return _beside(name)[0] in checkpoint.shapes

    def blocks(self, checkpoint: Checkpoint, name: str) -> Iterator[Tensor]:
        """Give the weight of a plain name with its adapter added, some rows at a time, float32:
        W + (alpha / rank) B A.
        """
        name_a, name_b = _beside(name)
        rank, place = self.config.rank, self.stored[name]
        a_rI = checkpoint.whole(name_a, kept(checkpoint, name_a))
        kind = kept(checkpoint, name_b)
        height = max(1, ROWS_BYTES // (4 * math.prod(place.shape[1:])))
        with safe_open(place.path, "pt") as file:
            weight = file.get_slice(name)
            for start in range(0, place.shape[0], height):
                stop = min(start + height, place.shape[0])
                flat = checkpoint.read(name_b, kind, start * rank, stop * rank)
                added_nI = self.config.alpha / rank * (flat.view(-1, rank) @ a_rI)
                yield weight[start:stop].float() + added_nI


def kept(checkpoint: Checkpoint, name: str) -> str:
    """Return which weights of a parameter a run hands on: EMA where it has one, else MASTER."""
    return EMA if EMA in checkpoint.kinds[name] else MASTER


def write_adapter(
    output: Path, checkpoint: Checkpoint, config: LoraConfig, of: BundleConfig
) -> None:
    """Write what a checkpoint trained as peft has it: `PeftModel.from_pretrained` puts it on the
    Hugging Face export of the bundle that the run began from.
    """
    first = of.vocabulary.num_text
    tensors, new_rows = {}, {}
    for name, shape in checkpoint.shapes.items():
        kind = kept(checkpoint, name)
        if name in TABLES:
            module = name.removesuffix(".weight")
            flat = checkpoint.read(name, kind, first * shape[1])
            tensors[f"{module}.token_adapter.trainable_tokens_delta"] = flat.view(-1, shape[1])
            new_rows[module.rpartition(".")[2]] = list(range(first, shape[0]))
        elif not name.startswith(TOWER):  # which no export has
            tensors[name.replace(".default.", ".")] = checkpoint.whole(name, kind)
    joined = of.transformer.joined_export
    if joined:
        tensors = _joined(tensors, transformer_shapes(of.transformer))
    output.mkdir(exist_ok=True)
    planned = [in_memory(f"base_model.model.{name}", tensor) for name, tensor in tensors.items()]
    with replacing(output / "adapter_model.safetensors") as fresh, fresh.open("wb") as stream:
        write_file(stream, planned, {"format": "pt"})
    _peft(
        config, joined, trainable_token_indices=new_rows, task_type="CAUSAL_LM", inference_mode=True
    ).save_pretrained(output)


def _joined(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return adapters with those of matrices that an export joins as one: the A's below each other,
    the B's as blocks of a diagonal, so that B A is the parts' products below each other.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = whole_of(name)
        if whole is None:
            found[name] = tensor
            continue
        parts = [(tensors.get(part), part) for part in parts_of(whole)]
        if ".lora_A." in name:
            found[whole] = torch.cat([a_rI for a_rI, _ in parts if a_rI is not None])
        else:
            heights = [shapes[part.replace(".lora_B.", ".")][0] for _, part in parts]
            blocks = [torch.zeros(n, 0) if b_Or is None else b_Or
                      for (b_Or, _), n in zip(parts, heights, strict=True)]  # fmt: skip
            found[whole] = torch.block_diag(*blocks)
    return found


def _peft(config: LoraConfig, joined: bool = False, **values: Any) -> Any:
    """Return peft's configuration; with `joined` that of the matrices that an export has."""
    from peft import LoraConfig as Theirs

    counts = dict.fromkeys(config.targets, 1)
    if joined:  # the ranks of parts add up, and so do their alphas
        counts = Counter((whole_of(f".{one}.") or f".{one}.").strip(".") for one in config.targets)
        more = {name: times for name, times in counts.items() if times > 1}
        values["rank_pattern"] = {name: times * config.rank for name, times in more.items()}
        values["alpha_pattern"] = {name: times * config.alpha for name, times in more.items()}
    return Theirs(r=config.rank, lora_alpha=config.alpha, target_modules=list(counts), **values)


def _beside(name: str) -> tuple[str, str]:
    """Return the names of the adapter's A and B beside the weight of a plain name."""
    stem, leaf = name.rpartition(".")[::2]
    return f"{stem}{A}{leaf}", f"{stem}{B}{leaf}"


def _plain(name: str) -> str:
    return name.replace(BASE, ".")
