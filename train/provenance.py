"""Where a trained model comes from: the card that lies beside its weights.

A card counts in what the run began from, so the hours and the data seeds of a bundle are those of
its image tokenizer too, and of every run before.
"""

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unimodal.data.command import SETTINGS

from .loop import hours

CARD = "card.json"
DIRECTORIES = ("output", "shards", "tokenizer", "weights")  # of the machine: no part of a recipe


def card(config: Any, device: str, before: dict[str, Any]) -> dict[str, Any]:
    """The card of a finished run; `before` is that of what it began from, empty for nothing."""
    recipe = {name: value for name, value in asdict(config).items() if name not in DIRECTORIES}
    seeds = {*before.get("data_seeds", ()), *data_seeds(config.shards)}
    found = {
        "config": recipe,
        "commit": commit(),
        "hardware": "gpu" if device == "cuda" else "cpu",
        "hours": round(hours(config.output) + before.get("hours", 0.0), 4),
        "data_seeds": sorted(seeds),
    }
    return found | ({"began_from": before} if before else {})


def read(directory: Path) -> dict[str, Any]:
    """The card in a directory of weights, without scores; empty where there is none."""
    path = directory / CARD
    found = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in found.items() if name != "scores"}


def data_seeds(shards: Path) -> list[int]:
    """The seed of procedural shards, which no evaluation may use again; none for other data."""
    made_with = shards / SETTINGS
    return [json.loads(made_with.read_text())["seed"]] if made_with.exists() else []


def commit() -> str | None:
    """The commit of the code that runs, None outside a git checkout."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
