"""The manifest lists a bundle's files with sizes and sha256, to check that all are whole.

A model trained here has the files FILES. A grown one may hold its weights in several files with an
index, and the text tokenizer of the pretrained model in place of text.json.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from .pretrained_text import JsonTokenizer, SentencePieceTokenizer
from .tensors import INDEX, SINGLE
from .text import TextTokenizer

FORMAT = 2  # is increased when a reader of the old format would misread the new one
MANIFEST = "manifest.json"
PROVENANCE = ("card.json", "README.md")  # about the model: not part of what its hash covers
FILES = (
    "model.safetensors",
    "tokenizer.safetensors",
    "tokenizer.json",
    "text.json",
    "config.json",
    *PROVENANCE,
)
TEXT_TOKENIZERS: dict[str, type[TextTokenizer]] = {
    family.FILE: family for family in (TextTokenizer, JsonTokenizer, SentencePieceTokenizer)
}
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
Files = dict[str, dict[str, Any]]
"""{file name: {"bytes", "sha256"}}"""


class BundleError(ValueError):
    """A BundleError says which file of a bundle cannot be read or written, and the way out."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise BundleError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}; fetch the bundle again") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; raise ValueError for numbers that are not finite."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(directory: Path) -> Files:
    """Return what a bundle's manifest lists; raise BundleError where it is damaged."""
    stored = read_json(directory / MANIFEST)
    files = stored.get("files") if isinstance(stored, dict) else None
    if not _lists_files(files):
        raise BundleError(f"{directory / MANIFEST} does not list the files of a bundle: {FILES}")
    return cast(Files, files)


def write(directory: Path) -> None:
    """Write the manifest of the files in a directory."""
    names = [path.name for path in directory.iterdir()]
    files = {name: _digest(directory / name) for name in [*_model_files(names), *PROVENANCE]}
    write_json(directory / MANIFEST, {"format": FORMAT, "files": files})


def _lists_files(files: Any) -> bool:
    """Return whether a manifest's `files` name exactly the files of a bundle."""
    if not isinstance(files, dict) or not all(
        isinstance(listed, dict) for listed in files.values()
    ):
        return False
    weights = [name for name in files if name in (SINGLE, INDEX) or SHARD.fullmatch(name)]
    whole = weights == [SINGLE] or (INDEX in weights and SINGLE not in weights and len(weights) > 2)
    texts = [name for name in files if name in TEXT_TOKENIZERS]
    rest = {name for name in FILES if name not in (SINGLE, TextTokenizer.FILE)}
    return whole and len(texts) == 1 and set(files) == {*weights, *texts, *rest}


def _model_files(names: Iterable[str]) -> list[str]:
    """Return the files that make the model, without its card, in the order of the model's hash."""
    names = set(names) - {MANIFEST, *PROVENANCE}
    last = [
        "tokenizer.safetensors",
        "tokenizer.json",
        *(names & set(TEXT_TOKENIZERS)),
        "config.json",
    ]
    return [*sorted(names - set(last)), *last]


def check(directory: Path, files: Files) -> None:
    """Raise BundleError where a listed file is missing or altered, or another one is there.

    Hidden files are ignored.
    """
    for name, listed in files.items():
        check_file(directory / name, listed)
    for path in sorted(directory.iterdir()):
        if path.name not in (*files, MANIFEST) and not path.name.startswith("."):
            raise BundleError(f"{path} is foreign to the bundle: move it elsewhere")


def check_file(path: Path, listed: dict[str, Any]) -> None:
    """Raise BundleError where a file is missing, or not the one that is listed."""
    again = "fetch the bundle again"
    if not path.is_file():
        raise BundleError(f"{path} is missing: {again}")
    found = _digest(path)
    if found["bytes"] != listed.get("bytes"):
        raise BundleError(
            f"{path} has {found['bytes']} bytes instead of {listed.get('bytes')}: {again}"
        )
    if found["sha256"] != listed.get("sha256"):
        raise BundleError(f"{path} is not the file saved here (its sha256 differs): {again}")


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def model_hash(files: Files) -> str:
    """Return the sha256 (hex) of all files but card and README, which identifies the model."""
    lines = [f"{name} {files[name]['sha256']}\n" for name in _model_files(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
