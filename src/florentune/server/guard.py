"""What every request passes before any route sees it: host, origin, token, and the size and pace of its body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .metrics import Metrics
from .problems import Problem, problem_of, response, stopping

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    b"frame-ancestors 'none'; form-action 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_SKIPPED_BYTES, _SKIP_SECONDS = 4 * 2**20, 1.0
_SOON_SECONDS = 0.01  # a body that follows its header at once, in a packet of its own


class Guard:
    """ASGI middleware. `hosts` are the names the server answers to (None: any), `token` what a client must show.

    `doors` are the paths to which work is posted, each with a function that raises the Problem for which it takes none
    now: under overload most requests end here, before routing and before their body costs anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        hosts: Collection[str] | None,
        doors: Mapping[str, Callable[[], None]],
    ) -> None:
        self.app, self.limits, self.metrics, self.token, self.hosts = app, limits, metrics, token, hosts
        self.doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        body = _Body(receive, headers, self.limits)
        answer = _Answer(send, body)
        started = time.monotonic()
        try:
            self._check(scope, headers, body)
            if scope["method"] == "POST" and scope["path"] in self.doors:
                self.doors[scope["path"]]()
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
            unrouted: str = scope["path"] if scope["path"] in self.doors else "other"
            route: str = getattr(scope.get("route"), "path", unrouted)
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

    async def skip(self, seconds: float) -> None:
        """Throw away a little of the body: what is there, and what comes within `seconds`.

        A client that has sent all may keep its connection; one that is cut off while it sends never reads the answer.
        """
        left = 0 if self.expects else _SKIPPED_BYTES
        try:
            async with asyncio.timeout(seconds):
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
            await self._body.skip(_SOON_SECONDS)
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS.items() if name not in names]
            headers += [] if self._body.complete else [(b"connection", b"close")]
            message = {**message, "headers": headers}
        elif not message.get("more_body", False) and not self._body.complete:
            await self._send({**message, "more_body": True})
            await self._body.skip(_SKIP_SECONDS)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


def host_name(host: str) -> str:
    """A Host header without its port, in lower case: "[::1]:8000" -> "[::1]"."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _too_large(limits: Limits) -> Problem:
    return problem_of("too_large", f"the body is larger than {limits.body:,} bytes")
