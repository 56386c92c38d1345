"""Run the application: one socket, deadlines on every connection, and a stop that loses nothing accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..errors import InputError
from .app import Service
from .protocol import protocol_with

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
MIN_TOKEN = 16
_NOTICE_SECONDS = 0.3


def check_exposure(host: str, token: str | None, allowed: Collection[str]) -> frozenset[str] | None:
    """The host names to answer to (None: any), for a server that listens on `host`.

    Raises InputError when others could reach it and there is no token.
    """
    if token is not None and len(token) < MIN_TOKEN:
        raise InputError(f"the token has {len(token)} characters; take at least {MIN_TOKEN}")
    if is_loopback(host):
        return LOCAL_HOSTS | {name.lower() for name in allowed}
    if token is None:
        raise InputError(f"--host {host} can be reached from other machines: set a token in FLORENTUNE_TOKEN")
    return frozenset(name.lower() for name in allowed) or None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def serve(app: FastAPI, host: str, port: int, on_start: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted; a second signal ends it at once.

    `on_start` hears the address. Raises InputError when the address cannot be had, and the model's error when the
    model cannot be loaded.
    """
    service: Service = app.state.service
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=256)
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    config = uvicorn.Config(
        app,
        http=protocol_with(service.limits),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    shown = f"[{host}]" if ":" in host else host
    on_start(f"http://{shown}:{listener.getsockname()[1]}")
    _Server(config, service).run(sockets=[listener])
    if service.pool.failure is not None:
        raise service.pool.failure


class _Server(uvicorn.Server):
    """uvicorn, except that a signal first drains: new work is refused, accepted work and its answers are finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service, self._drain_task = service, None

    _drain_task: asyncio.Task[None] | None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals without raising them again: a graceful stop is exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self._service.pool.stop()
            raise SystemExit(128 + sig)
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._drain())
        if self._service.pool.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        ends_by = time.monotonic() + self._service.limits.grace
        await asyncio.sleep(_NOTICE_SECONDS)  # connections that are already in the backlog get an answer
        while self._service.busy and time.monotonic() < ends_by:
            await asyncio.sleep(0.05)
        self.should_exit = True
