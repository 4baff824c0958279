"""Messages of a chat as OpenAI spells them, and the Document that they are.

A message's content is a text, or texts and images in order. The assistant's images come back in
either form: within its content, or beside it as an answer has them, in `images`, where `position`
says how many characters of the content come before each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ..document import Document, Image, Part, Text
from ..grammar import Modality
from .errors import ApiError
from .fields import Fields, Items
from .server import Server
from .settings import checked_words

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class TextPart(Fields):
    """A text."""

    type: Literal["text"]
    text: str


class ImageUrl(Fields):
    """An image as a data: URL or an address; the model sees each image in one size."""

    url: str
    detail: Literal["auto"] = "auto"


class ImagePart(Fields):
    """An image; `index` and `position` are those of an answer."""

    type: Literal["image_url"]
    image_url: ImageUrl
    index: int | None = None
    position: int | None = None


class Message(Fields):
    """A message; what an answer has and is not honoured is read as the nothing that it was."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Items[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = None
    images: Items[ImagePart] | None = None
    boxes: Items[str] | None = None
    """What is to stand where on the drawing that answers it (unimodal/boxes.py)."""
    annotations: Annotated[list[str], Field(max_length=0)] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[str], Field(max_length=0)] | None = None


@dataclass(frozen=True, eq=False)
class Conversation:
    """A conversation that is to be answered, and notes on what was done to its images."""

    document: Document
    notes: tuple[str, ...]


async def conversation(
    messages: Mapping[str, Message],
    field: str,
    server: Server,
    client: str,
    modality: Modality | None,
) -> Conversation:
    """Return a client's conversation, its images opened; raise ApiError where it cannot be answered
    by a reply of the modality.

    messages: by what errors call each of them; field: what they call all of them.
    """
    server.check_replies(modality)
    _check(messages, field, server)
    parts: list[Part] = []
    notes: list[str] = []
    for place, message in messages.items():
        role = ROLES[message.role]
        pieces = [one for one in _pieces(message, place) if one != ""]
        placed = server.boxed(message.boxes or (), f"{place}.boxes")
        if not pieces and not placed:
            raise ApiError(400, "the message is empty", place, "invalid_value")
        for piece in pieces:
            if isinstance(piece, str):
                parts.append(Text(piece, role=role))
                continue
            shown = await server.shown(piece.url, place, client)
            parts.append(Image(shown.pixels, role=role))
            notes += [f"{place}: {note}" for note in shown.notes]
        parts += placed
    document = Document(tuple(parts))
    try:
        notes += server.model.overlooked(document, modality)
    except ValueError as error:
        raise ApiError(400, str(error), field, "invalid_value") from error
    return Conversation(document, tuple(notes))


def _check(messages: Mapping[str, Message], field: str, server: Server) -> None:
    """Raise ApiError where there are too many messages, images or words, or nothing is asked."""
    limits = server.limits
    if not messages or [*messages.values()][-1].role != "user":
        raise ApiError(400, "the last message is the user's, which is answered",
                       field, "invalid_value")  # fmt: skip
    for place, message in messages.items():
        if message.boxes and message.role != "user":
            raise ApiError(400, "boxes are of the user's messages", f"{place}.boxes",
                           "invalid_value")  # fmt: skip
    if len(messages) > limits.max_turns:
        said = f"{len(messages)} messages: {limits.max_turns} are the most"
        raise ApiError(400, said, field, "too_long")
    pieces = [piece for place, one in messages.items() for piece in _pieces(one, place)]
    words = [one for one in pieces if isinstance(one, str)]
    words += [box for one in messages.values() for box in one.boxes or ()]
    checked_words("".join(words), field, limits)
    num_images = sum(isinstance(one, ImageUrl) for one in pieces)
    if num_images > limits.max_images:
        said = f"{num_images} images: {limits.max_images} are the most"
        raise ApiError(400, said, field, "too_long")


def _pieces(message: Message, place: str) -> Iterator[str | ImageUrl]:
    """Yield a message's texts and images in order; raise ApiError for images in two places, or of
    another's message than the assistant's beside its content.
    """
    if not message.images:
        if isinstance(message.content, list):
            for part in message.content:
                if isinstance(part, ImagePart) and message.role != "assistant":
                    _check_unplaced(part, place)
                yield part.text if isinstance(part, TextPart) else part.image_url
        else:
            yield message.content or ""
        return
    if message.role != "assistant" or isinstance(message.content, list):
        raise ApiError(
            400, "`images` are those of an answer, beside a content that is a text; others are"
            " parts of the content", f"{place}.images", "invalid_value",
        )  # fmt: skip
    text, at = message.content or "", 0
    for image in message.images:
        position = len(text) if image.position is None else image.position
        if not at <= position <= len(text):
            said = f"position {position}: images stand in order, within {len(text)} characters"
            raise ApiError(400, said, f"{place}.images", "invalid_value")
        yield text[at:position]
        yield image.image_url
        at = position
    yield text[at:]


def _check_unplaced(part: ImagePart, place: str) -> None:
    """Raise ApiError where a part says its place, as the images of an answer do."""
    if (part.index, part.position) != (None, None):
        raise ApiError(
            400, "index and position are of an answer's images; parts of a content stand in their"
            " order: leave them out", f"{place}.content", "unsupported_value",
        )  # fmt: skip
