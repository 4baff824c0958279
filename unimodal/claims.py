"""Claims are the sizes that a config.json says; no more are believed than its weights can have.

Layers, tables of ids and lists of kinds of layers are made by these sizes before a weight is read:
a damaged or forged file would take all time and memory. So a least number of bytes is counted from
them, one for each weight, and compared with the files, or with what is known of these.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from .memory import free_bytes
from .tensors import INDEX, WeightsError, weight_files

# (rows, width): weights have `width` numbers for each of so many; without the second key, one.
MATRICES = (
    ("num_ids", "width"), ("num_layers", "width"), ("num_heads", "width"),
    ("num_kv_heads", "head_width"), ("mlp_width", "width"), ("number", "width"),
    ("vocab_size", "hidden_size"), ("num_hidden_layers", "hidden_size"),
    ("num_attention_heads", "hidden_size"), ("num_key_value_heads", "head_dim"),
    ("intermediate_size", "hidden_size"), ("moe_intermediate_size", "hidden_size"),
    ("num_experts", "hidden_size"), ("num_local_experts", "hidden_size"),
    ("num_embeddings", "embed_dim"), ("codebook_size", "embed_dim"), ("latent_channels", ""),
    ("z_channels", ""), ("num_res_blocks", "base_channels"), ("num_res_blocks", "ch"),
    ("width", ""), ("head_width", ""), ("code_width", ""), ("latent_width", ""),
    ("hidden_size", ""), ("head_dim", ""), ("embed_dim", ""), ("base_channels", ""), ("ch", ""),
)  # fmt: skip
LAYERS = ("num_layers", "num_hidden_layers", "num_res_blocks")
LAYER_BYTES = 512  # what a file's header takes at least for the names of a layer's weights
# Sizes of MLPs that no layer may have, where layers have experts instead.
UNUSED = {"mlp_width": "experts", "intermediate_size": "moe_intermediate_size"}
FEW_BYTES = 2**20  # so many do no harm, and what reads the weights says what is wrong with them
ID_BYTES = 8  # of an id in a table of all


def excess(path: Path, tree: Mapping[str, Any]) -> str | None:
    """Return which size of a config.json, at `path`, its weights cannot have; None where they can
    have all.

    The weights are the safetensors beside it; where they are yet to be fetched, what their index
    says, and in any case no more than the disk holds.
    """
    words, least = max(_least(tree, ""), key=lambda one: one[1], default=("", 0))
    num_bytes = _weight_bytes(path.parent)
    if least <= max(num_bytes, FEW_BYTES):
        return None
    return (
        f"{words} takes {least:,} bytes of weights or more, and its weights have {num_bytes:,}: "
        "one of the two is damaged, fetch it again"
    )


def excess_of_bundle(path: Path, tree: Mapping[str, Any]) -> str | None:
    """Return what `excess` does of a bundle's config.json, or that its vocabulary has more ids than
    there is memory for in a table of all.
    """
    vocabulary = tree.get("vocabulary")
    size = max(_ids(vocabulary) if isinstance(vocabulary, Mapping) else (), default=0)
    free = free_bytes(torch.device("cpu"))
    if size * ID_BYTES <= free:
        return excess(path, tree)
    return (
        f"vocabulary: a table of {size:,} ids takes {size * ID_BYTES:,} bytes, and {free:,} are "
        "free: it is damaged, fetch it again"
    )


def _ids(vocabulary: Mapping[str, Any]) -> Iterator[int]:
    """Yield the numbers of a vocabulary that say how many ids there are."""
    runs, special = vocabulary.get("code_runs"), vocabulary.get("special_tokens")
    found = [vocabulary.get("num_text"), vocabulary.get("num_codes")]
    found += special.values() if isinstance(special, Mapping) else []
    for run in runs if isinstance(runs, list) else []:
        found += run if isinstance(run, list) else []
    yield from (int(one) for one in found if _is_size(one))


def _least(tree: Mapping[str, Any], where: str) -> Iterator[tuple[str, int]]:
    """Yield (words, least number of bytes) of each size in a section and those within it."""
    for rows, width in MATRICES:
        count, wide = tree.get(rows), tree.get(width)
        if not _is_size(count) or tree.get(UNUSED.get(rows, "")) is not None:
            continue
        by, each = (f" x {width} {wide:,}", int(wide)) if _is_size(wide) else ("", 1)
        least = LAYER_BYTES if rows in LAYERS else 1
        yield f"{where}{rows} {count:,}{by}", int(count) * max(each, least)
    side, patch, wide = (tree.get(name) for name in ("image_size", "patch_size", "hidden_size"))
    if _is_size(side) and _is_size(patch) and _is_size(wide):  # an embedding for each patch
        words = f"{where}image_size {side:,} x hidden_size {wide:,}"
        yield words, int(side // patch) ** 2 * int(wide)
    for name, section in tree.items():
        if isinstance(section, Mapping):
            # Experts are as wide as what they are part of.
            outer = {"width": tree.get("width")} if name == "experts" else {}
            yield from _least({**outer, **section}, f"{where}{name}.")


def _is_size(value: Any) -> TypeGuard[int | float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def _weight_bytes(directory: Path) -> int:
    """Return the bytes of the weights' files, or the most that they can be."""
    try:
        return sum(path.stat().st_size for path in weight_files(directory))
    except WeightsError:  # some or all are missing
        most = shutil.disk_usage(directory).total
    try:
        said = json.loads((directory / INDEX).read_text(encoding="utf-8"))["metadata"]["total_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return most
    return min(most, int(said)) if _is_size(said) else most
