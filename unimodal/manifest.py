"""The list of a bundle's files with their sizes and sha256: whether all are there, and whole.

A model trained here has the files FILES. A grown one may hold its weights in several files with an
index, and the text tokenizer of its family in place of text.json.
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

FORMAT = 2  # raised when a reader of the old layout would misread the new one
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
    """A bundle that cannot be read or written; the message names the file and the way out."""


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}; fetch the bundle again") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(directory: Path) -> Files:
    """The files of the bundle in a directory that has a manifest."""
    stored = read_json(directory / MANIFEST)
    files = stored.get("files") if isinstance(stored, dict) else None
    if not _lists_files(files):
        raise BundleError(f"{directory / MANIFEST} does not list the files of a bundle: {FILES}")
    return cast(Files, files)


def write(directory: Path) -> None:
    """Write the manifest of the files that make the directory a bundle."""
    names = [path.name for path in directory.iterdir()]
    files = {name: _digest(directory / name) for name in [*_model_files(names), *PROVENANCE]}
    write_json(directory / MANIFEST, {"format": FORMAT, "files": files})


def _lists_files(files: Any) -> bool:
    """Whether a manifest's `files` name exactly the files of a bundle, each with a mapping."""
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
    """Those of a bundle's files that make the model, in the order in which its hash covers them."""
    names = set(names) - {MANIFEST, *PROVENANCE}
    last = [
        "tokenizer.safetensors",
        "tokenizer.json",
        *(names & set(TEXT_TOKENIZERS)),
        "config.json",
    ]
    return [*sorted(names - set(last)), *last]


def check(directory: Path, files: Files) -> None:
    """Every listed file is there and whole, and there is no other (hidden ones do not count)."""
    again = "fetch the bundle again"
    for name, listed in files.items():
        path = directory / name
        if not path.is_file():
            raise BundleError(f"{path} is missing: {again}")
        found = _digest(path)
        if found["bytes"] != listed.get("bytes"):
            raise BundleError(
                f"{path} has {found['bytes']} bytes instead of {listed.get('bytes')}: {again}"
            )
        if found["sha256"] != listed.get("sha256"):
            raise BundleError(f"{path} is not the file saved here (its sha256 differs): {again}")
    for path in sorted(directory.iterdir()):
        if path.name not in (*files, MANIFEST) and not path.name.startswith("."):
            raise BundleError(f"{path} is foreign to the bundle: move it elsewhere")


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def model_hash(files: Files) -> str:
    """Hex sha256 of all files but card and README: tells models apart."""
    lines = [f"{name} {files[name]['sha256']}\n" for name in _model_files(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
