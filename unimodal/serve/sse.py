"""Answers that stream, as server-sent events (HTML, 9.2.6)."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from .errors import ApiError, failed
from .loop import LOG
from .work import Work


def event(data: dict[str, Any], name: str | None = None) -> str:
    """Return an event."""
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def streamed(work: Work, events: AsyncIterator[str]) -> StreamingResponse:
    """Return the answer that streams events and ends the work behind them."""
    return StreamingResponse(_to_the_end(work, events), media_type="text/event-stream")


async def _to_the_end(work: Work, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield events; an error is the last of them, for the status was sent already."""
    try:
        async for one in events:
            yield one
    except ApiError as error:
        yield event(error.body(), "error")
    except Exception:
        LOG.exception("a stream failed")
        yield event(failed().body(), "error")
    finally:
        work.end()
