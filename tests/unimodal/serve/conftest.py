"""The model that ships, served: its tests need the extra `serve`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import unimodal

if TYPE_CHECKING:
    from api_server import Served
    from chat_page import ChatPage

    from unimodal.model import Model

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
pytest.importorskip("python_multipart", reason="the extra `serve` is not installed")


@pytest.fixture(scope="session")
def shipped() -> "Model":
    return unimodal.load()


@pytest.fixture(scope="session")
def served(shipped: "Model") -> Iterator["Served"]:
    from api_server import serving

    with serving(shipped, requests_a_minute=100_000, memory_bytes=2**28) as found:
        yield found


@pytest.fixture(scope="session")
def small(tiny_model: "Model") -> Iterator["Served"]:
    """The tiny model served: it draws 16 x 24 pixels of nothing, at once."""
    from api_server import serving

    with serving(tiny_model, requests_a_minute=100_000, max_body_bytes=2**20) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from browser import driven

    with driven() as found:
        yield found


@pytest.fixture
def chat(browser: Any, served: "Served") -> Iterator["ChatPage"]:
    from chat_page import opened

    with opened(browser, served) as found:
        yield found
