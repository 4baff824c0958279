"""Predictions in a file, one JSON line each, written as they come and read again to resume.

    with PredictionsFile("predictions.jsonl", recipe) as predictions:
        run(model, evaluator, predictions)

The first line holds the recipe: the model, the prompt set and all else that answers depend on. A
file of another recipe is refused, so that a file never mixes two evaluations. A line that was cut
by a kill is dropped, and its request is asked again. When the file is closed its lines are put in
the order of their ids: however often a run was stopped, its finished file has the same bytes.

Ranks write a file each; `whole.update(file_of_a_rank)` joins them. `read_predictions` reads a file
without going on from it.
"""

import json
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from .json_text import parsed
from .score import Prediction, write_bytes


class PredictionsFile(UserDict[str, Prediction]):
    """A mapping from a request's id to its prediction, kept in a file."""

    def __init__(self, path: str | Path, recipe: Mapping[str, Any]) -> None:
        """Read the predictions that are there, or begin a new file.

        Raises ValueError for a file that holds something else, or predictions of another recipe.
        """
        super().__init__()
        self._path, self._head = Path(path), _line({"recipe": recipe})
        if self._path.exists():
            self.data = _read(self._path, self._head)
        self._save()
        self._file = self._path.open("a", encoding="utf-8")

    @classmethod
    def of_images(
        cls, path: str | Path, recipe: Mapping[str, Any], images: Mapping[str, Path]
    ) -> Self:
        """Read the predictions that each stand for an image to draw, by id, or begin a new file;
        those whose images are gone are left out.

        A run writes its file before any image, and an image before its line. Raises ValueError as
        the class does, and where there are images and no file: these somebody else drew.
        """
        folders = {image.parent for image in images.values()}
        others = [one for folder in folders for one in folder.glob("*.png")]
        if others and not Path(path).exists():
            raise ValueError(
                f"{min(others)} was not drawn here, for there is no {path}: draw into another "
                "folder, so that no image is lost"
            )
        found = cls(path, recipe)
        for id, image in images.items():
            if not image.exists():
                found.pop(id, None)
        return found

    def __setitem__(self, id: str, prediction: Prediction) -> None:
        """Write the prediction's line; what is kept is what the line says."""
        line = _line({"id": id, **prediction})
        self._file.write(line)
        self._file.flush()
        self.data[id] = _prediction(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the lines in the order of their ids; nothing can be added after."""
        self._file.close()
        self._save()

    def _save(self) -> None:
        lines = [_line({"id": id, **self.data[id]}) for id in sorted(self.data)]
        write_bytes(self._path, "".join([self._head, *lines]).encode())


def read_predictions(path: Path) -> tuple[dict[str, Any], dict[str, Prediction]]:
    """Return the recipe and the predictions of a file; a last line that is cut is left out.

    Raises ValueError for a file that holds something else, NaN or a key twice, or two predictions
    of an id that differ.
    """
    place = ""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        recipe = parsed(lines[0])["recipe"] if lines else None
        found: dict[str, Prediction] = {}
        for number, line in enumerate(lines[1:], 2):
            place = f"line {number}: "
            value = parsed(line)
            id, prediction = value["id"], _prediction(value)
            if not isinstance(id, str):
                raise TypeError(f"the id {id!r:.80} is no text")
            if found.setdefault(id, prediction) != prediction:
                raise ValueError(f"{id} is there twice")
    except (ValueError, KeyError, TypeError) as error:
        told = f"{place}{error}"
        raise ValueError(f"{path} is no file of predictions ({told}): name another") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is no file of predictions: name another")
    return recipe, found


def _read(path: Path, head: str) -> dict[str, Prediction]:
    """Return the predictions in a file that begins with `head`."""
    content = path.read_bytes()
    if b"\n" not in content and head.encode().startswith(content):
        return {}  # nothing was written yet, or a part of the head
    recipe, found = read_predictions(path)
    _refuse_another(path, recipe, json.loads(head)["recipe"])
    return found


def _refuse_another(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ValueError that says how the recipe in the file differs from the one to be run."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        told = ", ".join(f"{name} {there.get(name)}, not {here.get(name)}" for name in names)
        raise ValueError(
            f"{path} holds predictions of another recipe ({told}): name another file, or remove it"
        )


def _prediction(line: Mapping[str, Any]) -> Prediction:
    return {name: value for name, value in line.items() if name != "id"}


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False) + "\n"
