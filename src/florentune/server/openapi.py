"""What the OpenAPI document says of the routes beyond their signatures: bodies, answers, examples."""

from __future__ import annotations

from typing import Any

_PAGE = {
    "image": "upload",
    "width": 1700,
    "height": 2200,
    "regions": [{"label": "table", "bbox": [212.5, 310.2, 1487.5, 801.9], "score": 0.9731}],
}
_FLORENCE = {"<OD>": {"bboxes": [[212.5, 310.2, 1487.5, 801.9]], "labels": ["table"]}}
_JOB = {
    "id": "Zk3vN0i2m1xXh8mQ4rT6yA",
    "source": "paper.pdf",
    "status": "running",
    "reason": "",
    "message": "",
    "progress": {"done": 1, "total": 12},
    "pages": [{"index": 0, **_PAGE}],
}
_DOCUMENT = {
    "schema": "florentune.document/1",
    "source": "paper.pdf",
    "status": "ok",
    "pages": 12,
    "figures": [{"id": "table-1", "kind": "table", "number": "1", "caption": "Table 1: Results.", "page": 3}],
}
_PROBLEM = {
    "type": "about:blank",
    "title": "Unsupported Media Type",
    "status": 415,
    "detail": "scan.txt: is not an image in one of the formats PNG, JPEG",
    "reason": "format",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "reason"],
}
_ERROR = {
    "description": "A problem (RFC 9457); `reason` is a stable code.",
    "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": _PROBLEM}},
}


def _json(text: str, example: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


def _route(*answers: tuple[int, dict[str, Any]], body: tuple[str, ...] = ()) -> dict[str, Any]:
    """Keyword arguments of a route: its answers, and the media types its body may have."""
    content: dict[str, Any] = {kind: _BINARY for kind in body}
    extra = {"requestBody": {"required": True, "content": {**content, "multipart/form-data": _FORM}}} if body else {}
    return {
        "response_model": None,
        "responses": {**dict(answers), "4XX": _ERROR, "5XX": _ERROR, 422: _ERROR},
        "openapi_extra": extra,
    }


_ZIP = {"application/zip": _BINARY}
_RESULT = _json("The record of the document; as a zip with its crops too.", _DOCUMENT)
_RESULT["content"].update(_ZIP)
_ANSWER = {
    "description": "The page, or with format=florence the dictionary of the <OD> task.",
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "examples": {"page": {"value": _PAGE}, "florence": {"value": _FLORENCE}},
        }
    },
}
_LIMITS = {"body": 20971520, "pages": 50}
_MODEL = {"name": "nano", "labels": ["table", "figure"], "thresholds": {"table": 0.5, "figure": 0.5}}

DETECT = _route((200, _ANSWER), body=("image/png", "image/jpeg", "application/octet-stream"))
EXTRACT = _route((200, _RESULT), (202, _json("The job.", _JOB)), body=("application/pdf", "application/octet-stream"))
JOB = _route((200, _json("The job.", _JOB)))
CANCEL = _route((204, {"description": "It is gone."}))
DOCUMENT = _route((200, _RESULT))
PAGE_IMAGE = _route((200, {"description": "The page.", "content": {"image/png": _BINARY}}))
MODELS = _route((200, _json("The models and the limits.", {"models": [_MODEL], "limits": _LIMITS})))
HEALTH = _route((200, _json("Yes.", {"status": "ok"})))
