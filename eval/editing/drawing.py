"""Edit a benchmark's images with a model, into a folder of the official layout.

In: a model, edits and their images. Out: the folder (folder.py). The model is shown the image, then
told the instruction, and asked for an image and nothing else. Where it stopped, it goes on.

The noise of an edit is that of seed * 2^32 + its number: it depends on no batch and no rank.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from unimodal.atomic import write_bytes
from unimodal.data.sizes import ImageRule
from unimodal.document import Document, Image, Text
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.transcript import png_bytes

from ..answer import Answer
from ..predictions import PredictionsFile
from ..run import Evaluator, Turn, Turns, run
from ..score import Prediction, digest
from ..vqa.pictures import Pictures, name_of
from .edits import Edit, edits_hash
from .folder import EDITED, result_file, source_file


class Editing(Evaluator[Edit]):
    """Asks for the edits and writes each result into its place."""

    name = "editing"

    def __init__(
        self, root: Path, edits: Sequence[Edit], pictures: Pictures, seed: int, sampling: Sampling,
        has_sources: bool,
    ) -> None:  # fmt: skip
        """Write images before the results too where the layout has them."""
        self._root, self._edits, self._pictures = root, edits, pictures
        self._seed, self._sampling, self._has_sources = seed, sampling, has_sources
        self._numbers = {edit.id: number for number, edit in enumerate(edits)}

    def requests(self) -> Sequence[Edit]:
        """Return the edits in order."""
        return self._edits

    def turns(self, request: Edit) -> Turns:
        """Show the image, say the instruction; an image alone may be the reply."""
        before = Image(pixels=self._pictures.pixels(request.image), role="user")
        document = Document((before, Text(request.instruction, role="user")))
        yield Turn(document, replace(self._sampling, seed=self._noise(request)), "image")

    def score(self, request: Edit, answer: Answer) -> Prediction:
        """Write the images; the line says what was asked, and with which seed."""
        assert len(answer.images) == 1, f"{len(answer.images)} images where one is asked for"
        file = result_file(self._root, request)
        file.parent.mkdir(parents=True, exist_ok=True)
        if self._has_sources:
            before = PILImage.fromarray(self._pictures.whole(request.image))
            write_bytes(source_file(self._root, request), png_bytes(before))
        write_bytes(file, png_bytes(PILImage.fromarray(answer.images[0])))
        return {"prompt": request.instruction, "seed": self._noise(request)}

    def _noise(self, request: Edit) -> int:
        return (self._seed * 2**32 + self._numbers[request.id]) % 2**64


def draw(
    model: Model,
    edits: Sequence[Edit],
    images: Path,
    rule: ImageRule,
    root: Path,
    layout: str,
    seed: int,
    sampling: Sampling | None = None,
    batch: int = 32,
) -> None:
    """Draw the results that are not there yet.

    images: the folder of the images before. rule: how they are resized before the model sees them.
    sampling: None takes the model's own; its seed is ignored. ValueError where an image before
    cannot be used, before anything is drawn, and where the folder holds other results,
    or those of others.
    """
    sampling = sampling or model.sampling
    pictures = Pictures(images, rule)
    hashes = pictures.check(edits)
    evaluator = Editing(root, edits, pictures, seed, sampling, layout == "gedit")
    root.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(model, edits, hashes, rule, layout, seed, sampling)
    files = {edit.id: result_file(root, edit) for edit in edits}
    with PredictionsFile.of_images(root / EDITED, recipe, files) as kept:
        run(model, evaluator, kept, batch)


def _recipe(
    model: Model, edits: Sequence[Edit], hashes: dict[str, str], rule: ImageRule, layout: str,
    seed: int, sampling: Sampling,
) -> dict[str, Any]:  # fmt: skip
    """Return what the results depend on."""
    parameter = next(model.transformer.parameters())
    width, height = model.canvas
    return {
        "model": model.hash,
        "tokenizer": model.sequencer.codec_hash,
        "layout": layout,
        "edits": edits_hash(edits),
        "num_edits": len(edits),
        "images": digest([edit.id, hashes[name_of(edit.image)]] for edit in edits),
        "seed": seed,
        **{name: value for name, value in asdict(sampling).items() if name != "seed"},
        "target_pixels": rule.target_pixels,
        "max_aspect_ratio": rule.max_aspect_ratio,
        "resolution": f"{width}x{height}",
        "device": parameter.device.type,
        "precision": str(parameter.dtype).removeprefix("torch."),
    }
