"""/v1/chat/completions: a conversation in, the assistant's next message out, words and images.

Images of an answer stand in `message.images`, and while it streams in `delta.images`, as other
servers with images have them: {"type": "image_url", "image_url": {"url": "data:..."}}.
"""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from ..candidates import samplings_of
from ..events import ReplyDone, TextDelta
from ..grammar import Modality
from ..room import asked as asked_in
from .errors import ApiError
from .fields import Fields, Items, checked
from .job import Accepted, Drawn, Job, Partial
from .logprobs import MOST, MOST_OF_ONE, logprobs_of
from .messages import Message, conversation
from .provenance import base64_of
from .server import Server
from .settings import MostTokens, Settings
from .sse import event, streamed
from .trial import Chosen, Trial
from .work import Work

SPENT = "prompt_tokens", "completion_tokens"


class StreamOptions(Fields):
    """What a stream tells beside the reply."""

    include_usage: bool = False


class Completion(Settings):
    """The body of a request."""

    ONLY: ClassVar = {
        "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "top_p": (1,),
        "stop": ([],), "store": (False,),
        "tools": ([],), "functions": ([],), "tool_choice": ("auto", "none"),
        "function_call": ("auto", "none"), "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},), "service_tier": ("auto", "default"),
        "metadata": ({},), "reasoning_effort": ("none",), "audio": (), "prediction": (),
        "web_search_options": (),
    }  # fmt: skip
    messages: Items[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    modalities: Items[Literal["text", "image"]] | None = None
    """What the reply may be of: both, or what the model chooses; words alone; one image alone."""
    stream_options: StreamOptions | None = None
    size: str = "auto"
    """Of the images of the reply."""
    logprobs: bool = False
    """Whether the answer tells how likely each token of its words was."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens in its place are told beside each."""

    def of_drawings(self) -> dict[str, Any]:
        """Return the settings of drawings that ask for more than words have."""
        return super().of_drawings() | ({} if self.size == "auto" else {"size": self.size})

    @property
    def modality(self) -> Modality | None:
        """Return the modality constraint; raise ApiError where nothing is left to answer with."""
        if self.modalities == []:
            raise ApiError(400, "modalities []: nothing is left to answer with; give text, image or"
                           " both", "modalities", "invalid_value")  # fmt: skip
        asked = set(self.modalities or ("text", "image"))
        return None if len(asked) == 2 else asked.pop()

    @property
    def most_tokens(self) -> MostTokens | None:
        """Return the most text tokens of a reply; raise ApiError where two numbers are given."""
        old, new = self.max_tokens, self.max_completion_tokens
        if None not in (old, new) and old != new:
            raise ApiError(400, "max_tokens is the old name of max_completion_tokens: give one",
                           "max_tokens", "invalid_value")  # fmt: skip
        if new is not None:
            return MostTokens("max_completion_tokens", new)
        return None if old is None else MostTokens("max_tokens", old)

    @property
    def likeliest(self) -> int | None:
        """Return how many tokens are told beside each of words, None where nothing is told; raise
        ApiError for what cannot be told.
        """
        if not self.logprobs:
            if self.top_logprobs is not None:
                raise ApiError(400, "top_logprobs are told with logprobs: true",
                               "top_logprobs", "invalid_value")  # fmt: skip
            return None
        if self.stream:
            raise ApiError(400, "logprobs are told in a whole answer; leave stream or logprobs out",
                           "logprobs", "unsupported_value")  # fmt: skip
        wanted = self.most_tokens
        most = MOST_OF_ONE if wanted is not None and wanted.number == 1 else MOST
        if not 0 <= (number := self.top_logprobs or 0) <= most:
            said = f"from 0 to {MOST}, of a single token to {MOST_OF_ONE}"
            raise ApiError(400, f"top_logprobs {number}: {said}", "top_logprobs",
                           "invalid_value")  # fmt: skip
        return number


@dataclass(frozen=True)
class Shape:
    """What all parts of an answer have in common."""

    server: Server
    id: str
    created: int
    notes: tuple[str, ...]

    def head(self, kind: str) -> dict[str, Any]:
        """Return the fields with which an answer, or a chunk of one, begins."""
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.server.name,
            "system_fingerprint": f"fp_{self.server.model.hash[:12]}",
        }  # fmt: skip

    def image(self, pixels: np.ndarray, job: Job, index: int, position: int) -> dict[str, Any]:
        """Return an image of an answer."""
        url = f"data:image/png;base64,{base64_of(pixels, job, self.server)}"
        return {"type": "image_url", "index": index, "position": position,
                "image_url": {"url": url}}  # fmt: skip


async def complete(request: Request) -> Response:
    """Answer a conversation."""
    server: Server = request.app.state.server
    client = server.admit(request)
    async with server.body(request, client) as body:
        asked = checked(Completion, body.fields)
        asked.check(server.name, server.limits)
        if asked.stream_options is not None and not asked.stream:
            raise ApiError(400, "stream_options are of a stream", "stream_options", "invalid_value")
        server.size_of(asked.size)
        modality, likeliest = asked.modality, asked.likeliest
        or_else = "or modalities out" if asked.modalities else "out"
        asked.check_used(server.constraint(modality), asked.most_tokens, or_else)
        samplings = asked.samplings(server.model, asked.most_tokens)
        messages = {f"messages.{number}": one for number, one in enumerate(asked.messages)}
        given = await conversation(messages, "messages", server, client, modality)
    trial = Trial.of(asked_in(given.document), asked.candidates)
    jobs = [
        Job(given.document, one, modality, (client, asked.user), asked.partial_images, likeliest)
        for first in samplings
        for one in samplings_of(first, trial.num)
    ]
    work = Work(server, request, jobs)
    accepted = await work.begin()
    made = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    shape = Shape(server, *made, given.notes)
    if asked.stream:
        with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return streamed(work, _stream(work, shape, accepted[0], with_usage))
    chosen, replies = await work.chosen(trial)
    spent = accepted[0].usage(replies, SPENT)
    return JSONResponse(_answer(shape, chosen, spent, asked.others))


def _answer(
    shape: Shape, chosen: list[Chosen], spent: dict[str, Any], with_others: bool
) -> dict[str, Any]:
    """Return the whole answer."""
    choices = []
    for index, one in enumerate(chosen):
        others = [{"message": _message(shape, other), **other.fields} for other in one.others]
        is_told = one.job.likeliest is not None
        logprobs = logprobs_of(one.heard.scored, shape.server.model) if is_told else None
        choices.append({
            "index": index, "message": _message(shape, one), "logprobs": logprobs,
            "finish_reason": _reason(one.heard.reply), **one.fields,
            **({"others": others} if with_others else {}),
        })  # fmt: skip
    notes = [*shape.notes, *(note for one in chosen for note in one.notes)]
    said = {"notes": notes} if notes else {}
    return shape.head("chat.completion") | {"choices": choices, "usage": spent} | said


def _message(shape: Shape, one: Chosen) -> dict[str, Any]:
    """Return a whole reply as a message."""
    images = [
        shape.image(pixels, one.job, number, position)
        for number, (position, pixels) in enumerate(one.heard.images)
    ]
    message = {"role": "assistant", "content": one.heard.text or None, "refusal": None}
    return message | ({"images": images} if images else {})


def _reason(done: ReplyDone) -> str:
    return "stop" if done.end == "stop" else "length"


async def _stream(
    work: Work, shape: Shape, accepted: Accepted, with_usage: bool
) -> AsyncIterator[str]:
    """Yield the server-sent events of a reply."""
    (job,) = work.jobs
    notes: dict[str, Any] = {"notes": list(shape.notes)} if shape.notes else {}

    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        empty = {"usage": None} if with_usage else {}
        return event(shape.head("chat.completion.chunk") | {"choices": [choice]} | empty | more)

    start = {"role": "assistant", "content": ""}
    yield chunk(start, **notes, seed=job.sampling.seed)
    num_characters = num_images = 0
    async for told in job.events():
        if isinstance(told, TextDelta):
            num_characters += len(told.text)
            yield chunk({"content": told.text})
        elif isinstance(told, Partial):
            image = shape.image(told.pixels, job, num_images, num_characters)
            yield chunk({"partial_images": [image | {"partial_image_index": told.number}]})
        elif isinstance(told, Drawn):
            yield chunk({"images": [shape.image(told.pixels, job, num_images, num_characters)]})
            num_images += 1
        elif isinstance(told, ReplyDone):
            yield chunk({}, _reason(told))
            if with_usage:
                spent = {"choices": [], "usage": accepted.usage([told], SPENT)}
                yield event(shape.head("chat.completion.chunk") | spent)
    yield "data: [DONE]\n\n"
