"""Read Hugging Face checkpoints of Llama and its kin (parts.py).

In: a directory or a hub id. Out: the configuration in our form, and where each weight lies; or one
ValueError with every problem, before any work. config_json.py goes the other way: from a
configuration in our form to a config.json. Weights have the same names on both sides, but for
matrices that a family keeps as one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..claims import excess
from ..manifest import MANIFEST
from ..tensors import (
    DTYPES,
    ROWS_BYTES,
    PlannedTensor,
    StoredTensor,
    WeightsError,
    find_tensors,
)
from ..transformer import Transformer, TransformerConfig
from .parts import (
    FAMILIES,
    is_whole,
    language_model,
    language_weights,
    nearest,
    parted,
)
from .pickles import missing_weights
from .rotary import positions, read_rope, rope_problems, ropes

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
BUNDLE_FOLDER = "unimodal"  # the folder of an export that holds all of its bundle but the weights
MARK = "<|unimodal_"  # the start of every special token's spelling in an export
# Files of a checkpoint in which an export still has its special tokens after another program saved
# it.
MARKED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "added_tokens.json", "vocab.json",
)  # fmt: skip
CONFIGS = ("config.json", f"{BUNDLE_FOLDER}/config.json", *MARKED)
WANTED = (
    "*.json",
    "*.safetensors",
    "tokenizer.model",
    f"{BUNDLE_FOLDER}/*",
)  # neither pickles nor code
OLD_BUFFER = re.compile(
    r"(.*\.)?rotary_emb\.inv_freq"
)  # in older checkpoints: it is computed, not loaded
ACTIVATIONS = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}  # ours -> theirs


class CheckpointError(ValueError):
    """A CheckpointError reports every problem of a checkpoint, one per line."""

    def __init__(self, place: Path | str, problems: list[str]):
        self.problems = problems
        between = " " if len(problems) == 1 else "\n  "
        super().__init__(between.join([f"{place}:", *problems]))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A Checkpoint is a directory whose configuration and weights our transformer can use."""

    directory: Path
    family: str
    config: TransformerConfig
    """The configuration; num_ids is the number of rows of the embedding, padding included."""
    weights: dict[str, StoredTensor]
    """The weights by name: exactly the parameters of a `Transformer` of `config`."""


def fetch(source: str, wanted: Sequence[str] = WANTED, revision: str | None = None) -> Path:
    """Return the directory of a checkpoint: `source`, or the hub's cache of the id `source`.

    From the hub, files that match `wanted` are downloaded, of a branch, tag or commit where
    `revision` names one. Raise ValueError where `source` is neither a directory nor an id that the
    hub knows, and for a revision of a directory.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"{source} is a directory, which has no revision {revision}")
        return Path(source)
    if not HUB_ID.fullmatch(source) or source.startswith((".", "~")):
        raise ValueError(f"{source} is no directory, nor an id of the hub (OWNER/NAME)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(wanted)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{source} is no directory, and the hub did not give it: {error}"
        ) from error


def is_export(directory: Path) -> bool:
    """Return whether a checkpoint was exported from a bundle."""
    return (directory / BUNDLE_FOLDER / "config.json").is_file()


def check_grows(directory: Path) -> None:
    """Raise ValueError for a checkpoint whose vocabulary has grown already: an export of ours, with
    its own folder or without, or a bundle.
    """
    if is_export(directory):
        raise ValueError(
            f"{directory} was exported from a bundle: its vocabulary has grown already"
        )
    if (directory / MANIFEST).is_file():
        raise ValueError(
            f"{directory} is a bundle: its vocabulary has grown already; train it with "
            f"weights={directory}"
        )
    if mark := _mark(directory):
        raise ValueError(
            f"{directory} is the export of a bundle that was saved by another program: {mark}, so "
            f"its vocabulary has grown already, and its folder {BUNDLE_FOLDER}/ is missing. To "
            "make the bundle of it again copy that folder from the export that it comes from, or "
            "name that export, or its bundle: --like DIRECTORY"
        )


def _mark(directory: Path) -> str | None:
    """Return where a checkpoint says that it is an export of ours."""
    for name in MARKED:
        path = directory / name
        if path.is_file() and MARK.removeprefix("<").encode() in path.read_bytes():
            return f"{name} has {MARK}...|>"
    path = directory / "config.json"
    return (
        f"config.json has {BUNDLE_FOLDER!r}"
        if path.is_file() and BUNDLE_FOLDER in raw_config(path)
        else None
    )


def read_checkpoint(directory: Path) -> Checkpoint:
    """Return the checkpoint in a directory; raise CheckpointError with all problems."""
    family, config = read_config(directory)
    if problem := missing_weights(directory):
        raise CheckpointError(directory, [problem])
    try:
        weights = find_tensors(directory)
    except WeightsError as error:
        raise CheckpointError(directory, [str(error)]) from error
    if is_whole(raw_config(directory / "config.json")):
        weights = language_weights(weights)
        # Where the whole model says nothing of it, or other than its language model.
        config = replace(config, tied_head="lm_head.weight" not in weights)
    weights = {name: place for name, place in weights.items() if not OLD_BUFFER.fullmatch(name)}
    if config.tied_head:
        weights.pop("lm_head.weight", None)  # a copy of the embedding
    shapes = transformer_shapes(config)
    if config.joined_export:
        weights = parted(weights, shapes)
    if problems := list(weight_problems(shapes, weights)):
        raise CheckpointError(directory, problems)
    return Checkpoint(directory, family, config, weights)


def read_config(directory: Path) -> tuple[str, TransformerConfig]:
    """Return (family, configuration) of a checkpoint; raise CheckpointError with all problems."""
    raw = language_model(raw_config(directory / "config.json"))
    if raw.get("model_type") not in FAMILIES:
        supported = ", ".join(FAMILIES)
        problem = (
            f"model_type {raw.get('model_type')!r} is not supported: one of {supported}; the "
            f"nearest is {nearest(raw)}"
        )
        raise CheckpointError(directory / "config.json", [problem])
    theirs = understood(directory / "config.json", raw)
    return raw["model_type"], transformer_config(directory / "config.json", raw, theirs)


def transformer_config(path: Path, raw: dict[str, Any], theirs: Any) -> TransformerConfig:
    """Return the configuration in our form of a language model's, which may be a section of a whole
    model's; raise CheckpointError with all problems. raw: what stands in the file at `path`.
    theirs: as transformers parses it.
    """
    problems = [*_problems(raw, theirs), *rope_problems(theirs)]
    if not problems:
        try:
            return _ours(theirs)
        except ValueError as error:
            problems = [str(error)]
    raise CheckpointError(path, problems)


def raw_config(path: Path) -> dict[str, Any]:
    """Return the mapping in a config.json; raise CheckpointError where there is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(path.parent, ["there is no config.json: no checkpoint"]) from error
    except ValueError as error:
        raise CheckpointError(path, [f"it is no JSON: {error}"]) from error
    if not isinstance(raw, dict):
        raise CheckpointError(path, ["it is no configuration"])
    return raw


def understood(path: Path, raw: dict[str, Any]) -> Any:
    """Return the configuration as transformers parses it, with the family's defaults filled in;
    raise CheckpointError where it cannot, and for sizes that the weights beside it cannot have.
    """
    from transformers import AutoConfig

    if problem := excess(path, raw):
        raise CheckpointError(path, [problem])
    values = {key: value for key, value in raw.items() if key != "auto_map"}
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:  # its checks raise whatever they like
        raise CheckpointError(path, [f"transformers does not understand it: {error}"]) from error


def _problems(raw: dict[str, Any], theirs: Any) -> Iterator[str]:
    """Yield why our transformer cannot compute what this one does, one sentence each."""
    if raw.get("quantization_config"):
        yield "quantization_config: quantized weights are not read; take the unquantized checkpoint"
    parts = FAMILIES[theirs.model_type].parts if theirs.model_type in FAMILIES else {}
    activation = getattr(theirs, "hidden_activation", None) or theirs.hidden_act
    wanted = ACTIVATIONS[parts.get("activation", "silu")]
    if activation != wanted:
        yield f"hidden_act {activation!r}: only {wanted!r} is supported"
    for name in (
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "use_bidirectional_attention",
    ):
        if getattr(theirs, name, None):
            yield f"{name} {getattr(theirs, name)}: only null or false is supported"
    for name in ("attention_bias", "mlp_bias"):
        if getattr(theirs, name, False):
            yield f"{name}: only Qwen2's biases (of queries, keys and values) are supported"
    if theirs.model_type == "gemma3_text":  # which is taken as far as its window goes
        return
    sliding = [kind for kind in raw.get("layer_types") or () if kind != "full_attention"]
    window = getattr(theirs, "sliding_window", None)
    if window is not None:  # one that is wider than the context hides nothing
        if window >= positions(theirs):
            return
        yield (
            f"sliding_window {window}: our attention sees everything; where no sequence will be"
            " longer than the window, set it to null in config.json"
        )
    elif sliding:
        yield f"layer_types {', '.join(sorted(set(sliding)))}: only full_attention is supported"


def _ours(theirs: Any) -> TransformerConfig:
    """Return a configuration of transformers in our form."""
    heads, (rope, _) = theirs.num_attention_heads, ropes(theirs)
    values = {
        "num_ids": theirs.vocab_size,
        "width": theirs.hidden_size,
        "num_layers": theirs.num_hidden_layers,
        "num_heads": heads,
        "num_kv_heads": theirs.num_key_value_heads,
        "head_width": getattr(theirs, "head_dim", None) or theirs.hidden_size // heads,
        "mlp_width": theirs.intermediate_size,
        "rope_theta": float(rope["rope_theta"]),
        "norm_eps": theirs.rms_norm_eps,
        "tied_head": bool(theirs.tie_word_embeddings),
        "max_positions": positions(theirs),
        "rope": read_rope(rope, theirs.max_position_embeddings),
    }
    if family := FAMILIES.get(theirs.model_type):  # else the language model of a larger one
        values |= {**family.parts, **family.read(theirs)}
    return TransformerConfig(**values)


def weight_problems(
    expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """Yield where the weights do not fit the expected shapes, one sentence each."""
    if missing := sorted(set(expected) - set(weights)):
        yield f"weights are missing: {_few(missing)}"
    if foreign := sorted(set(weights) - set(expected)):
        yield f"weights have no place in this family: {_few(foreign)}"
    for name in sorted(expected.keys() & weights.keys()):
        found = weights[name]
        if found.shape != expected[name]:
            yield (
                f"{name} in {found.path.name} has shape {found.shape}, config.json says "
                f"{expected[name]}"
            )
        if found.dtype not in DTYPES:
            said = f"only {', '.join(DTYPES)} are supported"
            yield f"{name} in {found.path.name} is {found.dtype}: {said}"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def sound(name: str, place: StoredTensor) -> PlannedTensor:
    """Return a tensor that is written as it lies. Writing it raises ValueError where a number of it
    is not finite: damage that no header shows.
    """

    def chunks() -> Iterator[bytes]:
        for chunk in place.chunks():
            if not _is_finite(chunk, DTYPES[place.dtype]):
                raise WeightsError(
                    f"{place.path}: {name} holds numbers that are not finite: it is damaged, fetch "
                    "it again"
                )
            yield chunk

    return PlannedTensor(name, place.dtype, place.shape, chunks)


def _is_finite(chunk: bytes, dtype: torch.dtype) -> bool:
    """Return whether all numbers are, looked at a megabyte at a time: each look copies them."""
    blocks = (bytearray(chunk[at : at + ROWS_BYTES]) for at in range(0, len(chunk), ROWS_BYTES))
    return all(bool(torch.frombuffer(one, dtype=dtype).isfinite().all()) for one in blocks)


def transformer_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of every parameter of a transformer, in the order of the module."""
    with torch.device("meta"):
        parameters = Transformer(config).named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in parameters}
