"""The application: routes, errors in OpenAI's shape, and counts of answers.

GET  /                         the web page (web.py), and its files at /page/
POST /v1/chat/completions      completions.py
POST /v1/images/generations    images.py
POST /v1/images/edits          images.py
POST /v1/responses             responses.py
GET  /v1/models                the one model
GET  /health                   whether it works; needs no key
GET  /metrics                  for Prometheus
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..boxes import MAX_BOXES
from ..candidates import MAX_CANDIDATES
from . import completions, images, responses, web
from .errors import ApiError, failed, stopping
from .metrics import CONTENT_TYPE, Metrics
from .server import Server

NOSNIFF = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def application(server: Server) -> FastAPI:
    """Return the application of a server, whose loop works while it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.loop.start()
        yield
        server.loop.stop()

    # Pages that describe an API would be loaded from elsewhere.
    app = FastAPI(title="unimodal", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.server = server
    app.state.created = int(time.time())
    for path, (method, answer) in ROUTES.items():
        app.add_route(path, answer, methods=[method])
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(Exception, _fail)
    app.add_middleware(_Counted, metrics=server.metrics)
    return app


async def list_models(request: Request) -> Response:
    """Answer with the one model."""
    server: Server = request.app.state.server
    server.admit(request)
    return JSONResponse({"object": "list", "data": [_model(request)]})


async def show_model(request: Request) -> Response:
    """Answer with a model by its name."""
    server: Server = request.app.state.server
    server.admit(request)
    if request.path_params["name"] != server.name:
        raise ApiError(404, f"that model is not here; {server.name!r} is", "model",
                       "model_not_found")  # fmt: skip
    return JSONResponse(_model(request))


def _model(request: Request) -> dict[str, Any]:
    server: Server = request.app.state.server
    sizes = [f"{width}x{height}" for width, height in server.model.sizes]
    return {
        "id": server.name, "object": "model", "created": request.app.state.created,
        "owned_by": "unimodal", "hash": server.model.hash, "context": server.model.usable_context,
        "sizes": sizes if "image" in server.model.replies else [],
        "image_head": server.model.transformer.architecture.image.head,
        "settings": _settings(server) if "image" in server.model.replies else {},
        "max_images": server.limits.max_images,
    }  # fmt: skip


def _settings(server: Server) -> dict[str, Any]:
    """Return the settings of drawings that the model has, with what holds where none is given."""
    sampling, follows = server.model.sampling, server.model.transformer.head.follows
    own = {"steps": "image_steps", "drafts": "image_drafts"}
    of_head = {name: getattr(sampling, one) for name, one in own.items() if one in follows}
    return {
        "guidance": 1.0 if sampling.guidance is None else sampling.guidance,
        "negative_prompt": sampling.negative,
        "partial_images": server.limits.max_partial_images, "candidates": MAX_CANDIDATES,
        **({"boxes": MAX_BOXES} if server.model.takes_boxes else {}), **of_head,
    }  # fmt: skip


async def health(request: Request) -> Response:
    """Answer whether the loop works, and how much it has to do."""
    loop = request.app.state.server.loop
    said = {"status": "ok" if loop.is_alive else "stopped", "working": loop.num_working,
            "waiting": loop.num_waiting}  # fmt: skip
    return JSONResponse(said, 200 if loop.is_alive else 503)


async def metrics(request: Request) -> Response:
    """Answer with counts of requests and of the loop's work."""
    server: Server = request.app.state.server
    server.admit(request)
    loop = server.loop
    counters = {
        "images_total": ("Images drawn.", loop.num_images),
        "tokens_read_total": ("Tokens that the transformer was run over.", loop.num_read),
        "cancelled_total": ("Replies whose client left first.", loop.num_cancelled),
        "failed_total": ("Replies that an error of the server ended.", loop.num_failed),
    }
    gauges = {
        "replies_working": ("Replies in work.", loop.num_working),
        "replies_waiting": ("Replies that wait.", loop.num_waiting),
    }
    return PlainTextResponse(server.metrics.text(counters, gauges), media_type=CONTENT_TYPE)


MODELS = "/v1/models"
MODEL = f"{MODELS}/{{name:path}}"  # names may have slashes, as org/model
PAGE = "/page/{file}"
ROUTES = {
    "/": ("GET", web.show),
    PAGE: ("GET", web.show),
    "/v1/chat/completions": ("POST", completions.complete),
    "/v1/images/generations": ("POST", images.generate),
    "/v1/images/edits": ("POST", images.edit),
    "/v1/responses": ("POST", responses.respond),
    MODELS: ("GET", list_models),
    MODEL: ("GET", show_model),
    "/health": ("GET", health),
    "/metrics": ("GET", metrics),
}


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "the handler of ApiError"
    return _answered(error)


async def _refuse_route(request: Request, error: Exception) -> Response:
    """Answer where there is no such route, or not with that method."""
    assert isinstance(error, HTTPException), "the handler of HTTPException"
    said = {404: "there is nothing at this address", 405: "this address has another method"}
    refusal = ApiError(error.status_code, said.get(error.status_code, "this is refused"))
    return JSONResponse(refusal.body(), error.status_code, error.headers)


async def _fail(_: Request, __: Exception) -> Response:
    return _answered(failed())


def _answered(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers)


class _Counted:
    """Counts answers by their route, never by what a client wrote in its place."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start, is_begun = 500, time.monotonic(), False

        async def noting(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                more = [(name.lower().encode(), value.encode()) for name, value in NOSNIFF.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if not is_begun:
                await _answered(stopping())(scope, receive, noting)
        finally:
            self._metrics.add(_route(scope["path"]), status, time.monotonic() - start)


def _route(path: str) -> str:
    """Return a route of ROUTES, `other` for what a client made up."""
    if path.startswith(f"{MODELS}/"):
        return MODEL
    if path.startswith("/page/"):
        return PAGE
    return path if path in ROUTES else "other"
