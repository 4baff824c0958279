"""Say where a trained model comes from, on the card that lies beside its weights.

A card counts in what the run began from, so the hours and the data seeds of a bundle are those of
its image tokenizer too, and of every run before.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from unimodal.card import read_card
from unimodal.data.folder import data_seeds
from unimodal.eval.score import commit

from .metrics import hours

CARD, COMMITS = "card.json", "commits.txt"
# Places on a machine: no part of a recipe.
DIRECTORIES = ("output", "shards", "tokenizer", "weights", "deepspeed")


def card(config: Any, device: str, shards: list[Path], before: dict[str, Any]) -> dict[str, Any]:
    """Return the card of a finished run on the `shards` of these folders.

    `before` is the card of what it began from, empty for nothing.
    """
    recipe = _portable(asdict(config))
    seeds = {*before.get("data_seeds", ()), *(seed for one in shards for seed in data_seeds(one))}
    found = {
        "config": recipe,
        "commit": ", ".join(commits(config.output)) or None,
        "hardware": "gpu" if device == "cuda" else "cpu",
        "hours": round(hours(config.output) + before.get("hours", 0.0), 4),
        "data_seeds": sorted(seeds),
    }
    return found | ({"began_from": before} if before else {})


def _portable(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the directories and files of this machine."""
    return {
        name: _portable(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if name not in DIRECTORIES
    }


def read(directory: Path) -> dict[str, Any]:
    """Return the card in a directory of weights, without scores; empty where there is none."""
    return {
        name: value for name, value in read_card(directory).items() if not name.startswith("scores")
    }


def begin(output: Path) -> None:
    """Note the commit whose code goes on with the run in `output`."""
    done = commits(output)
    now = commit()
    if now is not None and now not in done[-1:]:
        with (output / COMMITS).open("a") as file:
            print(now, file=file)


def commits(output: Path) -> list[str]:
    """Return the commits whose code made the run, in order; '+' stands behind one whose files were
    changed.
    """
    path = output / COMMITS
    try:
        return path.read_text("ascii").split() if path.exists() else []
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the card names the commits from now on"
        ) from error
