"""Pictures and conversations as files.

A conversation becomes a new directory: `conversation.json` (who said what, in order), its pictures
as PNGs, and `index.html`, which shows it in a browser. Files are written under another name first
and then renamed, so a full disk or a crash never leaves a half-written one.
"""

import io
import json
import os
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from .document import Document, Text

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
    """The picture as a PNG file; equal pixels give equal bytes."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all; ValueError says why not, as when the disk is full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".picture-") as temporary:
            fresh = Path(temporary) / path.name
            fresh.write_bytes(png_bytes(image))
            fresh.replace(path)
    except OSError as error:
        raise ValueError(
            f"cannot save the picture {path}: {error.strerror or error}; free some space or choose"
            " another place"
        ) from error


def save_conversation(document: Document, model_hash: str, directory: Path) -> Path:
    """Write a conversation, whose pictures have pixels, into a new directory and return it.

    ValueError when the directory holds anything already or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists already: choose another name for the conversation")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".chat-") as temporary:
            fresh = Path(temporary) / "new"
            fresh.mkdir()
            _write(document, model_hash, fresh)
            os.replace(fresh, directory)
    except OSError as error:
        raise ValueError(
            f"cannot save the conversation {directory}: {error.strerror or error}; free some space"
            " or choose another place"
        ) from error
    return directory


def _write(document: Document, model_hash: str, directory: Path) -> None:
    turns: list[dict[str, Any]] = []
    num_pictures = 0
    for role, parts in document.turns():
        shown: list[dict[str, str]] = []
        for part in parts:
            if isinstance(part, Text):
                shown.append({"text": part.text})
                continue
            assert part.pixels is not None, "pictures of a conversation have pixels"
            num_pictures += 1
            name = f"picture-{num_pictures}.png"
            (directory / name).write_bytes(png_bytes(Image.fromarray(part.pixels)))
            shown.append({"image": name})
        turns.append({"role": role, "parts": shown})
    conversation = {"model": model_hash, "turns": turns}
    text = json.dumps(conversation, indent=2, ensure_ascii=False) + "\n"
    (directory / "conversation.json").write_text(text, encoding="utf-8")
    page = PAGE.format(turns="\n".join(map(_section, turns)))
    (directory / "index.html").write_text(page, encoding="utf-8")


def _section(turn: dict[str, Any]) -> str:
    inner = "".join(
        escape(part["text"]) if "text" in part else f'<img src="{part["image"]}">'
        for part in turn["parts"]
    )
    return f'<section class="{turn["role"]}">{inner}</section>'
