"""Messages of a chat as OpenAI spells them, and the Document that they are.

A message's content is a text, or texts and images in order. The assistant's images come back in
either form: within its content, or beside it as an answer has them, in `images`, where `position`
says how many characters of the content come before each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ..document import Document, Image, Part, Text
from ..grammar import Modality
from .errors import ApiError
from .fields import Fields, Items
from .server import Server
from .settings import check_length, checked_words

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
    server.constraint(modality)
    _check(messages, field, server)
    parts: list[Part] = []
    notes: list[str] = []
    for place, message in messages.items():
        role = ROLES[message.role]
        pieces = [one for one in _pieces(message, place) if one != ""]
        placed = server.boxed(message.boxes or (), f"{place}.boxes")
        says_something = placed or any(not isinstance(one, str) or one.strip() for one in pieces)
        if message.role == "user" and not says_something:
            raise ApiError(400, "the message is empty: ask something", place, "invalid_value")
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
    pieces = {place: [*_pieces(one, place)] for place, one in messages.items()}
    words = {
        place: "".join(
            [*(one for one in pieces[place] if isinstance(one, str)), *(one.boxes or ())]
        )
        for place, one in messages.items()
    }
    check_length(sum(map(len, words.values())), field, limits)
    for place, said in words.items():
        checked_words(said, place, limits)
    num_images = sum(isinstance(one, ImageUrl) for some in pieces.values() for one in some)
    if num_images > limits.max_images:
        said = f"{num_images} images: {limits.max_images} are the most"
        raise ApiError(400, said, field, "too_long")


def _pieces(message: Message, place: str) -> Iterator[str | ImageUrl]:
    """Yield a message's texts and images in order; raise ApiError for images in two places, beside
    the content of another than the assistant, or that say another place than theirs.
    """
    text, images = message.content or "", message.images
    if isinstance(text, str):
        yield from _beside(text, images, message.role, place) if images else [text]
        return
    if images:
        raise _not_beside(place)
    num_characters = num_images = 0
    for part in text:
        if isinstance(part, TextPart):
            num_characters += len(part.text)
            yield part.text
            continue
        if message.role != "assistant":
            _check_unplaced(part, place)
        _check_number(part, num_images, f"{place}.content")
        if part.position not in (None, num_characters):
            said = f"position {part.position}: {num_characters} characters come before that image"
            raise ApiError(400, said, f"{place}.content", "invalid_value")
        num_images += 1
        yield part.image_url


def _beside(
    text: str, images: Sequence[ImagePart], role: str, place: str
) -> Iterator[str | ImageUrl]:
    """Yield a text and the images that stand beside it."""
    if role != "assistant":
        raise _not_beside(place)
    at = 0
    for number, image in enumerate(images):
        _check_number(image, number, f"{place}.images")
        position = len(text) if image.position is None else image.position
        if not at <= position <= len(text):
            said = f"position {position}: images stand in order, within {len(text)} characters"
            raise ApiError(400, said, f"{place}.images", "invalid_value")
        yield text[at:position]
        yield image.image_url
        at = position
    yield text[at:]


def _not_beside(place: str) -> ApiError:
    return ApiError(
        400, "`images` are those of an answer, beside a content that is a text; others are parts of"
        " the content", f"{place}.images", "invalid_value",
    )  # fmt: skip


def _check_number(image: ImagePart, number: int, param: str) -> None:
    """Raise ApiError where an image says that it is another one of its message than it is."""
    if image.index not in (None, number):
        said = f"index {image.index}: that image is number {number} of its message"
        raise ApiError(400, said, param, "invalid_value")


def _check_unplaced(part: ImagePart, place: str) -> None:
    """Raise ApiError where a part says its place, as the images of an answer do."""
    if (part.index, part.position) != (None, None):
        raise ApiError(
            400, "index and position are of an answer's images; parts of a content stand in their"
            " order: leave them out", f"{place}.content", "unsupported_value",
        )  # fmt: skip
