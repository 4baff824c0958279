"""Save images and conversations as files that appear whole or not at all (see atomic.py).

A conversation becomes a new directory: `conversation.json` (who said what, in order), its images
as PNGs, and `index.html`, which shows it in a browser.
"""

import io
import json
import os
import re
import tempfile
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from .atomic import is_full, replacing, write_bytes
from .document import Document, Text

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


def png_bytes(image: Image.Image) -> bytes:
    """Return the image as a PNG file; equal pixels give equal bytes."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def check_directory(directory: Path) -> None:
    """Raise ValueError where images cannot be saved in `directory`, which need not exist yet."""
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
    """A Gallery saves the images of one reply, under names made of the request and the seed.

    It replaces no other image: where a name is taken by another image, as one that was drawn with
    another guidance, the new one is numbered.
    """

    def __init__(self, directory: Path, request: str, seed: int) -> None:
        slug = re.sub(r"\W+", "-", request.lower()).strip("-")[:MAX_SLUG].strip("-") or "image"
        self.directory, self.stem = directory, f"{slug}-seed-{seed}"
        self.paths: list[Path] = []

    def add(self, image: Image.Image) -> Path:
        """Save an image and return its path; raise ValueError where that cannot be done."""
        try:
            path = self._free(png_bytes(image))
        except OSError as error:  # a folder of that name, or a file that nobody may read
            raise ValueError(f"cannot save the image: {error}") from error
        save_image(image, path)
        self.paths.append(path)
        return path

    def _free(self, data: bytes) -> Path:
        """Return the first of stem.png, stem-2.png, ... that is free or holds this very image."""
        names = (f"{self.stem}.png" if n == 1 else f"{self.stem}-{n}.png" for n in count(1))
        paths = (self.directory / name for name in names)
        return next(
            path
            for path in paths
            if path not in self.paths and (not path.exists() or path.read_bytes() == data)
        )


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG and make the folders above it; raise ValueError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, png_bytes(image))
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


def _write(document: Document, model_hash: str, directory: Path) -> None:
    """Write the files of a conversation."""
    turns: list[dict[str, Any]] = []
    num_images = 0
    for role, parts in document.turns():
        shown: list[dict[str, str]] = []
        for part in parts:
            if isinstance(part, Text):
                shown.append({"text": part.text})
                continue
            assert part.pixels is not None, "images of a conversation have pixels"
            num_images += 1
            name = f"image-{num_images}.png"
            (directory / name).write_bytes(png_bytes(Image.fromarray(part.pixels)))
            shown.append({"image": name})
        turns.append({"role": role, "parts": shown})
    conversation = {"model": model_hash, "turns": turns}
    text = json.dumps(conversation, indent=2, ensure_ascii=False) + "\n"
    (directory / "conversation.json").write_text(text, encoding="utf-8")
    page = PAGE.format(turns="\n".join(map(_section, turns)))
    (directory / "index.html").write_text(page, encoding="utf-8")


def _section(turn: dict[str, Any]) -> str:
    """Return a turn as HTML."""
    inner = "".join(
        escape(part["text"]) if "text" in part else f'<img src="{part["image"]}">'
        for part in turn["parts"]
    )
    return f'<section class="{turn["role"]}">{inner}</section>'
