"""uvicorn's HTTP protocol with the deadlines it does not have: to connect and say nothing, to trickle headers, to
leave an answer unread. The body's deadline is in `guard`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits

_READ = 2**15


def protocol_with(bounds: Limits) -> type[H11Protocol]:
    """The protocol class with those deadlines."""
    return type("BoundedProtocol", (_TimedProtocol,), {"bounds": bounds})


class _TimedProtocol(H11Protocol):
    bounds = Limits()
    _in_header = False
    _request_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio does it for sockets whose protocol is named, and a listener's is not: answers would wait for an ACK
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.max_size = _READ  # of asyncio's selector loop; its 256 kB, thrice in h11, add up over many uploads
        self._since = self.loop.time()
        self._request_timer = self.loop.call_later(self.bounds.connect_time, transport.abort)
        if len(self.connections) > self.bounds.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop("_request_timer")
        self._stop("_write_timer")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE and not self._in_header:
            self._in_header = True
            self._stop("_request_timer")
            self._request_timer = self.loop.call_later(self.bounds.header_time, self.transport.abort)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._in_header = False
            self._stop("_request_timer")
        self._bound_closing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bound_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_closing()

    def shutdown(self) -> None:
        super().shutdown()
        self._bound_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound_writing()

    def resume_writing(self) -> None:
        self._stop("_write_timer")
        super().resume_writing()
        self._bound_closing()

    def _make_room(self) -> None:
        """Drop the oldest connection that waits for a request: this one, where all others have one."""
        idle = [one for one in self.connections if isinstance(one, _TimedProtocol) and one._is_idle]
        min(idle, key=lambda one: one._since).transport.abort()

    @property
    def _is_idle(self) -> bool:
        waits = self._request_timer is not None or self.timeout_keep_alive_task is not None
        return waits and self._write_timer is None and not self.transport.is_closing()

    def _bound_closing(self) -> None:
        """Closing waits for the client to read what is buffered, however long that takes."""
        if self.transport.is_closing():
            self._bound_writing()

    def _bound_writing(self) -> None:
        self._stop("_write_timer")
        self._write_timer = self.loop.call_later(self.bounds.write_time, self.transport.abort)

    def _stop(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
