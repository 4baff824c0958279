"""`unimodal chat` holds a conversation in the terminal, or answers one request.

session.py is the conversation, screen.py how it is shown.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .bundle import load
from .chat import Chat
from .families.published import is_published, look_at
from .grammar import Modality
from .model import Model
from .screen import Screen
from .session import Session
from .transcript import Gallery, check_output, names_image

OUTPUT = Path("unimodal-images")
SIZE = re.compile(r"(\d+) ?[xX] ?(\d+)")


def run(
    model: Path | None = None,
    prompt: str | None = None,
    images: Sequence[Path] = (),
    output: Path | None = None,
    seed: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    size: str | None = None,
    draw: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    as_json: bool = False,
) -> None:
    """Answer `prompt` and return, or hold a conversation when there is none.

    None leaves a setting to the model's defaults. prompt: '-' reads it from standard input. output:
    the directory in which images are saved, or one PNG file. size: of drawings, as '64x64'. draw:
    answer with an image alone. device, dtype: as for bundle.load; None: a published model is on a
    GPU where there is one. as_json: end standard output with the line {"text", "images": [absolute
    paths], "end"}. Raise ValueError for everything that the user can fix, and SystemExit where a
    conversation ends otherwise than well.
    """
    if as_json and prompt is None:
        raise ValueError("--json answers one request: give it with --prompt")
    if draw and prompt is None:
        raise ValueError("--draw is for one request: give it with --prompt; in chat write /draw")
    if output is not None or OUTPUT.is_file():  # no directory is needed where nothing is drawn
        check_output(output or OUTPUT)
    output = output or OUTPUT
    if prompt is None and names_image(output):
        raise ValueError(f"--output {output} is one image: give it with --prompt, or a directory")
    if prompt == "-":
        prompt = _read_all()
    if model is not None and is_published(model):
        print(f"{model}: {look_at(model.as_posix())[1]}", file=sys.stderr)
    loaded = load(model, _device(model, device), dtype)
    changes = _changes(loaded, seed, guidance, temperature)
    chat = Chat(loaded, size=_size(size), **changes)
    if prompt is not None:
        answer(chat, prompt, images, output, as_json, "image" if draw else None)
    elif status := Session(chat, output).run(images):
        raise SystemExit(status)


def _device(model: Path | None, asked: str | None) -> str:
    """Return where a model is to be loaded; raise ValueError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if asked is None:
        return "cuda" if has_gpu and model is not None and is_published(model) else "cpu"
    if asked != "cpu" and not (re.fullmatch(r"cuda(:\d+)?", asked) and has_gpu):
        raise ValueError(f"--device {asked}: there is {'cuda or ' if has_gpu else 'only '}cpu here")
    return asked


def _read_all() -> str:
    """Return standard input, without the end of its last line."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not {error.encoding.upper()} text") from error


def _size(size: str | None) -> tuple[int, int] | None:
    """Return (width, height) of a size as it is written."""
    if size is None:
        return None
    found = SIZE.fullmatch(size)
    if found is None:
        raise ValueError(f"--size {size}: write WIDTHxHEIGHT in pixels, such as 64x64")
    return int(found[1]), int(found[2])


def _changes(
    model: Model, seed: int | None, guidance: float | None, temperature: float | None
) -> dict[str, Any]:
    """Return the fields of Sampling that the options set.

    The temperature is that of text alone where the image head has none.
    """
    options: dict[str, float | None] = {
        "seed": seed,
        "guidance": guidance,
        "text_temperature": temperature,
    }
    if "image_temperature" in model.transformer.head.follows:
        options["image_temperature"] = temperature
    return {name: value for name, value in options.items() if value is not None}


def answer(
    chat: Chat,
    prompt: str,
    images: Sequence[Path],
    output: Path,
    as_json: bool = False,
    modality: Modality | None = None,
) -> None:
    """Answer one request: print the reply and save its images, named by prompt and seed.

    modality: as for Chat.stream.
    """
    screen = Screen(Console(stderr=as_json))
    gallery = Gallery(output, prompt, chat.sampling.seed)
    reply = screen.play(chat.stream(prompt, images, modality), gallery.add)
    if as_json:
        paths = [str(path.resolve()) for path in gallery.paths]
        print(json.dumps({"text": reply.text, "images": paths, "end": reply.end}))
