"""The one score writer: predictions -> scores with intervals, and one JSON file with all of it.

In: `Prediction`s, one for every question put to a model. Out: `{"scores": ..., "recipe": ...,
"predictions": [...]}`.

1. `by_kind` gives each kind its share of right answers, and `overall`: the mean of the kinds.
2. `apart` scores what training held out beside what it showed, over the kinds that have both.
3. `recipe` says what the numbers depend on: hashes, seed, precision, versions, commit.
4. `write` writes the file in one step: a reader sees the old file or the new one, never a part.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from unimodal.atomic import write_bytes

from .intervals import Estimate, mean_of, share

PACKAGES = ("unimodal", "torch", "numpy", "pillow", "tokenizers", "safetensors")


@dataclass(frozen=True)
class Prediction:
    """One object asked of a model, what it did and whether that is right. Every field is JSON."""

    part: str  # what is scored: drawing, questions, captions, edits
    kind: str  # the task or the kind of question within the part
    prompt: str
    expected: Any  # the right answer, or what the judge looks for
    answer: Any  # the model's words, or the scene read in its image; None: unreadable
    right: bool
    reason: str  # why it is wrong; "" when it is right
    held_out_words: bool  # phrased as training never phrased it
    held_out_pair: bool  # shows two (shape, colour) that training never showed together
    codes: tuple[tuple[int, ...], ...] = ()  # of the images it drew: they can be judged again


def by_kind(predictions: Sequence[Prediction], kinds: Iterable[str] = ()) -> dict[str, Estimate]:
    """`overall`, the unweighted mean of the kinds measured, and each kind (`kinds` first)."""
    names = [*dict.fromkeys([*kinds, *(p.kind for p in predictions)])]
    scores = {name: share([p.right for p in predictions if p.kind == name]) for name in names}
    return {"overall": mean_of([score for score in scores.values() if score.n]), **scores}


def apart(
    predictions: Sequence[Prediction], held_out: Callable[[Prediction], bool]
) -> dict[str, dict[str, Estimate]]:
    """`by_kind` of the seen and of the held-out predictions, each over the kinds that have both."""
    out = [p for p in predictions if held_out(p)]
    seen = [p for p in predictions if not held_out(p)]
    both = {p.kind for p in out} & {p.kind for p in seen}
    return {
        "seen": by_kind([p for p in seen if p.kind in both]),
        "held_out": by_kind([p for p in out if p.kind in both]),
    }


def digest(prompts: Iterable[Any]) -> str:
    """sha256 (hex) of a set of prompts: of their canonical JSON, in order."""
    text = json.dumps(list(prompts), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(**settings: Any) -> dict[str, Any]:
    """The settings of an evaluation, with the commit, the machine and the versions of packages."""
    versions = {name: _version(name) for name in PACKAGES}
    place = {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    return {**settings, "commit": commit(), **place, "versions": versions}


def commit() -> str | None:
    """The commit of the checkout that runs, followed by '+' when files differ; None elsewhere."""
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
    """Write a report (nested `scores` of `Estimate`, `recipe`, `predictions`) as JSON, in one step.

    Each prediction has a line of its own. What cannot be written (no permission, full disk) is an
    OSError that names the file, and an older file stays as it was.
    """
    assert {"scores", "recipe", "predictions"} <= set(report), f"a report of only {sorted(report)}"
    head = {name: value for name, value in report.items() if name != "predictions"}
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
