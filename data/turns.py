"""Read the turns of a conversation as data sets of all kinds store them.

In: the list in a field `messages` or `conversations`. Out: `Turn`s of words and images.

    {"from": "human", "value": "..."}              LLaVA, ShareGPT
    {"role": "user", "content": "..."}             chats of strings: ms-swift, LLaMA-Factory
    {"role": "user", "content": [pieces]}          OpenAI, Anthropic, Hugging Face

A piece is words: a string, or {"type": "text" (or input_text, output_text), "text"}. Or it is an
image: {"type": "image" (or image_url, input_image)} with `image`, `path`, `url`, `base64`,
`image_url` or `source`, or with the `index` of an image of the sample; with none of them it is the
next image of the sample. Whatever else a turn holds, another role or a tool call, is an error that
names it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .sample_error import SampleError

SPEAKERS = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
WORDS = ("text", "input_text", "output_text")
IMAGES = ("image", "image_url", "input_image")
NAMES = ("image", "path", "url", "image_url")  # of the field of a piece that names its image


@dataclass(frozen=True)
class Shown:
    """An image in a turn."""

    image: Any = None
    """Its name, `data:` URL or contents; the number of one of the sample's; None: the next one."""


Piece = str | Shown


@dataclass(frozen=True)
class Turn:
    """What one speaker says and shows."""

    role: str
    """user, assistant or system."""
    pieces: tuple[Piece, ...]


def read_turns(value: Any) -> list[Turn]:
    """Return the turns of a conversation; SampleError, or another error of `value`'s shape."""
    return [_turn(message) for message in value]


def _turn(message: dict[str, Any]) -> Turn:
    speaker = message["from"] if message.get("from") is not None else message["role"]
    role = SPEAKERS.get(speaker.lower().strip())
    if role is None:
        raise SampleError(
            "unknown role",
            f"the role {speaker!r:.40} is not known, only {', '.join(SPEAKERS)}: leave out what it "
            "says, or let the user say it",
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise SampleError("tool call", f"the {speaker} calls a tool, which is not read")
    content = message["value"] if message.get("value") is not None else message["content"]
    return Turn(role, tuple(_pieces(content)))


def _pieces(content: Any) -> Iterator[Piece]:
    if isinstance(content, str):
        yield string(content)
        return
    if not isinstance(content, list):
        raise ValueError(f"the content of a turn is words or a list of pieces, not {content!r:.80}")
    for piece in content:
        yield string(piece) if isinstance(piece, str) else _piece(piece)


def _piece(piece: dict[str, Any]) -> Piece:
    kind = piece.get("type") or next((name for name in ("text", "image") if name in piece), None)
    if kind in WORDS:
        return string(piece["text"])
    if kind in IMAGES:
        return Shown(_image(piece))
    raise SampleError("unknown piece", f"a piece of type {kind!r:.40}: text and image are read")


def _image(piece: dict[str, Any]) -> Any:
    """Return what names the image of a piece: a name, a URL, a number, contents, or None."""
    if isinstance(source := piece.get("source"), dict):  # Anthropic's
        piece = {"base64": source.get("data"), "url": source.get("url")}
    if piece.get("base64") is not None:
        return f"data:image;base64,{string(piece['base64'])}"
    found = next((piece[name] for name in NAMES if piece.get(name) is not None), piece.get("index"))
    if isinstance(found, dict) and "url" in found:  # OpenAI's
        found = found["url"]
    return found


def string(value: Any) -> str:
    """Return a text; ValueError where it is none, SampleError where it cannot be written."""
    if not isinstance(value, str):
        raise ValueError(f"text is a string, not {value!r:.80}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SampleError("no UTF-8", f"half a surrogate pair in {value!r:.80}")
    return value
