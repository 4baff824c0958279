"""A bundle is a trained model as one directory: weights, vocabulary, tokenizers, provenance.

    model.safetensors       the transformer, bfloat16 at rest, float32 in use; a grown model, and a
                            vision tower, has the dtype that it came with, and perhaps several
                            files with an index
    tokenizer.safetensors   the image tokenizer, its configuration in tokenizer.json
    text.json               the text tokenizer; a grown model has text.tokenizer.json or
                            text.tokenizer.model, its family's own
    config.json             transformer, vocabulary, context, image grid, sampling defaults
    card.json, README.md    where it comes from and how well it does
    manifest.json           size and sha256 of every file above

Loading checks the manifest first, so a file that is missing, truncated, altered or foreign is named
before anything is built from it. Saving writes a new directory beside the old one, loads it once to
prove it whole, and only then renames it into place. Nothing is ever unpickled.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unimodal.tokenizer.autoencoder import CONFIG
from unimodal.tokenizer.saved import SavedTokenizer, load_tokenizer

from . import manifest, remote_bundle, tensors
from .architecture import Architecture
from .atomic import replacing
from .bundle_config import BundleConfig, read_config, write_config
from .card import check_card, read_card, readme, usable_context
from .int8 import in_int8
from .manifest import MANIFEST, TEXT_TOKENIZERS, BundleError, write_json
from .model import Model, Weights
from .packed import pack
from .placement import Device, Placement, devices_of
from .placing import kept_as, place
from .remote import url_of
from .tensors import PlannedTensor, StoredTensor, weight_files
from .text import TextTokenizer
from .transformer import Transformer
from .unified import UnifiedModel
from .weight_only import fill

CONTENT_FILES = ("config.json", "tokenizer.json", "tokenizer.safetensors", "card.json")
DEFAULT = Path(__file__).parent / "default"
ROOM_BYTES = 2**26  # for all files of a bundle but the weights
MAX_SHARD_BYTES = 5 * 10**9
Progress = Callable[[int, int], None]
"""A function that is called with (bytes done, bytes in all)."""


def directory_of(name: str | Path | None) -> Path:
    """Return the directory that is meant by a path, by the name `default`, or by None: the latter
    two are the model shipped with unimodal, wherever they are said. Of a run of `unimodal train
    tokenizer` it is the folder `tokenizer` in it; of a URL, the bundle there, which is fetched.

    BundleError where a bundle or image tokenizer of one's own is called so too.
    """
    if name is None:
        return DEFAULT
    if (url := url_of(name)) is not None:
        return remote_bundle.fetched(url)
    path = Path(name)
    if path == Path("default"):
        if any((path / file).exists() for file in (MANIFEST, CONFIG)):
            if not path.samefile(DEFAULT):
                raise BundleError(
                    f"default is the name of the model that is shipped, and {path.absolute()} is "
                    "another: say its whole path, or the shipped one's"
                )
        return DEFAULT
    if path.parts[-2:] == ("unimodal", "default") and not path.exists():
        raise BundleError(f"{path}: there is no such directory; `default` is the shipped model")
    trained = path / "tokenizer"
    is_run = (trained / CONFIG).is_file() and not (path / CONFIG).exists()
    return trained if is_run else path


def load(
    path: str | Path | None = None,
    device: Device = "cpu",
    weights: Weights = "fp32",
    dtype: torch.dtype | str | None = None,
) -> Model:
    """Load the model in the directory `path` (None or `default`: the one shipped with unimodal) to
    `device`. It may be a published model too, in a directory or as an id of the hub.

    device: one, several over which the layers are spread, as "cuda:0,cuda:1", or "auto": as many
    GPUs as it takes (placement.py). weights: fp32, as they are, or int8 or int4, of fewer bytes and
    with other replies (int8.py, weight_only.py). dtype: of a published model's transformer, such as
    bfloat16; None: its files' own on a GPU. A bundle is float32. Raise BundleError, naming the
    file, where one is missing, truncated, altered or foreign, or does not fit the others, and
    ValueError for weights or devices that there are not, or without room.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights {weights!r}: one of {', '.join(get_args(Weights))}")
    directory = directory_of(path)
    from .families import published  # which knows all that a bundle is made of

    if published.is_published(directory):
        return _ready(published.load(directory.as_posix(), device, dtype, weights), weights)
    if dtype is not None:
        raise ValueError(f"dtype {dtype}: a bundle is float32, that of a published model is chosen")
    contents = read_contents(directory)
    architecture, kept = contents.config.architecture, kept_as(weights, device)
    placement = _placement(architecture, device, weights, contents.image_tokenizer.num_bytes)
    try:
        transformer = _read_transformer(directory, architecture, placement, kept)
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{directory}: its files do not fit each other ({error})") from error
    assert contents.hash is not None, "a bundle that was checked has a hash"
    model = Model(
        transformer=transformer,
        text_tokenizer=contents.text_tokenizer,
        image_tokenizer=contents.image_tokenizer.to(placement.end),
        sampling=contents.config.sampling,
        context=contents.config.context,
        grid=contents.config.grid,
        card=contents.card,
        hash=contents.hash,
        weights=kept,
        fit=contents.config.fit,
    )
    return _ready(model, weights)


def _ready(model: Model, weights: Weights) -> Model:
    """Return a loaded model for use with such weights."""
    if weights == "int8" and model.weights == "fp32":
        return in_int8(model)
    if model.weights == "fp32" and model.transformer.placement is None:
        pack(model.transformer)
    return model


def _placement(
    architecture: Architecture, device: Device, weights: Weights, beside: int
) -> Placement:
    """Return where a bundle goes; on one device no room is asked for, as it may be small."""
    devices = devices_of(device)
    if len(devices) == 1 and weights == "fp32":
        return Placement.on(devices[0], architecture.transformer.num_layers)
    return place(architecture, device, torch.float32, weights, beside)


@dataclass(frozen=True, eq=False)
class BundleContents:
    """BundleContents are all of a bundle but its weights, which may be larger than memory."""

    config: BundleConfig
    text_tokenizer: TextTokenizer
    image_tokenizer: SavedTokenizer
    card: dict[str, Any]
    hash: str | None = None  # that of Model; None where the weights are elsewhere


def read_contents(directory: Path) -> BundleContents:
    """Return what a bundle holds beside its weights, after checking every file.

    Errors are those of `load`.
    """
    files = _read_manifest(directory)
    manifest.check(directory, files)
    return replace(read_unchecked_contents(directory), hash=manifest.model_hash(files))


def read_unchecked_contents(directory: Path) -> BundleContents:
    """Return what CONTENT_FILES and the text tokenizer in a directory hold, without a manifest.

    Raise BundleError where they are damaged or do not fit each other.
    """
    config = read_config(directory / "config.json")
    text = _read_text(directory, config.vocabulary.num_text)
    try:
        tokenizer = load_tokenizer(directory).eval()
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{directory}: its files do not fit each other ({error})") from error
    _check_contents(directory, config, text, tokenizer)
    card = read_card(directory)
    usable_context(card, config.context)  # BundleError where it is none
    return BundleContents(config, text, tokenizer, card)


def save_bundle(directory: str | Path, model: Model) -> Path:
    """Write a model as a bundle to a directory, or to a URL that fsspec opens, and return it.

    An older bundle in a directory is replaced in one step; at a URL it is none from the first file
    on until the new one is whole. Raise ValueError where the model's card lacks a
    key of card.KEYS, and BundleError where the directory holds something else than a bundle or
    cannot be written; it is then unchanged.
    """
    if (url := url_of(directory)) is not None:
        remote_bundle.write(url, lambda folder: save_bundle(folder, model))
        return Path(directory)
    directory = Path(directory)
    if model.weights != "fp32":
        raise ValueError(f"a model with weights {model.weights} is not saved: load it with fp32")
    check_card(model.card)
    _check_target(directory)
    architecture = model.transformer.architecture
    config = BundleConfig(
        architecture.transformer, architecture.vocabulary, model.grid, model.sampling,
        model.context, model.image_tokenizer.hash, architecture.image, model.fit,
    )  # fmt: skip

    def fill(fresh: Path) -> None:
        _write_weights(fresh, model.transformer)
        write_contents(
            fresh, BundleContents(config, model.text_tokenizer, model.image_tokenizer, model.card)
        )
        load(fresh)

    write_directory(directory, fill)
    return directory


def write_bundle(
    output: Path,
    contents: BundleContents,
    planned: list[PlannedTensor],
    on_progress: Progress,
    max_shard_bytes: int,
) -> None:
    """Write a bundle whose weights are made piece by piece while they are written.

    Raise ValueError where the disk has no room, and BundleError where it cannot be written.
    """
    num_bytes = sum(tensor.num_bytes for tensor in planned)
    check_space(output, num_bytes + contents.image_tokenizer.num_bytes)

    def fill(fresh: Path) -> None:
        tensors.write_tensors(
            fresh, planned, max_shard_bytes, on_bytes=byte_counter(planned, on_progress)
        )
        write_contents(fresh, contents)
        read_contents(fresh)

    write_directory(output, fill)


def write_contents(fresh: Path, contents: BundleContents) -> None:
    """Write all else of a bundle into a directory that holds the weights."""
    contents.image_tokenizer.save(fresh)
    contents.text_tokenizer.save(fresh / contents.text_tokenizer.FILE)
    write_config(fresh / "config.json", contents.config)
    write_json(fresh / "card.json", contents.card)
    (fresh / "README.md").write_text(readme(contents.card), encoding="utf-8")
    manifest.write(fresh)


def check_output(output: Path) -> None:
    """Raise ValueError where `output` is something else than an empty directory or nothing."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output} exists: choose another place, or remove it first")


def check_space(output: Path, num_bytes: int) -> None:
    """Raise ValueError where the disk has no room for a bundle with `num_bytes` of weights."""
    place = next(folder for folder in output.resolve().parents if folder.exists())
    free, needed = shutil.disk_usage(place).free, num_bytes + ROOM_BYTES
    if free < needed:
        raise ValueError(
            f"{output} needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB: make room, or"
            " choose another place"
        )


def byte_counter(planned: list[PlannedTensor], on_progress: Progress) -> Callable[[int], None]:
    """Return a function that adds up the bytes written and calls `on_progress` with the sum."""
    total, done = sum(tensor.num_bytes for tensor in planned), 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_progress(done, total)

    return count


def copied_tensor(name: str, place: StoredTensor) -> PlannedTensor:
    """Return the plan to write a stored tensor with its bytes unchanged."""
    return PlannedTensor(name, place.dtype, place.shape, place.chunks)


def write_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Call `fill` on a new directory beside `directory`, and rename that to it once it is whole.

    Raise BundleError where it cannot be written; an older directory is then unchanged.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(directory, over_folder=True) as fresh:
            fresh.mkdir()
            fill(fresh)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"cannot write {directory}: {error}; nothing was changed there, free some"
            " space or choose another place"
        ) from error


def _read_manifest(directory: Path) -> manifest.Files:
    """Return the manifest of a bundle; raise BundleError where there is none."""
    if not (directory / MANIFEST).is_file():
        if directory == DEFAULT:
            raise BundleError(
                f"no default model is installed in {DEFAULT}: name a bundle's directory, or train"
                " one with `make speedrun`"
            )
        raise BundleError(_said_missing(directory))
    return manifest.read(directory)


def _said_missing(directory: Path) -> str:
    """Return why a directory, or what is named as one, is no bundle, and the way out."""
    from .families import published

    what = "it has no manifest.json" if directory.is_dir() else "there is no such directory"
    way_out = "give the directory that a training run wrote, or `default`, which is shipped"
    if published.is_published(directory):
        way_out += f"; `unimodal grow {directory} --output BUNDLE` makes one of a published model"
    elif directory.is_dir():
        what += ", nor the config.json of a published model"
    return f"{directory} is no model: {what}; {way_out}"


def _read_text(directory: Path, num_ids: int) -> TextTokenizer:
    """Read the one text tokenizer in a directory; raise BundleError where it cannot be used."""
    names = [name for name in TEXT_TOKENIZERS if (directory / name).is_file()]
    if len(names) != 1:
        raise BundleError(f"{directory} holds {len(names)} text tokenizers instead of one")
    (name,) = names
    try:
        return TEXT_TOKENIZERS[name].load(directory / name, num_ids)
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise BundleError(f"{directory / name} is no text tokenizer: {error}") from error


def _read_transformer(
    directory: Path, architecture: Architecture, placement: Placement, weights: Weights
) -> UnifiedModel:
    with torch.device("meta"):  # no initial weights are made: the files' weights replace them
        transformer = UnifiedModel(architecture)
    fill(transformer, _weights(directory, placement), weights)
    transformer.lay_by_columns()
    transformer.placement = placement if placement.borders else None
    return transformer.eval()


def _weights(directory: Path, placement: Placement) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor), one after the other, each float32 on its device."""
    for path in weight_files(directory):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                # Copied, for a tensor may be a view of the mapped file, at an unaligned address.
                tensor = file.get_tensor(name)
                yield name, tensor.to(placement.of(name), torch.float32, copy=True)


def _write_weights(directory: Path, transformer: Transformer) -> None:
    state = transformer.state_dict()
    planned = [tensors.in_memory(name, tensor, "BF16") for name, tensor in state.items()]
    tensors.write_tensors(directory, planned, sum(tensor.num_bytes for tensor in planned))


def _check_contents(
    directory: Path, bundle_config: BundleConfig, text: TextTokenizer, tokenizer: SavedTokenizer
) -> None:
    """Raise BundleError where the contents are not those that the model was trained with."""
    if tokenizer.hash != bundle_config.tokenizer_hash:
        raise BundleError(
            f"{directory / 'tokenizer.safetensors'} is another image tokenizer"
            f" ({tokenizer.hash[:12]}) than the model was trained with"
            f" ({bundle_config.tokenizer_hash[:12]}): put the right one back"
        )
    vocabulary = bundle_config.vocabulary
    sizes = {
        text.FILE: (text.num_ids, vocabulary.num_text),
        "tokenizer.json": (tokenizer.num_codes, vocabulary.num_codes),
        "model.safetensors": (
            bundle_config.transformer.num_ids,
            bundle_config.architecture.num_rows,
        ),
    }
    for name, (found, expected) in sizes.items():
        if found != expected:
            raise BundleError(
                f"{directory / name} has {found} ids, the vocabulary in config.json {expected}"
            )


def _check_target(directory: Path) -> None:
    """Raise BundleError where `directory` is neither a bundle, nor empty, nor absent."""
    if directory.exists() and not directory.is_dir():
        raise BundleError(f"{directory} is a file: choose another place for the bundle")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise BundleError(f"{directory} holds something that is no bundle: choose another place")
