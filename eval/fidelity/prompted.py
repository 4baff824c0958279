"""Images with the prompts that they were drawn of, in the layouts that benchmarks use.

In: GenEval's folder of drawings; a JSON file {prompt: image}, as GenEval 2 takes it; or a folder of
files `<prompt>_<number of six digits>.png`, as T2I-CompBench does. Out: each image with its prompt.

Names of images in a JSON file are relative to its folder and must not leave it; nothing is fetched.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unimodal.data.convert.sandbox import Sandbox
from unimodal.data.formats import SampleError
from unimodal.data.image_members import natural

from ..geneval.folder import SAMPLES, read_folder
from ..vqa.source import read_json
from .images import FIRST_PROMPT, ImageSet, Picture

NUMBERED = re.compile(r"(?P<prompt>.+)_\d{6}\.(png|jpg|jpeg|webp)")
MOST_TOLD = 3


@dataclass(frozen=True, eq=False)
class Prompted:
    """An image, and what was asked for."""

    picture: Picture
    prompt: str


def prompted_images(path: Path) -> list[Prompted]:
    """Return the images of a path with their prompts; ValueError for what is missing or unknown."""
    if path.is_file():
        return [Prompted(one, prompt) for prompt, one in named_images(path).items()]
    if (path / FIRST_PROMPT / SAMPLES).is_dir():
        return [
            Prompted(Picture(id, file.read_bytes, str(path)), prompt.text)
            for id, prompt, file in read_folder(path).images()
        ]
    return numbered_images(path)


def numbered_images(folder: Path) -> list[Prompted]:
    """Return the images of a folder whose files carry their prompts."""
    found = []
    for one in ImageSet.of(folder).pictures:
        match = NUMBERED.fullmatch(Path(one.name).name)
        if match is None:
            raise ValueError(
                f"{folder / one.name} does not say its prompt: give GenEval's folder, files named "
                "<prompt>_000000.png, or a JSON file {prompt: image}"
            )
        found.append(Prompted(one, match["prompt"]))
    return found


def named_images(file: Path) -> dict[str, Picture]:
    """Return the images of a JSON file by the keys that name them; ValueError where one cannot be
    read.
    """
    named = read_json(file)
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{file} is no JSON object of images by prompt or id")
    sandbox, found, bad = Sandbox(file.parent), {}, []
    for key in sorted(named, key=natural):
        try:
            content = _content(sandbox, named[key])
        except SampleError as error:
            bad.append(f"{key!r:.60}: {error}")
            continue
        found[key] = Picture(key, partial(bytes, content))
    if bad:
        raise ValueError(
            f"{file}: {len(bad)} of {len(named)} images cannot be used, so nothing is scored: "
            f"{'; '.join(bad[:MOST_TOLD])}"
        )
    return found


def _content(sandbox: Sandbox, name: Any) -> bytes:
    if not isinstance(name, str):
        raise SampleError("bad image", f"the name of a file is text, not {name!r:.60}")
    return sandbox.image(name)[1]
