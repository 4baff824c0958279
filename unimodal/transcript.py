"""Save images and conversations as files that appear whole or not at all (see atomic.py).

A conversation becomes a new directory: `conversation.json` (who said what, in order), its images
as PNGs, their codes in `codes.safetensors`, and `index.html`, which shows it in a browser. It is
read from there again, the same to the model that held it as it was.
"""

import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import astuple, replace
from html import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin

from . import document as documents
from .atomic import is_full, replacing, write_bytes
from .codes_file import read_codes, write_codes
from .document import Box, Document, Part, Text
from .provenance import provenance

if TYPE_CHECKING:
    from .model import Model

CONVERSATION, CODES = "conversation.json", "codes.safetensors"
SPEAKERS = ("system", "user", "assistant")
MAX_SLUG = 40  # characters of a request in a file name
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A conversation with unimodal</title>
<style>
  body {{ font: 16px sans-serif; max-width: 40em; margin: 2em auto; line-height: 1.5 }}
  section {{ margin: 1em 0; padding: .5em 1em; border-radius: .5em; white-space: pre-wrap }}
  .user {{ background: #eef; margin-left: 4em }}
  .assistant {{ background: #f4f4f4; margin-right: 4em }}
  img {{ display: block; width: 16em; image-rendering: pixelated }}
</style>
{turns}
"""


def png_bytes(image: Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """Return the image as a PNG file with these texts, by their keywords; equal pixels and texts
    give equal bytes.
    """
    noted = PngImagePlugin.PngInfo()
    for keyword, text in (texts or {}).items():
        noted.add_text(keyword, text)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=noted)
    return stream.getvalue()


def names_image(output: Path) -> bool:
    """Return whether a path names one PNG file and no directory of images.

    Raise ValueError where it is named as an image of another format.
    """
    suffix = output.suffix.lower()
    if output.is_dir() or suffix not in Image.registered_extensions():
        return False
    if suffix != ".png":
        raise ValueError(f"{output}: images are saved as PNG; name a .png file, or a directory")
    return True


def check_output(output: Path) -> None:
    """Raise ValueError where images cannot be saved in the directory `output`, or as the file of
    that name; neither it nor the folders above it need exist yet.
    """
    directory = output.absolute().parent if names_image(output) else output
    nearest = next(p for p in (directory, *directory.absolute().parents) if os.path.exists(p))
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file: name a directory for the images with --output")
    try:
        tempfile.TemporaryDirectory(dir=nearest, prefix=".image-").cleanup()
    except OSError as error:
        raise ValueError(
            f"cannot write to {nearest}: {error.strerror}; {_way_out(error)} with --output"
        ) from error


def _way_out(error: OSError) -> str:
    """Return what a user can do about an error of the disk."""
    return "free some space or choose another place" if is_full(error) else "choose another place"


class Gallery:
    """A Gallery saves the images of one reply, under names made of the request and their seed.

    It replaces no other image: where a name is taken by another image, as one that was drawn with
    another guidance, the new one is numbered. Where `output` names a PNG file, that is what the
    first image is written to, in place of what is there; others are numbered.
    """

    def __init__(self, output: Path, request: str, model_hash: str) -> None:
        self._request, self._model_hash = request, model_hash
        self.slug = re.sub(r"\W+", "-", request.lower()).strip("-")[:MAX_SLUG].strip("-") or "image"
        self.file = output if names_image(output) else None
        self.directory = output if self.file is None else output.parent
        self.paths: list[Path] = []

    def add(self, image: Image.Image, seed: int) -> Path:
        """Save an image and return its path; raise ValueError where that cannot be done."""
        stem = f"{self.slug}-seed-{seed}" if self.file is None else self.file.stem
        texts = provenance(self._model_hash, self._request, seed)
        try:
            is_first = not self.paths
            path = (
                self.file if self.file and is_first else self._free(stem, png_bytes(image, texts))
            )
        except OSError as error:  # a folder of that name, or a file that nobody may read
            raise ValueError(f"cannot save the image: {error}") from error
        save_image(image, path, texts)
        self.paths.append(path)
        return path

    def _free(self, stem: str, data: bytes) -> Path:
        """Return the first of stem.png, stem-2.png, ... that is free or holds this very image."""
        names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in count(1))
        paths = (self.directory / name for name in names)
        return next(
            path
            for path in paths
            if path not in self.paths and (not path.exists() or path.read_bytes() == data)
        )


def save_image(image: Image.Image, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a PNG, with texts as `png_bytes` has them, and make the folders above it; raise
    ValueError where that cannot be done.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, png_bytes(image, texts))
    except OSError as error:
        raise ValueError(
            f"cannot save the image {path}: {error.strerror or error}; {_way_out(error)}"
        ) from error


def save_conversation(document: Document, model_hash: str, directory: Path) -> Path:
    """Write a conversation, whose images have pixels, into a new directory and return it.

    Raise ValueError where the directory holds anything already or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists already: choose another name for the conversation")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(directory) as fresh:
            fresh.mkdir()
            _write(document, model_hash, fresh)
    except OSError as error:
        raise ValueError(
            f"cannot save the conversation {directory}: {error.strerror or error};"
            f" {_way_out(error)}"
        ) from error
    return directory


def read_conversation(directory: Path, model: "Model") -> tuple[Document, list[str]]:
    """Return the conversation in a directory that `save_conversation` wrote, its images as the
    model reads them, and notes on what was done to them.

    Another model's images are resized and encoded anew. Raise ValueError where a file is missing or
    damaged.
    """
    path = directory / CONVERSATION
    try:
        stored = _stored(path)
        turns = [(turn["role"], turn["parts"]) for turn in stored["turns"]]
        is_own, kept = stored["model"] == model.hash, directory / CODES
        coded = read_codes(kept, model.image_tokenizer) if is_own and kept.is_file() else {}
        notes = [] if is_own else ["another model's conversation: its images are encoded anew"]
        parts: list[Part] = []
        for role, shown in turns:
            if role not in SPEAKERS:
                raise ValueError(f"role {role!r}: one of {', '.join(SPEAKERS)}")
            for part in shown:
                if "image" not in part:
                    box = Box(*part["box"]) if "box" in part else None
                    parts.append(Text(_words(part["text"]), role=role, box=box))
                    continue
                name = Path(part["image"]).name  # never a file elsewhere
                pixels, said = model.fitted(directory / name)
                notes += [f"{name}: {note}" for note in said]
                parts.append(_seen(pixels, coded.get(name), model, role))
    except FileNotFoundError as error:
        raise ValueError(f"{directory} holds no saved conversation: no {path.name}") from error
    except (LookupError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is no saved conversation, or damaged ({error!r})") from error
    return Document(tuple(parts)), notes


def _stored(path: Path) -> Any:
    """Return what a file of JSON holds; raise TypeError, saying why, where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise TypeError("it is nested too deeply") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TypeError(f"it is no JSON: {error}") from error
    except ValueError as error:  # what Python says names a setting of its own
        raise TypeError("a number has thousands of digits") from error


def _words(stored: Any) -> str:
    """Return a text; raise TypeError where it is none, or no text of Unicode."""
    if not isinstance(stored, str):
        raise TypeError("a text is wanted")
    try:
        stored.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TypeError(f"half of a character (a lone surrogate) at {error.start}") from error
    return stored


def _seen(
    pixels: np.ndarray, kept: documents.Image | None, model: "Model", role: str
) -> documents.Image:
    """Return an image with the codes that were kept of it, or with new ones."""
    if kept is None:
        (image,) = model.codec.encode([documents.Image(pixels, role=role)])
        return image
    return replace(kept, pixels=pixels, role=role)


def _write(document: Document, model_hash: str, directory: Path) -> None:
    """Write the files of a conversation."""
    turns: list[dict[str, Any]] = []
    num_images = 0
    for role, parts in document.turns():
        shown: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, Text):
                box = {} if part.box is None else {"box": astuple(part.box)}
                shown.append({"text": part.text, **box})
                continue
            assert part.pixels is not None, "images of a conversation have pixels"
            num_images += 1
            name = _image_name(num_images)
            (directory / name).write_bytes(png_bytes(Image.fromarray(part.pixels)))
            shown.append({"image": name})
        turns.append({"role": role, "parts": shown})
    conversation = {"model": model_hash, "turns": turns}
    text = json.dumps(conversation, indent=2, ensure_ascii=False) + "\n"
    (directory / CONVERSATION).write_text(text, encoding="utf-8")
    _write_codes(document, directory / CODES)
    page = PAGE.format(turns="\n".join(map(_section, turns)))
    (directory / "index.html").write_text(page, encoding="utf-8")


def _write_codes(document: Document, path: Path) -> None:
    """Write the codes that images have: their pixels, encoded again, may give others."""
    images = [part for part in document.parts if isinstance(part, documents.Image)]
    named = {_image_name(number): image for number, image in enumerate(images, start=1)}
    encoded = {name: image for name, image in named.items() if image.codes is not None}
    if encoded:
        write_codes(path, encoded)


def _image_name(number: int) -> str:
    return f"image-{number}.png"


def _section(turn: dict[str, Any]) -> str:
    """Return a turn as HTML."""
    inner = "".join(map(_shown, turn["parts"]))
    return f'<section class="{turn["role"]}">{inner}</section>'


def _shown(part: dict[str, Any]) -> str:
    """Return a part as HTML; a box by its sides in percent of the drawing."""
    if "image" in part:
        return f'<img src="{part["image"]}">'
    sides = ", ".join(f"{side:.0%}" for side in part.get("box", ()))
    return f"\n{escape(part['text'])} ({sides})" if sides else escape(part["text"])
