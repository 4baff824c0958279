"""Read the image tokenizers of published models: Chameleon's, Janus' and Emu3's.

In: a directory or a hub id of the whole model, or of its image tokenizer alone. Out: a tokenizer
with the published weights; or one ValueError with every problem. config.json is read first, and of
a large model only the files that hold the image tokenizer are fetched. Nothing is unpickled.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from unimodal.tokenizer.movq import Movq
from unimodal.tokenizer.published import PublishedTokenizer
from unimodal.tokenizer.pyramid import PyramidConfig
from unimodal.tokenizer.vqgan import Vqgan

from ..claims import excess
from ..tensors import (
    DTYPES,
    INDEX,
    SINGLE,
    StoredTensor,
    WeightsError,
    files_of_index,
    find_tensors,
)
from .checkpoint import CheckpointError, fetch, raw_config
from .pickles import missing_weights, pickle_in, refusal

PREFIXES = ("model.vqmodel.", "vqmodel.")  # of the image tokenizer's weights in a whole model
TRAINING = {"dropout", "attention_dropout", "initializer_range", "beta"}  # say nothing of use
# Keys that transformers writes into any configuration, in this version or an older one.
GENERAL = {
    "torch_dtype", "auto_map", "add_cross_attention", "bad_words_ids", "begin_suppress_tokens",
    "cross_attention_hidden_size", "decoder_start_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "is_decoder", "prefix", "pruned_heads",
    "remove_invalid_values", "sep_token_id", "suppress_tokens", "task_specific_params",
    "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class",
    "torchscript", "use_bfloat16", "_attn_implementation_autoset",
}  # fmt: skip
LATENT = {
    "embed_dim": "code_width",
    "num_embeddings": "num_codes",
    "latent_channels": "latent_width",
    "base_channels": "width",
    "channel_multiplier": "multipliers",
    "num_res_blocks": "num_blocks",
}
PIXELS = {"in_channels": 3, "out_channels": 3, "double_latent": False}
Values = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A Family says how the configuration and the weights of one `model_type` are to be read."""

    tokenizer: type[PublishedTokenizer]
    keys: Mapping[str, str]
    """Their names of our settings."""
    fixed: Values
    """Keys of which one value alone is supported."""
    ignored: frozenset[str]
    """Keys that say nothing of the image tokenizer."""
    more: Callable[[Values, Values], Iterator[str]]
    """Adds to our settings (first) what theirs (second) imply; yields problems."""
    own_keys: frozenset[str] = frozenset()
    """Keys that `more` reads."""
    forward: bool = False
    """Whether decoder.up counts from the coarsest level."""


@dataclass(frozen=True, eq=False)
class ImageCheckpoint:
    """An ImageCheckpoint is what a config.json says of an image tokenizer."""

    family: Family
    settings: Values
    is_whole_model: bool

    @property
    def config(self) -> PyramidConfig:
        """Return the tokenizer's configuration, as if it had a decoder."""
        return self.family.tokenizer.config_class(**self.settings)

    def wanted(self, name: str) -> bool:
        """Return whether a weight of this stored name belongs to the image tokenizer."""
        return not self.is_whole_model or name.startswith(PREFIXES)


def _chameleon(ours: Values, theirs: Values) -> Iterator[str]:
    """Attention stands at levels of given sides in pixels, where the image has `resolution`."""
    side = theirs.get("resolution", 512)
    ours["canvas"] = (side, side)
    kind = theirs.get("attn_type", "vanilla")
    if kind not in ("vanilla", "none", None):
        yield f"attn_type {kind!r}: 'vanilla' or 'none'"
    ours["middle_attention"] = kind == "vanilla"
    sides = theirs.get("attn_resolutions") or () if kind == "vanilla" else ()
    levels = len(ours.get("multipliers", Vqgan.config_class().multipliers))
    ours["attention"] = tuple(at for at in range(levels) if side // 2**at in sides)


def _janus(ours: Values, theirs: Values) -> Iterator[str]:
    """Attention stands at the last level; vectors have length one (LlamaGen's rule, which the
    class of transformers does not follow when it encodes).
    """
    ours.setdefault("num_codes", 16384)
    ours.setdefault("code_width", 8)
    levels = len(ours.get("multipliers", Vqgan.config_class().multipliers))
    side = theirs.get("num_patches", 32) * 2 ** (levels - 1)
    ours |= {"canvas": (side, side), "attention": (levels - 1,), "is_normalised": True}
    return iter(())


def _emu3(ours: Values, theirs: Values) -> Iterator[str]:
    """Attention stands at given levels, as wide as `hidden_size` says, which must fit them."""
    config = Movq.config_class(**ours)
    wide = config.width * config.multipliers[-1]
    if theirs.get("hidden_size", wide) != wide:
        yield f"hidden_size {theirs['hidden_size']}: the last level has {wide} channels"


EMU3 = {
    "codebook_size": "num_codes",
    "embed_dim": "code_width",
    "attn_resolutions": "attention",
    "temporal_downsample_factor": "num_frames",
    "num_res_blocks": "num_blocks",
}
FAMILIES = {
    "chameleon_vqgan": Family(
        Vqgan, LATENT, PIXELS, frozenset(), _chameleon,
        frozenset({"resolution", "attn_resolutions", "attn_type"}),
    ),
    "janus_vqgan": Family(
        Vqgan, LATENT, PIXELS,
        frozenset({"projection_dim", "num_hidden_layers", "hidden_act", "image_token_embed_dim"}),
        _janus, frozenset({"num_patches"}), forward=True,
    ),
    "emu3_vqgan": Family(
        Movq,
        EMU3 | {
            "latent_channels": "latent_width", "base_channels": "width",
            "channel_multiplier": "multipliers",
        },
        PIXELS | {"num_attention_heads": 1}, frozenset(), _emu3, frozenset({"hidden_size"}),
    ),
    "Emu3VisionVQ": Family(
        Movq, EMU3 | {"z_channels": "latent_width", "ch": "width", "ch_mult": "multipliers"},
        {"in_channels": 3, "out_channels": 3, "double_z": False}, frozenset(), _emu3,
    ),
}  # fmt: skip
WHOLE = {
    "chameleon": "chameleon_vqgan", "janus": "janus_vqgan", "emu3": "emu3_vqgan",
    "gemma": "chameleon_vqgan",  # Liquid, beside which Chameleon's is put
}  # fmt: skip


def fetch_image_tokenizer(source: str) -> Path:
    """Return the directory of a model's image tokenizer: `source`, or the hub's cache of that id,
    with those files alone that hold the image tokenizer.

    Raise ValueError where it cannot be read, before weights are downloaded.
    """
    directory = fetch(source, ("config.json", INDEX))
    checkpoint = read_image_config(directory)
    if Path(source).is_dir():
        return directory
    has_index = (directory / INDEX).is_file()
    files = files_of_index(directory, checkpoint.wanted) if has_index else [SINGLE]
    return fetch(source, ("config.json", INDEX, *files))


def read_image_config(directory: Path) -> ImageCheckpoint:
    """Return what a config.json says of the image tokenizer; raise CheckpointError with all
    problems, which name the keys.
    """
    path = directory / "config.json"
    if not path.is_file() and (pickled := pickle_in(directory)):
        raise CheckpointError(directory, [refusal(pickled)])
    raw = raw_config(path)
    model_type = raw.get("model_type")
    if model_type not in {*FAMILIES, *WHOLE}:
        supported = ", ".join([*WHOLE, *FAMILIES])
        problem = f"model_type {model_type!r} has no known image tokenizer: one of {supported}"
        raise CheckpointError(path, [problem])
    if beyond := excess(path, raw):
        raise CheckpointError(path, [beyond])
    is_whole = model_type in WHOLE
    theirs = _section(path, raw) if is_whole else raw
    family = FAMILIES[WHOLE[model_type] if is_whole else model_type]
    settings, problems = _settings(family, theirs)
    if problems:
        raise CheckpointError(path, problems)
    return ImageCheckpoint(family, settings, is_whole)


def read_image_tokenizer(directory: Path) -> PublishedTokenizer:
    """Return the image tokenizer of a model in a directory; raise CheckpointError with all
    problems.
    """
    checkpoint = read_image_config(directory)
    if problem := missing_weights(directory):
        raise CheckpointError(directory, [problem])
    try:
        stored = find_tensors(directory, checkpoint.wanted)
    except WeightsError as error:
        raise CheckpointError(directory, [str(error)]) from error
    if not stored:
        raise CheckpointError(directory, [f"no weight begins with {' or '.join(PREFIXES)}"])
    settings = dict(checkpoint.settings)
    named = dict(_named(checkpoint, stored))
    if checkpoint.family.tokenizer is Vqgan:
        settings["has_decoder"] = any(name.startswith("decoder.") for name in named)
        if not settings["has_decoder"]:  # of no use then
            named = {n: t for n, t in named.items() if not n.startswith("post_quant_conv.")}
    try:
        config = checkpoint.family.tokenizer.config_class(**settings)
        return checkpoint.family.tokenizer(config, {n: _read(n, *t) for n, t in named.items()})
    except ValueError as error:
        files = sorted({str(place.path) for _, place in named.values()})
        raise CheckpointError(", ".join(files), [f"its image tokenizer: {error}"]) from error


def _section(path: Path, raw: Values) -> Values:
    """Return what a whole model's config.json says of its image tokenizer."""
    theirs = raw.get("vq_config") or {}
    if not isinstance(theirs, dict):
        raise CheckpointError(path, ["vq_config is no configuration"])
    if raw["model_type"] == "janus":  # whose own configuration derives it, whatever vq_config says
        vision = raw.get("vision_config") or {}
        side = vision.get("image_size", 384) // vision.get("patch_size", 16)
        theirs = theirs | {"num_patches": side}
    return theirs


def _settings(family: Family, theirs: Values) -> tuple[Values, list[str]]:
    """Return our settings, by name, and what is not understood, one sentence each."""
    known = {*family.keys, *family.fixed, *family.ignored, *family.own_keys, *TRAINING}
    problems = [
        f"{key} {theirs[key]!r} is not understood"
        for key in sorted(theirs.keys() - known - _general_keys())
    ]
    problems += [
        f"{key} {theirs[key]!r}: only {value!r} is supported"
        for key, value in family.fixed.items()
        if theirs.get(key, value) != value
    ]
    ours: Values = {
        name: tuple(theirs[key]) if isinstance(theirs[key], list) else theirs[key]
        for key, name in family.keys.items()
        if theirs.get(key) is not None
    }
    try:
        problems += family.more(ours, theirs)
        problems += family.tokenizer.config_class(**ours).problems()
    except (TypeError, ValueError, IndexError) as error:  # values of other types
        problems.append(f"it is not understood: {error}")
    return ours, problems


def _general_keys() -> set[str]:
    from transformers import GenerationConfig, PreTrainedConfig

    return GENERAL | set(PreTrainedConfig().to_dict()) | set(GenerationConfig().to_dict())


def _named(
    checkpoint: ImageCheckpoint, stored: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, tuple[str, StoredTensor]]]:
    """Yield (our name, (stored name, tensor)) of the weights that are used."""
    levels = len(checkpoint.config.multipliers)
    flipped = partial(_flipped, levels)
    for full, place in stored.items():
        prefix = next((p for p in PREFIXES if full.startswith(p)), "")
        name = full.removeprefix(prefix)
        # The losses' networks lie beside the weights in the authors' own files.
        if name.startswith("loss.") or name.endswith(".num_batches_tracked"):
            continue
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        if checkpoint.family.forward:
            name = re.sub(r"^decoder\.up\.(\d+)", flipped, name)
        yield name, (full, place)


def _flipped(levels: int, match: re.Match[str]) -> str:
    return f"decoder.up.{levels - 1 - int(match[1])}"


# From the names of `Emu3VQVAE` of transformers to the authors', which are also VQGAN's.
RENAMED = (
    (r"\b(down|up)_block\.\1\b", r"\1"),
    (r"\bmiddle_block\.attn_norm\b", "mid.attn_1.norm"),
    (r"\bmiddle_block\b", "mid"),
    (r"\battn_norms\.(\d+)", r"attn.\1.norm"),
    (r"\b([qkv])_proj\b", r"\1"),
    (r"\bout_proj\b", "proj_out"),
)


def _read(name: str, full: str, place: StoredTensor) -> torch.Tensor:
    """Return a stored weight as float32; those of linear attention become 1 x 1 convolutions."""
    if place.dtype not in DTYPES:
        raise ValueError(f"{full} is {place.dtype}: only {', '.join(DTYPES)} are supported")
    with safe_open(place.path, "pt") as file:
        tensor = file.get_tensor(full).float()
    is_linear = tensor.ndim == 2 and re.search(r"\.attn[._]\d+\.(q|k|v|proj_out)\.weight$", name)
    return tensor[..., None, None] if is_linear else tensor
