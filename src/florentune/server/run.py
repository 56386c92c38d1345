"""Run the application: one socket, deadlines on every connection, and a stop that loses nothing accepted."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import ipaddress
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..errors import InputError
from .app import Service
from .limits import Limits
from .protocol import protocol_with

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
MIN_TOKEN = 16
_LOG = logging.getLogger(__name__)
_NOTICE_SECONDS = 0.3
_ANSWER_SECONDS = 5
_OWN_FILES, _WORKER_FILES = 32, 8
_CONNECTION_FILES = 3  # its socket, what is received, and the form it is received in
_END_SECONDS = 10.0  # after the grace; what is not over by then is stuck


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

    What is not finished after `Limits.grace` is answered with "stopping". A server that has not come to its end ten
    seconds later is stuck: it writes where, and ends with exit code 1.

    `on_start` hears the address. Raises InputError when the address cannot be had, and the model's error when the
    model cannot be loaded.
    """
    service: Service = app.state.service
    bounds = _affordable(service.limits, service.workers)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    config = uvicorn.Config(
        app,
        http=protocol_with(bounds),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_ANSWER_SECONDS,
        # so many are accepted in one go, before any of them can be dropped to make room
        backlog=max(bounds.connections // 4, 1),
    )
    shown = f"[{host}]" if ":" in host else host
    on_start(f"http://{shown}:{listener.getsockname()[1]}")
    _Server(config, service).run(sockets=[listener])
    if service.pool.failure is not None:
        raise service.pool.failure


def _affordable(limits: Limits, workers: int) -> Limits:
    """The limits with no more connections than this process may have files open; asks for as many as it may need.

    Raises InputError where they are too few to serve at all.
    """
    own = _OWN_FILES + workers * _WORKER_FILES
    wanted = own + limits.connections * _CONNECTION_FILES
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (wanted if bound == resource.RLIM_INFINITY else bound for bound in before)
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    connections = min(limits.connections, (soft - own) // _CONNECTION_FILES)
    if connections < 1:
        raise InputError(f"this process may have {soft} files open, {own + _CONNECTION_FILES} are needed: ulimit -n")
    return replace(limits, connections=connections)


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
            faulthandler.cancel_dump_traceback_later()
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self._service.pool.stop()
            raise SystemExit(128 + sig)
        self._service.draining = True
        with contextlib.suppress(RuntimeError, ValueError):  # there may be no standard error to write to
            faulthandler.dump_traceback_later(self._service.limits.grace + _END_SECONDS, exit=True)

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining and self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._drain())
        if self._service.pool.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        service, began = self._service, time.monotonic()
        await asyncio.sleep(_NOTICE_SECONDS)  # connections that are already in the backlog get an answer
        while service.owes(began) and time.monotonic() - began < service.limits.grace:
            await asyncio.sleep(0.05)
        images, documents = service.pool.load, service.documents.load
        if images or documents:
            _LOG.warning("%d images and %d documents were given up after %g s", images, documents, service.limits.grace)
        service.stop()
        for server in self.servers:
            server.close()
        await asyncio.sleep(_NOTICE_SECONDS)  # those that were accepted last get an answer
        self.should_exit = True
