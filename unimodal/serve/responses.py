"""/v1/responses: items in, items out; an image of the reply is a call of the tool that draws.

The tool `image_generation` says that the reply may have images, and how they are. Nothing is
stored: a client sends what was said before as items.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import Discriminator, Field, Tag

from ..events import ReplyDone
from ..grammar import Modality
from .errors import ApiError
from .fields import Fields, Items, checked
from .job import Accepted, Job
from .messages import ImagePart, ImageUrl, Message, TextPart, conversation
from .provenance import base64_of
from .server import Server
from .settings import MostTokens, Settings
from .sse import streamed
from .work import Heard, Work

ITS_TOOL = "tools, [{'type': 'image_generation'}]"


class InputText(Fields):
    """A text; `annotations` and `logprobs` are the nothing that an answer has there."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Annotated[list[str], Field(max_length=0)] | None = None
    logprobs: Annotated[list[str], Field(max_length=0)] | None = None


class InputImage(Fields):
    """An image as a data: URL or an address."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto"] = "auto"


class InputMessage(Fields):
    """A message; `id` and `status` are those of an answer."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Items[Annotated[InputText | InputImage, Field(discriminator="type")]]
    id: str | None = None
    status: Literal["completed", "incomplete"] | None = None

    def message(self) -> Message:
        """Return the message as a chat has it."""
        if isinstance(self.content, str):
            return Message(role=self.role, content=self.content)
        parts: list[TextPart | ImagePart] = [
            TextPart(type="text", text=one.text) if isinstance(one, InputText)
            else ImagePart(type="image_url", image_url=ImageUrl(url=one.image_url))
            for one in self.content
        ]  # fmt: skip
        return Message(role=self.role, content=parts)


class DrawnBefore(Fields):
    """An image that the assistant drew, as an answer has it."""

    type: Literal["image_generation_call"]
    id: str
    result: str
    status: Literal["completed"] = "completed"
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"
    size: str | None = None

    def message(self) -> Message:
        """Return the image as a message of the assistant."""
        url = ImageUrl(url=f"data:image/png;base64,{self.result}")
        return Message(role="assistant", content=[ImagePart(type="image_url", image_url=url)])


def _kind(item: Any) -> str:
    """Return the type of an item, which a message need not name."""
    if isinstance(item, Mapping):
        return str(item.get("type", "message"))
    return str(getattr(item, "type", "message"))


Item = Annotated[
    Annotated[InputMessage, Tag("message")] | Annotated[DrawnBefore, Tag("image_generation_call")],
    Discriminator(_kind),
]


class Tool(Fields):
    """The tool that draws; its values are those of /v1/images/generations."""

    type: Literal["image_generation"]
    model: str | None = None
    size: str = "auto"
    partial_images: int = 0
    action: Literal["auto"] = "auto"
    background: Literal["auto", "opaque"] = "auto"
    moderation: Literal["auto"] = "auto"
    output_compression: Literal[100] = 100
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"


class Choice(Fields):
    """The choice of the tool that draws."""

    type: Literal["image_generation"]


class Asked(Settings):
    """The body of a request."""

    ONLY: ClassVar = {
        "n": (1,), "candidates": (1,), "others": (False,), "partial_images": (),
        "background": (False,),
        "store": (False,), "include": ([],), "metadata": ({},), "top_p": (1,),
        "truncation": ("disabled",), "text": ({"format": {"type": "text"}},), "reasoning": (),
        "service_tier": ("auto", "default"), "top_logprobs": (0,), "previous_response_id": (),
        "conversation": (), "prompt": (), "max_tool_calls": (),
    }  # fmt: skip
    input: str | Items[Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: Annotated[list[Tool], Field(max_length=1)] = []
    tool_choice: Literal["auto", "none", "required"] | Choice = "auto"
    parallel_tool_calls: bool = True
    """Either is so of one tool, whose images come one after another."""

    @property
    def modality(self) -> Modality | None:
        """Return the modality constraint; raise ApiError for a tool that is chosen, not given."""
        must_draw = isinstance(self.tool_choice, Choice) or self.tool_choice == "required"
        if must_draw and not self.tools:
            said = f"tool_choice wants a tool: give {ITS_TOOL}"
            raise ApiError(400, said, "tool_choice", "invalid_value")
        if must_draw:
            return "image"
        return None if self.tools and self.tool_choice == "auto" else "text"

    @property
    def most_tokens(self) -> MostTokens | None:
        """Return the most text tokens of a reply."""
        most = self.max_output_tokens
        return None if most is None else MostTokens("max_output_tokens", most)

    def check_with(self, server: Server) -> None:
        """Raise ApiError for what the server's model has not: a size of the tool's drawings or of
        one that comes back, a number of partial images, a setting without an effect.
        """
        for number, item in enumerate(self.input):
            if isinstance(item, DrawnBefore) and item.size is not None:
                server.size_of(item.size, f"input.{number}.size")
        must_draw = self.modality == "image"
        or_else = "or tool_choice out" if must_draw else f"out, or give {ITS_TOOL}"
        self.check_used(server.constraint(self.modality), self.most_tokens, or_else)
        for tool in self.tools:
            server.constraint("image")
            server.size_of(tool.size)
            partial = tool.partial_images
            drawn = Settings(model=tool.model, stream=self.stream, partial_images=partial)
            drawn.check(server.name, server.limits)

    def messages(self) -> dict[str, Message]:
        """Return the conversation as a chat has it, by the places of its messages."""
        found = {}
        if self.instructions:
            found["instructions"] = Message(role="system", content=self.instructions)
        if isinstance(self.input, str):
            return found | {"input": Message(role="user", content=self.input)}
        return found | {f"input.{n}": one.message() for n, one in enumerate(self.input)}


@dataclass(frozen=True, eq=False)
class Answer:
    """An Answer is what all of a response's forms have in common."""

    server: Server
    asked: Asked
    job: Job
    accepted: Accepted
    notes: tuple[str, ...]
    id: str
    created: int

    def whole(
        self, status: str, output: list[dict[str, Any]], done: ReplyDone | None = None
    ) -> dict[str, Any]:
        """Return the response, with its usage once it is done."""
        tools = [one.model_dump(exclude_none=True) for one in self.asked.tools]
        choice = self.asked.tool_choice
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "error": None, "incomplete_details": cut, "instructions": self.asked.instructions,
            "max_output_tokens": self.asked.max_output_tokens, "metadata": {},
            "model": self.server.name, "output": output,
            "parallel_tool_calls": self.asked.parallel_tool_calls,
            "previous_response_id": None, "store": False,
            "temperature": self.asked.temperature, "text": {"format": {"type": "text"}},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": tools, "top_p": 1, "truncation": "disabled",
            "usage": None if done is None else self.usage(done),
            "seed": self.job.sampling.seed, "notes": list(self.notes),
        }  # fmt: skip

    def usage(self, done: ReplyDone) -> dict[str, Any]:
        """Return what it cost, with the details that OpenAI's client wants; here nothing is counted
        apart, kept keys and values neither.
        """
        return self.accepted.usage([done]) | {
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }

    def image(self, number: int, pixels: np.ndarray | None) -> dict[str, Any]:
        """Return an image's item; without pixels it is being drawn."""
        result = None if pixels is None else self.base64(pixels)
        return {
            "type": "image_generation_call", "id": f"ig_{self.id[5:]}_{number}",
            "status": "in_progress" if pixels is None else "completed", "result": result,
            **self.look(),
        }  # fmt: skip

    def look(self) -> dict[str, str]:
        """Return the fields that say what kind of images there are."""
        return {"background": "opaque", "output_format": "png", "quality": "auto",
                "size": self.server.size_of("auto")}  # fmt: skip

    def base64(self, pixels: np.ndarray) -> str:
        """Return the PNG file of an image in base64."""
        return base64_of(pixels, self.job, self.server)

    def message(self, number: int, text: str | None) -> dict[str, Any]:
        """Return a text's item; without the text it is being written."""
        content = [] if text is None else [text_part(text)]
        return {
            "type": "message", "id": f"msg_{self.id[5:]}_{number}", "role": "assistant",
            "status": "in_progress" if text is None else "completed", "content": content,
        }  # fmt: skip

    def output(self, heard: Heard) -> list[dict[str, Any]]:
        """Return the items of a reply, texts and images in order."""
        items: list[dict[str, Any]] = []
        at = 0
        for position, pixels in [*heard.images, (len(heard.text), None)]:
            if position > at:
                items.append(self.message(len(items), heard.text[at:position]))
            if pixels is not None:
                items.append(self.image(len(items), pixels))
            at = position
        return items


def text_part(text: str) -> dict[str, Any]:
    """Return a text of a message's content."""
    return {"type": "output_text", "text": text, "annotations": []}


def status_of(done: ReplyDone) -> str:
    """Return the status of a response whose reply is done."""
    return "completed" if done.end == "stop" else "incomplete"


async def respond(request: Request) -> Response:
    """Answer items."""
    from .response_events import events

    server: Server = request.app.state.server
    client = server.admit(request)
    async with server.body(request, client) as body:
        asked = checked(Asked, body.fields)
        asked.check(server.name, server.limits)
        asked.check_with(server)
        modality = asked.modality
        (sampling,) = asked.samplings(server.model, asked.most_tokens)
        given = await conversation(asked.messages(), "input", server, client, modality)
    num_partial = sum(tool.partial_images for tool in asked.tools)
    job = Job(given.document, sampling, modality, (client, asked.user), num_partial)
    work = Work(server, request, [job])
    (accepted,) = await work.begin()
    made = f"resp_{secrets.token_hex(12)}", int(time.time())
    answer = Answer(server, asked, job, accepted, given.notes, *made)
    if asked.stream:
        return streamed(work, events(answer))
    (heard,) = await work.heard()
    done = heard.reply
    return JSONResponse(answer.whole(status_of(done), answer.output(heard), done))
