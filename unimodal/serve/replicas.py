"""Replicas of a server under Ray Serve, for `serve run configs/ray.yml`.

Each replica is the whole application with a loop and a model of its own. A client stays with one
replica, by its API key: Ray's router hashes the header that RAY_SERVE_SESSION_ID_HEADER_KEY names.
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import RequestRouterConfig

from ..bundle import load
from ..config import replaced
from ..threads import one_thread
from .app import application
from .command import MAX_CONNECTIONS, name_of
from .keys import read_keys
from .limits import Limits
from .server import Server

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class Given(BaseModel):
    """The arguments of configs/ray.yml, as those of `unimodal serve`."""

    model_config = ConfigDict(extra="forbid")
    model: Path | None = None
    """A bundle, where each node has it; None: the model that ships."""
    keys: Path
    """API keys, one a line: others than this machine may ask."""
    name: str | None = None
    limits: dict[str, int] = {}
    """Of each replica."""


def replicas(given: Given) -> serve.Application:
    """Return the application that Ray runs; raise ValueError for keys and limits that are none."""
    keys, limits = read_keys(given.keys), replaced(Limits(), given.limits)
    name = given.name or name_of(given.model)

    def build() -> FastAPI:
        with one_thread():  # as in command.py
            model = load(given.model)
        return application(Server(model, name, keys, limits))

    options: dict[str, Any] = {
        "name": "unimodal",
        "max_ongoing_requests": MAX_CONNECTIONS,  # the loop's own queue says when it is full
        "request_router_config": RequestRouterConfig(request_router_class=ROUTER),
    }
    return serve.deployment(serve.ingress(build)(), **options).bind()
