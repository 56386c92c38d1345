"""What the OpenAPI document says of the routes beyond their signatures: bodies, answers with schemas and examples."""

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
    "reason": "",
    "message": "",
    "pages": 12,
    "pages_done": 12,
    "page_failures": [],
    "figures": [
        {
            "id": "table-1",
            "kind": "table",
            "label": "Table 1",
            "caption": "Table 1: Results.",
            "page": 3,
            "bbox": [76.5, 111.7, 535.5, 288.7],
            "bbox_pixels": [212.5, 310.2, 1487.5, 801.9],
            "score": 0.9731,
        }
    ],
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
_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has at least these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_BOX = {**_list({"type": "number"}), "minItems": 4, "maxItems": 4, "description": "x1, y1, x2, y2"}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_PAGE_SCHEMA = _object(
    image=_TEXT, width=_COUNT, height=_COUNT, regions=_list(_object(label=_TEXT, bbox=_BOX, score=_SCORE))
)
_FLORENCE_SCHEMA = _object(**{"<OD>": _object(bboxes=_list(_BOX), labels=_list(_TEXT))})
_JOB_SCHEMA = _object(
    id=_TEXT,
    source=_TEXT,
    status={"enum": ["queued", "running", "ok", "partial", "failed", "cancelled"]},
    reason=_TEXT,
    message=_TEXT,
    progress=_object(done=_COUNT, total={"type": ["integer", "null"], "minimum": 0}),
    pages=_list(_object(index=_COUNT, **_PAGE_SCHEMA["properties"])),
)
_DOCUMENT_SCHEMA = _object(
    schema={"const": "florentune.document/1"},
    source=_TEXT,
    status={"enum": ["ok", "partial"]},
    reason=_TEXT,
    message=_TEXT,
    pages=_COUNT,
    pages_done=_COUNT,
    page_failures=_list({"type": "object"}),
    figures=_list(
        _object(
            id=_TEXT,
            kind=_TEXT,
            label={"type": ["string", "null"]},
            caption={"type": ["string", "null"]},
            page=_COUNT,
            bbox={**_BOX, "description": "x1, y1, x2, y2 in points, from the top left corner"},
            bbox_pixels={**_BOX, "description": "x1, y1, x2, y2 in pixels of the page image"},
        )
    ),
)
_MODELS_SCHEMA = _object(
    models=_list(
        _object(
            name=_TEXT,
            labels={"type": ["array", "null"], "items": _TEXT},
            thresholds={"type": "object", "additionalProperties": _SCORE},
        )
    ),
    limits=_object(body=_COUNT, pages=_COUNT),
)
_PROBLEM_SCHEMA = _object(
    type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT, reason={**_TEXT, "minLength": 1}
)
_ERROR = {
    "description": "A problem (RFC 9457); `reason` is a stable code.",
    "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": _PROBLEM}},
}


def _json(text: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema, "example": example}}}


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
_RESULT = _json("The record of the document; as a zip with its crops too.", _DOCUMENT_SCHEMA, _DOCUMENT)
_RESULT["content"].update(_ZIP)
_ANSWER = {
    "description": "The page, or with format=florence the dictionary of the <OD> task.",
    "content": {
        "application/json": {
            "schema": {"oneOf": [_PAGE_SCHEMA, _FLORENCE_SCHEMA]},
            "examples": {"page": {"value": _PAGE}, "florence": {"value": _FLORENCE}},
        }
    },
}
_LIMITS = {"body": 20971520, "pages": 50}
_MODEL = {"name": "nano", "labels": ["table", "figure"], "thresholds": {"table": 0.5, "figure": 0.5}}

DETECT = _route((200, _ANSWER), body=("image/png", "image/jpeg", "application/octet-stream"))
_STARTED = _json("The job.", _JOB_SCHEMA, _JOB)
EXTRACT = _route((200, _RESULT), (202, _STARTED), body=("application/pdf", "application/octet-stream"))
JOB = _route((200, _json("The job.", _JOB_SCHEMA, _JOB)))
CANCEL = _route((204, {"description": "It is gone."}))
DOCUMENT = _route((200, _RESULT))
PAGE_IMAGE = _route((200, {"description": "The page.", "content": {"image/png": _BINARY}}))
MODELS = _route((200, _json("The models and the limits.", _MODELS_SCHEMA, {"models": [_MODEL], "limits": _LIMITS})))
HEALTH = _route((200, _json("Yes.", _object(status=_TEXT), {"status": "ok"})))
