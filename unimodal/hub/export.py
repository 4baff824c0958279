"""Export a bundle as a plain Hugging Face checkpoint, and restore the bundle from it.

    config.json, generation_config.json     a Llama or one of its kin (parts.py)
    model*.safetensors                      the weights, with unchanged bytes
    tokenizer.json, tokenizer_config.json   every id by name, and the layout as a chat template
    unimodal/                               all of the bundle but its weights, to restore it

`AutoModelForCausalLM` and `AutoTokenizer` load the checkpoint, and `apply_chat_template` gives a
conversation of texts the same ids as our own layout. Images are tokens such as
`<|unimodal_code_17|>` there. Models with another image head than next_code, or with addresses, have
no export.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import tensors
from ..architecture import Architecture
from ..bundle import (
    CONTENT_FILES,
    MAX_SHARD_BYTES,
    BundleContents,
    Progress,
    byte_counter,
    check_output,
    check_space,
    copied_tensor,
    directory_of,
    read_contents,
    read_unchecked_contents,
    write_bundle,
    write_directory,
)
from ..bundle_config import BundleConfig, write_config
from ..embedder import FactorisedCodes
from ..tensors import PlannedTensor, StoredTensor, as_bytes, find_tensors
from .checkpoint import (
    BUNDLE_FOLDER,
    CheckpointError,
    is_export,
    read_checkpoint,
    sound,
    transformer_shapes,
)
from .export_files import (
    check_exports,
    check_loaded,
    export_files,
    names,
    tokenizer_json,
    write_files,
)
from .export_files import spelling as spelling
from .grow import TABLES
from .parts import joined


def export(
    model: Path | None,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write the bundle in the directory `model` (None: the one shipped) as a checkpoint.

    Return its directory. Raise ValueError, before anything is written, where there is no export.
    """
    directory = directory_of(model)
    check_output(output)
    contents = read_contents(directory)
    check_exports(directory, contents.config)
    places = find_tensors(directory)
    shape = contents.config.architecture
    planned = [_planned(name, places, shape) for name in transformer_shapes(shape.transformer)]
    if shape.transformer.joined_export:
        planned = list(joined(planned))
    files = export_files(contents, planned[0].dtype)
    check_space(output, sum(tensor.num_bytes for tensor in planned))

    def fill(fresh: Path) -> None:
        count = byte_counter(planned, on_progress)
        tensors.write_tensors(fresh, planned, max_shard_bytes, {"format": "pt"}, count)
        write_files(fresh, files)
        check_loaded(fresh, contents)
        (fresh / BUNDLE_FOLDER).mkdir()
        for name in (*CONTENT_FILES, contents.text_tokenizer.FILE):
            shutil.copyfile(directory / name, fresh / BUNDLE_FOLDER / name)
        if contents.config.image.levels:
            write_config(fresh / BUNDLE_FOLDER / "config.json", _plain(contents.config))

    write_directory(output, fill)
    return output


def _planned(
    name: str, places: Mapping[str, StoredTensor], architecture: Architecture
) -> PlannedTensor:
    """Return the plan to write a tensor: unchanged, or a table with factorised codes added to it.

    Sums are written in float32, for half precision would round them.
    """
    place = places[name]
    if not architecture.image.levels or name not in TABLES:
        return copied_tensor(name, place)

    def chunks() -> Iterator[bytes]:
        added_VD, row = _factors(name, places, architecture), 0
        for block_nD in place.row_blocks():
            summed_nD = block_nD.float() + added_VD[row : row + len(block_nD)]
            row += len(block_nD)
            yield as_bytes(summed_nD, "F32")

    return PlannedTensor(name, "F32", place.shape, chunks)


@torch.no_grad()
def _factors(name: str, places: Mapping[str, StoredTensor], architecture: Architecture) -> Tensor:
    """Return what factorised codes add to the rows of a table, float32 (V, D)."""
    factors = FactorisedCodes(
        architecture.image.levels, architecture.vocabulary, architecture.transformer.width
    )
    source = "head_factors" if name == "lm_head.weight" else "code_factors"
    rows = torch.cat(list(places[f"{source}.table.weight"].row_blocks()))
    factors.table.weight.copy_(rows)
    return factors()


def restore(
    directory: Path,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    like: Path | None = None,
) -> Path:
    """Write the bundle that a checkpoint was exported from, with the checkpoint's weights.

    All else comes from the checkpoint's own folder, or from the export or bundle `like`. Return the
    bundle's directory. Raise ValueError where the weights do not fit, or `like` is of another
    model.
    """
    check_output(output)
    contents = _contents_of(directory if like is None else like)
    weights = read_checkpoint(directory).weights
    expected = transformer_shapes(contents.config.transformer)
    if {name: tensor.shape for name, tensor in weights.items()} != expected:
        place = like or directory / BUNDLE_FOLDER / "config.json"
        problem = f"its weights are not of the shapes of {place}"
        raise CheckpointError(directory, [problem])
    _check_names(directory, contents, like or directory / BUNDLE_FOLDER)
    planned = [sound(name, weights[name]) for name in expected]
    write_bundle(output, contents, planned, on_progress, max_shard_bytes)
    return output


def _contents_of(directory: Path) -> BundleContents:
    """Return all but the weights of an export, or of a bundle as its export has it."""
    if is_export(directory):
        return read_unchecked_contents(directory / BUNDLE_FOLDER)
    contents = read_contents(directory)
    return replace(contents, config=_plain(contents.config))


def _plain(config: BundleConfig) -> BundleConfig:
    """Return the config of an export: what factorised codes add up to is plain rows there."""
    return replace(config, image=replace(config.image, levels=()))


def _check_names(directory: Path, contents: BundleContents, place: Path) -> None:
    """Raise ValueError where a checkpoint's tokenizer names its ids otherwise than `contents`."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        return
    there, expected = names(json.loads(path.read_text())), names(tokenizer_json(contents))
    wrong = [name for name, token in expected.items() if there.get(name) != token]
    if wrong:
        raise ValueError(
            f"{path} is not the tokenizer of {place}: {wrong[0]!r} is the id {there.get(wrong[0])} "
            f"there, not {expected[wrong[0]]}; name the export or bundle that it comes from"
        )
