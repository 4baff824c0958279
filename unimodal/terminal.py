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
from .document import Document
from .families.published import is_published, look_at
from .grammar import Modality
from .model import Model, Weights
from .placement import AUTO
from .provenance import words_of
from .rectified_flow import Solver
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
    negative: str | None = None,
    image_steps: int | None = None,
    image_drafts: int | None = None,
    image_solver: Solver | None = None,
    guidance_interval: tuple[float, float] | None = None,
    weights: Weights = "fp32",
    size: str | None = None,
    draw: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    candidates: int = 1,
    boxes: Sequence[str] = (),
    as_json: bool = False,
) -> None:
    """Answer `prompt` and return, or hold a conversation when there is none.

    None leaves a setting to the model's defaults. prompt: '-' reads it from standard input. output:
    the directory in which images are saved, or one PNG file. size: of drawings, as '64x64'. draw:
    answer with an image alone. candidates: of how many drawings the best is kept. boxes: what is to
    stand where (boxes.py). device, dtype: as for bundle.load; None: a published model is on a GPU
    where there is one. as_json: end standard output with the line {"text", "images": [absolute
    paths], "end", "seed", "notes"}. Raise ValueError for everything that the user can fix, and
    SystemExit where a conversation ends otherwise than well.
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
    loaded = load_named(model, device, weights, dtype)
    changes: dict[str, Any] = {
        "seed": seed,
        "guidance": guidance,
        "negative": negative,
        "image_steps": image_steps,
        "image_drafts": image_drafts,
        "image_solver": image_solver,
        "guidance_interval": guidance_interval,
        **temperatures(loaded, temperature),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    is_session = prompt is None
    chat = Chat(loaded, size=_size(size), candidates=candidates, cuts=is_session, **given)
    chat.sampling.check(loaded.transformer.head.follows, loaded.transformer.architecture.image.head)
    if prompt is not None:
        answer(chat, prompt, images, output, as_json, "image" if draw else None, boxes)
    elif status := Session(chat, output).run(images, boxes):
        raise SystemExit(status)


def load_named(
    model: Path | None, device: str | None, weights: Weights, dtype: str | None
) -> Model:
    """Load the model that a command names. Of a published one, size and licence are told first.

    Arguments are those of bundle.load, but device None: a published model is on a GPU where there
    is one.
    """
    if model is not None and is_published(model):
        print(f"{model}: {look_at(model.as_posix())[1]}", file=sys.stderr)
    return load(model, _device(model, device), weights, dtype)


def _device(model: Path | None, asked: str | None) -> str:
    """Return where a model is to be loaded; raise ValueError for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if asked is None:
        return "cuda" if has_gpu and model is not None and is_published(model) else "cpu"
    known = re.compile(r"cpu|cuda(:\d+)?" if has_gpu else "cpu")
    if asked != AUTO and not all(known.fullmatch(one) for one in asked.split(",")):
        here = "cuda, cuda:N, several of these, auto or" if has_gpu else "only"
        raise ValueError(f"--device {asked}: there is {here} cpu here")
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


def temperatures(model: Model, temperature: float | None) -> dict[str, float | None]:
    """Return the fields of Sampling that a temperature sets: of text alone where the image head has
    none.
    """
    fields = {"text_temperature", "image_temperature"} & {
        "text_temperature", *model.transformer.head.follows
    }  # fmt: skip
    return dict.fromkeys(sorted(fields), temperature)


def answer(
    chat: Chat,
    prompt: str,
    images: Sequence[Path],
    output: Path,
    as_json: bool = False,
    modality: Modality | None = None,
    boxes: Sequence[str] = (),
) -> None:
    """Answer one request: print the reply and save its images, named by prompt and seed.

    modality, boxes: as for Chat.stream.
    """
    screen = Screen(Console(stderr=as_json))
    events = chat.stream(prompt, images, modality, boxes)
    words = words_of(Document(chat.texts(prompt, boxes)), chat.model.canvas)
    gallery = Gallery(output, words, chat.model.hash)
    reply = screen.play(events, gallery.add)
    if as_json:
        paths = [str(path.resolve()) for path in gallery.paths]
        told = {"text": reply.text, "images": paths, "end": reply.end, "seed": reply.seed}
        print(json.dumps(told | {"notes": [*reply.notes]}))
