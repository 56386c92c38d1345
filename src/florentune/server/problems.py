"""Errors as problem details (RFC 9457), with the reason codes that the command line and the records use."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
_STATUS = {
    "empty": 400,
    "format": 415,
    "not_pdf": 415,
    "too_large": 413,
    "too_many_pages": 413,
    "timeout": 504,
    "worker_died": 503,
    "stopping": 503,
    "cancelled": 409,
    "disk_full": 507,
    "error": 500,
}
_RETRY_AFTER = 1


class Problem(Exception):
    """An answer that says what is wrong: HTTP status, stable reason code, one sentence."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.headers = status, reason, detail, dict(headers or {})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(_RETRY_AFTER))


def problem_of(reason: str, detail: str) -> Problem:
    """The problem for a reason code of an input; codes without a status of their own are 422."""
    return Problem(_STATUS.get(reason, 422), reason, detail)


def response(problem: Problem) -> JSONResponse:
    """The problem as application/problem+json."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "reason": problem.reason,
    }
    return JSONResponse(content, problem.status, problem.headers, MEDIA_TYPE)


def overloaded() -> Problem:
    return Problem(503, "overloaded", "all workers are busy and the queue is full; try again in a moment")


def no_model() -> Problem:
    text = "the model process died at each of its last starts; see what the server says. It is tried again"
    return problem_of("worker_died", text)


def stopping() -> Problem:
    return problem_of("stopping", "the server is stopping; it takes no new work")
