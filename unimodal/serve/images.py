"""/v1/images/generations and /v1/images/edits: words, or images and words, in, images out.

JSON and forms mean the same: equal fields give equal bytes.
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from ..candidates import samplings_of
from ..document import Document, Image, Text
from ..events import ReplyDone, TextDelta
from ..room import asked as asked_in
from .errors import ApiError
from .fields import Fields, Items, checked
from .job import Accepted, Drawn, Job, Partial
from .provenance import base64_of
from .server import Server
from .settings import Settings, checked_words
from .sse import event, streamed
from .trial import Chosen, Trial
from .work import Work

KINDS = Literal["image_generation", "image_edit"]


class Generation(Settings):
    """The body of a request for images."""

    ONLY: ClassVar = {
        "background": ("auto", "opaque"), "moderation": ("auto",), "output_compression": (100,),
        "output_format": ("png",), "quality": ("auto",), "response_format": ("b64_json",),
        "style": (), "svg": (), "frame_count": (), "frame_duration_ms": (), "complexity": (),
    }  # fmt: skip
    prompt: str
    size: str = "auto"
    boxes: Items[str] = []
    """What is to stand where (unimodal/boxes.py); of a form, a field of that name for each."""


class ImageReference(Fields):
    """An image of an edit in JSON."""

    image_url: str


class Edit(Generation):
    """The body of a request for edited images; `image` of a form is a list of files or texts."""

    ONLY: ClassVar = Generation.ONLY | {"mask": (), "markup": (), "input_fidelity": ()}
    image: str | Items[str | bytes] | None = None
    images: Items[ImageReference] | None = None

    @property
    def field(self) -> str:
        """Return the name of the field that has the images."""
        return "image" if self.images is None else "images"

    def given(self) -> list[str | bytes]:
        """Return the images as files or URLs; raise ApiError where there are none, or two fields of
        them.
        """
        if (self.image is None) == (self.images is None):
            raise ApiError(400, "an edit has `image`, one or a list, or `images`",
                           "image", "invalid_value")  # fmt: skip
        if self.image is None:
            return [one.image_url for one in self.images or ()]
        return [self.image] if isinstance(self.image, str) else self.image


@dataclass(frozen=True)
class Shape:
    """What the events and the answer of a request have in common."""

    server: Server
    kind: KINDS
    size: str
    created: int
    notes: tuple[str, ...]

    @property
    def head(self) -> dict[str, Any]:
        """Return the fields that say what kind of images there are."""
        return {"background": "opaque", "output_format": "png", "quality": "auto",
                "size": self.size}  # fmt: skip


async def generate(request: Request) -> Response:
    """Draw images after words."""
    server: Server = request.app.state.server
    client = server.admit(request)
    async with server.body(request, client, forms=True) as body:
        asked = checked(Generation, body.fields, body.is_form)
    return await _draw(request, server, client, asked, (), (), "image_generation")


async def edit(request: Request) -> Response:
    """Draw images after images and words."""
    server: Server = request.app.state.server
    client = server.admit(request)
    async with server.body(request, client, forms=True) as body:
        asked = checked(Edit, body.fields, body.is_form)
        given = asked.given()
        if not 1 <= len(given) <= server.limits.max_images:
            said = f"{len(given)} images: from 1 to {server.limits.max_images}"
            raise ApiError(400, said, asked.field, "invalid_value")
        opened = [await server.shown(one, asked.field, client) for one in given]
    shown = tuple(Image(one.pixels, role="user") for one in opened)
    notes = tuple(f"image {n}: {note}" for n, one in enumerate(opened) for note in one.notes)
    drawn = server.size_of(asked.size)
    if asked.size == "auto" and any(f"{one.size[0]}x{one.size[1]}" != drawn for one in opened):
        notes += (f"the edit has {drawn} pixels: this model draws no others",)
    return await _draw(request, server, client, asked, shown, notes, "image_edit")


async def _draw(
    request: Request,
    server: Server,
    client: str,
    asked: Generation,
    shown: tuple[Image, ...],
    notes: tuple[str, ...],
    kind: KINDS,
) -> Response:
    """Draw, and answer with the images or a stream of events."""
    server.constraint("image")
    asked.check(server.name, server.limits)
    size = server.size_of(asked.size)
    words = checked_words(asked.prompt, "prompt", server.limits)
    if not words.strip():
        raise ApiError(400, "the prompt is empty: say what to draw", "prompt", "invalid_value")
    placed = server.boxed(asked.boxes, "boxes")
    document = Document((*shown, Text(words, role="user"), *placed))
    trial = Trial.of(asked_in(document), asked.candidates)
    jobs = [
        Job(document, one, "image", (client, asked.user), asked.partial_images)
        for first in asked.samplings(server.model)
        for one in samplings_of(first, trial.num)
    ]
    work = Work(server, request, jobs)
    accepted = (await work.begin())[0]
    shape = Shape(server, kind, size, int(time.time()), notes)
    if asked.stream:
        return streamed(work, _stream(work, shape, accepted))
    chosen, replies = await work.chosen(trial)
    data = [told for one in chosen for told in _told(one, server, asked.others)]
    spent = _usage(accepted, replies)
    answer = {"created": shape.created, "data": data, "usage": spent}
    more = [note for one in chosen for note in one.notes]
    return JSONResponse(answer | shape.head | _said((*notes, *more)))


def _told(one: Chosen, server: Server, with_others: bool) -> list[dict[str, Any]]:
    """Return the images of a reply as an answer tells them, the first with those not kept."""
    told: list[dict[str, Any]] = [
        {"b64_json": base64_of(pixels, one.job, server), **_planned(one.heard.text[:at])}
        | one.fields
        for at, pixels in one.heard.images
    ]
    if with_others:
        told[0]["others"] = [
            image for other in one.others for image in _told(other, server, with_others=False)
        ]
    return told


def _usage(accepted: Accepted, replies: Sequence[ReplyDone]) -> dict[str, Any]:
    of_words = accepted.num_tokens - accepted.num_image_tokens
    details = {"image_tokens": accepted.num_image_tokens, "text_tokens": of_words}
    return accepted.usage(replies) | {"input_tokens_details": details}


async def _stream(work: Work, shape: Shape, accepted: Accepted) -> AsyncIterator[str]:
    """Yield the server-sent events of a drawing."""
    (job,) = work.jobs
    image, words = "", ""

    def told(name: str, **more: Any) -> str:
        kind = f"{shape.kind}.{name}"
        return event({"type": kind, "created_at": shape.created} | shape.head | more, kind)

    async for one in job.events():
        if isinstance(one, TextDelta):
            words += one.text
        elif isinstance(one, Partial):
            image = base64_of(one.pixels, job, shape.server)
            yield told("partial_image", b64_json=image, partial_image_index=one.number)
        elif isinstance(one, Drawn):
            image = base64_of(one.pixels, job, shape.server)
        elif isinstance(one, ReplyDone):
            spent, said = _usage(accepted, [one]), _planned(words) | _said(shape.notes)
            yield told("completed", b64_json=image, usage=spent, seed=job.sampling.seed, **said)


def _planned(words: str) -> dict[str, str]:
    """Return the field that tells what the model planned in words before it drew, if it did."""
    return {"revised_prompt": words.strip()} if words.strip() else {}


def _said(notes: tuple[str, ...]) -> dict[str, list[str]]:
    return {"notes": list(notes)} if notes else {}
