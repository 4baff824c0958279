"""Connections of clients, as uvicorn has them by h11, and how the server of them stops.

uvicorn keeps a connection that asks nothing for as long as it stays open, and refuses everybody
once there are too many. Here the head of a request must come within HEAD_S, and where there are
too many connections, the one that has rested for longest makes way.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import ApiError
from .limits import HEAD_S, MAX_CONNECTIONS, STOP_S


class Connection(H11Protocol):
    """A connection of a client."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_due: asyncio.TimerHandle | None = None
        self._rests_since = self.loop.time()

    @property
    def rests(self) -> bool:
        """Return whether no request of it is answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin, if need be in another's place."""
        super().connection_made(transport)
        self._watch_head()
        if len(self.connections) > MAX_CONNECTIONS and not self._finds_room():
            self.app = _refuse

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        self._watch_head()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing of a protocol that is offered and not taken, as RFC 9110, 7.8 has it."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request of HTTP, in the words of `msg`, and close."""
        answer = JSONResponse(ApiError(400, msg, code="invalid_http").body(), 400)
        head = [*answer.raw_headers, (b"connection", b"close")]
        events = (h11.Response(status_code=400, headers=head), h11.Data(data=answer.body))
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        """Rest."""
        self._rests_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._expect_no_head()

    def _watch_head(self) -> None:
        """Close the connection in time, unless the head of a request is whole."""
        if self.conn.their_state is not h11.IDLE:
            self._expect_no_head()
        elif self._head_due is None:
            self._head_due = self.loop.call_later(HEAD_S, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _finds_room(self) -> bool:
        """Return whether there is room for this connection; one that rests makes way for it."""
        others = [
            one for one in self.connections if isinstance(one, Connection) and one is not self
        ]
        there = [one for one in others if not one.transport.is_closing()]
        resting = [one for one in there if one.rests]
        if len(there) < MAX_CONNECTIONS:
            return True
        if resting:
            min(resting, key=lambda one: one._rests_since).transport.close()
        return bool(resting)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer where there are too many connections, each with a request in work."""
    error = ApiError(503, f"{MAX_CONNECTIONS:,} requests are answered already: try again later",
                     code="overloaded", retry_after_s=1)  # fmt: skip
    head = error.headers | {"Connection": "close"}
    await JSONResponse(error.body(), error.status, head)(scope, receive, send)


class HttpServer(uvicorn.Server):
    """A server that, once it is to stop, goes on for STOP_S and then calls `end`."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self._end = end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end, and call `end` where they do not."""
        ending = asyncio.get_running_loop().call_later(STOP_S, self._end)
        await super().shutdown(sockets)
        ending.cancel()
