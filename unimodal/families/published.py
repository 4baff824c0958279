"""Load a published model: a directory in Hugging Face's form, or an id of the hub.

1. config.json and the other small files are read; what cannot be used is refused with size and
   licence said, and so is what the device has no memory for.
2. Only then are weights fetched. They are read tensor by tensor, under their own names, each to
   its device, to the dtype that is asked for; with `weights`, layers are made small at once.

No pickle is read and no code of a repository is run (`trust_remote_code` is never used).
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..hub.checkpoint import (
    HUB_ID,
    CheckpointError,
    fetch,
    raw_config,
)
from ..hub.image_checkpoint import read_image_config
from ..hub.pickles import missing_weights
from ..manifest import MANIFEST, BundleError
from ..model import Model, Weights
from ..placement import Device, Placement, devices_of
from ..placing import kept_as, place
from ..tensors import DTYPES, INDEX, SINGLE, WeightsError
from ..unified import UnifiedModel
from ..weight_only import fill
from . import chameleon, emu3, janus, liquid
from .contents import PublishedContents, contents_of, of_each_head
from .plan import Plan

FAMILIES: dict[str, Callable[[Path], Plan]] = {
    "chameleon": chameleon.plan,
    "emu3": emu3.plan,
    "janus": janus.plan,
    "gemma": liquid.plan,
}
COPIES = {
    "Emu3": "BAAI/Emu3-Chat-hf or BAAI/Emu3-Gen-hf",
    "multi_modality": "deepseek-community/Janus-Pro-1B or deepseek-community/Janus-Pro-7B",
}
"""`model_type` of authors' own files that are not read, and where others have copied them."""
SMALL = ("*.json", "README.md")
FILES = (*SMALL, "*.safetensors")
LICENCE = re.compile(r"^(license(?:_name)?):\s*[\"']?([^\"'\n]+)", re.MULTILINE)
SHA256 = re.compile(r"[0-9a-f]{64}")


def is_published(name: str | Path) -> bool:
    """Return whether a name is meant as a published model: a directory with a config.json that is
    no bundle, or an id of the hub. A path into a folder that is there is no id.
    """
    path = Path(name)
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / MANIFEST).exists()
    is_id = HUB_ID.fullmatch(path.as_posix()) and not path.parts[0].startswith((".", "~"))
    return bool(is_id) and not path.exists() and not path.parent.exists()


def load(
    source: str,
    device: Device = "cpu",
    dtype: torch.dtype | str | None = None,
    weights: Weights = "fp32",
) -> Model:
    """Load a published model to a device, or to several.

    dtype: of the transformer; None: the files' own on an accelerator, float32 on a CPU. The image
    tokenizer is float32 always. weights: those of layers that placing.kept_as says are made so
    already. Raise BundleError where it cannot be used, before a download.
    """
    directory, facts = look_at(source)
    try:
        plan = read_plan(directory)
        wanted = _dtype(dtype, directory, devices_of(device)[0])
        beside = _tokenizer_bytes(directory)
        placement = place(plan.architecture, device, wanted, weights, beside)
    except ValueError as error:
        raise BundleError(f"{error} ({source}: {facts})") from error
    try:
        directory = fetch(source, FILES)
        kept = kept_as(weights, device)
        return _read(source, directory, plan, facts, placement, wanted, kept)
    except ValueError as error:
        raise BundleError(str(error)) from error


def look_at(source: str) -> tuple[Path, "Facts"]:
    """Return the directory of a model's small files, and what they say of its weights.

    Raise BundleError where there is no such model, or it has no safetensors.
    """
    try:
        directory = fetch(source, SMALL)
        return directory, Facts.of(source, directory)
    except ValueError as error:
        raise BundleError(str(error)) from error


def draws_already(directory: Path) -> bool:
    """Return whether the small files in a directory are those of a model of FAMILIES."""
    kind = raw_config(directory / "config.json").get("model_type")
    return kind in FAMILIES and (kind != "gemma" or liquid.is_liquid(directory))


def read_plan(directory: Path) -> Plan:
    """Return the plan of a published model; raise CheckpointError with all problems."""
    path = directory / "config.json"
    kind = raw_config(path).get("model_type")
    if kind in COPIES:
        raise CheckpointError(path, [f"it is in its authors' format: take {COPIES[kind]}"])
    if kind not in FAMILIES:
        problem = f"model_type {kind!r} is no model that is chatted with: {', '.join(FAMILIES)} are"
        raise CheckpointError(path, [problem])
    return FAMILIES[kind](directory)


@dataclass(frozen=True)
class Facts:
    """Facts are what a user has to know of a model before its weights are fetched."""

    weight_bytes: int
    """0 where the files do not say it."""
    licence: str

    def __str__(self) -> str:
        size = (
            f"{self.weight_bytes / 1e9:.1f} GB of weights" if self.weight_bytes else "size not said"
        )
        return f"{size}, licence: {self.licence}"

    @classmethod
    def of(cls, source: str, directory: Path) -> "Facts":
        """Return the facts of a model of which only the small files are here.

        Raise ValueError where it has no safetensors.
        """
        readme = directory / "README.md"
        # Prose that is not UTF-8 keeps nobody from its model.
        said = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
        found = {key: value.strip() for key, value in LICENCE.findall(said)}
        licence = found.get("license_name") or found.get("license") or "not said"
        return cls(_weight_bytes(source, directory), licence)


def _weight_bytes(source: str, directory: Path) -> int:
    """Return how many bytes the weights' files have; raise ValueError where there are none."""
    if (directory / INDEX).is_file():
        return _indexed_bytes(directory / INDEX)
    if (directory / SINGLE).is_file():
        return (directory / SINGLE).stat().st_size
    if not Path(source).is_dir():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            found = HfApi().get_paths_info(source, SINGLE)
        except HfHubHTTPError as error:
            raise ValueError(f"{source}: the hub does not say how large it is: {error}") from error
        if found:
            return int(getattr(found[0], "size", 0))
    kind = raw_config(directory / "config.json").get("model_type")
    copy = f"; {COPIES[kind]} is one" if kind in COPIES else ""
    raise CheckpointError(directory, [f"{missing_weights(directory)}{copy}"])


def _indexed_bytes(path: Path) -> int:
    """Return how many bytes an index says that its files have, 0 where it does not say it; raise
    CheckpointError for what is no number of bytes.
    """
    metadata = raw_config(path).get("metadata", {})
    found = metadata.get("total_size", 0) if isinstance(metadata, dict) else None
    if not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise CheckpointError(path, ["metadata.total_size is no number of bytes: fetch it again"])
    return int(found)


def _dtype(asked: torch.dtype | str | None, directory: Path, device: torch.device) -> torch.dtype:
    """Return the dtype that the transformer will have; raise ValueError for another."""
    known = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
    if asked is None:
        raw = raw_config(directory / "config.json")
        stored = str(raw.get("dtype") or raw.get("torch_dtype"))
        return torch.float32 if device.type == "cpu" else known.get(stored, torch.bfloat16)
    name = str(asked).removeprefix("torch.")
    if name not in known:
        raise ValueError(f"dtype {name}: one of {', '.join(known)}")
    return known[name]


def _tokenizer_bytes(directory: Path) -> int:
    """Return the bytes of the image tokenizer that the small files describe."""
    image = read_image_config(directory)
    tensors = image.family.tokenizer(image.config, None).state_dict().values()
    return sum(tensor.nbytes for tensor in tensors)


def _read(
    source: str, directory: Path, plan: Plan, facts: Facts, placement: Placement,
    dtype: torch.dtype, weights: Weights,
) -> Model:  # fmt: skip
    """Read everything into a model; raise ValueError that names the file at fault."""
    found = contents_of(source, directory, plan, facts.licence)
    config = found.contents.config
    with torch.device("meta"):  # no initial weights are made: the files' weights replace them
        transformer = UnifiedModel(config.architecture)
    # Whether the head is tied, stored weights say: room was made for one that is not.
    placement = placement.with_head(config.transformer.tied_head)
    fill(transformer, _weights(found, placement, dtype), weights)
    transformer.placement = placement if placement.borders else None
    return Model(
        transformer=transformer.eval(),
        text_tokenizer=found.contents.text_tokenizer,
        image_tokenizer=found.contents.image_tokenizer.to(placement.end),
        sampling=config.sampling,
        context=config.context,
        grid=config.grid,
        card=found.contents.card,
        hash=_hash(directory),
        weights=weights,
        fit=config.fit,
    )


def _weights(
    found: PublishedContents, placement: Placement, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield (our name, tensor), each on its device; raise WeightsError where numbers are not
    finite.
    """
    places = {ours: (place.path, placement.of(ours)) for ours, place in found.places.items()}
    for path, device in dict.fromkeys(sorted(places.values(), key=str)):
        where = "cpu" if device.type == "cpu" else str(device)  # CPUs have no numbers there
        with safe_open(path, "pt", device=where) as file:
            for ours in [one for one, place in places.items() if place == (path, device)]:
                # Copied, for a tensor may be a view of the mapped file.
                tensor = file.get_tensor(found.names[ours]).to(dtype, copy=True)
                if not bool(tensor.isfinite().all()):
                    raise WeightsError(
                        f"{path}: {found.names[ours]} holds numbers that are not finite as {dtype}"
                    )
                yield ours, of_each_head(tensor, found.shapes[ours])


def _hash(directory: Path) -> str:
    """Return a sha256 (hex) of all files that make the model, by name."""
    names = sorted(path for path in directory.iterdir() if path.suffix in (".json", ".safetensors"))
    lines = [f"{path.name} {_sha256(path)}\n" for path in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Return a file's sha256; the hub's cache names large files by it."""
    if SHA256.fullmatch(path.resolve().name):
        return path.resolve().name
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
