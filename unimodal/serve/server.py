"""A Server is what all endpoints share: the model in its loop, who may ask, limits and counts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fastapi import Request

from ..boxes import boxed
from ..document import Text
from ..grammar import Modality
from ..model import Model
from .body import Body, Room, length_of, read_body
from .errors import ApiError
from .fetcher import Fetcher, is_web_address
from .keys import Keys
from .limits import Limits
from .loop import ServingLoop
from .metrics import Metrics
from .opened_images import OpenedImages
from .opening import OpenedImage, content_of, opened
from .rates import Rates
from .settings import checked_words

if TYPE_CHECKING:
    from .credentials import ContentCredentials

NAMES = ("127.0.0.1", "localhost", "[::1]")
AT_ONCE = 2  # images that are opened at a time: each may take a quarter of a gigabyte


@dataclass(frozen=True, eq=False)
class Server:
    """A Server answers for one model, which clients call `name`."""

    model: Model
    name: str
    keys: Keys
    limits: Limits
    is_open: bool = False
    """Whether requests are answered that have no key, whatever host they name."""
    fetcher: Fetcher | None = None
    """Fetches images by their addresses; None: they are refused."""
    credentials: "ContentCredentials | None" = None
    """Sign images that are drawn; None: they are not signed."""
    metrics: Metrics = field(default_factory=Metrics)

    @cached_property
    def loop(self) -> ServingLoop:
        """Return the loop that works."""
        return ServingLoop(self.model, self.limits)

    @cached_property
    def _rates(self) -> Rates:
        return Rates(self.limits.requests_a_minute)

    @cached_property
    def _room(self) -> Room:
        return Room(self.limits.max_bodies_bytes)

    @cached_property
    def _images(self) -> OpenedImages:
        return OpenedImages()

    @cached_property
    def _openers(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(AT_ONCE)

    def admit(self, request: Request) -> str:
        """Return the client's name; raise ApiError for a wrong key, for a page of another origin,
        and where it asks too often.
        """
        name = self._client(request)
        if wait_s := self._rates.wait_s(name):
            raise ApiError(
                429, f"{self.limits.requests_a_minute} requests a minute are the most: wait"
                f" {wait_s} s", code="rate_limit_exceeded", retry_after_s=wait_s,
            )  # fmt: skip
        return name

    def _client(self, request: Request) -> str:
        if self.keys:
            kind, _, key = request.headers.get("authorization", "").partition(" ")
            name = self.keys.client(key.strip()) if kind.lower() == "bearer" else None
            if name is None:
                raise ApiError(401, "an API key of this server is wanted, in the header"
                               " Authorization: Bearer KEY", code="invalid_api_key")  # fmt: skip
            return name
        if not self.is_open:
            self._check_origin(request)
        return request.client.host if request.client else "somebody"

    def _check_origin(self, request: Request) -> None:
        """Raise ApiError for another host's name (a page elsewhere may point its own name here:
        DNS rebinding) and for scripts of pages elsewhere.
        """
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in NAMES:
            raise ApiError(
                403, "without API keys this server answers programs of its own machine alone:"
                " name it 127.0.0.1 or localhost", code="wrong_host",
            )  # fmt: skip
        if origin not in (None, f"http://{host}"):
            raise ApiError(
                403, f"without API keys this server answers no scripts of other pages, and this one"
                f" comes from one (Origin: {origin[:80]!a}): its own is at http://{host}",
                code="wrong_origin",
            )  # fmt: skip

    @asynccontextmanager
    async def body(self, request: Request, client: str, forms: bool = False) -> AsyncIterator[Body]:
        """Read the body of a client's request and hold its room until its images are opened; raise
        ApiError where the address has settings, which nobody would read.
        """
        if name := next(iter(request.query_params), None):
            raise ApiError(400, f"{name[:80]!a}: settings are read from the body, none from the"
                           " address", name[:80], "unknown_parameter")  # fmt: skip
        with self._room.taken(length_of(request, self.limits), client):
            yield await read_body(request, self.limits, forms)

    async def shown(self, image: str | bytes, param: str, client: str) -> OpenedImage:
        """Open an image that a client gives: a file, a data: URL or, where there is a fetcher, its
        address.
        """
        if isinstance(image, bytes):
            return await self._opened(image, param)
        if self.fetcher is None or not is_web_address(image):
            content = content_of(image, param, fetches=self.fetcher is not None)
            return await self._opened(content, param)
        with self._room.taken(self.limits.max_fetched_bytes, client):
            return await self._opened(await self.fetcher.fetch(image, param), param)

    async def _opened(self, content: bytes, param: str) -> OpenedImage:
        """Open an image as the model is given it (see `opening.opened`)."""
        if (known := self._images.find(content)) is not None:
            return known
        async with self._openers:
            image = await asyncio.to_thread(opened, content, self.model, self.limits, param)
        self._images.keep(content, image)
        return image

    def boxed(self, boxes: Sequence[str], param: str) -> tuple[Text, ...]:
        """Return the texts of boxes that a client gives; raise ApiError where they cannot be."""
        try:
            checked_words("".join(boxes), param, self.limits)
            return boxed(self.model, boxes)
        except ValueError as error:
            code = "invalid_value" if self.model.takes_boxes else "unsupported_value"
            raise ApiError(400, str(error), param, code) from error

    def constraint(self, modality: Modality | None) -> Modality | None:
        """Return the modality constraint of a reply, where none is asked for the model's own; raise
        ApiError where it has no such replies.
        """
        try:
            return self.model.constraint(modality)
        except ValueError as error:
            raise ApiError(400, str(error), code="unsupported_value") from error

    def size_of(self, size: str, param: str = "size") -> str:
        """Return the size of drawings, as 64x64; raise ApiError where none are so large."""
        sizes = [f"{width}x{height}" for width, height in self.model.sizes]
        if size not in ("auto", *sizes):
            raise ApiError(
                400, f"size {size[:40]!r}: this model draws {' or '.join(sizes)}; auto is that",
                param, "unsupported_value",
            )  # fmt: skip
        return sizes[0] if size == "auto" else size
