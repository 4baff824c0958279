"""Pickles run the code that is in them, so that none is ever read: which one is there is said, and
the way out.
"""

from pathlib import Path

from ..tensors import INDEX, SINGLE

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def pickle_in(directory: Path) -> Path | None:
    """Return the first file of a directory that is a pickle by its name; None: there is none."""
    return min((path for path in directory.iterdir() if path.suffix in PICKLES), default=None)


def refusal(pickled: Path) -> str:
    """Return why a pickle is not read, and the way out."""
    return (
        f"its weights are pickled ({pickled.name}), and no pickle is ever read: take a copy with "
        "safetensors, or convert it once with torch.load(FILE, weights_only=True) and "
        f"safetensors.torch.save_file(TENSORS, '{SINGLE}') beside a config.json"
    )


def missing_weights(directory: Path) -> str | None:
    """Return why a directory has no weights that can be read; None where it has some."""
    if (directory / SINGLE).is_file() or (directory / INDEX).is_file():
        return None
    pickled = pickle_in(directory)
    return refusal(pickled) if pickled else f"there is neither {SINGLE} nor {INDEX}"
