"""What every request passes before any route sees it: host, origin, token, and the size and pace of its body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .metrics import Metrics
from .problems import Problem, problem_of, response, stopping

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_DRAIN_BYTES, _DRAIN_SECONDS = 4 * 2**20, 1.0


class Guard:
    """ASGI middleware. `hosts` are the names the server answers to (None: any), `token` what a client must show."""

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None, hosts: Collection[str] | None
    ) -> None:
        self.app, self.limits, self.metrics, self.token, self.hosts = app, limits, metrics, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, Headers(scope=scope), self.limits)
        answer = _Answer(send, body)
        started = time.monotonic()
        try:
            self._check(scope, Headers(scope=scope), body)
            await self.app(scope, body.receive, answer.send)
        except ClientDisconnect:
            return
        except Problem as problem:
            if not answer.status:
                await response(problem)(scope, body.receive, answer.send)
        except asyncio.CancelledError:  # the server ends, and this request with it
            if not answer.status:
                await response(stopping())(scope, body.receive, answer.send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.answered(route, scope["method"], answer.status or 499, time.monotonic() - started)

    def _check(self, scope: Scope, headers: Headers, body: _Body) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and host_name(host) not in self.hosts:
            raise Problem(421, "host", "this server does not answer to that host name; see --allow-host")
        origin = headers.get("origin")
        if (origin is not None and urlsplit(origin).netloc != host) or headers.get("sec-fetch-site") == "cross-site":
            raise Problem(403, "origin", "requests from other web sites are not answered")
        if self.token is not None and scope["path"] not in OPEN_PATHS and not self._knows_token(headers):
            challenge = {"WWW-Authenticate": 'Basic realm="florentune", charset="UTF-8"'}
            raise Problem(401, "token", "send the token as Authorization: Bearer TOKEN", challenge)
        if body.announced > self.limits.body:
            raise _too_large(self.limits)

    def _knows_token(self, headers: Headers) -> bool:
        """Bearer for programs; Basic with the token as password lets a browser ask for it."""
        assert self.token is not None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                shown = ""
        elif kind.lower() != "bearer":
            shown = ""
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self.token.encode())


class _Body:
    """The body of a request, counted and timed while it is received."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        length = headers.get("content-length", "0")
        self.announced = int(length) if length.isascii() and length.isdigit() else 0
        self.complete = self.announced == 0 and "transfer-encoding" not in headers
        self.expects = "expect" in headers
        self._size = 0
        self._ends_by = time.monotonic() + limits.body_time

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._ends_by - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "slow", f"the body took longer than {self._limits.body_time:g} s") from None
        self._size += len(message.get("body", b""))
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._size > self._limits.body:
            raise _too_large(self._limits)
        return message

    async def drain(self) -> None:
        """Throw away a little of what still comes: a client that is cut off while it sends never reads the answer."""
        left = 0 if self.expects else _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0 and not self.complete:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        except TimeoutError:
            return


class _Answer:
    """The answer to a request, with the headers that every answer has."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body, self.status = send, body, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if not self._body.complete:
                headers["Connection"] = "close"
        elif not message.get("more_body", False) and not self._body.complete:
            await self._send({**message, "more_body": True})
            await self._body.drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


def host_name(host: str) -> str:
    """A Host header without its port, in lower case: "[::1]:8000" -> "[::1]"."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _too_large(limits: Limits) -> Problem:
    return problem_of("too_large", f"the body is larger than {limits.body:,} bytes")
